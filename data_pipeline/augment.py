"""Changes to the waveforms of training crops, in the graph; `draws` draws how much.

Gain, silence, channel and swap are not here: the reader applies them while it converts samples,
which is faster. `crops` mixes stems across tracks and makes duets. All other augmentation belongs
in `waveforms`.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from data_pipeline import draws, resampling
from sccunet.config import Config

_MOST_BALANCE = 10.0  # 20 dB: what is hardly there must not become loud


def waveforms(crops: tf.Tensor, numbers: tf.Tensor, config: Config) -> tf.Tensor:
    """Augments training crops after they are read.

    Each augmentation is a function in this module with these arguments, and is called here if its
    field of `config.augment` is on. How it draws is a function in `draws`.

    Args:
      crops: the stems' waveforms, float32 [batch, stems, channels, samples], with as many samples
        as `cuts.cuts_of(config)` says.
      numbers: numbers of the crops in the run, int64 [batch].
      config: the run's config.

    Returns:
      float32 [batch, stems, channels, patch_samples]; `crops` itself if nothing is on.
    """
    if config.augment.speed:
        crops = resampled(crops, numbers, config)
    if config.augment.tilt_db:
        crops = tilted(crops, numbers, config)
    if config.augment.equalizer_db:
        crops = equalized(crops, numbers, config)
    if config.augment.balance_db:
        crops = balanced(crops, numbers, config)
    return crops


def _drawn(
    draw: Callable[[Config, np.ndarray], np.ndarray],
    numbers: tf.Tensor,
    config: Config,
    *shape: int,
) -> tf.Tensor:
    """Calls a function of `draws`, which returns float32 [batch, *shape]."""

    def drawn(numbers):
        return draw(config, numbers).astype(np.float32)

    found = tf.numpy_function(drawn, [numbers], tf.float32)
    return tf.ensure_shape(found, [*numbers.shape, *shape])


def resampled(crops: tf.Tensor, numbers: tf.Tensor, config: Config) -> tf.Tensor:
    """Plays each stem at a speed that `draws.speeds` draws; arguments as for `waveforms`."""
    batch, stems, channels, samples = crops.shape
    speeds = _drawn(draws.speeds, numbers, config, stems)
    # [batch, stems, ...] -> [batch * stems, ...] and back
    rows = tf.reshape(crops, [-1, channels, samples])
    played = resampling.resampled(rows, tf.reshape(speeds, [-1]), config)
    return tf.reshape(played, [batch, stems, channels, config.model.patch_samples])


def tilted(crops: tf.Tensor, numbers: tf.Tensor, config: Config) -> tf.Tensor:
    """Tilts each stem's spectrum as `draws.tilts` draws; arguments as for `waveforms`."""
    slopes = _drawn(draws.tilts, numbers, config, crops.shape[1])
    return resampling.tilted(crops, slopes[:, :, None, None], config)


def equalized(crops: tf.Tensor, numbers: tf.Tensor, config: Config) -> tf.Tensor:
    """Changes each stem's octaves as `draws.bands` draws; arguments as for `waveforms`."""
    levels = _drawn(draws.bands, numbers, config, crops.shape[1], draws.BANDS)
    return resampling.equalized(crops, levels[:, :, None, :], config)


def balanced(crops: tf.Tensor, numbers: tf.Tensor, config: Config) -> tf.Tensor:
    """Changes the first stem's level as `draws.balances` draws; arguments as for `waveforms`.

    The level of the others is the sum of their powers. A crop that is not mixed, or in which one
    of both is silent, stays as it is.
    """
    power = tf.reduce_mean(crops**2, axis=[2, 3])  # [batch, stems]
    lead, others = power[:, 0], tf.reduce_sum(power[:, 1:], axis=1)
    decibels = _drawn(draws.balances, numbers, config)
    mixed = _drawn(draws.is_mixed, numbers, config) > 0
    change = tf.sqrt(tf.math.divide_no_nan(others, lead) * 10 ** (decibels / 10))
    change = tf.clip_by_value(change, 1 / _MOST_BALANCE, _MOST_BALANCE)
    change = tf.where(mixed & (lead > 0) & (others > 0), change, 1.0)
    first = crops[:, :1] * change[:, None, None, None]
    return tf.concat([first, crops[:, 1:]], axis=1)
