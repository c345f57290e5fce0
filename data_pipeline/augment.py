"""Augmentation of training crops in the graph: all random draws, and changes to waveforms.

Gain, silence, channel and swap are drawn here; the reader applies them while it converts samples,
which is faster. `dataset` mixes stems across tracks and makes duets. All other augmentation belongs
in `waveforms`.
"""

import math
from collections.abc import Sequence

import tensorflow as tf

from data_pipeline import resampling
from sccunet.config import Config

MEAN = -1  # in place of a channel's index: the mean of all

# Purposes of a crop's random numbers. Each has its own seed, so that switching on one kind of
# augmentation does not change the draws of the others. At most 16; add new ones at the end.
PLACE, CHANNEL, MIX_WHETHER, MIX_SLOT, MIX_PLACE, GAIN, SWAP, DROPOUT, TILT, SPEED = range(10)
DIRECTORY, SILENT, EQUALIZER, BALANCE, DUET = range(10, 15)

_MOST_BALANCE = 10.0  # 20 dB: what is hardly there must not become loud


def seed(config: Config, crop: tf.Tensor, purpose: int) -> tf.Tensor:
    """Returns a seed for stateless random ops.

    Args:
      config: gives the run's seed.
      crop: number of the crop in the run, int64 [].
      purpose: purpose of the draw, one of the above.

    Returns:
      int64 [2].
    """
    return tf.stack([tf.constant(config.seed * 16 + purpose, tf.int64), tf.cast(crop, tf.int64)])


def waveforms(crops: tf.Tensor, numbers: tf.Tensor, config: Config) -> tf.Tensor:
    """Augments training crops after they are read.

    Each augmentation is a function in this module with these arguments, and is called here if its
    field of `config.augment` is on. It draws for each crop with `seed(config, number, purpose)`.

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


def resampled(crops: tf.Tensor, numbers: tf.Tensor, config: Config) -> tf.Tensor:
    """Plays each stem at a speed that `speeds` draws; arguments as for `waveforms`."""
    batch, stems, channels, samples = crops.shape
    drawn = tf.map_fn(
        lambda n: speeds(config, n), numbers, fn_output_signature=tf.TensorSpec([stems])
    )
    # [batch, stems, ...] -> [batch * stems, ...] and back
    rows = tf.reshape(crops, [-1, channels, samples])
    played = resampling.resampled(rows, tf.reshape(drawn, [-1]), config)
    return tf.reshape(played, [batch, stems, channels, config.model.patch_samples])


def tilted(crops: tf.Tensor, numbers: tf.Tensor, config: Config) -> tf.Tensor:
    """Tilts each stem's spectrum as `tilts` draws; arguments as for `waveforms`."""
    drawn = tf.map_fn(
        lambda n: tilts(config, n), numbers, fn_output_signature=tf.TensorSpec([crops.shape[1]])
    )
    return resampling.tilted(crops, drawn[:, :, None, None], config)


def equalized(crops: tf.Tensor, numbers: tf.Tensor, config: Config) -> tf.Tensor:
    """Changes each stem's octaves as `bands` draws; arguments as for `waveforms`."""
    shape = tf.TensorSpec([crops.shape[1], resampling.BANDS])
    drawn = tf.map_fn(lambda n: bands(config, n), numbers, fn_output_signature=shape)
    return resampling.equalized(crops, drawn[:, :, None, :], config)


def balanced(crops: tf.Tensor, numbers: tf.Tensor, config: Config) -> tf.Tensor:
    """Changes the first stem's level as `balances` draws; arguments as for `waveforms`.

    The level of the others is the sum of their powers. A crop that is not mixed, or in which one
    of both is silent, stays as it is.
    """
    power = tf.reduce_mean(crops**2, axis=[2, 3])  # [batch, stems]
    lead, others = power[:, 0], tf.reduce_sum(power[:, 1:], axis=1)
    shape = tf.TensorSpec([])
    decibels = tf.map_fn(lambda n: balances(config, n), numbers, fn_output_signature=shape)
    mixed = tf.map_fn(
        lambda n: is_mixed(config, n), numbers, fn_output_signature=tf.TensorSpec([], tf.bool)
    )
    change = tf.sqrt(tf.math.divide_no_nan(others, lead) * 10 ** (decibels / 10))
    change = tf.clip_by_value(change, 1 / _MOST_BALANCE, _MOST_BALANCE)
    change = tf.where(mixed & (lead > 0) & (others > 0), change, 1.0)
    first = crops[:, :1] * change[:, None, None, None]
    return tf.concat([first, crops[:, 1:]], axis=1)


def speeds(config: Config, crop: tf.Tensor) -> tf.Tensor:
    """Draws how fast the stems of a crop are played: uniform in their logarithm.

    All stems have the same speed, unless they are mixed across tracks.

    Args:
      config: gives the largest speed, 1 + `config.augment.speed`.
      crop: number of the crop in the run, int64 [].

    Returns:
      Factors, float32 [stems].
    """
    most = math.log1p(config.augment.speed)
    draws = tf.random.stateless_uniform(
        [len(config.model.stems)], seed(config, crop, SPEED), -most, most
    )
    return tf.exp(tf.where(is_mixed(config, crop), draws, draws[0]))


def tilts(config: Config, crop: tf.Tensor) -> tf.Tensor:
    """Draws the tilt of each stem's spectrum, uniform up to `config.augment.tilt_db`.

    Returns:
      Slopes in dB per octave, float32 [stems].
    """
    most = config.augment.tilt_db
    return tf.random.stateless_uniform(
        [len(config.model.stems)], seed(config, crop, TILT), -most, most
    )


def bands(config: Config, crop: tf.Tensor) -> tf.Tensor:
    """Draws the level of each stem's octaves, uniform up to `config.augment.equalizer_db`.

    Returns:
      dB, float32 [stems, bands].
    """
    most = config.augment.equalizer_db
    shape = [len(config.model.stems), resampling.BANDS]
    return tf.random.stateless_uniform(shape, seed(config, crop, EQUALIZER), -most, most)


def balances(config: Config, crop: tf.Tensor) -> tf.Tensor:
    """Draws the first stem's level against the others, uniform within `augment.balance_db`.

    Returns:
      dB, float32 [].
    """
    least, most = config.augment.balance_db
    return tf.random.stateless_uniform([], seed(config, crop, BALANCE), least, most)


def is_duet(config: Config, crop: tf.Tensor) -> tf.Tensor:
    """Draws whether a crop's first stem is the sum of two, bool []."""
    draw = tf.random.stateless_uniform([], seed(config, crop, DUET))
    return is_mixed(config, crop) & (draw < config.augment.duet)


def is_mixed(config: Config, crop: tf.Tensor) -> tf.Tensor:
    """Draws whether a crop's stems are mixed across tracks, bool []."""
    draw = tf.random.stateless_uniform([], seed(config, crop, MIX_WHETHER))
    return draw < config.augment.mix_tracks


def gains(stems: int, most_db: float, seed: tf.Tensor) -> tf.Tensor:
    """Draws factors that change each stem's level at random by at most most_db, up or down.

    Args:
      stems: number of stems.
      most_db: largest change in dB; 0 changes nothing.
      seed: int64 [2], for stateless random ops.

    Returns:
      float32 [stems].
    """
    if not most_db:
        return tf.ones([stems])
    return 10 ** (tf.random.stateless_uniform([stems], seed, -most_db, most_db) / 20)


def sounding(chances: Sequence[float], seed: tf.Tensor) -> tf.Tensor:
    """Draws which stems of a crop sound; if all would be silent, all sound.

    So stem i is silent with probability `chances[i]` less the product of all chances.

    Args:
      chances: probability of silence for each stem.
      seed: int64 [2], for stateless random ops.

    Returns:
      Gains, 0 or 1, float32 [stems].
    """
    sound = tf.random.stateless_uniform([len(chances)], seed) >= tf.constant(chances)
    return tf.cast(sound | ~tf.reduce_any(sound), tf.float32)


def one_channel(
    channels: tf.Tensor, seed: tf.Tensor, swap_seed: tf.Tensor | None = None
) -> tf.Tensor:
    """Draws a channel for each stem: the same for all stems of a crop, unless swapped.

    Args:
      channels: int32 [stems], number of channels in each stem's file.
      seed: int64 [2], the crop's seed for the channel.
      swap_seed: int64 [2], seed to swap each stem's channels in half of the crops; None never
        swaps.

    Returns:
      int32 [stems, 1].
    """
    draw = tf.random.stateless_uniform([], seed)
    channel = tf.minimum(tf.cast(draw * tf.cast(channels, tf.float32), tf.int32), channels - 1)
    if swap_seed is not None:
        channel = tf.where(_swapped(channels, swap_seed), channels - 1 - channel, channel)
    return channel[:, None]


def two_channels(channels: tf.Tensor, swap_seed: tf.Tensor | None = None) -> tf.Tensor:
    """Chooses left and right of each stem: a mono channel twice, or the first two of more.

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
    """Draws whether each stem's left and right are swapped, bool [stems]."""
    return tf.stack(
        [
            tf.random.stateless_uniform(
                [], tf.random.experimental.stateless_fold_in(swap_seed, stem)
            )
            < 0.5
            for stem in range(channels.shape[0])
        ]
    )
