"""The command `sccunet`: its list of commands, running them, and configurations by name."""

import ast
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from absl import flags
from ml_collections import config_flags
from process import ROOT

from experiments import command, configs
from experiments.arguments import parse
from sccunet.config import ConfigError

_ALL = [name for commands in command.COMMANDS.values() for name in commands]


def _is_program(file):
    tree = ast.parse(file.read_text())
    return any(
        isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"
        for node in tree.body
    )


def test_every_program_is_listed_once():
    files = sorted((ROOT / "experiments").glob("*.py"))
    programs = [file.stem for file in files if _is_program(file) and file.stem != "command"]
    assert sorted(_ALL) == sorted([*programs, "configs"])


@pytest.fixture
def sccunet(monkeypatch, capsys):
    """Function that runs the command in this process; exit code, standard output and error."""

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["sccunet", *arguments])
        code = 0
        try:
            command.main()
        except SystemExit as error:
            code = error.code
        return code, *capsys.readouterr()

    return run


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_without_a_command_it_lists_all(sccunet, arguments):
    code, out, err = sccunet(*arguments)
    assert (code, err) == (0, "")
    assert all(f"\n  {name} " in out for name in _ALL)
    assert all(f"\n{group}:\n" in out for group in command.COMMANDS)


def test_unknown_command_is_one_line(sccunet):
    line = "error: found the unknown command 'seperate': did you mean separate?\n"
    assert sccunet("seperate") == (1, "", line)
    line = "error: found the unknown command 'x': run sccunet for a list\n"
    assert sccunet("x") == (1, "", line)


def test_a_command_receives_its_arguments(sccunet, monkeypatch):
    seen = {}

    def run_module(name, **how):
        import sys

        seen.update(how, name=name, argv=sys.argv)

    monkeypatch.setattr(runpy, "run_module", run_module)
    assert sccunet("separate", "--model=RUN", "a song.wav")[0] == 0
    assert seen == {
        "name": "experiments.separate",
        "run_name": "__main__",
        "alter_sys": True,
        "argv": ["sccunet", "--model=RUN", "a song.wav"],
    }
    assert sccunet("free-music")[0] == 0  # names of commands have hyphens elsewhere
    assert seen["name"] == "experiments.free_music"


def test_configs_lists_names_and_purposes(program):
    lines = program("configs").stdout.splitlines()
    assert [line.split()[0] for line in lines] == configs.names()
    assert all(len(line.split()) > 3 for line in lines)


def test_config_names_and_files_map_to_each_other():
    assert {"paper_2stems", "paper_4stems", "small_2stems", "small_4stems"} <= {*configs.names()}
    for name in configs.names():
        path = configs.path_of(name)
        assert Path(path).is_file()
        assert configs.name_of(path) == name
    assert configs.path_of("my/paper_4stems.py") == "my/paper_4stems.py"
    assert configs.name_of("my/paper_4stems.py") == "my/paper_4stems.py"


def test_config_by_name(program, refusal, tmp_path):
    given = ("--config.batch_size=0", f"--data_dir={tmp_path}", f"--workdir={tmp_path}/run")
    for config in (["--config=small_4stems"], ["--config", "small_4stems"]):
        done = program("train", *config, *given)
        assert refusal(done) == "config.batch_size: found 0, expected a whole number, 1 or more"


_SMALL = "--config=small_4stems"
_SOME = f"expected a config file, or one of {', '.join(configs.names())}"


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # of ml_collections
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config=small"], f"--config: found no file 'small', {_SOME}"),
        (["--config", "small", "--config.seed=1"], f"--config: found no file 'small', {_SOME}"),
        (["--config=."], f"--config: cannot be read ([Errno 21] Is a directory: '.'), {_SOME}"),
        (["--config.seed=1"], f"--config.seed: found no --config before it, {_SOME}"),
        (
            [_SMALL, "--config.batchsize=4"],
            "--config.batchsize: found no such field, expected batch_size",
        ),
        (
            [_SMALL, "--config.filters", "4"],
            "--config.filters: found no such field, expected model.filters",
        ),
        (
            [_SMALL, "--config.modle.dropout=0"],
            "--config.modle.dropout: found no such field, expected mod",
        ),
        (
            [_SMALL, "--config.zzz=0"],
            "--config.zzz: found no such field, expected one of model.stems, mo",
        ),
    ],
)
def test_mistakes_in_configs_are_one_line(monkeypatch, arguments, message):
    values = flags.FlagValues()
    monkeypatch.setattr(flags, "FLAGS", values)
    config_flags.DEFINE_config_file("config", flag_values=values)
    monkeypatch.setattr("sys.argv", ["program", *arguments])  # ml_collections reads it
    with pytest.raises(ConfigError) as caught:
        parse(sys.argv)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_help_of_train_names_the_configs(program):
    words = " ".join(program("train", "--help").stdout.split())
    assert f"One of {', '.join(configs.names())} (see sccunet configs), or a file." in words
    assert "--config.FIELD=VALUE sets any field of it" in words


def test_programs_start_programs_of_their_own_installation(tmp_path):
    other = tmp_path / "experiments"
    other.mkdir()
    (other / "__init__.py").write_text("raise RuntimeError('another installation')")
    code = """
import sys
import time
from experiments import cli
sys.argv = ["test"]
cli.run(lambda _: sys.exit(cli.run_program("configs")))
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "small_4stems" in done.stdout


def test_ctrl_c_waits_for_the_program_that_was_started(tmp_path):
    """As `train` needs, to save; a terminal sends it to both. The second one ends both."""
    package = tmp_path / "experiments"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "slow.py").write_text(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGINT, lambda *_: print('saving', flush=True))\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "print('saved', flush=True)\n"
    )
    code = f"""
from experiments import cli
import os, signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background jobs
os.environ["PYTHONPATH"] = {str(tmp_path)!r}
cli.run_program("slow")
"""
    for last, printed in (("saved\n", "saved\n"), (None, "")):
        with subprocess.Popen(
            [sys.executable, "-P", "-c", code],
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        ) as running:  # fmt: skip
            lines = iter(running.stdout.readline, "")
            assert "ready\n" in lines
            os.killpg(running.pid, signal.SIGINT)
            assert next(lines) == "saving\n"
            if last:
                running.stdin.write("\n")
                running.stdin.flush()
            else:
                time.sleep(0.5)  # the first has been taken
                os.kill(running.pid, signal.SIGINT)
            assert "".join(lines) == printed
            assert running.wait(timeout=60) != 0
            assert "KeyboardInterrupt" in running.stderr.read()
