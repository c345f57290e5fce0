"""Makes tracks in worker processes, with a progress bar."""

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from typing import Any

from data_pipeline.errors import AudioError
from experiments import cli


def finished(
    function: Callable[..., Any], calls: Mapping[str, tuple], jobs: int, data_dir: str
) -> Iterator[tuple[str, Future]]:
    """Calls a function once for each track, in several processes.

    Args:
      function: makes one track; can be pickled.
      calls: its arguments by the track's name.
      jobs: number of worker processes; 0: one per core, at most 8.
      data_dir: folder of the tracks, for the message.

    Yields:
      A track's name and its finished future, in the order in which they finish.

    Raises:
      AudioError: if a worker process was killed.
    """
    import concurrent.futures
    import multiprocessing
    from concurrent.futures.process import BrokenProcessPool

    from tqdm import tqdm

    pool = concurrent.futures.ProcessPoolExecutor(
        min(jobs or min(os.cpu_count() or 1, 8), max(len(calls), 1)),
        # Forking a process whose libraries run threads can hang.
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start,
    )
    try:
        # The processes inherit this: Ctrl-C waits until they are ready for it.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            pending = {pool.submit(function, *given): name for name, given in calls.items()}
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        with tqdm(total=len(calls), unit="track", disable=None) as bar:
            for future in concurrent.futures.as_completed(pending):
                bar.update()
                if isinstance(error := future.exception(), BrokenProcessPool):
                    raise error
                yield pending[future], future
    except BrokenProcessPool as error:
        raise AudioError(
            f"{data_dir}: a worker process was killed (out of memory?); finished tracks are kept:"
            " run again with fewer --jobs"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start() -> None:
    """Prepares a worker process: Ctrl-C ends it, rather than its track alone."""
    cli.start_worker()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
