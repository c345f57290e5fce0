"""Augmentation of training crops, in graph: every random draw, and what is done to waveforms.

Gain, channel and swap are drawn here and applied by the reader while it converts samples, which is
faster; `dataset` mixes stems across tracks. `waveforms` is the place of everything else.
"""

import tensorflow as tf

from sccunet.config import Config

MEAN = -1  # in place of a channel's index: the mean of all

# Purposes of a crop's random numbers; each has its own seed, so that switching one kind of
# augmentation on leaves the others' draws as they were. At most 16; new ones at the end.
PLACE, CHANNEL, MIX_WHETHER, MIX_SLOT, MIX_PLACE, GAIN, SWAP = range(7)


def seed(config: Config, crop: tf.Tensor, purpose: int) -> tf.Tensor:
    """Seed of stateless random ops.

    Args:
      config: gives the run's seed.
      crop: number of the crop in the run, int64 [].
      purpose: of the draw, one of the above.

    Returns:
      int64 [2].
    """
    return tf.stack([tf.constant(config.seed * 16 + purpose, tf.int64), tf.cast(crop, tf.int64)])


def waveforms(crops: tf.Tensor, numbers: tf.Tensor, config: Config) -> tf.Tensor:
    """What is done to training crops after they are read.

    Each augmentation is a function of these arguments in this module, which is called here if its
    field of `config.augment` is on. It draws for each crop by `seed(config, number, purpose)`.

    Args:
      crops: the stems' waveforms, float32 [batch, stems, samples], or [batch, stems, 2, samples].
      numbers: of the crops in the run, int64 [batch].
      config: the run's.

    Returns:
      Of the same shape.
    """
    return crops  # so far the reader does it all


def gains(stems: int, most_db: float, seed: tf.Tensor) -> tf.Tensor:
    """Factors that change each stem's level by a random number of dB up to most_db, up or down.

    Args:
      stems: how many.
      most_db: 0 changes nothing.
      seed: int64 [2], of stateless random ops.

    Returns:
      float32 [stems].
    """
    if not most_db:
        return tf.ones([stems])
    return 10 ** (tf.random.stateless_uniform([stems], seed, -most_db, most_db) / 20)


def one_channel(
    channels: tf.Tensor, seed: tf.Tensor, swap_seed: tf.Tensor | None = None
) -> tf.Tensor:
    """A random channel for each stem; the same one for all stems of a crop unless swapped.

    Args:
      channels: int32 [stems], how many each stem's file has.
      seed: int64 [2], the crop's: it draws the channel.
      swap_seed: int64 [2]; each stem's channels change places in half of the crops. None: never.

    Returns:
      int32 [stems, 1].
    """
    draw = tf.random.stateless_uniform([], seed)
    channel = tf.minimum(tf.cast(draw * tf.cast(channels, tf.float32), tf.int32), channels - 1)
    if swap_seed is not None:
        channel = tf.where(_swapped(channels, swap_seed), channels - 1 - channel, channel)
    return channel[:, None]


def two_channels(channels: tf.Tensor, swap_seed: tf.Tensor | None = None) -> tf.Tensor:
    """Left and right of each stem; a mono file's channel twice, of more than two the first two.

    Args:
      channels: int32 [stems], as for `one_channel`.
      swap_seed: as for `one_channel`.

    Returns:
      int32 [stems, 2].
    """
    right = tf.minimum(channels, 2) - 1
    chosen = tf.stack([tf.zeros_like(right), right], axis=1)
    if swap_seed is not None:
        chosen = tf.where(_swapped(channels, swap_seed)[:, None], chosen[:, ::-1], chosen)
    return chosen


def _swapped(channels: tf.Tensor, swap_seed: tf.Tensor) -> tf.Tensor:
    """Whether each stem's left and right change places, bool [stems]."""
    return tf.stack(
        [
            tf.random.stateless_uniform(
                [], tf.random.experimental.stateless_fold_in(swap_seed, stem)
            )
            < 0.5
            for stem in range(channels.shape[0])
        ]
    )
