"""Finds the tracks of an input folder, and checks their files without decoding them."""

import os
from collections.abc import Mapping

from data_pipeline import audio, listing
from data_pipeline.errors import AudioError
from sccunet.checks import counted

MUSDB_STREAMS = ("mixture", "drums", "bass", "other", "vocals")
STEM_MP4 = ".stem.mp4"

# Name of a stem's file, without extension -> (source file, audio stream as for `audio.recording`);
# for one track.
Sources = Mapping[str, tuple[str, int | None]]


def find_inputs(input_dir: str) -> dict[tuple[str, str], str]:
    """Returns (split, name) -> path of the track's .stem.mp4 or folder, sorted.

    Raises:
      AudioError: if there are no tracks, or a track is there twice.
    """
    from data_pipeline.folders import SPLITS

    if not os.path.isdir(input_dir):
        raise AudioError(f"{input_dir}: found no such directory, expected a folder with tracks")
    found = {}
    for split in SPLITS:
        folder = os.path.join(input_dir, split)
        for entry in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
            path = os.path.join(folder, entry)
            if entry.startswith(".") or not (entry.endswith(STEM_MP4) or os.path.isdir(path)):
                continue
            key = split, entry.removesuffix(STEM_MP4)
            if key in found:
                raise AudioError(
                    f"{path}: found the same track as {found[key]}, expected one of the two"
                )
            found[key] = path
    if not found:
        raise AudioError(
            f"{input_dir}: found no tracks, expected <split>/<track>{STEM_MP4} or"
            " <split>/<track>/<stem>.*, split being train, valid or test"
        )
    return dict(sorted(found.items()))


def sources_of(path: str) -> Sources:
    """Returns the sources of a track's files.

    Args:
      path: a .stem.mp4 file, or a folder with a file per stem.

    Raises:
      AudioError: if the folder holds no audio, or two files of the same name.
    """
    if path.endswith(STEM_MP4):
        return {name: (path, stream) for stream, name in enumerate(MUSDB_STREAMS)}
    sources = {}
    for file in listing.recordings_in(path):
        name = os.path.splitext(os.path.basename(file))[0]
        if name in sources:
            raise AudioError(
                f"{file}: found beside {os.path.basename(sources[name][0])}, expected one file"
                f" named {name}"
            )
        sources[name] = file, None
    return sources


def check_sources(sources: Sources, slack: float = 0) -> None:
    """Checks a track's files as far as possible without decoding them.

    Args:
      sources: the files.
      slack: seconds by which their lengths may differ.

    Raises:
      AudioError: if a file cannot be read, has too few streams or does not match the others.
    """
    first = first_file = None
    for file in dict.fromkeys(file for file, _ in sources.values()):
        info = audio.probe(file)
        streams = 1 + max(stream or 0 for path, stream in sources.values() if path == file)
        if info.streams < streams:
            raise AudioError(
                f"{file}: found {counted(info.streams, 'audio stream')}, expected {streams}"
            )
        if first is None:
            first, first_file = info, os.path.basename(file)
        if info.channels != first.channels:
            raise AudioError(
                f"{file}: found {counted(info.channels, 'channel')}, expected {first.channels} as"
                f" in {first_file}"
            )
        # Lengths in containers are accurate to a tenth of a second; exact lengths are checked after
        # decoding.
        apart = abs(info.seconds - first.seconds) if info.seconds and first.seconds else 0
        if apart > 0.1 + slack:
            raise AudioError(
                f"{file}: found {info.seconds:.2f} s, expected {first.seconds:.2f} s as in"
                f" {first_file}"
            )


def misnamed(sources: Sources) -> list[str]:
    """Returns a warning for each file whose name is one of MUSDB18's in capitals or the like."""
    return [
        f"{file}: found the name {name!r}, expected {name.lower()!r}, as configs call it: training"
        " tells capitals from small letters"
        for name, (file, _) in sources.items()
        if name not in MUSDB_STREAMS and name.lower() in MUSDB_STREAMS
    ]


def download(input_dir: str) -> None:
    """Downloads musdb's 7-second previews.

    Raises:
      AudioError: if the download fails.
    """
    from data_pipeline import sigsep

    try:
        # Without subsets it only downloads; listing tracks would run ffprobe.
        sigsep.load("musdb").DB(root=input_dir, download=True, subsets=[])
    except (OSError, RuntimeError) as error:
        raise AudioError(
            f"--download: musdb's previews cannot be downloaded ({error}), expected internet access"
            f" and a writable {input_dir}"
        ) from error
