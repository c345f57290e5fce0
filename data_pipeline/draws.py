"""Random draws of training crops, by NumPy: each a pure function of the run's seed and the crop.

Functions take the config and the numbers of crops in the run, int64 [n]. `places` draws where the
crops are cut, this module the rest.
"""

import math

import numpy as np

from data_pipeline import philox
from sccunet.config import Config

MEAN = -1  # in place of a channel's index: the mean of all
BANDS = 9  # of the equalizer: octaves from 62.5 Hz to 16 kHz

# Purposes of a crop's random numbers. Each has its own seed, so that switching on one kind of
# augmentation does not change the draws of the others. At most 16; add new ones at the end.
PLACE, CHANNEL, MIX_WHETHER, MIX_SLOT, MIX_PLACE, GAIN, SWAP, DROPOUT, TILT, SPEED = range(10)
DIRECTORY, SILENT, EQUALIZER, BALANCE, DUET = range(10, 15)


def seeds(config: Config, numbers: np.ndarray, purpose: int) -> np.ndarray:
    """Returns a seed for each crop, int64 [n, 2], for `philox`; `purpose` is one of the above."""
    first = np.full(len(numbers), config.seed * 16 + purpose, np.int64)
    return np.stack([first, numbers], axis=1)


def speeds(config: Config, numbers: np.ndarray) -> np.ndarray:
    """Draws how fast stems are played: uniform in their logarithm.

    All stems of a crop have the same speed, unless they are mixed across tracks.

    Returns:
      Factors up to 1 + `config.augment.speed`, float32 [n, stems].
    """
    most = math.log1p(config.augment.speed)
    own = seeds(config, numbers, SPEED)
    draws = philox.uniform(own, len(config.model.stems), -most, most)
    return np.exp(np.where(is_mixed(config, numbers)[:, None], draws, draws[:, :1]))


def tilts(config: Config, numbers: np.ndarray) -> np.ndarray:
    """Draws the tilt of each stem's spectrum, uniform up to `config.augment.tilt_db`.

    Returns:
      Slopes in dB per octave, float32 [n, stems].
    """
    most = config.augment.tilt_db
    return philox.uniform(seeds(config, numbers, TILT), len(config.model.stems), -most, most)


def bands(config: Config, numbers: np.ndarray) -> np.ndarray:
    """Draws the level of each stem's octaves, uniform up to `config.augment.equalizer_db`.

    Returns:
      dB, float32 [n, stems, BANDS].
    """
    most, stems = config.augment.equalizer_db, len(config.model.stems)
    draws = philox.uniform(seeds(config, numbers, EQUALIZER), stems * BANDS, -most, most)
    return draws.reshape(-1, stems, BANDS)


def balances(config: Config, numbers: np.ndarray) -> np.ndarray:
    """Draws the first stem's level against the others, uniform within `augment.balance_db`.

    Returns:
      dB, float32 [n].
    """
    return philox.uniform(seeds(config, numbers, BALANCE), 1, *config.augment.balance_db)[:, 0]


def is_duet(config: Config, numbers: np.ndarray) -> np.ndarray:
    """Draws whether the crops' first stem is the sum of two, bool [n]."""
    draws = philox.uniform(seeds(config, numbers, DUET), 1)[:, 0]
    return is_mixed(config, numbers) & (draws < np.float32(config.augment.duet))


def is_mixed(config: Config, numbers: np.ndarray) -> np.ndarray:
    """Draws whether the crops' stems are mixed across tracks, bool [n]."""
    draws = philox.uniform(seeds(config, numbers, MIX_WHETHER), 1)[:, 0]
    return draws < np.float32(config.augment.mix_tracks)


def gains(config: Config, numbers: np.ndarray) -> np.ndarray:
    """Draws factors that change each stem's level, up or down by `augment.gain_db` at most.

    Returns:
      float32 [n, stems].
    """
    stems, most = len(config.model.stems), config.augment.gain_db
    if not most:
        return np.ones((len(numbers), stems), np.float32)
    draws = philox.uniform(seeds(config, numbers, GAIN), stems, -most, most)
    return np.float32(10) ** (draws / np.float32(20))


def sounding(config: Config, numbers: np.ndarray) -> np.ndarray:
    """Draws which stems of a crop sound; if all would be silent, all sound.

    So stem i is silent with probability `augment.stem_dropout[i]` less the product of all.

    Returns:
      Gains, 0 or 1, float32 [n, stems].
    """
    stems, chances = len(config.model.stems), config.augment.stem_dropout
    if not chances:
        return np.ones((len(numbers), stems), np.float32)
    sounds = philox.uniform(seeds(config, numbers, DROPOUT), stems) >= np.float32(chances)
    return (sounds | ~sounds.any(axis=1, keepdims=True)).astype(np.float32)


def swapped(config: Config, numbers: np.ndarray) -> np.ndarray:
    """Draws whether each stem's left and right are swapped, bool [n, stems]."""
    stems = range(len(config.model.stems))
    if not config.augment.channel_swap:
        return np.zeros((len(numbers), len(stems)), bool)
    own = seeds(config, numbers, SWAP)
    draws = [philox.uniform(philox.folded(own, stem), 1) for stem in stems]
    return np.concatenate(draws, axis=1) < 0.5


def one_channel(
    config: Config, numbers: np.ndarray, channels: np.ndarray, swapped: np.ndarray
) -> np.ndarray:
    """Draws a channel for each stem: the same for all stems of a crop, unless swapped.

    Args:
      config, numbers: as everywhere here.
      channels: number of channels in each stem's file, int32 [n, stems].
      swapped: from `swapped`, bool [n, stems].

    Returns:
      int32 [n, stems, 1].
    """
    draws = philox.uniform(seeds(config, numbers, CHANNEL), 1)
    channel = np.minimum((draws * channels.astype(np.float32)).astype(np.int32), channels - 1)
    return np.where(swapped, channels - 1 - channel, channel)[..., None]


def two_channels(channels: np.ndarray, swapped: np.ndarray) -> np.ndarray:
    """Chooses left and right of each stem: a mono channel twice, or the first two of more.

    Returns:
      int32 [n, stems, 2]; the arguments are those of `one_channel`.
    """
    right = np.minimum(channels, 2) - 1
    chosen = np.stack([np.zeros_like(right), right], axis=-1)
    return np.where(swapped[..., None], chosen[..., ::-1], chosen)
