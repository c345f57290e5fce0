"""Random draws of augmentation, each a pure function of the seed and a crop's number."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from data_pipeline import augment
from data_pipeline.cuts import cuts_of
from sccunet.config import AugmentConfig, Config, ModelConfig

_CROPS = 2_000
_STEMS = ("vocals", "drums", "bass")


def _drawn(draw):
    """Draws for crops 0, 1, ...: [crops, stems]."""

    @tf.function
    def all_draws():
        crops = tf.range(_CROPS, dtype=tf.int64)
        return tf.map_fn(draw, crops, fn_output_signature=tf.float32, parallel_iterations=1)

    return all_draws().numpy()


def _config(**augmented):
    return Config(model=ModelConfig(stems=_STEMS), augment=AugmentConfig(**augmented), seed=3)


@pytest.mark.parametrize("chances", [(0.5, 0.8, 0.9), (0.0, 1.0, 0.3), (1.0, 1.0, 1.0)])
def test_never_all_stems_are_silent(chances):
    config = _config(stem_dropout=chances)
    gains = _drawn(
        lambda crop: augment.sounding(chances, augment.seed(config, crop, augment.DROPOUT))
    )
    assert np.isin(gains, (0, 1)).all()
    assert gains.any(axis=1).all()
    expected = np.array(chances) - np.prod(chances)  # all sound if none would
    deviation = np.sqrt(expected * (1 - expected) / _CROPS)
    np.testing.assert_array_less(np.abs((gains == 0).mean(axis=0) - expected), 4 * deviation + 1e-9)


def _check_uniform(draws, most):
    """Checks that draws are uniform from -most to most, by bounds and shares of ten intervals."""
    assert np.abs(draws).max() <= most * 1.000001
    shares = np.histogram(draws, 10, (-most, most))[0] / draws.size
    np.testing.assert_allclose(shares, 0.1, atol=0.03)


def test_speeds_are_uniform_in_their_logarithm_and_alike_unless_mixed():
    for mixed in (0.0, 0.4):
        config = _config(speed=0.2, mix_tracks=mixed)
        speeds = np.log(_drawn(functools.partial(augment.speeds, config)))
        _check_uniform(speeds, np.log(1.2))
        is_mixed = _drawn(lambda crop, c=config: tf.cast(augment.is_mixed(c, crop), tf.float32))
        differ = np.ptp(speeds, axis=1) > 0
        np.testing.assert_array_equal(differ, is_mixed == 1)
        assert abs(differ.mean() - mixed) < 0.05


def test_tilts_octaves_and_balances_are_uniform_and_each_stems_own():
    config = _config(tilt_db=1.5, equalizer_db=3.0, balance_db=(-9.0, 8.0), mix_tracks=1.0)

    def all_of(crop):
        octaves = tf.reshape(augment.bands(config, crop), [-1])
        return tf.concat(
            [augment.tilts(config, crop), octaves, [augment.balances(config, crop)]], 0
        )

    draws = _drawn(all_of)
    _check_uniform(draws[:, :3], 1.5)
    _check_uniform(draws[:, 3:-1], 3.0)
    _check_uniform(draws[:, -1] + 0.5, 8.5)
    np.testing.assert_allclose(np.corrcoef(draws.T), np.eye(3 + 27 + 1), atol=0.12)


def test_the_first_stem_has_the_drawn_level_against_the_others():
    model = ModelConfig(stems=_STEMS, patch_samples=8_192)
    config = Config(
        model=model, augment=AugmentConfig(balance_db=(-9.0, 8.0), mix_tracks=0.5), seed=3
    )
    numbers = tf.range(8, dtype=tf.int64)
    mixed = np.array([augment.is_mixed(config, n) for n in numbers])
    assert 0 < mixed[3:].sum() < 5
    crops = np.random.default_rng(0).uniform(-1, 1, (8, 3, 2, 8_192)).astype(np.float32)
    crops[0, 0], crops[1, 1:], crops[2, 0] = 0, 0, crops[2, 0] / 10**4
    found = augment.waveforms(tf.constant(crops), numbers, config).numpy()
    np.testing.assert_array_equal(found[:, 1:], crops[:, 1:])
    np.testing.assert_array_equal(found[:2], crops[:2])
    power = np.mean(found.astype(np.float64) ** 2, axis=(2, 3))
    levels = 10 * np.log10(power[3:, 0] / power[3:, 1:].sum(axis=1))
    drawn = np.array([augment.balances(config, n) for n in numbers[3:]])
    np.testing.assert_allclose(levels[mixed[3:]], drawn[mixed[3:]], atol=1e-3)
    np.testing.assert_array_equal(found[3:][~mixed[3:]], crops[3:][~mixed[3:]])
    np.testing.assert_allclose(found[2, 0], crops[2, 0] * (10 if mixed[2] else 1), rtol=1e-5)


def test_waveforms_depend_on_the_crops_number_alone():
    """Not on the batch; both channels of a stem are changed alike, also by tilt without speed."""
    model = ModelConfig(stems=_STEMS, patch_samples=8_192)
    mixed = {"mix_tracks": 1.0}
    for changes in (
        {"speed": 0.1, **mixed},
        {"tilt_db": 3.0},
        {"equalizer_db": 3.0},
        {"balance_db": (-9.0, 8.0), **mixed},
    ):
        config = Config(model=model, augment=AugmentConfig(**changes))
        samples = cuts_of(config).samples
        mono = np.random.default_rng(0).uniform(-1, 1, (3, 3, 1, samples)).astype(np.float32)
        crops = tf.constant(np.concatenate([mono, -mono / 2], axis=2))
        numbers = tf.constant([5, 2**40, 7], tf.int64)
        whole = augment.waveforms(crops, numbers, config).numpy()
        assert whole.shape == (3, 3, 2, 8_192)
        np.testing.assert_allclose(whole[:, :, 1], whole[:, :, 0] / -2, atol=1e-6)
        part = augment.waveforms(crops[2:], numbers[2:], config).numpy()
        # Exponentials are rounded otherwise at the end of a batch.
        np.testing.assert_allclose(part[0], whole[2], rtol=0, atol=1e-6)
        other = augment.waveforms(crops[2:], numbers[:1], config).numpy()
        assert np.abs(other[0] - whole[2]).max() > 0.01


def test_crops_stay_as_they_are_if_nothing_is_on():
    config = _config(stem_dropout=(0.5, 0.5, 0.5), gain_db=6.0)  # the reader's
    crops = tf.ones([1, 3, 1, config.model.patch_samples])
    assert augment.waveforms(crops, tf.zeros([1], tf.int64), config) is crops
