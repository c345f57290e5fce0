"""Random draws of crops, each a pure function of the seed and a crop's number."""

import numpy as np
import pytest

from data_pipeline import draws
from sccunet.config import AugmentConfig, Config, ModelConfig

_NUMBERS = np.arange(2_000)


def _config(**augmented):
    model = ModelConfig(stems=("vocals", "drums", "bass"))
    return Config(model=model, augment=AugmentConfig(**augmented), downmix=False, seed=3)


@pytest.mark.parametrize("chances", [(0.5, 0.8, 0.9), (0.0, 1.0, 0.3), (1.0, 1.0, 1.0)])
def test_never_all_stems_are_silent(chances):
    gains = draws.sounding(_config(stem_dropout=chances), _NUMBERS)
    assert np.isin(gains, (0, 1)).all()
    assert gains.any(axis=1).all()
    expected = np.array(chances) - np.prod(chances)  # all sound if none would
    deviation = np.sqrt(expected * (1 - expected) / len(gains))
    np.testing.assert_array_less(np.abs((gains == 0).mean(axis=0) - expected), 4 * deviation + 1e-9)


def _check_uniform(found, most):
    """Checks that draws are uniform from -most to most, by bounds and shares of ten intervals."""
    assert np.abs(found).max() <= most * 1.000001
    shares = np.histogram(found, 10, (-most, most))[0] / found.size
    np.testing.assert_allclose(shares, 0.1, atol=0.03)


def test_speeds_are_uniform_in_their_logarithm_and_alike_unless_mixed():
    for mixed in (0.0, 0.4):
        config = _config(speed=0.2, mix_tracks=mixed)
        speeds = np.log(draws.speeds(config, _NUMBERS))
        _check_uniform(speeds, np.log(1.2))
        differ = np.ptp(speeds, axis=1) > 0
        np.testing.assert_array_equal(differ, draws.is_mixed(config, _NUMBERS))
        assert abs(differ.mean() - mixed) < 0.05


def test_tilts_octaves_and_balances_are_uniform_and_each_stems_own():
    config = _config(tilt_db=1.5, equalizer_db=3.0, balance_db=(-9.0, 8.0), mix_tracks=1.0)
    octaves = draws.bands(config, _NUMBERS).reshape(len(_NUMBERS), -1)
    tilts, balances = (draw(config, _NUMBERS) for draw in (draws.tilts, draws.balances))
    _check_uniform(tilts, 1.5)
    _check_uniform(octaves, 3.0)
    _check_uniform(balances + 0.5, 8.5)
    every = np.column_stack([tilts, octaves, balances])
    np.testing.assert_allclose(np.corrcoef(every.T), np.eye(3 + 27 + 1), atol=0.12)


def test_draws_depend_on_the_crops_number_alone():
    config = _config(gain_db=3.0, channel_swap=True, speed=0.1, mix_tracks=0.5)
    numbers = np.array([5, 2**40, -8, 7])
    for draw in (draws.gains, draws.swapped, draws.speeds, draws.is_mixed):
        every = draw(config, numbers)
        np.testing.assert_array_equal(draw(config, numbers[2:]), every[2:])
    assert len(np.unique(draws.gains(config, numbers))) == 12
