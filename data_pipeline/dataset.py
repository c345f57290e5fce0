"""The tf.data graphs: waveforms [batch, stems, samples] of training, validation and survey crops.

Crop number i of a run is a pure function of (seed, i): where it is cut and how it is augmented
comes from stateless random ops. So the stream is reproducible, is the same however many threads
make it, and starts again in its middle without being replayed.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from data_pipeline import augment
from data_pipeline.readers import Reader, best_reader
from data_pipeline.tracks import Segment
from sccunet.config import Config

# Purposes of a crop's random numbers; each has its own seed, so that switching one kind of
# augmentation on leaves the others' draws as they were.
_PLACE, _CHANNEL, _MIX_WHETHER, _MIX_SLOT, _MIX_PLACE, _GAIN, _SWAP = range(7)


def training_dataset(
    segments: Sequence[Segment],
    config: Config,
    first_step: int = 0,
    reader: Reader | None = None,
    stereo: bool = False,
) -> tf.data.Dataset:
    """An endless stream of training batches.

    Every patch length of the segments is a slot. A pass takes one crop for each slot, in a fresh
    order that the seed fixes; the crop starts at a random place of the slot's segment, or with
    `config.random_crops=False` at the slot itself.

    Args:
      segments: what to train on, each at least one patch long.
      config: the run's.
      first_step: batches to leave out, for a run that continues.
      reader: from `data_pipeline.readers`; by default the best of this installation.
      stereo: give left and right, whatever `config.downmix`; for other people's networks.

    Returns:
      float32 [batch, stems, patch_samples], or [batch, stems, 2, patch_samples] with `stereo`; the
      shape static.
    """
    table = _SlotTable(segments, config)
    read_stems = _stem_reader(segments, config, reader, stereo)

    def crop(i):
        number, place = i // table.slots, i % table.slots
        slot = tf.random.experimental.index_shuffle(
            place, tf.stack([config.seed, number]), table.slots - 1
        )
        segment, start = table.place(slot, _seed(config, i, _PLACE))
        stems = len(config.model.stems)
        segment, start = tf.repeat(segment, stems), tf.repeat(start, stems)
        if config.augment.mix_tracks:
            slots = tf.random.stateless_uniform(
                [stems], _seed(config, i, _MIX_SLOT), 0, table.slots, tf.int64
            )
            elsewhere = table.place(slots, _seed(config, i, _MIX_PLACE))
            mix = (
                tf.random.stateless_uniform([], _seed(config, i, _MIX_WHETHER))
                < config.augment.mix_tracks
            )
            segment, start = (
                tf.where(mix, *pair) for pair in zip(elsewhere, (segment, start), strict=True)
            )
        waveforms = read_stems(segment, start, _seed(config, i, _CHANNEL), _seed(config, i, _SWAP))
        return augment.gain(waveforms, config.augment.gain_db, _seed(config, i, _GAIN))

    first = first_step * config.batch_size
    return (
        tf.data.Dataset.range(first, np.iinfo(np.int64).max)
        .map(crop, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(config.batch_size, drop_remainder=True)
        .prefetch(tf.data.AUTOTUNE)
    )


def steps_per_epoch(segments: Sequence[Segment], config: Config) -> int:
    """Training steps of one epoch: `config.steps_per_epoch`, or one pass over all slots."""
    slots = sum(segment.frames // config.model.patch_samples for segment in segments)
    return config.steps_per_epoch or max(1, slots // config.batch_size)


def fixed_crops(
    segments: Sequence[Segment], config: Config, most: int = 0
) -> list[tuple[int, int]]:
    """The consecutive cuts of the segments, or `most` of them evenly spread.

    Returns:
      Pairs of a segment's index and the first sample in its files.
    """
    patch = config.model.patch_samples
    crops = [
        (index, start)
        for index, segment in enumerate(segments)
        for start in range(segment.start, segment.start + segment.frames - patch + 1, patch)
    ]
    if most and most < len(crops):
        crops = [crops[i] for i in np.linspace(0, len(crops) - 1, most).round().astype(int)]
    return crops


def fixed_dataset(
    segments: Sequence[Segment],
    config: Config,
    crops: Sequence[tuple[int, int]],
    batch_size: int,
    reader: Reader | None = None,
    stereo: bool = False,
) -> tf.data.Dataset:
    """The given crops in their order, without augmentation; the same ones every time.

    Returns:
      float32, shaped as `training_dataset`'s; the last batch is as small as it comes.
    """
    read_stems = _stem_reader(segments, config, reader, stereo)
    stems = len(config.model.stems)
    places = np.asarray(crops, np.int64).reshape(-1, 2)

    def crop(i, place):
        segment, start = tf.repeat(place[0], stems), tf.repeat(place[1], stems)
        return read_stems(segment, start, _seed(config, i, _CHANNEL), None)

    return (
        tf.data.Dataset.from_tensor_slices(places)
        .enumerate()
        .map(crop, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(batch_size)
        .prefetch(tf.data.AUTOTUNE)
    )


class _SlotTable:
    """Where the patch lengths of all segments, numbered through, lie."""

    def __init__(self, segments: Sequence[Segment], config: Config):
        self.patch = config.model.patch_samples
        self.random = config.random_crops
        counts = np.array([segment.frames // self.patch for segment in segments], np.int64)
        self.slots = int(counts.sum())
        self.ends = tf.constant(counts.cumsum())
        self.firsts = tf.constant(counts.cumsum() - counts)
        self.starts = tf.constant([segment.start for segment in segments], tf.int64)
        self.frames = tf.constant([segment.frames for segment in segments], tf.int64)

    def place(self, slot: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Segment and first sample of the crops for `slot`, int64 of any shape."""
        slots = tf.reshape(slot, [-1])
        segment = tf.searchsorted(self.ends, slots, side="right", out_type=tf.int64)
        offset = (slots - tf.gather(self.firsts, segment)) * self.patch
        if self.random:
            span = tf.gather(self.frames, segment) - self.patch + 1
            # float64 so that every sample of an hour-long file can be a start.
            draws = tf.random.stateless_uniform(tf.shape(slots), seed, dtype=tf.float64)
            offset = tf.cast(draws * tf.cast(span, tf.float64), tf.int64)
        start = tf.gather(self.starts, segment) + offset
        return tf.reshape(segment, tf.shape(slot)), tf.reshape(start, tf.shape(slot))


def _stem_reader(
    segments: Sequence[Segment], config: Config, reader: Reader | None, stereo: bool = False
):
    """Function of segment [stems], start [stems], channel seed and swap seed -> waveforms."""
    model = config.model
    names = [config.files_of(stem) for stem in model.stems]
    order = [name for files in names for name in files]
    infos = [segment.track.files[name] for segment in segments for name in order]
    read = reader or best_reader(infos, model.patch_samples)

    def read_stems(segment, start, channel_seed, swap_seed):
        waveforms, position = [], 0
        for s, files in enumerate(names):
            total = None
            for _ in files:
                audio = read(segment[s] * len(order) + position, start[s])  # [samples, channels]
                total = audio if total is None else total + audio
                position += 1
            swap = swap_seed if config.augment.channel_swap else None
            if stereo:
                waveforms.append(augment.two_channels(total, swap, s))
            elif config.downmix:
                waveforms.append(tf.reduce_mean(total, axis=1))
            else:
                waveforms.append(augment.one_channel(total, channel_seed, swap, s))
        # Files with other channel counts leave the shape open: it is stated here.
        channels = [2] if stereo else []
        return tf.ensure_shape(tf.stack(waveforms), [len(names), *channels, model.patch_samples])

    return read_stems


def _seed(config: Config, i: tf.Tensor, purpose: int) -> tf.Tensor:
    """Seed of stateless random ops for crop `i`, int64 [2]."""
    return tf.stack([tf.constant(config.seed * 16 + purpose, tf.int64), tf.cast(i, tf.int64)])
