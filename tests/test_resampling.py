"""Speed and tilt against closed forms: sines, whose frequency, level and phase are known."""

import numpy as np
import pytest

from data_pipeline.cuts import BLOCK, cuts_of
from data_pipeline.resampling import equalized, resampled, tilted
from sccunet.config import AugmentConfig, Config, ModelConfig

_PATCH, _RATE = 8_200, 44_100  # no whole number of blocks


def _config(**augment):
    return Config(model=ModelConfig(patch_samples=_PATCH), augment=AugmentConfig(**augment))


def _sines(hertz, samples=_PATCH, margin=0):
    """Sines of phase 0.3 at sample `margin`, float32 [n, 1, samples]."""
    turns = np.asarray(hertz)[:, None] * (np.arange(samples) - margin) / _RATE
    return np.sin(2 * np.pi * turns + 0.3).astype(np.float32)[:, None]


def _played(config, hertz, speeds):
    """Plays sines, each at its speed, from where the crop begins in the cut."""
    cuts = cuts_of(config)
    sines = _sines(hertz, cuts.samples, cuts.margin)
    return resampled(sines, np.float32(speeds), config)


def _db(error):
    return 20 * np.log10(np.abs(error).max() + 1e-9)


def test_cuts():
    """Every speed is within the bounds, and needs only samples that are read."""
    assert cuts_of(_config(tilt_db=1.0)).samples == _PATCH
    for speed in (0.003, 0.1, 0.9):
        cuts = cuts_of(_config(speed=speed))
        assert BLOCK in cuts.steps
        factors = np.array(cuts.steps) / BLOCK
        assert 1 / (1 + speed) <= factors[0] < 1 / (1 + speed) + 1 / BLOCK
        assert 1 + speed >= factors[-1] > 1 + speed - 1 / BLOCK
        last = cuts.margin + (_PATCH - 1) * factors[-1]  # where the crop ends in the cut
        assert last + cuts.margin + 1 < cuts.samples


@pytest.mark.parametrize("speed", [0.1, 0.4])
def test_a_sine_at_another_speed_is_a_sine(speed):
    """Of the frequency times the speed, with the same level, and the same phase at its start."""
    config = _config(speed=speed)
    factors = np.array(cuts_of(config).steps)[::5] / BLOCK
    for hertz in (40, 1_000, 15_000):
        kept = factors[hertz * factors < 18_000]
        crops = _played(config, np.full(len(kept), hertz), kept)
        assert crops.shape == (len(kept), 1, _PATCH)
        assert _db(crops - _sines(hertz * kept)) < -70


def test_nothing_is_mirrored_at_the_new_nyquist_frequency():
    """Played 1.25 times as fast, 18 and 21 kHz would be at 22.5 and 26.25."""
    assert _db(_played(_config(speed=0.25), [18_000, 21_000], [1.25, 1.25])) < -65


def test_speed_1_changes_nothing():
    config = _config(speed=0.1)
    cuts = cuts_of(config)
    noise = np.random.default_rng(0).uniform(-1, 1, (3, 2, cuts.samples)).astype(np.float32)
    crops = resampled(noise, np.float32([0.998, 1, 1.003]), config)  # the nearest is 1
    np.testing.assert_array_equal(crops, noise[:, :, cuts.margin :][:, :, :_PATCH])


def test_octaves_change_as_drawn_and_between_them_in_proportion():
    """On sines of whole periods, as below."""
    hertz = np.array([20, 62.5, 500, 1_000, 1_000 * 2**0.5, 16_000, 20_000])
    hertz = np.round(hertz * 2) / 2
    samples = 2 * _RATE
    bands = np.arange(-4, 5) ** 2.0 - 3
    octaves = np.log2(hertz / 1_000).clip(-4, 4)
    expected = np.interp(octaves, np.arange(-4, 5), bands)
    sines = _sines(hertz, samples)
    crops = equalized(sines, np.float32(bands)[None, None], _config())
    assert _db(crops - 10 ** (expected / 20)[:, None, None] * sines) < -90


def test_tilt_is_linear_in_octaves_and_level_beyond_four():
    """On sines of whole periods, which the ends of a crop do not disturb."""
    samples = _RATE // 5
    hertz = np.array([20, 125, 500, 1_000, 4_000, 16_000, 20_000])
    octaves = np.array([-4, -3, -1, 0, 2, 4, 4])
    slopes = np.array([2.5, -1, 3, 3, -2, 1, 2])
    sines = _sines(hertz, samples)
    crops = tilted(sines, np.float32(slopes)[:, None, None], _config())
    assert _db(crops - 10 ** (slopes * octaves / 20)[:, None, None] * sines) < -95
    constant = tilted(np.ones((1, 64), np.float32), np.float32([[3]]), _config())
    np.testing.assert_allclose(constant, 10 ** (-4 * 3 / 20), rtol=1e-5)
