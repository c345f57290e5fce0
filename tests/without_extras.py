"""Runs programs as in an environment with what `pip install sccunet` brings, and nothing else.

Reads JSON from standard input, a list of commands, such as ["separate", "--help"] or ["-c", CODE],
and writes a list of [exit code, output, errors]. Each command runs in a process of its own, which
is forked from one that has imported what all programs import: that takes a tenth of the time.

Example:
  echo '[["separate", "--help"]]' | python tests/without_extras.py av
"""

import json
import os
import runpy
import sys
import tempfile
import traceback

# Modules of the packages in setup.py's install_requires, and of those that they require.
BROUGHT = {
    "absl",
    "av",
    "filelock",
    "numpy",
    "openvino",
    "soundfile",
    "soxr",
    "tqdm",
    *("_cffi_backend", "cffi", "pycparser", "typing_extensions"),
    *("_soundfile", "_soundfile_data", "openvino_telemetry"),
}
OURS = {"sccunet", "data_pipeline", "experiments"}


class _Finder:
    """Finds nothing, and ends the search for whatever is not brought."""

    def __init__(self, refused: list[str]):
        self._found = (BROUGHT | OURS | sys.stdlib_module_names) - {*refused}

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in self._found and not name.startswith("_sysconfigdata"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def _run(command: list[str]) -> tuple[int, str, str]:
    """Runs a command in a forked process; returns its exit code, output and errors."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        child = os.fork()
        if not child:
            code = 1
            try:
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                code = _main(command)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(child, 0)
        out.seek(0)
        err.seek(0)
        return os.waitstatus_to_exitcode(status), out.read(), err.read()


def _main(command: list[str]) -> int:
    program, *arguments = command
    sys.argv = [program, *arguments]
    try:
        if program == "-c":
            exec(arguments[0], {"__name__": "__main__"})
        else:
            runpy.run_module(f"experiments.{program}", run_name="__main__", alter_sys=True)
    except SystemExit as error:
        return error.code or 0
    return 0


if __name__ == "__main__":
    sys.meta_path.insert(0, _Finder(sys.argv[1:]))
    import experiments.cli  # noqa: F401 (for all that are forked)

    json.dump([_run(command) for command in json.load(sys.stdin)], sys.stdout)
