"""The device code on Keras's torch backend, and settings of Keras that its user has changed."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from process import ROOT

from sccunet import keras_settings, spectral
from sccunet.config import Config, ConfigError, ModelConfig
from sccunet.patching import Patching
from sccunet.separation import Separator
from sccunet.training import compile_trainer
from sccunet.unet import build_model

_CONFIG = Config(
    model=ModelConfig(
        filters=(4, 8), frame_length=512, hop_length=128, patch_samples=8192, dropout=0.0
    ),
    batch_size=2,
)


def _results(weights) -> dict[str, np.ndarray]:
    """Results of one backend for the same waveforms and weights."""
    unet = build_model(_CONFIG)
    unet.load_weights(weights)
    waveforms = np.random.default_rng(0).normal(size=(2, 4, 1, 8192)).astype(np.float32)
    mixture, targets, *_ = spectral.training_spectra(waveforms, _CONFIG.model)
    # At a patch's edges backends differ; separation does not use them.
    patching = Patching.of(_CONFIG.model)
    kept = slice(patching.margin, patching.margin + patching.keep)
    separated = spectral.separate_patches(waveforms.sum(axis=1), unet, _CONFIG.model)
    separator = Separator.from_model(unet, _CONFIG, batch_size=5)  # of which 2 or 4 are used
    recording = separator(waveforms[0, :2, 0].T, 44_100)
    trainer = compile_trainer(unet, _CONFIG, (0.3, 0.3, 0.2, 0.2), 10)
    # `fit` as in experiments/training/fit.py, on an array instead of a stream.
    history = trainer.fit(waveforms, epochs=3, batch_size=2, verbose=0)
    from keras import ops

    return {
        "mixture": ops.convert_to_numpy(mixture),
        "targets": ops.convert_to_numpy(targets),
        "separated": ops.convert_to_numpy(separated)[..., kept],
        "recording": np.stack(list(recording.values())),
        "losses": np.asarray(history.history["loss"]),
    }


@pytest.mark.slow
def test_torch_backend_gives_tensorflows_results(tmp_path):
    pytest.importorskip("torch")
    weights, out = tmp_path / "w.weights.h5", tmp_path / "torch.npz"
    build_model(_CONFIG).save_weights(weights)
    ours = _results(weights)
    changes = {
        "KERAS_BACKEND": "torch",
        # Threads of small networks wait for each other, above all next to another test worker.
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),  # these modules, whatever is installed
    }
    subprocess.run(
        [sys.executable, __file__, weights, out], env={**os.environ, **changes}, check=True
    )
    theirs = np.load(out)
    for name, value in ours.items():
        scale = max(1.0, np.abs(value).max())
        np.testing.assert_allclose(theirs[name], value, atol=1e-4 * scale, err_msg=name)
    assert ours["losses"][-1] < ours["losses"][0]


def _python(code, **environment):
    """Runs code in a new Python; returns what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


_CHANGED = {"floatx": "float16", "image_data_format": "channels_first", "epsilon": 0.5}


@pytest.mark.slow
def test_programs_ignore_the_users_settings_of_keras(tmp_path):
    (tmp_path / "keras.json").write_text(json.dumps({**_CHANGED, "backend": "nowhere"}))
    code = """
import sys
from experiments import cli

def main(_):
    from keras import config
    print(config.backend(), config.floatx(), config.image_data_format(), config.epsilon(),
          config.max_epochs())

cli.run(main)
"""
    user = {"KERAS_HOME": str(tmp_path), "KERAS_BACKEND": "jax", "KERAS_MAX_EPOCHS": "1"}
    assert _python(code, **user) == "tensorflow float32 channels_last 1e-07 None"
    assert [path.name for path in tmp_path.iterdir()] == ["keras.json"]


def test_a_benchmark_keeps_the_users_backend(monkeypatch):
    for name, value in {"KERAS_BACKEND": "torch", "KERAS_HOME": "here"}.items():
        monkeypatch.setenv(name, value)
    keras_settings.ignore(keep_backend=True)
    assert os.environ["KERAS_BACKEND"] == "torch"
    assert os.environ["KERAS_HOME"] == os.devnull
    keras_settings.ignore()
    assert os.environ["KERAS_BACKEND"] == "tensorflow"


@pytest.mark.parametrize(
    ("settings", "backend", "reason"),
    [
        ({}, "jax", "Keras: cannot be imported (import of jax halted; None in sys.modules), exp"),
        ({}, "nowhere", "Keras: cannot be imported (Unable to import backend : nowhere), expected"),
        ({"epsilon": 1}, "", "Keras: cannot be imported (Invalid `epsilon` configuration. Expect"),
    ],
)
def test_the_library_refuses_a_keras_that_cannot_be_imported(tmp_path, settings, backend, reason):
    (tmp_path / "keras.json").write_text(json.dumps(settings))
    code = """
import sys
sys.modules["jax"] = None
import sccunet
try:
    sccunet.build_model
except sccunet.ConfigError as error:
    print(error)
"""
    printed = _python(code, KERAS_HOME=str(tmp_path), KERAS_BACKEND=backend)
    assert printed.startswith(reason)
    assert printed.endswith(f"found KERAS_BACKEND={backend} and {tmp_path}/keras.json")
    assert "\n" not in printed


def test_the_library_works_on_any_data_format_and_refuses_half_precision():
    before = keras.config.floatx(), keras.config.image_data_format()
    shapes = [weight.shape for weight in build_model(_CONFIG).weights]
    try:
        keras.config.set_image_data_format("channels_first")
        unet = build_model(_CONFIG)
        model = _CONFIG.model
        assert unet.output_shape == (None, model.bins, model.frames, len(model.stems))
        assert [weight.shape for weight in unet.weights] == shapes
        Separator.from_model(unet, _CONFIG)
        keras.config.set_floatx("float16")
        with pytest.raises(
            ConfigError, match="Keras: found floatx = 'float16', expected 'float32'"
        ):
            build_model(_CONFIG)
    finally:
        keras.config.set_floatx(before[0])
        keras.config.set_image_data_format(before[1])


if __name__ == "__main__":
    np.savez(sys.argv[2], **_results(sys.argv[1]))
