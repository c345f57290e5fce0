"""The wheel, installed in a new environment and used from another folder."""

import os
import subprocess
import sys
import sysconfig
import venv

import pytest
from process import ROOT

from data_pipeline import audio
from experiments import configs
from sccunet import runs
from sccunet.config import Config, ModelConfig

_CONFIG = Config(
    model=ModelConfig(
        stems=("vocals", "drums"),
        sample_rate=8000,
        frame_length=256,
        hop_length=64,
        patch_samples=4096,
        filters=(4, 8),
    )
)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Function that runs a program of the environment: `installed(folder, "sccunet", ...)`.

    The new environment uses this one's packages that sccunet needs, and sccunet from the wheel:
    Python searches a path from a .pth file, but does not read .pth files in it, such as that of an
    editable installation.
    """
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-deps", "--no-index"]
    # A copy, because building leaves folders behind.
    files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    for name in files:
        if not name.startswith(("results/", "tests/")) and (ROOT / name).is_file():
            copy = folder / "source" / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes((ROOT / name).read_bytes())
    build = [*pip, "wheel", *offline, "--no-build-isolation", f"--wheel-dir={folder}"]
    subprocess.run([*build, folder / "source"], check=True)
    (wheel,) = folder.glob("sccunet-*.whl")
    venv.create(folder / "venv")
    python = folder / "venv" / "bin" / "python"
    found = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    paths = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    with open(os.path.join(found, "packages.pth"), "w", encoding="utf-8") as file:
        file.write("\n".join(sorted(paths)))
    subprocess.run([*pip, "--python", python, "install", *offline, wheel], check=True)

    def run(cwd, program, *arguments):
        return subprocess.run(
            [folder / "venv" / "bin" / program, *map(str, arguments)],
            cwd=cwd, capture_output=True, text=True, timeout=600, check=True,
        ).stdout  # fmt: skip

    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory, make_run, randomise):
    """A workdir with random weights."""
    return make_run(tmp_path_factory.mktemp("wheel") / "run", _CONFIG, randomise)


_FILES = """
from importlib import metadata, resources
from sccunet import runs
extras = {"train", "gpu", "tpu", "tfio", "serve", "beam", "dask", "free", "jax", "player", "tags"}
extras |= {"wiener", "test"}
assert {*metadata.metadata("sccunet").get_all("Provides-Extra")} == extras
required = metadata.requires("sccunet")
separating = [text for text in required if "extra ==" not in text]
assert any(text.startswith("openvino") for text in separating)
assert not any(text.startswith(("tensorflow", "keras", "scipy")) for text in separating)
assert any(text.startswith("sccunet[serve];") and "train" in text for text in required)
for package, name in (("experiments.reports", "published.json"),
                      ("experiments.free_music_set", "sources.json"),
                      ("sccunet", "py.typed"),
                      ("sccunet", runs.shipped_model() / "README.md"),
                      ("experiments.playing", "static/index.html"),
                      ("experiments.recordings", "sodium.ogg"),
                      ("experiments.recordings", "sodium_vocals.ogg"),
                      ("experiments.recordings", "sodium.txt")):
    path = resources.files(package) / name
    assert path.is_file()
    print(path)
"""


@pytest.mark.slow
def test_a_wheel_separates_evaluates_and_reports(installed, run, tmp_path, write_track):
    files = installed(tmp_path, "python", "-P", "-c", _FILES).split()
    assert len(files) == 8
    assert not any(file.startswith(str(ROOT)) for file in files)

    found = installed(tmp_path, "sccunet", "configs").splitlines()
    assert [line.split()[0] for line in found] == configs.names()

    folder = tmp_path / "data" / "test" / "one"
    levels = {"vocals": 0.1, "drums": 0.2, "bass": 0.1, "other": 0.1}
    song = write_track(folder, levels, rate=8000) / "drums.wav"
    installed(tmp_path, "sccunet", "separate", song)
    for stem in runs.load_config(runs.shipped_model()).model.stems:
        assert audio.read(tmp_path / "separated" / "drums" / f"{stem}.wav")[0].shape == (16_000, 2)

    scores = installed(
        tmp_path, "sccunet", "evaluate", "--config=small_4stems", "--config.model.sample_rate=8000",
        "--data_dir=data", "--output_dir=scores", "--system=scaled",
    )  # fmt: skip
    assert "vocals" in scores

    out = installed(
        tmp_path, "sccunet", "compare", "--report_dir=report", "--name=Noise",
        "--data_dir=data", f"--model={run}", "--systems=mixture,scaled",
    )  # fmt: skip
    assert "$ sccunet evaluate" in out
    assert "## Noise" in (tmp_path / "report" / "README.md").read_text()
    assert (tmp_path / "report" / "noise_scores.png").stat().st_size > 1000
