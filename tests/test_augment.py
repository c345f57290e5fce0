"""Changes to the waveforms of crops, each a pure function of the seed and a crop's number."""

import numpy as np

from data_pipeline import augment, draws
from data_pipeline.cuts import cuts_of
from sccunet.config import AugmentConfig, Config, ModelConfig

_STEMS = ("vocals", "drums", "bass")


def _config(**augmented):
    return Config(model=ModelConfig(stems=_STEMS), augment=AugmentConfig(**augmented), seed=3)


def test_the_first_stem_has_the_drawn_level_against_the_others():
    model = ModelConfig(stems=_STEMS, patch_samples=8_192)
    config = Config(
        model=model, augment=AugmentConfig(balance_db=(-9.0, 8.0), mix_tracks=0.5), seed=3
    )
    numbers = np.arange(8)
    mixed = draws.is_mixed(config, numbers)
    assert 0 < mixed[3:].sum() < 5
    crops = np.random.default_rng(0).uniform(-1, 1, (8, 3, 2, 8_192)).astype(np.float32)
    crops[0, 0], crops[1, 1:], crops[2, 0] = 0, 0, crops[2, 0] / 10**4
    found = augment.waveforms(crops, numbers, config)
    np.testing.assert_array_equal(found[:, 1:], crops[:, 1:])
    np.testing.assert_array_equal(found[:2], crops[:2])
    power = np.mean(found.astype(np.float64) ** 2, axis=(2, 3))
    levels = 10 * np.log10(power[3:, 0] / power[3:, 1:].sum(axis=1))
    drawn = draws.balances(config, numbers[3:])
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
        crops = np.concatenate([mono, -mono / 2], axis=2)
        numbers = np.array([5, 2**40, 7])
        whole = augment.waveforms(crops, numbers, config)
        assert whole.shape == (3, 3, 2, 8_192)
        np.testing.assert_allclose(whole[:, :, 1], whole[:, :, 0] / -2, atol=1e-6)
        part = augment.waveforms(crops[2:], numbers[2:], config)
        # Exponentials are rounded otherwise at the end of a batch.
        np.testing.assert_allclose(part[0], whole[2], rtol=0, atol=1e-6)
        other = augment.waveforms(crops[2:], numbers[:1], config)
        assert np.abs(other[0] - whole[2]).max() > 0.01


def test_crops_stay_as_they_are_if_nothing_is_on():
    config = _config(stem_dropout=(0.5, 0.5, 0.5), gain_db=6.0)  # the reader's
    assert not augment.changes(config)
    crops = np.ones((1, 3, 1, config.model.patch_samples), np.float32)
    assert augment.waveforms(crops, np.zeros(1, int), config) is crops
