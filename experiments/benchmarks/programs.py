"""Whole programs in new processes, as a user starts them."""

import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

from experiments.benchmarks.clock import Result, seconds_of
from sccunet.config import ConfigError


def run_program(name: str, *arguments: str) -> None:
    """Runs `python -m experiments.<name>` without showing its output.

    Raises:
      ConfigError: if it fails, with the last line of its standard error.
    """
    command = [sys.executable, "-m", f"experiments.{name}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise ConfigError((done.stderr.splitlines() or [f"exit code {done.returncode}"])[-1])


def show_help(settings: Mapping[str, Any], _: Callable[[], None]) -> Result:
    """Measures a program's --help, from start to end."""
    seconds = seconds_of(lambda: run_program(settings["program"], "--help"))
    return {"seconds": [seconds], "work": 1}
