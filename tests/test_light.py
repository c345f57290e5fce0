"""What works with `pip install sccunet` alone, and what the rest says that it needs."""

import contextlib
import json
import os
import re
import runpy
import subprocess
import sys
from importlib import metadata
from unittest import mock

import numpy as np
import pytest
import without_extras
from process import ROOT

from data_pipeline import audio, audio_writer
from experiments import missing
from experiments.command import COMMANDS
from sccunet import runs

_PROGRAMS = [name for group in COMMANDS.values() for name in group]


@pytest.fixture(scope="module")
def light():
    """Function that runs commands without the extras: [[program, *arguments], ...].

    Returns exit code, output and errors of each. Modules in `refused` cannot be imported, either.
    """

    def run(commands, refused=(), **env):
        done = subprocess.run(
            [sys.executable, "-P", ROOT / "tests" / "without_extras.py", *refused],
            input=json.dumps([[str(word) for word in command] for command in commands]),
            env={**os.environ, "PYTHONPATH": str(ROOT), **env},
            capture_output=True, text=True, timeout=600, check=True,
        )  # fmt: skip
        return json.loads(done.stdout)

    return run


_LIBRARY = """
import sys
import numpy as np
import sccunet
samples, result = sys.argv[2:]
np.savez(result, **sccunet.Separator.load()(np.load(samples), 44_100))
assert "openvino" in sys.modules
assert "openvino_telemetry" not in sys.modules  # importing it sends a message and writes into HOME
"""


def test_separation_needs_no_extra(light, tmp_path, write_track):
    config = runs.load_config(runs.shipped_model())
    samples = 0.1 * np.random.default_rng(0).standard_normal((5000, 2)).astype(np.float32)
    np.save(tmp_path / "samples.npy", samples)
    audio_writer.write_wav(tmp_path / "song.wav", samples, 44_100)
    levels = {name: 0.1 for stem in config.model.stems for name in config.files_of(stem)}
    write_track(tmp_path / "test" / "track", levels, seconds=0.5)
    home = tmp_path / "home"
    home.mkdir()
    separate = ["separate", f"--output_dir={tmp_path}", tmp_path / "song.wav"]
    library = ["-c", _LIBRARY, tmp_path / "samples.npy", tmp_path / "stems.npz"]
    measure = ["measure", f"--data_dir={tmp_path}", "--excerpt=1", "--repeats=1"]
    found = light([separate, library, measure, ["models"]], HOME=str(home))
    assert [(code, err) for code, _, err in found] == [(0, "")] * 4
    assert "openvino" in json.loads(found[2][1])["versions"]
    for path, text in zip(runs.shipped_models(), found[3][1].split("\n\n"), strict=False):
        assert text.startswith(f"{path.name}{' (default)' * (path == runs.shipped_model())}\n")
        size = runs.load_config(path).model.parameters
        for row in (f"{size:,} parameters", "Licence: ", f"Card: {path}/README.md"):
            assert row in text
    stems = np.load(tmp_path / "stems.npz")
    assert sorted(stems) == sorted(config.model.stems)
    for stem in config.model.stems:
        written, _ = audio.read(tmp_path / "song" / f"{stem}.wav")
        np.testing.assert_allclose(written, stems[stem], atol=1e-4)
        assert np.abs(written).max() > 0.001
    assert os.listdir(home) == []


def test_help_of_every_program_needs_no_extra_and_shows_examples_at_once(light):
    slow = ("av", "openvino", "soundfile", "soxr")
    found = light([[name, "--help"] for name in _PROGRAMS], slow, PATH="")
    for name, (code, out, err) in zip(_PROGRAMS, found, strict=True):
        assert (code, err) == (0, ""), name
        assert "Example" in out
        assert f"\n  sccunet {name}" in out or f"| sccunet {name}" in out
        assert "python -m" not in out
        assert ("--mask:" in out) == (name in ("separate", "evaluate")), name


_SMALL = "--config=small_4stems"
# Command -> what it says.
_LINES = {
    ("train", _SMALL, "--data_dir=D", "--workdir=W"): "train needs tensorflow: {train}",
    ("train_open_unmix", _SMALL): "train_open_unmix needs tensorflow: {train}",
    ("export", "--workdir=W", "--export_dir=E"): "export needs tensorflow: {train}",
    ("tour",): "tour needs tensorflow: {train}",
    ("calibrate", "--workdir=W", "--data_dir=D"): "calibrate needs tensorflow: {train}",
    ("convert", "--workdir=W", "--output=O"): "convert needs tensorflow: {train}",
    ("evaluate", "--model=M", "--data_dir=D"): "evaluate needs museval: {train}",
    ("measure", _SMALL, "--data_dir=D"): "measure --config needs ml_collections: {train}",
    ("plot", "--truth_dir=T"): "plot needs matplotlib: {train}",
    ("compare", "--report_dir=R"): "compare needs matplotlib: {train}",
    ("ablate", "--report_dir=R"): "ablate needs matplotlib: {train}",
    ("benchmark", "--output_dir=R"): "benchmark needs matplotlib: {train}",
    ("catalogue", "separate", "--model=M"): "catalogue needs apache_beam: {beam}",
    ("player",): "player needs starlette: {player}",
    ("free_music", "--data_dir=D"): "free_music needs pyworld: {free}",
    ("client", "--protocol=grpc", "--server=x:1", "--metadata"): "client needs grpc: {serve}",
    ("separate", "--model=M", "--output_dir=O", "--mask=wiener", "x.wav"): "separate --mask=wiener"
    " needs norbert: {wiener}",
}


def test_programs_say_which_extra_brings_what_they_lack(light, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    workdir = f"--model={tmp_path}"
    expected = {
        **_LINES,
        (
            "separate",
            workdir,
            "--output_dir=O",
            "x.wav",
        ): f"separate {workdir} needs tensorflow: {{train}}",
    }
    installs = {extra: f"pip install 'sccunet[{extra}]'" for extra in missing.EXTRAS.values()}
    for line, found in zip(expected.values(), light(expected), strict=True):
        assert found == [1, "", f"error: sccunet {line.format(**installs)}\n"]


def _required(extra):
    """Returns the names of all packages that an extra brings, "" being no extra."""
    with mock.patch("setuptools.setup") as setup:
        runpy.run_path("setup.py")
    layers = {**setup.call_args.kwargs["extras_require"]}
    layers[""] = setup.call_args.kwargs["install_requires"]
    found, left = set(), [*layers[extra]]
    while left:
        package, extras = re.match(r"([\w.-]+)(?:\[([\w,]+)\])?", left.pop()).groups()
        if package == "sccunet":
            left += [each for name in extras.split(",") for each in layers[name]]
        elif (name := _name(package)) not in found:
            found.add(name)
            with contextlib.suppress(metadata.PackageNotFoundError):  # for other systems
                left += [each for each in metadata.requires(name) or () if "extra ==" not in each]
    return found


def _name(package):
    return re.sub("[-_.]+", "-", package).lower()


def test_extras_bring_the_modules_that_name_them(monkeypatch):
    monkeypatch.chdir(ROOT)
    packages = {
        module: {*map(_name, names)} for module, names in metadata.packages_distributions().items()
    }
    required = {extra: _required(extra) for extra in ("", *missing.EXTRAS.values())}
    for module, extra in missing.EXTRAS.items():
        if module in packages:  # tests of what is not installed are skipped
            assert packages[module] & required[extra], module
            assert not packages[module] & required[""], module
    for module in without_extras.BROUGHT:
        assert packages.get(module, required[""]) & required[""], module


def test_the_image_gets_what_the_package_is_built_from():
    copied = re.findall(r"^COPY (?!--)(.*) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    copied = {name for names in copied for name in names.split()}
    assert copied == {"setup.py", "pyproject.toml", "README.md", *without_extras.OURS}
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert {line[1:] for line in ignored if line.startswith("!")} == copied
