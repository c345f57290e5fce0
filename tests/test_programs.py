"""Programs without a test file of their own, and flags without effect."""

import json
import os
import types
from pathlib import Path

import numpy as np
import process
import pytest
from absl import flags

from data_pipeline.audio_writer import write_wav
from experiments import model_flag
from sccunet import runs
from sccunet.config import Config, ConfigError, ModelConfig
from sccunet.files import write_whole
from sccunet.runs import METADATA

_CONFIG = Config(
    model=ModelConfig(
        stems=("vocals", "rest"),
        frame_length=512,
        hop_length=128,
        patch_samples=8192,
        filters=(4, 8),
    ),
    sources={"rest": ("drums", "bass")},
)


@pytest.fixture(scope="module")
def run(tmp_path_factory, make_run, randomise):
    """A workdir with random weights."""
    return make_run(tmp_path_factory.mktemp("programs") / "run", _CONFIG, randomise)


@pytest.mark.slow
def test_export_makes_a_new_version_and_leaves_others_alone(program, refusal, run, tmp_path):
    (run / "data.json").write_text(
        json.dumps({"split": "training on 1 track", "training": [["train", "song", 0, 9]]})
    )
    exported, tflite = tmp_path / "exported", tmp_path / "network.tflite"
    (exported / "2").mkdir(parents=True)
    line = ("export", f"--workdir={run}", f"--export_dir={exported}", "--licence=CC0")
    done = program(*line, "--model_version=2")
    assert refusal(done) == f"{exported}/2: found already there, expected a new version"
    assert sorted(entry.name for entry in exported.iterdir()) == ["2"]
    tflite.write_text("")
    done = program(*line, f"--tflite={tflite}")
    assert refusal(done) == f"{tflite}: found an existing file, expected a new one"
    tflite.unlink()
    assert sorted(entry.name for entry in exported.iterdir()) == ["2"]
    model = tmp_path / "model"
    (tmp_path / "notes.md").write_text("## Recipe\n\nPatience.\n")
    line = (*line, f"--tflite={tflite}", f"--portable={model}", "--half", "--model_version=1")
    line = (*line, f"--notes={tmp_path}/notes.md")
    done = program(*line)
    assert done.returncode == 0, done.stderr
    assert f"{exported}/1" in done.stdout
    assert f"portable model: {model}; its stems of noise differ by -" in done.stdout
    card = (model / "README.md").read_text()
    assert 'license_name: "cc0"' in card
    assert "\n\n## Recipe\n\nPatience.\n\n## Training data\n\ntraining on 1 track: song\n" in card
    assert "signature_serialization.py" not in done.stderr  # a page of INFO lines
    assert tflite.read_bytes() == (model / runs.NETWORK).read_bytes()
    metadata = json.loads((exported / "1" / METADATA).read_text())
    assert metadata["licence"] == "CC0"
    assert metadata["training_data"] == "training on 1 track: song"
    assert sorted(entry.name for entry in exported.iterdir()) == ["1", "2"]


def test_a_model_that_is_left_out_is_the_one_that_ships(tmp_path, monkeypatch):
    given = types.SimpleNamespace(model=None, config=None)
    monkeypatch.setattr(flags, "FLAGS", given)
    monkeypatch.setattr(runs, "_SHIPPED", tmp_path)
    expected = "--model: not given, .* ships with this installation; without a model, --config def"
    with pytest.raises(ConfigError, match=expected):
        model_flag.value_without_config()
    default = tmp_path / runs.DEFAULT
    write_whole(default / runs.NETWORK, b"")
    assert model_flag.value() == model_flag.value_without_config() == default
    given.config = {"model": {}}
    assert model_flag.value_without_config() is None
    given.model = "RUN"
    assert model_flag.value() == Path("RUN")
    given.model = runs.DEFAULT
    assert model_flag.value() == default


_CONFIG_GIVEN = "--config=small_4stems"
# What has no effect beside the rest of the line -> what is said of it.
_IDLE = {
    ("separate", "--mask_exponent=2", "x.wav"): "--mask_exponent: given, expected none without"
    " --mask=soft",
    ("separate", "--mask=soft", "--wiener_iterations=2", "x.wav"): "--wiener_iterations: given,"
    " expected none without --mask=wiener",
    ("evaluate", "--system=irm", "--mask=soft"): "--mask: given, expected none beside --system=irm",
    ("evaluate", _CONFIG_GIVEN): "--config: given, expected none beside --model, whose config",
    ("export", "--half"): "--portable, --export_dir, --tflite: found none, expected one or more",
    ("export", "--tflite=x", "--licence=MIT"): "--licence: given, expected none without --portable",
    ("measure", "--tracks=a", "--split=test"): "--split: given, expected none beside --tracks",
    ("compare", "--report_dir=REPORT", "--excerpt=3"): "--excerpt: given, expected none without"
    " --data_dir",
    ("ablate", "--report_dir=REPORT", "--seeds=3"): "--seeds: given, expected none without"
    " --data_dir",
    ("benchmark", "--report_only", "input"): "found 'input', expected no section with",
    ("benchmark", "input", "--batch_sizes=3"): "--batch_sizes: given, expected none without the",
    ("client", "--server=x:1", "--metadata", "--overwrite"): "--overwrite: given, expected none",
    (
        *("train_open_unmix", "--workdir=NEW", "--minutes=1"),
        *("--data_dir=DATA", _CONFIG_GIVEN, "--config.batch_size=3"),
    ): "--config.batch_size: given, expected only fields that this program uses: model.stems,",
}


def test_flags_without_effect_are_refused(refusal, run, tmp_path):
    model, out = f"--model={run}", f"--output_dir={tmp_path}/out"
    common = {
        "separate": (model, out),
        "evaluate": (model, out, "--data_dir=DATA"),
        "measure": (model, "--data_dir=DATA"),
        "export": (f"--workdir={run}",),
    }
    running = [(process.start(*line, *common.get(line[0], ())), line) for line in _IDLE]
    for each, line in running:
        assert refusal(each.wait()).startswith(_IDLE[line]), line
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_not_a_model_is_refused(program, refusal, tmp_path):
    model, output_dir, path = tmp_path / "model", tmp_path / "out", tmp_path / "song.wav"
    write_wav(path, np.zeros((10, 1)), 44_100)
    expected = "expected a portable model, a training workdir or an exported SavedModel"
    separate = ("separate", f"--model={model}", f"--output_dir={output_dir}", path)
    export = ("export", f"--workdir={model}", f"--export_dir={output_dir}")
    message = f"{model}: found no such folder, expected a training workdir"
    assert refusal(program(*export)) == message
    names = f", or the name of one that ships with sccunet ({runs.shipped_names()})"
    assert refusal(program(*separate)) == f"{model}: found no such folder, {expected}{names}"
    model.mkdir()
    assert refusal(program(*separate)) == f"{model}: found no config.json, {expected}"
    assert not output_dir.exists()


def test_convert_without_torch_says_how_to_get_it(program, refusal, run, tmp_path):
    # Python finds this module before an installed PyTorch.
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\")\n")
    done = program(
        "convert",
        f"--workdir={run}",
        f"--output={tmp_path}/twin.pt",
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert refusal(done) == (
        "torch: cannot be imported (No module named 'torch'), expected PyTorch: pip install torch"
    )
