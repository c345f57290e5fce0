"""Starts `experiments.benchmarks.worker`, in which one contender is measured."""

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from experiments.benchmarks.contender import find

WORKER = ("-m", "experiments.benchmarks.worker")


def run_worker(section: str, name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Measures in a new process; returns the result of `worker.measure` or {"not_run": reason}."""
    python = settings["light_python"] if find(section, name).is_light else sys.executable
    done = subprocess.run(
        [python, *WORKER, section, name, json.dumps(settings)],
        capture_output=True,
        text=True,
    )
    try:
        result = json.loads(done.stdout.splitlines()[-1])
        if "not_run" not in result:
            return result
        reason = result["not_run"]
    except (IndexError, ValueError):
        reason = (done.stderr.splitlines() or [f"exit code {done.returncode}"])[-1]
        if done.returncode < 0:
            reason = f"killed by signal {-done.returncode}, perhaps out of memory"
    return {"not_run": reason}
