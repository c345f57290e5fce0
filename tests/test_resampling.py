"""Speed and tilt against closed forms: sines, whose frequency, level and phase are known."""

import numpy as np
import pytest
import tensorflow as tf

from data_pipeline.cuts import cuts_of
from data_pipeline.resampling import nearest_lengths, resampled
from sccunet.config import AugmentConfig, Config, ModelConfig

_PATCH, _RATE = 8_192, 44_100


def _config(**augment):
    return Config(model=ModelConfig(patch_samples=_PATCH), augment=AugmentConfig(**augment))


def _sines(hertz, samples, margin=0):
    """Sines of phase 0.3 at sample `margin`, float32 [n, 1, samples]."""
    turns = np.asarray(hertz)[:, None] * (np.arange(samples) - margin) / _RATE
    return np.sin(2 * np.pi * turns + 0.3).astype(np.float32)[:, None]


def _db(error):
    return 20 * np.log10(np.abs(error).max(axis=(1, 2)) + 1e-9)


@pytest.mark.parametrize("speed", [0.1, 0.5])
def test_lengths_of_cuts(speed):
    """Every speed leaves margins on both sides of the crop, and the FFTs are fast."""
    cuts = cuts_of(_config(speed=speed))
    factors = cuts.lengths / cuts.played
    assert factors[0] >= 1 / (1 + speed)
    assert factors[-1] <= 1 + speed
    assert 1 in factors
    assert np.diff(np.log(factors)).max() < 0.02
    last = cuts.margin + (_PATCH - 1) * factors  # where the crop ends in the cut
    assert (last <= cuts.lengths - cuts.margin).all()
    assert cuts.samples == cuts.lengths[-1]
    for length in (*cuts.lengths, cuts.played):
        assert 2310**13 % int(length) == 0  # 2310 = 2 * 3 * 5 * 7 * 11
    np.testing.assert_array_equal(
        nearest_lengths(_config(speed=speed), tf.constant(factors, tf.float32)), cuts.lengths
    )


def test_off_means_cuts_of_the_crops_length():
    cuts = cuts_of(_config())
    assert (cuts.samples, cuts.margin, *cuts.lengths) == (_PATCH, 0, _PATCH)


@pytest.mark.parametrize(("hertz", "most"), [(40, -100), (1_000, -100), (15_000, -60)])
def test_a_sine_at_another_speed_is_a_sine(hertz, most):
    """Of the frequency times the speed, with the same level and the same phase at its start."""
    config = _config(speed=0.4)
    cuts = cuts_of(config)
    lengths = cuts.lengths[:: len(cuts.lengths) // 8]
    waveforms = np.repeat(_sines([hertz], cuts.samples, cuts.margin), len(lengths), axis=0)
    crops = resampled(config, tf.constant(waveforms), tf.constant(lengths))
    assert crops.shape == (len(lengths), 1, _PATCH)
    assert _db(crops - _sines(hertz * lengths / cuts.played, _PATCH)).max() < most


def test_nothing_is_mirrored_at_the_new_nyquist_frequency():
    config = _config(speed=0.4)
    cuts = cuts_of(config)
    waveforms = tf.constant(_sines([17_000, 21_000], cuts.samples))
    crops = resampled(config, waveforms, tf.constant(cuts.lengths[[-1, -1]]))  # 23.8, 29.4 kHz
    assert _db(crops).max() < -80


def test_speed_1_changes_nothing():
    config = _config(speed=0.1)
    cuts = cuts_of(config)
    noise = np.random.default_rng(0).uniform(-1, 1, (3, 2, cuts.samples)).astype(np.float32)
    crops = resampled(config, tf.constant(noise), tf.fill([3], cuts.played))
    np.testing.assert_allclose(crops, noise[:, :, cuts.margin :][:, :, :_PATCH], atol=1e-6)


def test_tilt_is_linear_in_octaves_and_level_beyond_four():
    config = _config(tilt_db=3.0)
    cuts = cuts_of(config)
    hertz = np.array([20.0, 125, 500, 1_000, 4_000, 16_000, 20_000])
    octaves = np.array([-4.0, -3, -1, 0, 2, 4, 4])
    slopes = np.array([2.5, -1, 3, 3, -2, 1, 2], np.float32)
    waveforms = tf.constant(_sines(hertz, cuts.samples, cuts.margin))
    crops = resampled(config, waveforms, tf.fill([7], cuts.played), tf.constant(slopes)).numpy()
    expected = 10 ** (slopes * octaves / 20)[:, None, None] * _sines(hertz, _PATCH)
    middle = np.s_[:, :, 1_000:-1_000]  # at low frequencies the filter is longer than the margins
    assert _db((crops - expected)[middle]).max() < -60


def test_tilt_is_that_of_the_crop_also_at_another_speed():
    """A sine of 2 kHz, played at 1.25 times its speed, is one octave and a third above 1 kHz."""
    config = _config(speed=0.3, tilt_db=6.0)
    cuts = cuts_of(config)
    (length,) = nearest_lengths(config, tf.constant([1.25])).numpy()
    waveforms = tf.constant(_sines([2_000], cuts.samples, cuts.margin))
    crops = resampled(config, waveforms, tf.constant([length]), tf.constant([6.0]))
    hertz = 2_000 * length / cuts.played
    gain = 10 ** (6 * np.log2(hertz / 1_000) / 20)
    assert _db((crops - gain * _sines([hertz], _PATCH))[:, :, 500:-500]) < -60
