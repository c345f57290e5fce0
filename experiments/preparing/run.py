"""Decodes the tracks of a folder to WAVs, in several processes."""

import os
import sys
from collections.abc import Mapping, Sequence

from data_pipeline.errors import AudioError
from experiments import cli, workers
from experiments.preparing.inputs import (
    Sources,
    check_sources,
    find_inputs,
    misnamed,
    sources_of,
)
from experiments.preparing.track import check_finished, prepare_track, remove_leftovers
from sccunet.checks import counted


def prepare(
    input_dir: str,
    data_dir: str,
    names: Sequence[str] = (),
    jobs: int = 0,
    sample_rate: int = 44_100,
    trim: int = 0,
) -> None:
    """Decodes all or some tracks of `input_dir` into `data_dir`.

    Args:
      input_dir: input folder.
      data_dir: output folder; finished tracks in it are kept.
      names: prepare only these tracks; default: all.
      jobs: number of worker processes; 0: one per core, at most 8.
      sample_rate: sample rate of the output, in Hz.
      trim: as for `prepare_track`.

    Raises:
      UserError: one line for each bad file or track. If one is found before decoding, nothing is
        written; later, the other tracks are.
    """
    todo, finished = _plan(input_dir, data_dir, names, sample_rate, trim)
    remove_leftovers(finished)
    written = _decode(data_dir, todo, jobs, sample_rate, trim)
    skipped = len(finished) + len(todo) - written
    print(f"prepared {counted(written, 'track')}, skipped {skipped} finished: {data_dir}")


def _plan(
    input_dir: str, data_dir: str, names: Sequence[str], sample_rate: int, trim: int
) -> tuple[dict[str, Sources], list[str]]:
    """Returns the sources of each folder to be written, and the finished folders."""
    from data_pipeline.folders import one_of
    from data_pipeline.names import listed
    from data_pipeline.tracks import first_few

    if os.path.realpath(input_dir) == os.path.realpath(data_dir):
        raise AudioError(f"--data_dir={data_dir}: found the input folder, expected another")
    found = find_inputs(input_dir)
    known = sorted({name for _, name in found})
    names = listed(names, known)
    for name in names:
        if name not in known:
            raise AudioError(
                f"{input_dir}: found no track named {name!r}, expected {one_of(known)}"
            )
    if names:
        found = {key: path for key, path in found.items() if key[1] in names}

    todo, finished, bad, odd = {}, [], [], []
    for (split, name), path in found.items():
        target = os.path.join(data_dir, split, name)
        try:
            sources = sources_of(path)
            odd += misnamed(sources)
            if os.path.lexists(target):
                check_finished(target, sources, sample_rate)
                finished.append(target)
            else:
                check_sources(sources, trim / sample_rate)
                todo[target] = sources
        except Exception as error:  # may be a library's own
            bad.append(cli.failure(path, error))
    if odd:
        for line in first_few(odd).split("\n"):
            cli.warn(line)
    if bad:
        raise AudioError(first_few(bad))
    return todo, finished


def _decode(
    data_dir: str, todo: Mapping[str, Sources], jobs: int, sample_rate: int, trim: int
) -> int:
    """Decodes tracks in worker processes; those that fail don't stop the others.

    Returns:
      The number of tracks that this run has written; another run may have written some.
    """
    from tqdm import tqdm

    from data_pipeline.tracks import first_few

    bad, written = [], 0
    calls = {target: (target, sources, sample_rate, trim) for target, sources in todo.items()}
    for target, future in workers.finished(prepare_track, calls, jobs, data_dir):
        try:
            warnings = future.result()
        except Exception as error:
            bad.append(cli.failure(target, error))
            continue
        written += warnings is not None
        for warning in warnings or ():
            tqdm.write(f"warning: {warning}", file=sys.stderr)
    if bad:
        raise AudioError(first_few(bad))
    return written
