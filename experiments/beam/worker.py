"""A worker process of the catalogue: processes units and records how each ended.

The records are files in a folder that the launching program watches: `<number>.begun` is written
when the unit with this number begins, `<number>` when it ends, and `stop`, with the reason, if no
unit can be processed.
"""

import contextlib
import ctypes
import json
import logging
import os
import pickle
import runpy
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments import cli, streams
from sccunet import keras_settings
from sccunet.config import UserError
from sccunet.files import write_whole

BEGUN, STOP = ".begun", "stop"

_PR_SET_PDEATHSIG = 1  # ends a process with its parent


def serve(launcher: int) -> None:
    """Runs Beam's worker process on this machine, without its messages, until the launcher ends.

    Args:
      launcher: process id of the launching program.
    """
    _end_with_parent()
    if os.getppid() != launcher:  # it ended before
        return
    import grpc

    streams.protect()
    logging.disable()
    # With it, a thread of Beam's would print that it cannot send messages any more.
    os.environ.pop("LOGGING_API_SERVICE_DESCRIPTOR", None)
    # A broken connection may come before the signal of the launcher's end. All threads notice it,
    # and Beam prints a traceback for each. Only `do` has the true standard error.
    threading.excepthook = _report_all_but_broken_connections
    with open(os.devnull, "w") as nothing, contextlib.redirect_stderr(nothing):
        try:
            runpy.run_module("apache_beam.runners.worker.sdk_worker_main", run_name="__main__")
        except (grpc.RpcError, grpc.FutureTimeoutError):
            os._exit(1)  # at once, although threads are still at work


def _end_with_parent() -> None:
    with contextlib.suppress(AttributeError):  # Linux only; elsewhere a broken connection ends it
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _report_all_but_broken_connections(arguments: threading.ExceptHookArgs) -> None:
    import grpc

    if not isinstance(arguments.exc_value, grpc.RpcError):
        threading.__excepthook__(arguments)


def do(
    unit: bytes,
    work: Callable[..., list[str] | None],
    load: Callable[[], Any] | None,
    records: str,
) -> None:
    """Processes a unit and writes its record.

    Args:
      unit: number and name of the unit, and the arguments of `work`, pickled.
      work: as in `pipeline.Plan`.
      load: as in `pipeline.Plan`.
      records: folder of the records.
    """
    keras_settings.ignore()  # those of this machine, which may not be that of the program
    number, name, arguments = pickle.loads(unit)
    record, stop = Path(records) / str(number), Path(records) / STOP
    if record.exists() or stop.exists():  # runners may send a unit twice
        return
    if not record.parent.exists():  # the program has ended, or this is another file system
        return
    with contextlib.suppress(OSError):
        record.with_suffix(BEGUN).touch()
    try:
        loaded = load() if load else None
    except UserError as error:
        _write_record(stop, str(error))
        return
    result = {"status": "failed", "failed": [], "warnings": []}
    with contextlib.redirect_stderr(sys.__stderr__):
        try:
            warnings = work(loaded, *arguments)
            result["status"] = "skipped" if warnings is None else "done"
            result["warnings"] = warnings or []
        except Exception as error:  # thousands of other units are waiting
            if not isinstance(error, UserError):
                traceback.print_exc()
            result["failed"] = [cli.failure(name, error)]
    _write_record(record, json.dumps(result))


def _write_record(path: Path, content: str) -> None:
    # Disk full: the launching process reports the missing record.
    with contextlib.suppress(OSError):
        if path.parent.exists():  # it would be made, and the program may have ended
            write_whole(path, content)
