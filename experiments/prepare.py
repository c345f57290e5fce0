"""Decodes MUSDB18, or anybody's stems in compressed files, into WAVs that training can stream.

Input, one folder per split (train, valid, test), both layouts also mixed:
  MUSDB18/train/<track>.stem.mp4
  MUSDB18/train/<track>/<stem>.<ogg|flac|mp3|m4a|wav|...>    any stem names, any sample rate
Output, 16-bit PCM in the layout of MUSDB18-HQ:
  DATA/train/<track>/<stem>.wav

Examples:
  python -m experiments.prepare --musdb_dir=MUSDB18 --data_dir=DATA
  python -m experiments.prepare --musdb_dir=PREVIEWS --data_dir=DATA --download
  python -m experiments.prepare --musdb_dir=MY_STEMS --data_dir=DATA --tracks=one,two --jobs=2

Each track is written whole or not at all, and finished ones are skipped: run it again after an
interruption. All files are looked at before the first is decoded.
"""

import os
import shutil
import sys
from collections.abc import Mapping, Sequence

from absl import flags

from data_pipeline import audio
from data_pipeline.wav import AudioError, wav_info
from experiments import cli

_MUSDB_STREAMS = ("mixture", "drums", "bass", "other", "vocals")
_STEM_MP4 = ".stem.mp4"
_ENDINGS = (
    *(".aac", ".aif", ".aiff", ".flac", ".m4a", ".mka", ".mp3", ".mp4", ".oga", ".ogg", ".opus"),
    *(".wav", ".wma", ".wv"),
)
# Lossy coders overshoot full scale by a little, which nobody hears; beyond this it is worth a word.
_CLIPPED_PEAK = 1.1

# Of a track: file name of a stem without ending -> (file, audio stream).
Sources = Mapping[str, tuple[str, int]]


def prepare(
    musdb_dir: str,
    data_dir: str,
    names: Sequence[str] = (),
    jobs: int = 0,
    sample_rate: int = 44_100,
) -> None:
    """Prepares the tracks of `musdb_dir`, or those named, into `data_dir`.

    Args:
      musdb_dir: the input.
      data_dir: the output; finished tracks in it are left alone.
      names: only these tracks.
      jobs: worker processes; 0 is one per core, at most 8.
      sample_rate: of the output, in Hz.

    Raises:
      AudioError: one line for each bad file or track. Those found before decoding leave nothing
        written; later ones leave whole tracks only.
    """
    import concurrent.futures
    import multiprocessing

    from tqdm import tqdm

    from data_pipeline.tracks import first_few, one_of

    if os.path.realpath(musdb_dir) == os.path.realpath(data_dir):
        raise AudioError(f"--data_dir={data_dir}: found --musdb_dir, expected another folder")
    found = find_inputs(musdb_dir)
    for name in names:
        if all(name != known for _, known in found):
            known = sorted({known for _, known in found})
            raise AudioError(
                f"{musdb_dir}: found no track named {name!r}, expected {one_of(known)}"
            )
    if names:
        found = {key: path for key, path in found.items() if key[1] in names}

    todo, bad = {}, []
    for (split, name), path in found.items():
        target = os.path.join(data_dir, split, name)
        try:
            sources = sources_of(path)
            if os.path.lexists(target):
                check_finished(target, sources, sample_rate)
            else:
                check_sources(sources)
                todo[target] = sources
        except AudioError as error:
            bad.append(str(error))
    if bad:
        raise AudioError(first_few(bad))

    jobs = min(jobs or min(os.cpu_count() or 1, 8), max(len(todo), 1))
    with (
        concurrent.futures.ProcessPoolExecutor(
            # Forking a process whose libraries run threads can hang.
            jobs,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=cli.end_with_parent,
        ) as pool,
        tqdm(total=len(todo), unit="track", disable=None) as bar,
    ):
        pending = {pool.submit(prepare_track, *item, sample_rate) for item in todo.items()}
        while pending:
            done, pending = concurrent.futures.wait(
                pending, return_when=concurrent.futures.FIRST_COMPLETED
            )
            for future in done:
                bar.update()
                try:
                    for warning in future.result():
                        bar.write(f"warning: {warning}", file=sys.stderr)
                except AudioError as error:
                    bad.append(str(error))
                except concurrent.futures.process.BrokenProcessPool as error:
                    raise AudioError(
                        f"{data_dir}: found that a worker was killed (out of memory?), expected it"
                        " to end; finished tracks are kept, run again with fewer --jobs"
                    ) from error
            if bad:
                # What has begun ends, nothing more begins.
                pending = {future for future in pending if not future.cancel()}
    if bad:
        raise AudioError(first_few(bad))
    print(f"prepared {len(todo)} tracks, skipped {len(found) - len(todo)} finished: {data_dir}")


def find_inputs(musdb_dir: str) -> dict[tuple[str, str], str]:
    """Path of each track's .stem.mp4 or folder by (split, name), sorted."""
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
    """Name of each written file -> file and number of the stream that it is decoded from."""
    if path.endswith(_STEM_MP4):
        return {name: (path, stream) for stream, name in enumerate(_MUSDB_STREAMS)}
    sources = {}
    for entry in sorted(os.listdir(path)):
        name, ending = os.path.splitext(entry)
        if entry.startswith(".") or ending.lower() not in _ENDINGS:
            continue
        file = os.path.join(path, entry)
        if name in sources:
            raise AudioError(
                f"{file}: found beside {os.path.basename(sources[name][0])}, expected one file"
                f" named {name}"
            )
        sources[name] = file, 0
    if not sources:
        raise AudioError(
            f"{path}: found no audio files, expected <stem>.ogg, .flac, .wav or others"
        )
    return sources


def check_finished(target: str, sources: Sources, sample_rate: int) -> None:
    """Whether what lies at the target is what would be written there."""
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
    """All that can be said of a track's files without decoding them."""
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
    """Decodes a track in a worker process; returns warnings."""
    import numpy as np

    folder, name = os.path.split(os.path.abspath(target))
    part = os.path.join(folder, f".{name}.part")
    warnings, first = [], None
    try:
        # What an interrupted run left.
        shutil.rmtree(part, ignore_errors=True)
        os.makedirs(part)
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
            audio.write_wav(os.path.join(part, f"{stem}.wav"), samples, sample_rate)
        os.replace(part, target)
    except OSError as error:
        raise AudioError(f"{target}: cannot be written ({error})") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return warnings


def _download(musdb_dir: str) -> None:
    from data_pipeline import sigsep

    try:
        # Without subsets it only downloads; listing tracks would run ffprobe.
        sigsep.load("musdb").DB(root=musdb_dir, download=True, subsets=[])
    except (OSError, RuntimeError) as error:
        raise AudioError(
            f"--download: musdb's previews cannot be fetched ({error}), expected internet access"
            f" and a writable {musdb_dir}"
        ) from error


def main(_: Sequence[str]) -> None:
    """Downloads if asked to, and prepares."""
    if _DOWNLOAD.value:
        _download(_MUSDB_DIR.value)
    prepare(_MUSDB_DIR.value, _DATA_DIR.value, _TRACKS.value, _JOBS.value, _SAMPLE_RATE.value)


if __name__ == "__main__":
    _MUSDB_DIR = flags.DEFINE_string(
        "musdb_dir",
        None,
        "Input: <split>/<track>.stem.mp4 or <split>/<track>/<stem>.*",
        required=True,
    )
    _DATA_DIR = flags.DEFINE_string(
        "data_dir", None, "Output: <split>/<track>/<stem>.wav, 16-bit PCM.", required=True
    )
    _TRACKS = flags.DEFINE_list("tracks", [], "Prepare these tracks alone, wherever they lie.")
    _JOBS = flags.DEFINE_integer(
        "jobs", 0, "Tracks decoded at the same time; 0 is one per core, at most 8.", lower_bound=0
    )
    _DOWNLOAD = flags.DEFINE_bool(
        "download", False, "First fetch musdb's 7-second previews into --musdb_dir."
    )
    _SAMPLE_RATE = flags.DEFINE_integer(
        "sample_rate", 44_100, "Of the output, in Hz.", lower_bound=1
    )
    cli.run(main)
