"""Random numbers by NumPy: bit for bit those of TensorFlow, with which crops have been drawn."""

import numpy as np
import pytest
import tensorflow as tf

from data_pipeline import philox

_RNG = np.random.default_rng(0)
_SEEDS = np.stack([_RNG.integers(0, 2**36, 9), _RNG.integers(-(2**50), 2**50, 9)], axis=1)


def test_draws_are_those_of_tensorflow():
    for found, draw in (
        (philox.uniform(_SEEDS, 7, -3, 5), lambda s: tf.random.stateless_uniform([7], s, -3, 5.0)),
        (
            philox.uniform_double(_SEEDS, 3),
            lambda s: tf.random.stateless_uniform([3], s, dtype=tf.float64),
        ),
        (
            philox.whole(_SEEDS, 3),
            lambda s: tf.random.stateless_uniform([3], s, None, None, tf.uint64),
        ),
        (philox.folded(_SEEDS, 6), lambda s: tf.random.experimental.stateless_fold_in(s, 6)),
    ):
        np.testing.assert_array_equal(found, [draw(seed) for seed in _SEEDS])


@pytest.mark.parametrize("count", [1, 2, 3, 60, 5_000, 65_536, 65_537, 65_538, 300_000])
def test_permutations_are_those_of_tensorflow(count):
    index = np.unique(np.r_[0, count - 1, _RNG.integers(0, count, 50)])
    for seed, number in ((0, 0), (2**32 - 1, 70_000), (5, -3)):
        shuffled = tf.random.experimental.index_shuffle(
            tf.constant(index),
            tf.constant([seed, number], tf.int64),
            tf.constant(count - 1, tf.int64),
        )
        order = philox.permutation(seed, number, count)
        np.testing.assert_array_equal(order[index], shuffled)
        assert len(np.unique(order)) == count or count == 65_537  # TensorFlow's is none there
