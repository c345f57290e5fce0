"""The loss and its weights, in closed form."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from sccunet.config import Config, ConfigError, ModelConfig
from sccunet.losses import (
    VolumeBalancedComplex,
    VolumeBalancedL1,
    balancing_weights,
    loss_weights,
    make_loss,
)


@pytest.mark.parametrize(
    ("volumes", "alphas"),
    [
        ((1, 2.41), (0.707, 0.293)),
        ((1, 1.13, 1.28, 1.42), (0.297, 0.262, 0.232, 0.209)),
    ],
    ids=["2 stems", "4 stems"],
)
def test_volumes_of_the_paper_give_its_alphas(volumes, alphas):
    for unit in (1, 1e-6, 123.4):
        found = balancing_weights([unit * volume for volume in volumes])
        np.testing.assert_allclose(found, alphas, rtol=0, atol=0.001)


@pytest.mark.parametrize("seed", range(5))
def test_alpha_times_volume_is_the_same_for_every_source(seed):
    rng = np.random.default_rng(seed)
    volumes = np.exp(rng.uniform(-10, 10, rng.integers(1, 8)))
    alphas = balancing_weights(volumes)
    assert alphas.shape == volumes.shape
    assert alphas.sum() == pytest.approx(1, abs=1e-12)
    products = alphas * volumes
    # sum(alpha) = 1 determines the value: the harmonic mean divided by the number of sources.
    np.testing.assert_allclose(products, 1 / np.sum(1 / volumes), rtol=1e-12)


def test_equal_volumes_give_plain_l1_over_k():
    rng = np.random.default_rng(0)
    for k in (1, 2, 4):
        y, estimate = rng.uniform(0, 1, (2, 3, 5, 7, k)).astype(np.float32)
        alphas = balancing_weights([2.5] * k)
        np.testing.assert_allclose(alphas, 1 / k, rtol=1e-12)
        # Mean over batch, bins and frames of the sum over k, over k: the mean over all.
        loss = float(VolumeBalancedL1(alphas)(y, estimate))
        assert loss == pytest.approx(np.abs(y - estimate).mean(), rel=1e-5)


@pytest.mark.parametrize(
    "volumes",
    [(1, 0), (1, -2), (1, np.nan), (1, np.inf), (), (0,), ((1, 2), (3, 4)), 3.0],
)
def test_invalid_volumes(volumes):
    with pytest.raises(ConfigError, match=r"^volumes: found .*, expected finite numbers over 0$"):
        balancing_weights(volumes)


@pytest.mark.parametrize(
    ("changes", "alphas", "passes"),
    [
        ({}, (0.75, 0.25), 1),
        ({"loss_balance": "volume"}, (0.75, 0.25), 1),
        ({"loss_balance": "equal"}, (0.5, 0.5), 0),
        ({"loss_balance": "equal", "loss_weights": (0.9, 0.1)}, (0.9, 0.1), 0),
    ],
)
def test_rules_of_loss_weights(changes, alphas, passes):
    """Volumes need a pass over the data, so they are computed only if needed."""
    config, calls = Config(model=ModelConfig(stems=("a", "b")), **changes), []

    def volumes():
        calls.append("pass")
        return np.array([1.0, 3.0])

    assert loss_weights(config, volumes) == pytest.approx(alphas)
    assert len(calls) == passes


def test_loss_of_small_tensors_by_hand():
    # One bin, two frames, two stems; the estimate is off by 1, -3 in stem 0 and 2, 0 in stem 1.
    y = np.array([[[[5.0, 4.0], [6.0, 1.0]]]], np.float32)
    estimate = np.array([[[[6.0, 6.0], [3.0, 1.0]]]], np.float32)
    loss = VolumeBalancedL1((0.25, 0.75))
    assert float(loss(y, estimate)) == pytest.approx(0.25 * 2 + 0.75 * 1)
    assert float(loss(y, y)) == 0
    # The loss of a batch is the mean; alpha has the order of the channels.
    both = float(loss(np.concatenate([y, y]), np.concatenate([estimate, y])))
    assert both == pytest.approx(0.625)
    assert float(VolumeBalancedL1((1, 0))(y, estimate)) == pytest.approx(2)
    assert float(VolumeBalancedL1((0, 1))(y, estimate)) == pytest.approx(1)


def test_loss_is_the_papers_sum_over_sources():
    rng = np.random.default_rng(1)
    y, estimate = rng.uniform(0, 1, (2, 3, 5, 7, 4)).astype(np.float32)
    alphas = (0.1, 0.2, 0.3, 0.4)
    expected = sum(a * np.abs(y[..., i] - estimate[..., i]).mean() for i, a in enumerate(alphas))
    assert float(VolumeBalancedL1(alphas)(y, estimate)) == pytest.approx(expected, rel=1e-5)
    per_example = VolumeBalancedL1(alphas).call(y, estimate)
    assert per_example.shape == (3,)


def test_gradient_is_alpha_times_sign_over_count():
    rng = np.random.default_rng(2)
    y, estimate = rng.uniform(0, 1, (2, 2, 3, 4, 3)).astype(np.float32)
    alphas = np.array((0.5, 0.2, 0.3), np.float32)
    estimate = tf.Variable(estimate)
    with tf.GradientTape() as tape:
        loss = VolumeBalancedL1(alphas)(y, estimate)
    expected = alphas * np.sign(estimate.numpy() - y) / (2 * 3 * 4)
    np.testing.assert_allclose(tape.gradient(loss, estimate).numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("channels", [1, 2])
def test_complex_loss_is_the_error_of_the_reconstruction_over_the_mixtures_energy(channels):
    rng = np.random.default_rng(4)
    shape = (3, 5, 7, 2, channels)  # batch, bins, frames, stems, channels
    stems = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    mixture = stems.sum(axis=3)
    estimates = rng.uniform(0, 2, shape)
    aligned = (stems * np.conj(mixture)[..., None, :]).real / np.abs(mixture)[..., None, :]
    y_true = [
        np.asarray(part, np.float32).reshape(3, 5, 7, -1) for part in (np.abs(mixture), aligned)
    ]
    y_true.append(np.mean(np.abs(stems) ** 2, axis=(1, 2, 4)))
    y_pred = estimates.reshape(3, 5, 7, -1).astype(np.float32)
    found = VolumeBalancedComplex((0.25, 0.75)).distances(tuple(y_true), y_pred)

    reconstructed = estimates * (mixture / np.abs(mixture))[..., None, :]
    errors = np.sum(np.abs(stems - reconstructed) ** 2, axis=(1, 2, 4))  # [batch, stems]
    energy = np.sum(np.abs(mixture) ** 2, axis=(1, 2, 3))
    np.testing.assert_allclose(found, errors / energy[:, None], rtol=1e-5)
    loss = float(VolumeBalancedComplex((0.25, 0.75))(tuple(y_true), y_pred))
    assert loss == pytest.approx(float(np.mean(errors / energy[:, None] @ (0.25, 0.75))), rel=1e-5)


def test_silence_does_not_dominate_the_complex_loss():
    silence = (np.zeros((1, 3, 4, 1)), np.zeros((1, 3, 4, 2)), np.zeros((1, 2)))
    loss = VolumeBalancedComplex((0.5, 0.5))
    assert float(loss(silence, np.zeros((1, 3, 4, 2)))) == 0
    # Estimates of a network that has not learned yet, which are no masks.
    assert float(loss(silence, np.full((1, 3, 4, 2), 0.2))) == pytest.approx(0.4)


def test_a_config_names_its_loss():
    assert type(make_loss(Config(), (0.25,) * 4)) is VolumeBalancedL1
    found = make_loss(Config(loss="complex"), (0.1, 0.2, 0.3, 0.4))
    assert type(found) is VolumeBalancedComplex
    assert found.weights == (0.1, 0.2, 0.3, 0.4)


def test_serialisation_round_trip():
    loss = VolumeBalancedL1(np.array([0.707, 0.293]), name="mine")
    settings = loss.get_config()
    assert settings["weights"] == (0.707, 0.293)
    assert settings["name"] == "mine"
    copies = [
        VolumeBalancedL1.from_config(settings),
        keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss)),
        keras.losses.deserialize(keras.losses.serialize(loss)),
    ]
    rng = np.random.default_rng(3)
    y, estimate = rng.uniform(0, 1, (2, 1, 3, 4, 2)).astype(np.float32)
    for copy in copies:
        assert type(copy) is VolumeBalancedL1
        assert copy.get_config() == settings
        assert float(copy(y, estimate)) == float(loss(y, estimate))
    assert keras.saving.get_registered_name(VolumeBalancedL1) == "sccunet>VolumeBalancedL1"


def test_balanced_loss_weighs_equally_wrong_sources_equally():
    # Estimates with the same relative error: every source contributes equally.
    volumes = np.array([1.0, 10.0, 100.0])
    alphas = balancing_weights(volumes)
    y = np.ones((1, 4, 4, 3), np.float32) * volumes.astype(np.float32)
    parts = [
        float(VolumeBalancedL1(alphas)(y, y * (1 - 0.5 * np.eye(3, dtype=np.float32)[i])))
        for i in range(3)
    ]
    for a, b in itertools.pairwise(parts):
        assert a == pytest.approx(b, rel=1e-5)
