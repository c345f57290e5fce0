"""The network as a TFLite file, against the model in memory."""

import dataclasses
import json

import keras
import numpy as np
import pytest
import soundfile
import tensorflow as tf

from sccunet import build_model, spectral
from sccunet.config import Config, ConfigError, ModelConfig
from sccunet.tflite import export_tflite

_MODEL = ModelConfig(
    stems=("a", "b", "c"), frame_length=256, hop_length=64, patch_samples=4096, filters=(3, 4, 5)
)
_CONFIG = Config(model=_MODEL)


@pytest.fixture(scope="module")
def unet(randomise):
    return randomise(build_model(_CONFIG), seed=4)


def test_tflite_equals_the_network_with_only_builtin_operators(unet, tmp_path):
    path = tmp_path / "a" / "network.tflite"
    export_tflite(unet, _CONFIG, path)
    assert [entry.name for entry in path.parent.iterdir()] == ["network.tflite"]
    interpreter = tf.lite.Interpreter(str(path))
    operators = {operator["op_name"] for operator in interpreter._get_ops_details()}
    assert {"CONV_2D", "TRANSPOSE_CONV"} <= operators
    assert not any("custom" in name.lower() or "flex" in name.lower() for name in operators)
    run = interpreter.get_signature_runner("magnitudes")
    magnitudes = 0.1 * np.abs(
        np.random.default_rng(5).standard_normal((1, _MODEL.bins, _MODEL.frames))
    )
    magnitudes = magnitudes.astype(np.float32)
    found = run(mixture_magnitudes=magnitudes)
    truth = keras.ops.convert_to_numpy(unet(magnitudes[..., None], training=False))
    assert sorted(found) == sorted(_MODEL.stems)
    for i, stem in enumerate(_MODEL.stems):
        assert truth[..., i].std() > 1e-3
        np.testing.assert_allclose(found[stem], truth[..., i], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("channels", "recorded"), [(1, 2), (2, 2), (2, 1)])
def test_snippet_on_the_page(channels, recorded, randomise, tmp_path, snippet):
    model = dataclasses.replace(_MODEL, channels=channels)
    config = Config(model=model, downmix=False)
    unet = randomise(build_model(config))
    export_tflite(unet, config, tmp_path / "network.tflite")
    metadata = tmp_path / "EXPORT" / "1" / "assets" / "metadata.json"
    metadata.parent.mkdir(parents=True)
    metadata.write_text(json.dumps({"config": config.to_dict()}))
    song = 0.1 * np.random.default_rng(6).standard_normal((2 * model.patch_samples, recorded))
    soundfile.write(tmp_path / "song.wav", song, model.sample_rate, "FLOAT")
    found = snippet("docs/serving.md", "network.tflite")["samples"]
    patch = song[: model.patch_samples, np.arange(channels) % recorded].T.astype(np.float32)
    truth = keras.ops.convert_to_numpy(spectral.separate_patches(patch[None], unet, model))
    kept = slice(model.frame_length, -model.frame_length)
    assert found.shape == patch.shape
    assert truth[0, 0].std() > 1e-3
    np.testing.assert_allclose(found[:, kept], truth[0, 0, :, kept], rtol=0, atol=1e-5)


def test_stems_of_any_name(randomise, tmp_path):
    config = Config(model=dataclasses.replace(_MODEL, stems=("lead vocals", "größe", "_x")))
    export_tflite(randomise(build_model(config)), config, tmp_path / "network.tflite")
    run = tf.lite.Interpreter(str(tmp_path / "network.tflite")).get_signature_runner("magnitudes")
    found = run(mixture_magnitudes=np.ones((1, _MODEL.bins, _MODEL.frames), np.float32))
    assert sorted(found) == sorted(config.model.stems)


def test_tflite_that_cannot_be_written(unet, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"a\.tflite: cannot be written \("):
        export_tflite(unet, _CONFIG, tmp_path / "file" / "a.tflite")
