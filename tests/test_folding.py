"""The folded network against the trained one."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import layers

from sccunet import build_model
from sccunet.config import Config, ModelConfig
from sccunet.folding import Affine, fold

_MODEL = ModelConfig(
    stems=("a", "b"), frame_length=256, hop_length=64, patch_samples=4096, filters=(3, 4, 5)
)


def _magnitudes(model, batch=2):
    rng = np.random.default_rng(1)
    shape = (batch, model.bins, model.frames, model.channels)
    return np.abs(rng.standard_normal(shape)).astype(np.float32)


def _assert_same(unet, model, batch=2):
    magnitudes = _magnitudes(model, batch)
    expected = unet(magnitudes, training=False).numpy()
    found = fold(unet)(magnitudes, training=False).numpy()
    assert expected.max() > 1
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * max(1, expected.max()))


def _negate(unet, every):
    """Turns the sign of every second, third or other gamma; 0 turns none."""
    for layer in unet.layers:
        if isinstance(layer, layers.BatchNormalization) and every:
            gamma = layer.gamma.numpy()
            gamma[::every] *= -1
            layer.gamma.assign(gamma)


@pytest.mark.parametrize("every", [0, 1, 2])
def test_same_function(randomise, every):
    """Also at borders, where padding of the next convolution lacks the shift after the ReLU."""
    unet = randomise(build_model(_MODEL))
    _negate(unet, every)
    _assert_same(unet, _MODEL)


def test_same_function_with_masks_of_two_channels(randomise):
    options = {"channels": 2, "input_power": 0.5, "output": "mask"}
    model = dataclasses.replace(_MODEL, **options)
    _assert_same(randomise(build_model(model)), model)


@pytest.mark.slow
def test_same_function_at_the_papers_size(randomise):
    model = Config().model
    unet = randomise(build_model(model))
    _negate(unet, 3)
    _assert_same(unet, model, batch=1)


def test_dead_channels_stay_unchanged(randomise):
    """With a gamma of 0, only the shift remains."""
    unet = randomise(build_model(_MODEL))
    for layer in unet.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.gamma.assign(np.zeros(layer.gamma.shape))
    magnitudes = _magnitudes(_MODEL)
    expected = unet(magnitudes, training=False).numpy()
    np.testing.assert_allclose(fold(unet)(magnitudes, training=False), expected, atol=1e-5)


def test_no_normalisation_and_only_up_convolutions_are_transposed(randomise):
    unet = randomise(build_model(_MODEL))
    weights = [w.copy() for w in unet.get_weights()]
    folded = fold(unet)
    kinds = [type(layer) for layer in folded.layers]
    assert not any(issubclass(kind, layers.BatchNormalization) for kind in kinds)
    assert (
        sum(issubclass(kind, layers.Conv2DTranspose) for kind in kinds) == len(_MODEL.filters) - 1
    )
    assert [layer.name for layer in folded.layers] == [layer.name for layer in unet.layers]
    assert not any(layer.signed for layer in folded.layers if isinstance(layer, Affine))
    assert fold(folded) is folded
    for before, after in zip(weights, unet.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_layers_keep_their_dtypes(randomise):
    unet = randomise(build_model(_MODEL, dtype="mixed_bfloat16"))
    folded = fold(unet)
    for layer in folded.layers:
        assert layer.compute_dtype == unet.get_layer(layer.name).compute_dtype, layer.name
    assert folded(_magnitudes(_MODEL)).dtype == "float32"


def test_other_models_are_left_alone():
    x = keras.Input((4, 4, 1))
    model = keras.Model(x, layers.BatchNormalization(scale=False)(layers.Conv2D(2, 3)(x)))
    assert fold(model) is model
