"""tf.data graphs: waveforms [batch, stems, channels, samples] of crops.

Crop number i of a run is a pure function of (seed, i): stateless random ops determine where it is
cut and how it is augmented. The stream is therefore reproducible, does not depend on the number of
threads, and can resume in the middle without being replayed.

First a crop's place is drawn: files, first samples, channels and gains. Whole batches of places are
then read at once, and each sample is written once, into the batch's memory. Other changes to the
waveforms follow in `augment.waveforms`.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from data_pipeline import augment
from data_pipeline.cuts import cuts_of
from data_pipeline.mmap_reader import MakeReader, mmap_reader
from data_pipeline.places import TrainingPlaces
from data_pipeline.tracks import Segment
from sccunet.config import Config


def training_dataset(
    segments: Sequence[Segment],
    config: Config,
    first_step: int = 0,
    reader: MakeReader = mmap_reader,
    stereo: bool = False,
    context: tf.distribute.InputContext | None = None,
) -> tf.data.Dataset:
    """Makes an endless stream of training batches.

    Every patch length of the segments is a slot. A pass takes one crop for each slot, in a new
    order determined by the seed. The crop starts at a random place in the slot's segment, or at the
    slot itself if `config.random_crops` is False; but never so late that the samples to read, which
    a change of speed makes more, are not all in the segment. Slots of mixed stems are drawn anew
    for each crop, and so are all slots if `config.data_weights` are given.

    Args:
      segments: training segments, each at least as long as the cuts of `cuts_of(config)`.
      config: the run's config.
      first_step: number of batches to skip, for a resumed run.
      reader: from `data_pipeline.readers.reader_named`.
      stereo: return left and right whatever the config says, for networks of other projects.
      context: index and number of workers and number of replicas, from
        `distribute_datasets_from_function`. Together the replicas receive the batches of a single
        device.

    Returns:
      float32 [batch, stems, channels, patch_samples] of static shape: left and right with `stereo`
      or if `config.model.channels` is 2, otherwise one channel. `batch` is `config.batch_size`, or
      a replica's part of it.
    """
    stems = _Stems(segments, config, reader, stereo, cuts_of(config).samples)
    return (
        _training_places(segments, config, stems, first_step, context)
        .map(stems.read_augmented, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )


def training_batch(
    segments: Sequence[Segment], config: Config, step: int
) -> tuple[np.ndarray, list[list[tuple[str, int]]]]:
    """Returns the whole batch of one step, for inspection, and the places of its crops.

    Returns:
      Waveforms, float32 [batch, stems, channels, patch_samples], and for each crop and file the
      path and the first sample.
    """
    cuts = cuts_of(config)
    stems = _Stems(segments, config, mmap_reader, stereo=False, samples=cuts.samples)
    ((numbers, *places),) = _training_places(segments, config, stems, step).take(1)
    index, start = places[0].numpy(), places[1].numpy()  # [batch, files]
    origins = [
        [(stems.files[i].path, int(first) + cuts.margin) for i, first in zip(*crop, strict=True)]
        for crop in zip(index, start, strict=True)
    ]
    return stems.read_augmented(numbers, *places).numpy(), origins


def _training_places(
    segments: Sequence[Segment],
    config: Config,
    stems: "_Stems",
    first_step: int,
    context: tf.distribute.InputContext | None = None,
) -> tf.data.Dataset:
    """Makes batches of crop numbers and places to read, for `_Stems.read_augmented`.

    The arguments are those of `training_dataset`.
    """
    places = TrainingPlaces(segments, config)
    worker, workers, replicas = (
        (context.input_pipeline_id, context.num_input_pipelines, context.num_replicas_in_sync)
        if context
        else (0, 1, 1)
    )
    ours = config.batch_size // workers  # this worker's crops in a step

    def place(i):
        i = i // ours * config.batch_size + worker * ours + i % ours
        gains = tf.ones([len(config.model.stems)])
        if chances := config.augment.stem_dropout:
            gains *= augment.sounding(chances, augment.seed(config, i, augment.DROPOUT))
        found = stems_of(i, gains)
        if config.augment.duet:
            gains *= tf.cast(augment.is_duet(config, i), tf.float32)
            # The place of a crop that the run does not have: numbers begin at 0.
            second = [x[: stems.sources[0]] for x in stems_of(-1 - i, gains)]
            found = [tf.concat(pair, axis=0) for pair in zip(found, second, strict=True)]
        return i, *found

    def stems_of(i, gains):
        segment, start = places.of_crop(i)
        swap_seed = augment.seed(config, i, augment.SWAP) if config.augment.channel_swap else None
        gains *= augment.gains(
            len(config.model.stems), config.augment.gain_db, augment.seed(config, i, augment.GAIN)
        )
        channel_seed = augment.seed(config, i, augment.CHANNEL)
        return stems.places(segment, start, channel_seed, swap_seed, gains)

    return (
        tf.data.Dataset.range(first_step * ours, np.iinfo(np.int64).max)
        .map(place, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(config.batch_size // replicas, drop_remainder=True)
    )


def fixed_dataset(
    segments: Sequence[Segment],
    config: Config,
    crops: np.ndarray,
    batch_size: int,
    reader: MakeReader = mmap_reader,
    stereo: bool = False,
    context: tf.distribute.InputContext | None = None,
) -> tf.data.Dataset:
    """Makes batches of the given crops in their order, without augmentation.

    Args:
      segments, config, reader, stereo: as for `training_dataset`.
      crops: from `places.fixed_crops`.
      batch_size: number of crops in a batch, over all replicas.
      context: as for `training_dataset`; the crops must then fill whole batches.

    Returns:
      float32, with the shapes of `training_dataset`; the last batch may be smaller.
    """
    stems = _Stems(segments, config, reader, stereo, config.model.patch_samples)
    count = len(config.model.stems)
    numbers = np.arange(len(crops))
    if context:
        # [batches, workers, a worker's part]: each worker takes its part of every batch.
        workers = context.num_input_pipelines
        numbers = numbers.reshape(-1, workers, batch_size // workers)
        numbers = numbers[:, context.input_pipeline_id].ravel()
        batch_size //= context.num_replicas_in_sync

    def place(i, crop):
        segment, start = crop[:, 0], crop[:, 1]
        return stems.places(
            segment, start, augment.seed(config, i, augment.CHANNEL), None, tf.ones([count])
        )

    return (
        tf.data.Dataset.from_tensor_slices((numbers, crops[numbers]))
        .map(place, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(batch_size)
        .map(stems.read, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )


class _Stems:
    """Reads the waveforms of stems from segments and first samples."""

    def __init__(
        self,
        segments: Sequence[Segment],
        config: Config,
        reader: MakeReader,
        stereo: bool,
        samples: int,
    ):
        self.config, self.stereo = config, stereo or config.model.channels == 2
        self.samples = samples  # to read for a crop
        names = [name for stem in config.model.stems for name in config.files_of(stem)]
        files = [segment.track.files.get(name) for segment in segments for name in names]
        self.files = [info for info in files if info]
        there = np.array([info is not None for info in files])
        # Readers refuse the number of a file that a partial track lacks.
        self.numbers = tf.constant(np.where(there, there.cumsum() - 1, len(files)), tf.int64)
        self.read_files = reader(self.files, samples)
        self.sources = [len(config.files_of(stem)) for stem in config.model.stems]
        self.channels = tf.constant([segment.track.channels for segment in segments], tf.int32)

    def places(self, segment, start, channel_seed, swap_seed, gains):
        """Returns the places to read for one crop.

        Args:
          segment, start: int64 [stems], each stem's segment and first sample in its files.
          channel_seed, swap_seed: int64 [2], as for `augment.one_channel`.
          gains: float32 [stems].

        Returns:
          A reader's arguments; the first axis is the crop's files.
        """
        available = tf.gather(self.channels, segment)
        if self.stereo:
            channels = augment.two_channels(available, swap_seed)
        elif self.config.downmix:
            channels = tf.fill([len(self.sources), 1], augment.MEAN)
        else:
            channels = augment.one_channel(available, channel_seed, swap_seed)
        # [stems, ...] -> [files, ...]
        segment, start, channels, gains = (
            tf.repeat(x, self.sources, axis=0) for x in (segment, start, channels, gains)
        )
        files = sum(self.sources)
        index = tf.gather(self.numbers, segment * files + tf.range(files, dtype=tf.int64))
        channels = tf.ensure_shape(channels, [files, 2 if self.stereo else 1])
        return index, start, channels, gains

    def read(self, *places):
        """Reads batched places: [batch, stems, channels, samples]."""
        batch, files, taken = places[2].shape
        # One list of files: [batch, files, ...] -> [batch * files, ...]
        flat = [tf.reshape(x, [-1, *x.shape[2:]]) for x in places]
        crops = tf.reshape(self.read_files(*flat), [-1, files, taken, self.samples])
        if duets := files - sum(self.sources):  # the first stem's files once more, at the end
            both = crops[:, :duets] + crops[:, -duets:]
            crops = tf.concat([both, crops[:, duets:-duets]], axis=1)
        if max(self.sources) > 1:  # [batch, files, ...] -> [batch, stems, ...]
            parts = tf.split(crops, self.sources, axis=1)
            crops = tf.concat([tf.reduce_sum(x, axis=1, keepdims=True) for x in parts], axis=1)
        return tf.ensure_shape(crops, [batch, len(self.sources), taken, self.samples])

    def read_augmented(self, numbers, *places):
        """Reads the crops with these numbers and augments them by `augment.waveforms`."""
        return augment.waveforms(self.read(*places), numbers, self.config)
