"""Ctrl-C while a training run is inside a long computation."""

import os
import signal
import subprocess
import sys
import time

import process
import pytest

# No Python code runs in the main thread until all these rounds are done, which takes hours.
_BUSY = """
import hashlib, sys
from experiments.training import stopping
with stopping.stoppable():
    stopping.on_signal(lambda: None)
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
"""


def _start(prefix=""):
    running = subprocess.Popen(
        [sys.executable, "-c", prefix + _BUSY],
        cwd=process.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert running.stdout.readline() == "ready\n"
    time.sleep(0.2)  # inside the computation
    return running


def test_the_first_ctrl_c_is_acknowledged_and_the_second_ends_the_process():
    with _start() as running:
        os.kill(running.pid, signal.SIGINT)
        assert running.stderr.readline() == "\n"
        expected = "stopping when all is saved; Ctrl-C again ends the run at once\n"
        assert running.stderr.readline() == expected
        os.kill(running.pid, signal.SIGINT)
        assert running.wait(timeout=60) == 130
        assert running.stderr.read() == ""


def test_ctrl_c_stays_ignored_where_it_was(monkeypatch):
    """As in background jobs of a shell."""
    with _start("import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)") as running:
        for _ in range(2):
            os.kill(running.pid, signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            running.wait(timeout=0.3)
        running.kill()
        assert running.stderr.read() == ""
