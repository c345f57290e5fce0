"""tf.data graphs: waveforms [batch, stems, channels, samples] of crops.

`crops` says what to read for a crop, by its number in the run alone. The stream is therefore
reproducible, does not depend on the number of threads, and can resume in the middle without being
replayed. After reading, `augment.waveforms` changes the waveforms.
"""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from data_pipeline import augment
from data_pipeline.crops import Crops
from data_pipeline.cuts import cuts_of
from data_pipeline.mmap_reader import MakeReader, Reader, mmap_reader
from data_pipeline.tracks import Segment
from sccunet.config import Config

_BLOCK = 128  # crops that are drawn at once: NumPy's calls take longer than what they compute


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
    crops = Crops(segments, config, stereo)
    read = _reading(crops, reader(crops.files, cuts_of(config).samples))

    def augmented(waveforms, numbers):
        return augment.waveforms(waveforms, numbers, config)

    def read_augmented(numbers, *places):
        waveforms = read(*places)
        if not augment.changes(config):
            return waveforms
        shape = [*waveforms.shape[:-1], config.model.patch_samples]
        found = tf.numpy_function(augmented, [waveforms, numbers], tf.float32)
        return tf.ensure_shape(found, shape)

    return (
        _training_places(crops, config, first_step, context)
        .map(read_augmented, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )


def _training_places(
    crops: Crops, config: Config, first_step: int, context: tf.distribute.InputContext | None
) -> tf.data.Dataset:
    """Makes batches of crop numbers and of `crops.Places`; see `training_dataset`."""
    worker, workers, replicas = (
        (context.input_pipeline_id, context.num_input_pipelines, context.num_replicas_in_sync)
        if context
        else (0, 1, 1)
    )
    ours, part = config.batch_size // workers, config.batch_size // replicas  # crops in a step
    steps = -(-_BLOCK // ours)

    def drawn(step):
        own = np.arange(worker * ours, (worker + 1) * ours)
        numbers = ((step + np.arange(steps))[:, None] * config.batch_size + own).ravel()
        return numbers, *crops.of_training(numbers)

    shapes = [x.shape[1:] for x in drawn(np.int64(0))]
    kinds = (tf.int64, tf.int64, tf.int64, tf.int32, tf.float32)

    def batches(step):  # [batches of a replica, part, ...]
        found = tf.numpy_function(drawn, [step], kinds)
        pairs = zip(found, shapes, strict=True)
        return tuple(tf.reshape(x, [steps * ours // part, part, *shape]) for x, shape in pairs)

    return (
        tf.data.Dataset.range(first_step, np.iinfo(np.int64).max, steps)
        .map(batches, num_parallel_calls=tf.data.AUTOTUNE)
        .unbatch()
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
    wanted = Crops(segments, config, stereo)
    read = _reading(wanted, reader(wanted.files, config.model.patch_samples))
    numbers = np.arange(len(crops))
    if context:
        # [batches, workers, a worker's part]: each worker takes its part of every batch.
        workers = context.num_input_pipelines
        numbers = numbers.reshape(-1, workers, batch_size // workers)
        numbers = numbers[:, context.input_pipeline_id].ravel()
        batch_size //= context.num_replicas_in_sync

    places = tuple(x[numbers] for x in wanted.fixed(crops))
    return (
        tf.data.Dataset.from_tensor_slices(places)
        .batch(batch_size)
        .map(read, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )


def _reading(crops: Crops, reader: Reader) -> Callable[..., tf.Tensor]:
    """Returns a function that reads batched places: [batch, stems, channels, samples]."""
    sources = crops.sources

    def read(*places):
        batch, files, taken = places[2].shape
        # One list of files: [batch, files, ...] -> [batch * files, ...]
        flat = [tf.reshape(x, [-1, *x.shape[2:]]) for x in places]
        waveforms = reader(*flat)
        samples = waveforms.shape[-1]
        waveforms = tf.reshape(waveforms, [-1, files, taken, samples])
        if duets := files - sum(sources):  # the first stem's files once more, at the end
            both = waveforms[:, :duets] + waveforms[:, -duets:]
            waveforms = tf.concat([both, waveforms[:, duets:-duets]], axis=1)
        if max(sources) > 1:  # [batch, files, ...] -> [batch, stems, ...]
            parts = tf.split(waveforms, sources, axis=1)
            parts = [tf.reduce_sum(x, axis=1, keepdims=True) for x in parts]
            waveforms = tf.concat(parts, axis=1)
        return tf.ensure_shape(waveforms, [batch, len(sources), taken, samples])

    return read
