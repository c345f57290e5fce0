"""The network as a TFLite file, against the model in memory."""

import dataclasses
import functools

import keras
import numpy as np
import openvino
import pytest
import soundfile
import tensorflow as tf

from sccunet import build_model, spectral, tflite
from sccunet.config import Config, ConfigError, ModelConfig
from sccunet.files import write_whole
from sccunet.tflite import export_tflite

_MODEL = ModelConfig(
    stems=("a", "b", "c"), frame_length=256, hop_length=64, patch_samples=4096, filters=(3, 4, 5)
)


@pytest.fixture(scope="module")
def exported(randomise, tmp_path_factory):
    """Function (channels) -> network in memory, its config and its file."""

    @functools.cache
    def export(channels):
        config = Config(model=dataclasses.replace(_MODEL, channels=channels), downmix=False)
        unet = randomise(build_model(config), seed=4)
        path = tmp_path_factory.mktemp("tflite") / "a" / "network.tflite"
        export_tflite(unet, config, path)
        assert [entry.name for entry in path.parent.iterdir()] == ["network.tflite"]
        return unet, config, path

    return export


@pytest.mark.parametrize("channels", [1, 2])
def test_runtimes_compute_the_network(channels, exported):
    """TensorFlow's interpreter with builtin operators only, and OpenVINO."""
    unet, _, path = exported(channels)
    interpreter = tf.lite.Interpreter(str(path))
    operators = {operator["op_name"] for operator in interpreter._get_ops_details()}
    assert {"CONV_2D", "TRANSPOSE_CONV"} <= operators
    assert not any("custom" in name.lower() or "flex" in name.lower() for name in operators)
    magnitudes = 0.1 * np.abs(
        np.random.default_rng(5).standard_normal((1, _MODEL.bins, _MODEL.frames, channels))
    )
    magnitudes = magnitudes.astype(np.float32)
    shaped = magnitudes if channels > 1 else magnitudes[..., 0]
    found = interpreter.get_signature_runner("magnitudes")(mixture_magnitudes=shaped)
    assert sorted(found) == sorted(_MODEL.stems)
    truth = keras.ops.convert_to_numpy(unet(magnitudes, training=False))
    assert truth.std(axis=(0, 1, 2)).min() > 1e-3
    error = np.abs(np.concatenate([found[s].reshape(magnitudes.shape) for s in "abc"], -1) - truth)
    assert error.max() < 1e-5 * max(1, truth.max())

    # Its outputs have no names, but the order of the names.
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    outputs = compiled([shaped])
    for port in compiled.outputs:
        stem = "abc"[int(port.get_any_name().rpartition(":")[2])]
        np.testing.assert_allclose(outputs[port], found[stem], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("channels", "recorded"), [(1, 2), (2, 2), (2, 1)])
def test_snippet_on_the_page(channels, recorded, exported, tmp_path, snippet):
    unet, config, path = exported(channels)
    model = config.model
    (tmp_path / "network.tflite").symlink_to(path)
    write_whole(tmp_path / "RUN" / "config.json", config.to_json())
    song = 0.1 * np.random.default_rng(6).standard_normal((2 * model.patch_samples, recorded))
    soundfile.write(tmp_path / "song.wav", song, model.sample_rate, "FLOAT")
    found = snippet("docs/serving.md", "network.tflite")["samples"]
    patch = song[: model.patch_samples, np.arange(channels) % recorded].T.astype(np.float32)
    truth = keras.ops.convert_to_numpy(spectral.separate_patches(patch[None], unet, model))
    kept = slice(model.frame_length, -model.frame_length)
    assert found.shape == patch.shape
    assert truth[0, 0].std() > 1e-3
    np.testing.assert_allclose(found[:, kept], truth[0, 0, :, kept], rtol=0, atol=1e-5)


def test_tflite_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(tflite, "_converted", lambda *_: b"TFL3")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"a\.tflite: cannot be written \("):
        export_tflite(None, Config(), tmp_path / "file" / "a.tflite")
