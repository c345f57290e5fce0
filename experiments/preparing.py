"""Decodes stems from any audio files to WAVs; for prepare and catalogue."""

import os
import sys
from collections.abc import Mapping, Sequence

from data_pipeline import audio, listing
from data_pipeline.wav import AudioError, wav_info
from experiments import cli
from sccunet.checks import counted
from sccunet.files import folder_written_whole

_MUSDB_STREAMS = ("mixture", "drums", "bass", "other", "vocals")
_STEM_MP4 = ".stem.mp4"
# Lossy codecs overshoot full scale slightly and inaudibly; higher peaks deserve a warning.
_CLIPPED_PEAK = 1.1

# Name of a stem's file, without extension -> (source file, audio stream as for `audio.recording`);
# for one track.
Sources = Mapping[str, tuple[str, int | None]]


def prepare(
    musdb_dir: str,
    data_dir: str,
    names: Sequence[str] = (),
    jobs: int = 0,
    sample_rate: int = 44_100,
) -> None:
    """Decodes all or some tracks of `musdb_dir` into `data_dir`.

    Args:
      musdb_dir: input folder.
      data_dir: output folder; finished tracks in it are kept.
      names: prepare only these tracks; default: all.
      jobs: number of worker processes; 0: one per core, at most 8.
      sample_rate: sample rate of the output, in Hz.

    Raises:
      UserError: one line for each bad file or track. If one is found before decoding, nothing is
        written; later, the other tracks are.
    """
    from concurrent.futures.process import BrokenProcessPool

    todo, finished = _plan(musdb_dir, data_dir, names, sample_rate)
    try:
        _decode(todo, jobs, sample_rate)
    except BrokenProcessPool as error:
        raise AudioError(
            f"{data_dir}: a worker process was killed (out of memory?); finished tracks are kept:"
            " run again with fewer --jobs"
        ) from error
    print(f"prepared {counted(len(todo), 'track')}, skipped {finished} finished: {data_dir}")


def _plan(
    musdb_dir: str, data_dir: str, names: Sequence[str], sample_rate: int
) -> tuple[dict[str, Sources], int]:
    """Returns the sources of each folder to be written, and the number of finished folders."""
    from data_pipeline.names import listed
    from data_pipeline.tracks import first_few, one_of

    if os.path.realpath(musdb_dir) == os.path.realpath(data_dir):
        raise AudioError(f"--data_dir={data_dir}: found --musdb_dir, expected another folder")
    found = find_inputs(musdb_dir)
    known = sorted({name for _, name in found})
    names = listed(names, known)
    for name in names:
        if name not in known:
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
        except Exception as error:  # may be a library's own
            bad.append(cli.failure(path, error))
    if bad:
        raise AudioError(first_few(bad))
    return todo, len(found) - len(todo)


def _decode(todo: Mapping[str, Sources], jobs: int, sample_rate: int) -> None:
    """Decodes tracks in worker processes; those that fail don't stop the others."""
    import concurrent.futures
    import multiprocessing
    from concurrent.futures.process import BrokenProcessPool

    from tqdm import tqdm

    from data_pipeline.tracks import first_few

    bad = []
    with (
        concurrent.futures.ProcessPoolExecutor(
            min(jobs or min(os.cpu_count() or 1, 8), max(len(todo), 1)),
            # Forking a process whose libraries run threads can hang.
            mp_context=multiprocessing.get_context("spawn"),
            initializer=cli.start_worker,
        ) as pool,
        tqdm(total=len(todo), unit="track", disable=None) as bar,
    ):
        pending = {
            pool.submit(prepare_track, target, sources, sample_rate): target
            for target, sources in todo.items()
        }
        for future in concurrent.futures.as_completed(pending):
            bar.update()
            try:
                for warning in future.result():
                    bar.write(f"warning: {warning}", file=sys.stderr)
            except BrokenProcessPool:
                raise
            except Exception as error:
                bad.append(cli.failure(pending[future], error))
    if bad:
        raise AudioError(first_few(bad))


def find_inputs(musdb_dir: str) -> dict[tuple[str, str], str]:
    """Returns (split, name) -> path of the track's .stem.mp4 or folder, sorted.

    Raises:
      AudioError: if there are no tracks, or a track is there twice.
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
    """Returns the sources of a track's files.

    Args:
      path: a .stem.mp4 file, or a folder with a file per stem.

    Raises:
      AudioError: if the folder holds no audio, or two files of the same name.
    """
    if path.endswith(_STEM_MP4):
        return {name: (path, stream) for stream, name in enumerate(_MUSDB_STREAMS)}
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


def check_finished(target: str, sources: Sources, sample_rate: int) -> None:
    """Checks that the target holds the files that would be written there.

    Raises:
      AudioError: if it does not.
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
    """Checks a track's files as far as possible without decoding them.

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
        if info.seconds and first.seconds and abs(info.seconds - first.seconds) > 0.1:
            raise AudioError(
                f"{file}: found {info.seconds:.2f} s, expected {first.seconds:.2f} s as in"
                f" {first_file}"
            )


def prepare_track(target: str, sources: Sources, sample_rate: int) -> list[str]:
    """Decodes a track's files to 16-bit WAVs, which appear all together or not at all.

    Args:
      target: folder for the WAVs.
      sources: the files and streams to decode.
      sample_rate: sample rate of the WAVs, in Hz.

    Returns:
      Warnings.

    Raises:
      UserError: if a file cannot be decoded to its end or does not match the others, or the target
        cannot be written.
    """
    import numpy as np

    warnings, first = [], None
    with folder_written_whole(target) as part:
        for stem, (file, stream) in sources.items():
            with audio.recording(file, stream) as (info, blocks):
                samples, rate = np.concatenate(list(blocks)), info.sample_rate
            if info.choice:
                warnings.append(f"{file}: {info.choice}")
            what = f"{file} ({stem})" if file.endswith(_STEM_MP4) else file
            if not np.isfinite(samples).all():
                at = np.argmin(np.isfinite(samples).all(axis=1)) / rate
                raise AudioError(f"{what}: found NaN or infinity at {at:.2f} s, expected numbers")
            samples = audio.resample(samples, rate, sample_rate)
            peak = np.abs(samples).max()
            if peak == 0:
                warnings.append(f"{what}: silent from start to end")
            elif peak > _CLIPPED_PEAK:
                warnings.append(f"{what}: peaks at {peak:.2f} of full scale, clipped to 16 bits")
            first = first or (samples.shape, what)
            for found, expected, unit in zip(
                samples.shape, first[0], ("sample", "channel"), strict=True
            ):
                if found != expected:
                    raise AudioError(
                        f"{what}: found {counted(found, unit)}, expected {expected} as in"
                        f" {first[1]}"
                    )
            audio.write_wav(part / f"{stem}.wav", samples, sample_rate)
    return warnings


def download(musdb_dir: str) -> None:
    """Downloads musdb's 7-second previews.

    Raises:
      AudioError: if the download fails.
    """
    from data_pipeline import sigsep

    try:
        # Without subsets it only downloads; listing tracks would run ffprobe.
        sigsep.load("musdb").DB(root=musdb_dir, download=True, subsets=[])
    except (OSError, RuntimeError) as error:
        raise AudioError(
            f"--download: musdb's previews cannot be downloaded ({error}), expected internet access"
            f" and a writable {musdb_dir}"
        ) from error
