"""Finds and checks stems in files of any kind, and decodes them; programs prepare tracks by it."""

import os
from collections.abc import Mapping

from data_pipeline import audio
from data_pipeline.wav import AudioError, wav_info
from sccunet.files import folder_written_whole

_MUSDB_STREAMS = ("mixture", "drums", "bass", "other", "vocals")
_STEM_MP4 = ".stem.mp4"
# Lossy coders overshoot full scale by a little, which nobody hears; beyond this it is worth a word.
_CLIPPED_PEAK = 1.1

# Of a track: file name of a stem without ending -> (file, audio stream).
Sources = Mapping[str, tuple[str, int]]


def find_inputs(musdb_dir: str) -> dict[tuple[str, str], str]:
    """Path of each track's .stem.mp4 or folder by (split, name), sorted.

    Raises:
      AudioError: if there are none, or one track lies there twice.
    """
    from data_pipeline.tracks import SPLITS

    if not os.path.isdir(musdb_dir):
        raise AudioError(f"{musdb_dir}: found no such directory, expected a folder with tracks")
    found = {}
    for split in SPLITS:
        folder = os.path.join(musdb_dir, split)
        for entry in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
            path = os.path.join(folder, entry)
            if entry.startswith(".") or not (entry.endswith(_STEM_MP4) or os.path.isdir(path)):
                continue
            key = split, entry.removesuffix(_STEM_MP4)
            if key in found:
                raise AudioError(
                    f"{path}: found the same track as {found[key]}, expected one of the two"
                )
            found[key] = path
    if not found:
        raise AudioError(
            f"{musdb_dir}: found no tracks, expected <split>/<track>{_STEM_MP4} or"
            " <split>/<track>/<stem>.*, split being train, valid or test"
        )
    return dict(sorted(found.items()))


def sources_of(path: str) -> Sources:
    """Name of each written file -> file and number of the stream that it is decoded from.

    Args:
      path: of a .stem.mp4, or of a folder with a file per stem.

    Raises:
      AudioError: if the folder holds no audio, or two files of one name.
    """
    if path.endswith(_STEM_MP4):
        return {name: (path, stream) for stream, name in enumerate(_MUSDB_STREAMS)}
    sources = {}
    for file in audio.recordings_in(path):
        name = os.path.splitext(os.path.basename(file))[0]
        if name in sources:
            raise AudioError(
                f"{file}: found beside {os.path.basename(sources[name][0])}, expected one file"
                f" named {name}"
            )
        sources[name] = file, 0
    return sources


def check_finished(target: str, sources: Sources, sample_rate: int) -> None:
    """Checks that what lies at the target is what would be written there.

    Raises:
      AudioError: if it is not.
    """
    expected = {f"{name}.wav" for name in sources}
    present = set(os.listdir(target)) if os.path.isdir(target) else set()
    for file in sorted(expected - present):
        raise AudioError(f"{target}: found no {file} in it, expected a prepared track or nothing")
    for file in sorted(expected):
        info = wav_info(os.path.join(target, file))
        if info.sample_rate != sample_rate:
            raise AudioError(
                f"{info.path}: found {info.sample_rate} Hz, expected {sample_rate} Hz or no file"
            )


def check_sources(sources: Sources) -> None:
    """Checks all that can be known of a track's files without decoding them.

    Raises:
      AudioError: if one cannot be read, has too few streams or does not fit the others.
    """
    first = first_file = None
    for file in dict.fromkeys(file for file, _ in sources.values()):
        info = audio.probe(file)
        streams = 1 + max(stream for path, stream in sources.values() if path == file)
        if info.streams < streams:
            raise AudioError(f"{file}: found {info.streams} audio streams, expected {streams}")
        if first is None:
            first, first_file = info, os.path.basename(file)
        if info.channels != first.channels:
            raise AudioError(
                f"{file}: found {info.channels} channels, expected {first.channels} as in"
                f" {first_file}"
            )
        # The lengths that containers state are good to a tenth of a second; the rest is checked
        # when the samples are there.
        if info.seconds and first.seconds and abs(info.seconds - first.seconds) > 0.1:
            raise AudioError(
                f"{file}: found {info.seconds:.2f} s, expected {first.seconds:.2f} s as in"
                f" {first_file}"
            )


def prepare_track(target: str, sources: Sources, sample_rate: int) -> list[str]:
    """Decodes a track's files into 16-bit WAVs, which appear all together or not at all.

    Args:
      target: the folder of the WAVs.
      sources: what they are decoded from.
      sample_rate: theirs, in Hz.

    Returns:
      Warnings.

    Raises:
      UserError: if a file cannot be decoded to its end or does not fit the others, or nothing can
        be written.
    """
    import numpy as np

    warnings, first = [], None
    with folder_written_whole(target) as part:
        for stem, (file, stream) in sources.items():
            samples, rate = audio.read(file, stream)
            what = f"{file} ({stem})" if file.endswith(_STEM_MP4) else file
            if not np.isfinite(samples).all():
                at = np.argmin(np.isfinite(samples).all(axis=1)) / rate
                raise AudioError(f"{what}: found NaN or infinity at {at:.2f} s, expected numbers")
            samples = audio.resample(samples, rate, sample_rate)
            peak = np.abs(samples).max()
            if peak == 0:
                warnings.append(f"{what}: silent from start to end")
            elif peak > _CLIPPED_PEAK:
                warnings.append(f"{what}: peaks at {peak:.2f} of full scale, clipped to 16 bit")
            first = first or (samples.shape, what)
            for found, expected, unit in zip(
                samples.shape, first[0], (f"samples at {sample_rate} Hz", "channels"), strict=True
            ):
                if found != expected:
                    raise AudioError(
                        f"{what}: found {found} {unit}, expected {expected} as in {first[1]}"
                    )
            audio.write_wav(part / f"{stem}.wav", samples, sample_rate)
    return warnings
