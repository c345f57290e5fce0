"""Runs programs as their users do, in processes that start with TensorFlow imported.

Importing TensorFlow again takes longer than most tests. So processes are forked from Python's fork
server, which has imported what programs import, and has computed nothing.
"""

import atexit
import dataclasses
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["absl.app", "ml_collections", "numpy", "scipy.signal", "tqdm", "av", "tensorflow", "keras"]
)


def _main(
    module: str,
    arguments: Sequence[str],
    env: Mapping[str, str],
    files: Sequence[str],
    gone: Mapping[int, str],
) -> None:
    """Runs in the forked process, in place of `python -m <module> <arguments>`."""
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(env)
    for number, (path, how) in enumerate(
        zip(files, (os.O_RDONLY, os.O_WRONLY, os.O_WRONLY), strict=True)
    ):
        os.dup2(os.open(path, how), number)
    sys.stdin, sys.stdout, sys.stderr = (
        open(number, mode, closefd=False, buffering=buffering)  # noqa: SIM115 (open until it ends)
        for number, mode, buffering in ((0, "r", -1), (1, "w", -1), (2, "w", 1))
    )
    for number, how in gone.items():
        if how == "closed":
            os.close(number)
            setattr(sys, ("stdin", "stdout", "stderr")[number], None)
        else:
            reader, writer = os.pipe()
            os.close(reader)
            os.dup2(writer, number)
            os.close(writer)
    # Shells start background jobs with SIGINT ignored, and that is inherited.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()
        if sys.stdout:
            sys.stdout.flush()


@dataclasses.dataclass
class Running:
    """A started program.

    Attributes:
      process: the process, to wait for or to kill.
      folder: folder of the files that replace its standard input, output and error.
    """

    process: multiprocessing.process.BaseProcess
    folder: tempfile.TemporaryDirectory

    def read(self, name: str) -> str:
        """Returns its output so far on "stdout" or "stderr"."""
        return (Path(self.folder.name) / name).read_text(errors="surrogateescape")

    def wait(self, timeout: float = 600) -> subprocess.CompletedProcess:
        """Waits for its end; kills it and raises TimeoutExpired after the timeout."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.process.kill()
            raise subprocess.TimeoutExpired(self.process.name, timeout, stderr=self.read("stderr"))
        done = subprocess.CompletedProcess(
            self.process.name, self.process.exitcode, self.read("stdout"), self.read("stderr")
        )
        self.folder.cleanup()
        return done


def start(name: str, *arguments: object, **options) -> Running:
    """Starts `python -m experiments.<name> <arguments>`, as `start_module` does."""
    return start_module(f"experiments.{name}", *arguments, **options)


def start_module(
    module: str,
    *arguments: object,
    stdin: bytes = b"",
    gone: Mapping[int, str] = {},
    **changes: str,
) -> Running:
    """Starts `python -m <module> <arguments>`.

    Args:
      module: a program, or a module of tests/.
      arguments: what stands behind it.
      stdin: its standard input.
      gone: number of a stream -> "closed", or "unread" if it is a pipe whose reader is gone.
      changes: environment variables. Variables that Python or a library reads when it is loaded,
        such as PYTHONPATH or KERAS_BACKEND, have no effect: such tests need `fresh`.
    """
    folder = tempfile.TemporaryDirectory()
    files = [os.path.join(folder.name, stream) for stream in ("stdin", "stdout", "stderr")]
    for file, content in zip(files, (stdin, b"", b""), strict=True):
        Path(file).write_bytes(content)
    process = _CONTEXT.Process(
        target=_main,
        args=(module, list(map(str, arguments)), {**os.environ, **changes}, files, gone),
        name=module,
    )
    process.start()
    return Running(process, folder)


def run(name: str, *arguments: object, **options) -> subprocess.CompletedProcess:
    """Runs a program as `start` does, and waits for its end."""
    return start(name, *arguments, **options).wait()


def fresh(name: str, *arguments: object, **options) -> subprocess.CompletedProcess:
    """Runs a program in a new Python, which takes seconds; `options` are of `subprocess.run`."""
    command = [sys.executable, "-m", f"experiments.{name}", *map(str, arguments)]
    return subprocess.run(
        command, **{"cwd": ROOT, "capture_output": True, "text": True, "timeout": 600, **options}
    )
