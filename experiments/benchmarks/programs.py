"""Whole programs in new processes, as a user starts them."""

import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

from experiments.benchmarks.clock import Result
from sccunet.config import ConfigError

# Starts a program; prints its seconds, its peak memory as the system counts it, and its exit code.
# Linux adds the memory of the process that starts a program, so that one has to be small.
_STARTER = """
import os, sys, time
began = time.perf_counter()
silent = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
program = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=silent)
_, status, usage = os.wait4(program, 0)
seconds = time.perf_counter() - began
print(seconds, usage.ru_maxrss, os.waitstatus_to_exitcode(status))
"""


def run_program(name: str, *arguments: str) -> Result:
    """Runs `python -m experiments.<name>` without showing its output.

    Returns:
      "seconds" from start to end, and "program_memory_bytes", the peak of its main memory.

    Raises:
      ConfigError: if it fails, with the last line of its standard error.
    """
    program = [sys.executable, "-m", f"experiments.{name}", *arguments]
    starter = [sys.executable, "-S", "-c", _STARTER, *program]
    done = subprocess.run(starter, capture_output=True, text=True, check=False)
    seconds, peak, code = map(float, done.stdout.split() or (0, 0, done.returncode))
    if code:
        raise ConfigError((done.stderr.splitlines() or [f"exit code {code:.0f}"])[-1])
    unit = 1 if sys.platform == "darwin" else 1024
    return {"seconds": [seconds], "program_memory_bytes": round(peak) * unit}


def show_help(settings: Mapping[str, Any], _: Callable[[], None]) -> Result:
    """Measures a program's --help, from start to end."""
    return {**run_program(settings["program"], "--help"), "work": 1}
