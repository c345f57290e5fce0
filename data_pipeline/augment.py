"""Augmentation of training crops, in graph. Stems are mixed across tracks in `dataset`."""

import tensorflow as tf


def gain(waveforms: tf.Tensor, most_db: float, seed: tf.Tensor) -> tf.Tensor:
    """Changes each stem's level by a random number of dB between -most_db and +most_db.

    Args:
      waveforms: float32 [stems, ..., samples].
      most_db: 0 changes nothing.
      seed: int64 [2], of stateless random ops.
    """
    if not most_db:
        return waveforms
    shape = [waveforms.shape[0]] + [1] * (waveforms.shape.rank - 1)
    level = tf.random.stateless_uniform(shape, seed, -most_db, most_db)
    return waveforms * 10 ** (level / 20)


def one_channel(
    audio: tf.Tensor, seed: tf.Tensor, swap_seed: tf.Tensor | None, stem: int
) -> tf.Tensor:
    """A random channel of a stem; the same one for all stems of a crop unless they are swapped.

    Args:
      audio: float32 [samples, channels].
      seed: int64 [2], the crop's: it draws the channel.
      swap_seed: int64 [2]; this stem's channels change places in half of the crops. None: never.
      stem: index of the stem, so that each draws its own swap.

    Returns:
      float32 [samples].
    """
    channels = tf.shape(audio)[1]
    draw = tf.random.stateless_uniform([], seed)
    channel = tf.minimum(tf.cast(draw * tf.cast(channels, tf.float32), tf.int32), channels - 1)
    if swap_seed is not None:
        channel = tf.where(_swapped(swap_seed, stem), channels - 1 - channel, channel)
    return audio[:, channel]


def two_channels(audio: tf.Tensor, swap_seed: tf.Tensor | None, stem: int) -> tf.Tensor:
    """Left and right of a stem; a mono file's channel twice, of more than two the first two.

    Args:
      audio: float32 [samples, channels].
      swap_seed: as for `one_channel`, like `stem`.

    Returns:
      float32 [2, samples].
    """
    channels = tf.transpose(audio[:, :2])
    channels = tf.broadcast_to(channels, [2, tf.shape(audio)[0]])
    if swap_seed is not None:
        channels = tf.where(_swapped(swap_seed, stem), channels[::-1], channels)
    return channels


def _swapped(swap_seed: tf.Tensor, stem: int) -> tf.Tensor:
    swap_seed = tf.random.experimental.stateless_fold_in(swap_seed, stem)
    return tf.random.stateless_uniform([], swap_seed) < 0.5
