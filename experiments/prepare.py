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
import sys
from collections.abc import Mapping, Sequence

from absl import flags

from data_pipeline.wav import AudioError
from experiments import cli, preparing
from experiments.preparing import Sources
from sccunet.config import UserError


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
      UserError: one line for each bad file or track. Those found before decoding leave nothing
        written; later ones leave whole tracks only.
    """
    from concurrent.futures.process import BrokenProcessPool

    todo, finished = _plan(musdb_dir, data_dir, names, sample_rate)
    try:
        _decode(todo, jobs, sample_rate)
    except BrokenProcessPool as error:
        raise AudioError(
            f"{data_dir}: found that a worker was killed (out of memory?), expected it to end;"
            " finished tracks are kept, run again with fewer --jobs"
        ) from error
    print(f"prepared {len(todo)} tracks, skipped {finished} finished: {data_dir}")


def _plan(
    musdb_dir: str, data_dir: str, names: Sequence[str], sample_rate: int
) -> tuple[dict[str, Sources], int]:
    """`(todo, finished)`: the sources of each folder to be written; how many are there already."""
    from data_pipeline.tracks import first_few, one_of

    if os.path.realpath(musdb_dir) == os.path.realpath(data_dir):
        raise AudioError(f"--data_dir={data_dir}: found --musdb_dir, expected another folder")
    found = preparing.find_inputs(musdb_dir)
    known = sorted({name for _, name in found})
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
            sources = preparing.sources_of(path)
            if os.path.lexists(target):
                preparing.check_finished(target, sources, sample_rate)
            else:
                preparing.check_sources(sources)
                todo[target] = sources
        except AudioError as error:
            bad.append(str(error))
    if bad:
        raise AudioError(first_few(bad))
    return todo, len(found) - len(todo)


def _decode(todo: Mapping[str, Sources], jobs: int, sample_rate: int) -> None:
    """Decodes tracks in worker processes; after the first bad one no more are begun."""
    import concurrent.futures
    import multiprocessing

    from tqdm import tqdm

    from data_pipeline.tracks import first_few

    bad = []
    with (
        concurrent.futures.ProcessPoolExecutor(
            min(jobs or min(os.cpu_count() or 1, 8), max(len(todo), 1)),
            # Forking a process whose libraries run threads can hang.
            mp_context=multiprocessing.get_context("spawn"),
            initializer=cli.end_with_parent,
        ) as pool,
        tqdm(total=len(todo), unit="track", disable=None) as bar,
    ):
        pending = {
            pool.submit(preparing.prepare_track, target, sources, sample_rate)
            for target, sources in todo.items()
        }
        while pending:
            done, pending = concurrent.futures.wait(
                pending, return_when=concurrent.futures.FIRST_COMPLETED
            )
            for future in done:
                bar.update()
                try:
                    for warning in future.result():
                        bar.write(f"warning: {warning}", file=sys.stderr)
                except UserError as error:
                    bad.append(str(error))
            if bad:
                # What has begun ends, nothing more begins.
                pending = {future for future in pending if not future.cancel()}
    if bad:
        raise AudioError(first_few(bad))


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
