"""Changes to the waveforms of training crops, by NumPy; `draws` draws how much.

Gain, silence, channel and swap are not here: the reader applies them while it converts samples,
which is faster. `crops` mixes stems across tracks and makes duets. All other augmentation belongs
in `waveforms`.
"""

import numpy as np

from data_pipeline import draws, resampling
from sccunet.config import Config

_MOST_BALANCE = 10.0  # 20 dB: what is hardly there must not become loud


def changes(config: Config) -> bool:
    """Whether `waveforms` changes crops at all."""
    return any(getattr(config.augment, field) for field in _CHANGES)


def waveforms(crops: np.ndarray, numbers: np.ndarray, config: Config) -> np.ndarray:
    """Augments training crops after they are read.

    Each augmentation is a function in this module with these arguments, in `_CHANGES` under its
    field of `config.augment`. How it draws is a function in `draws`.

    Args:
      crops: the stems' waveforms, float32 [batch, stems, channels, samples], with as many samples
        as `cuts.cuts_of(config)` says.
      numbers: numbers of the crops in the run, int64 [batch].
      config: the run's config.

    Returns:
      float32 [batch, stems, channels, patch_samples]; `crops` itself if nothing is on.
    """
    for field, change in _CHANGES.items():
        if getattr(config.augment, field):
            crops = change(crops, numbers, config)
    return crops


def resampled(crops: np.ndarray, numbers: np.ndarray, config: Config) -> np.ndarray:
    """Plays each stem at a speed that `draws.speeds` draws; arguments as for `waveforms`."""
    batch, stems, channels, samples = crops.shape
    speeds = draws.speeds(config, numbers)
    # [batch, stems, ...] -> [batch * stems, ...] and back
    rows = crops.reshape(-1, channels, samples)
    played = resampling.resampled(rows, speeds.ravel(), config)
    return played.reshape(batch, stems, channels, -1)


def tilted(crops: np.ndarray, numbers: np.ndarray, config: Config) -> np.ndarray:
    """Tilts each stem's spectrum as `draws.tilts` draws; arguments as for `waveforms`."""
    slopes = draws.tilts(config, numbers)
    return resampling.tilted(crops, slopes[:, :, None, None], config)


def equalized(crops: np.ndarray, numbers: np.ndarray, config: Config) -> np.ndarray:
    """Changes each stem's octaves as `draws.bands` draws; arguments as for `waveforms`."""
    levels = draws.bands(config, numbers)
    return resampling.equalized(crops, levels[:, :, None, :], config)


def balanced(crops: np.ndarray, numbers: np.ndarray, config: Config) -> np.ndarray:
    """Changes the first stem's level as `draws.balances` draws; arguments as for `waveforms`.

    The level of the others is the sum of their powers. A crop that is not mixed, or in which one
    of both is silent, stays as it is.
    """
    power = np.mean(crops**2, axis=(2, 3))  # [batch, stems]
    lead, others = power[:, 0], power[:, 1:].sum(axis=1)
    changed = draws.is_mixed(config, numbers) & (lead > 0) & (others > 0)
    ratio = np.divide(others, lead, out=np.ones_like(lead), where=changed)
    change = np.sqrt(ratio * 10 ** (draws.balances(config, numbers) / 10))
    change = np.where(changed, change.clip(1 / _MOST_BALANCE, _MOST_BALANCE), 1)
    first = crops[:, :1] * change[:, None, None, None].astype(np.float32)
    return np.concatenate([first, crops[:, 1:]], axis=1)


# In their order.
_CHANGES = {
    "speed": resampled,
    "tilt_db": tilted,
    "equalizer_db": equalized,
    "balance_db": balanced,
}
