"""The learning rate's schedule, and what the optimizer does with gradients."""

import dataclasses
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from sccunet.config import Config
from sccunet.optimizer import learning_rate_schedule, make_optimizer

_CONFIG = Config(epochs=4)


def _with(**changes):
    return dataclasses.replace(_CONFIG, **changes)


def _rates(config, steps_per_epoch):
    schedule = learning_rate_schedule(config, steps_per_epoch)
    return [float(schedule(step)) for step in range(config.epochs * steps_per_epoch)]


@pytest.mark.parametrize("epochs", [1, 5, 40])
def test_step_schedule_is_the_papers(epochs):
    rates = _rates(_with(epochs=epochs), 10)
    half = 10 * math.ceil(epochs / 2)
    # Step `half` is the first of the second half.
    np.testing.assert_allclose(rates[:half], 1e-3, rtol=1e-6)
    np.testing.assert_allclose(rates[half:], 1e-4, rtol=1e-6)


def test_cosine_schedule_ends_at_zero():
    config = _with(epochs=4, decay="cosine", learning_rate=0.02)
    rates = _rates(config, 10)
    expected = 0.01 * (1 + np.cos(np.pi * np.arange(40) / 40))
    np.testing.assert_allclose(rates, expected, rtol=0, atol=1e-7)
    assert float(learning_rate_schedule(config, 10)(40)) == pytest.approx(0, abs=1e-9)


def test_the_late_schedule_is_constant_and_then_a_line_to_zero():
    rates = _rates(_with(epochs=4, decay="late", learning_rate=0.02), 25)
    np.testing.assert_allclose(rates[:41], 0.02, rtol=1e-6)
    np.testing.assert_allclose(rates[40:], 0.02 * np.arange(60, 0, -1) / 60, atol=1e-7)


def test_warm_up_comes_before_the_cosine_which_still_ends_with_the_run():
    rates = _rates(_with(decay="cosine", learning_rate=0.02, warmup_steps=8), 10)
    np.testing.assert_allclose(rates[:8], 0.02 * np.arange(8) / 8, atol=1e-8)
    expected = 0.01 * (1 + np.cos(np.pi * np.arange(32) / 32))
    np.testing.assert_allclose(rates[8:], expected, atol=1e-7)


_START = ([1.0, -2.0], [[0.5]])
_GRADIENTS = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)


def _run(gradients, **changes):
    """Returns variables, the optimizer and its state after steps with gradients [steps, 3]."""
    variables = [keras.Variable(value) for value in _START]
    optimizer = make_optimizer(_with(**changes), 10)
    optimizer.build(variables)
    for g in map(tf.constant, gradients):
        optimizer.apply_gradients(zip((g[:2], g[None, 2:]), variables, strict=True))
    found = [v.numpy() for v in variables]
    state = {v.path.split("_")[-1]: v.numpy() for v in optimizer.variables}
    return np.concatenate([v.ravel() for v in found]), optimizer, state


@pytest.mark.parametrize("weight_decay", [0.0, 0.5])
def test_weight_decay_is_decoupled(weight_decay):
    """Every weight shrinks by learning rate times decay, whatever the gradient."""
    found, *_ = _run(np.zeros((1, 3), np.float32), weight_decay=weight_decay)
    start = np.array([1, -2, 0.5])
    np.testing.assert_allclose(found, start * (1 - 1e-3 * weight_decay), rtol=1e-6)


def test_a_clipped_step_is_a_step_with_the_scaled_gradients():
    norms = np.linalg.norm(_GRADIENTS, axis=1, keepdims=True)
    limit = float(np.median(norms))
    found, _, state = _run(_GRADIENTS, clip_norm=limit)
    expected, _, theirs = _run(_GRADIENTS * np.minimum(1, limit / norms))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    for name, value in state.items():
        np.testing.assert_allclose(value, theirs[name], rtol=1e-5, atol=1e-9)
    free, *_ = _run(_GRADIENTS)
    assert np.abs(found - free).max() > 1e-5


def test_accumulated_gradients_are_averaged_for_one_update():
    """The rest, here one batch, waits for more."""
    found, optimizer, state = _run(_GRADIENTS[:3], accumulation_steps=2)
    expected, *_ = _run(_GRADIENTS[:2].mean(axis=0, keepdims=True))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert (int(optimizer.variables[0]), int(optimizer.iterations)) == (3, 1)
    np.testing.assert_allclose(state["accumulator"], _GRADIENTS[2:3, 2:])
    found, *_ = _run(_GRADIENTS, accumulation_steps=2)
    expected, *_ = _run(_GRADIENTS.reshape(2, 2, 3).mean(axis=1))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    # The schedule counts batches: the second update is that of the fourth.
    rates = {"decay": "cosine", "learning_rate": 0.1, "warmup_steps": 8}
    _, optimizer, _ = _run(_GRADIENTS, accumulation_steps=2, **rates)
    assert float(optimizer.learning_rate) == pytest.approx(0.1 * 4 / 8)


def test_bad_gradients_of_every_batch_are_seen():
    gradients = _GRADIENTS[:1].copy()
    gradients[0, 2] = math.inf
    _, optimizer, _ = _run(gradients, accumulation_steps=2, clip_norm=1.0)
    assert not optimizer.finite
    _, optimizer, _ = _run(_GRADIENTS[:1], accumulation_steps=2)
    assert optimizer.finite
