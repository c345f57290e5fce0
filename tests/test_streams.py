"""Standard streams that are closed, have no reader, are full, or cannot encode a name."""

import os
import subprocess
import sys

import process
import pytest

from experiments import streams


def _shell(line):
    """Runs a line of bash in which $SCCUNET is the command; prints the command's exit code last."""
    environment = {**os.environ, "SCCUNET": f"{sys.executable} -m experiments.command"}
    return subprocess.run(
        ["bash", "-c", f"{line}; echo code ${{PIPESTATUS[0]}} >&2"],
        cwd=process.ROOT, env=environment, capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("line", "code", "printed", "error"),
    [
        ("$SCCUNET configs <&- >&- 2>/dev/full", 0, "", ""),
        ("$SCCUNET configs 2>&-", 0, "free_2stems", ""),
        ("$SCCUNET train --help | true", 0, "", ""),
        ("$SCCUNET | true", 0, "", ""),
        ("$SCCUNET train >&- 2>&-", 1, "", ""),
        (
            "$SCCUNET configs > /dev/full",
            1,
            "",
            "error: standard output: cannot be written (No space left on device)\n",
        ),
    ],
)
def test_the_exit_code_tells_of_the_work(line, code, printed, error):
    done = _shell(line)
    assert done.stderr == f"{error}code {code}\n"
    assert done.stdout.startswith(printed)
    assert bool(done.stdout) == bool(printed)


def test_names_that_the_encoding_lacks_are_written(tmp_path, monkeypatch):
    for encoding, text, expected in (
        ("utf-8", "lat\udce9 ♫", b"lat\xe9 " + "♫".encode()),
        ("ascii", "lat\udce9 ♫", b"lat\xe9 \\u266b"),
    ):
        path = tmp_path / encoding
        with path.open("w", encoding=encoding) as file:
            monkeypatch.setattr("sys.stdout", file)
            streams.protect()
            print(text, end="", flush=True)
            monkeypatch.undo()
        assert path.read_bytes() == expected


def test_unbuffered_streams_stay_unbuffered():
    """As under PYTHONUNBUFFERED; otherwise the lines of both streams change places."""
    code = "import sys; from experiments import streams; streams.protect()\n"
    code += "for i in range(3): print(i); print(i, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-u", "-c", code],
        cwd=process.ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert done.stdout.split() == ["0", "0", "1", "1", "2", "2"]
