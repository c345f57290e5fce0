"""Starts `experiments.benchmarks.worker`, in which one contender is measured."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from experiments.benchmarks.contender import find

WORKER = ("-m", "experiments.benchmarks.worker")


def run_worker(
    section: str, name: str, settings: Mapping[str, Any], limit: float | None = None
) -> dict[str, Any]:
    """Measures in a new process; returns the result of `worker.measure` or {"not_run": reason}.

    Args:
      section, name: of the contender.
      settings: for the contender.
      limit: seconds after which the process is killed, with all that it started.
    """
    python = settings["light_python"] if find(section, name).is_light else sys.executable
    line = [python, *WORKER, section, name, json.dumps(settings)]
    with subprocess.Popen(
        line,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a group of its own, which PyTorch's compiler belongs to
    ) as process:
        try:
            out, err = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            return {"not_run": f"stopped after {limit:.0f} s"}
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    try:
        result = json.loads(out.splitlines()[-1])
        if "not_run" not in result:
            return result
        reason = result["not_run"]
    except (IndexError, ValueError):
        reason = (err.splitlines() or [f"exit code {process.returncode}"])[-1]
        if process.returncode < 0:
            reason = f"killed by signal {-process.returncode}, perhaps out of memory"
    return {"not_run": _without_paths(reason)}


def _without_paths(text: str) -> str:
    """Returns a text as one line, without the folders of this machine."""
    return re.sub(r"(?<![\w.])/(?:[^\s/'\":,]+/)+", ".../", " ".join(text.split()))
