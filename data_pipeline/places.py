"""Where crops are cut: the segment and the first sample of each stem of a crop.

A segment's consecutive patches are slots, numbered across segments; training crops start at a
random place in a slot's segment. All samples that are read for them are in the segment.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from data_pipeline import augment
from data_pipeline.cuts import cuts_of
from data_pipeline.tracks import Segment
from sccunet.config import Config


def steps_per_epoch(segments: Sequence[Segment], config: Config) -> int:
    """Number of training steps per epoch: `config.steps_per_epoch`, or a pass over all slots."""
    slots = sum(segment.frames // config.model.patch_samples for segment in segments)
    return config.steps_per_epoch or max(1, slots // config.batch_size)


def fixed_crops(
    segments: Sequence[Segment], config: Config, most: int = 0
) -> list[tuple[int, int]]:
    """Lists the segments' consecutive patches, or `most` of them, evenly spread.

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


class TrainingPlaces:
    """Draws the places of training crops in the graph, each by its number alone.

    Args:
      segments, config: as for `dataset.training_dataset`.
    """

    def __init__(self, segments: Sequence[Segment], config: Config):
        self.config, self.cuts = config, cuts_of(config)
        self.patch = config.model.patch_samples
        counts = np.array([segment.frames // self.patch for segment in segments], np.int64)
        self.slots = int(counts.sum())
        self.ends = tf.constant(counts.cumsum())
        self.firsts = tf.constant(counts.cumsum() - counts)
        self.starts = tf.constant([segment.start for segment in segments], tf.int64)
        self.frames = tf.constant([segment.frames for segment in segments], tf.int64)

    def of_crop(self, i: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns each stem's segment and first sample to read, int64 [stems], for crop `i`."""
        config, count = self.config, len(self.config.model.stems)
        number, place = i // self.slots, i % self.slots
        slot = tf.random.experimental.index_shuffle(
            place, tf.stack([config.seed, number]), self.slots - 1
        )
        segment, start = self._place(slot, augment.seed(config, i, augment.PLACE))
        segment, start = tf.repeat(segment, count), tf.repeat(start, count)
        if config.augment.mix_tracks:
            slots = tf.random.stateless_uniform(
                [count], augment.seed(config, i, augment.MIX_SLOT), 0, self.slots, tf.int64
            )
            elsewhere = self._place(slots, augment.seed(config, i, augment.MIX_PLACE))
            mix = augment.is_mixed(config, i)
            segment, start = (
                tf.where(mix, *pair) for pair in zip(elsewhere, (segment, start), strict=True)
            )
        return segment, start

    def _place(self, slot: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns segment and first sample of the cuts for `slot`, int64 of any shape."""
        slots = tf.reshape(slot, [-1])
        segment = tf.searchsorted(self.ends, slots, side="right", out_type=tf.int64)
        last = tf.gather(self.frames, segment) - self.cuts.samples
        offset = (slots - tf.gather(self.firsts, segment)) * self.patch - self.cuts.margin
        offset = tf.clip_by_value(offset, 0, last)
        if self.config.random_crops:
            # float64 so that every sample of an hour-long file can be a start.
            draws = tf.random.stateless_uniform(tf.shape(slots), seed, dtype=tf.float64)
            offset = tf.cast(draws * tf.cast(last + 1, tf.float64), tf.int64)
        start = tf.gather(self.starts, segment) + offset
        return tf.reshape(segment, tf.shape(slot)), tf.reshape(start, tf.shape(slot))
