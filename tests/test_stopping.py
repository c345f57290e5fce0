"""Ctrl-C while a training run is inside a long computation."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import process
import pytest

# No Python code runs in the main thread until all these rounds are done, which takes minutes.
_BUSY = """
import hashlib, signal
from experiments.training import stopping
signal.signal(signal.SIGINT, signal.{handler})
with stopping.stoppable():
    stopping.on_signal(lambda: None)
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 3 * 10**8)
"""


@contextlib.contextmanager
def _start(handler):
    with subprocess.Popen(
        [sys.executable, "-c", _BUSY.format(handler=handler)],
        cwd=process.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as running:  # fmt: skip
        try:
            assert running.stdout.readline() == "ready\n"
            time.sleep(0.2)  # inside the computation
            yield running
        finally:
            running.kill()


def test_the_first_ctrl_c_is_acknowledged_and_the_second_ends_the_process():
    with _start("default_int_handler") as running:
        os.kill(running.pid, signal.SIGINT)
        assert running.stderr.readline() == "\n"
        expected = "stopping when all is saved; Ctrl-C again ends the run at once\n"
        assert running.stderr.readline() == expected
        os.kill(running.pid, signal.SIGINT)
        assert running.wait(timeout=60) == 130
        assert running.stderr.read() == ""


def test_ctrl_c_stays_ignored_where_it_was():
    """As in background jobs of a shell."""
    with _start("SIG_IGN") as running:
        for _ in range(2):
            os.kill(running.pid, signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            running.wait(timeout=0.3)
        running.kill()
        assert running.stderr.read() == ""
