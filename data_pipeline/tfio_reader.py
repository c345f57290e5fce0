"""Reads crops of WAV files with tensorflow-io, in the graph, without Python.

The ops of its last release load with TensorFlow 2.16 and 2.17 only. They silently misread some
encodings and headers; memory maps read those files.
"""

import os
from collections.abc import Sequence
from functools import cache

import tensorflow as tf

from data_pipeline.draws import MEAN
from data_pipeline.mmap_reader import Reader, mmap_reader
from data_pipeline.wav_header import WavInfo
from sccunet.config import ConfigError

# Encodings that tensorflow-io reads correctly, if asked for the file's own type. It reads 32-bit
# integers as floats, and rejects 64-bit floats.
_TFIO_TYPES = {"pcm8": tf.uint8, "pcm16": tf.int16, "pcm24": tf.int32, "float32": tf.float32}


@cache
def available() -> bool:
    """Whether tensorflow-io is installed and its ops load with this TensorFlow."""
    try:
        from tensorflow_io.python.ops import core_ops

        # The import does not load the library. The first access to an op does, and raises
        # NotImplementedError if the library does not fit this TensorFlow.
        return callable(core_ops.io_audio_readable_init)
    except (ImportError, NotImplementedError, AttributeError):
        return False


def check_available() -> None:
    """Raises ConfigError, with the packages to install, if `tfio_reader` cannot work."""
    if not available():
        raise ConfigError(
            f"--reader=tfio: found TensorFlow {tf.__version__} without a tensorflow-io that loads,"
            " expected TensorFlow 2.17 (Python 3.11 or 3.12) with"
            " pip install 'tensorflow==2.17.*' tensorflow-io==0.37.1, or --reader=mmap"
        )


def tfio_reader(files: Sequence[WavInfo], samples: int) -> Reader:
    """Makes a reader of crops of `samples` samples with tensorflow-io, without Python.

    `mmap_reader` reads files with an encoding or a header that tensorflow-io misreads.
    """
    import tensorflow_io as tfio

    maps = mmap_reader(files, samples)
    # An opened file belongs to the graph's node, not to the call (tensorflow/io issues 1647 and
    # 1764): without this lock, parallel calls of a map read from each other's files.
    lock = tf.CriticalSection()

    def branch(dtype: tf.DType | None):
        """Returns a function: index [], start [], channels [taken], gain [] -> [taken, samples]."""
        if dtype is None:
            return lambda *place: maps(*(part[None] for part in place))[0]

        def read(index, start, channels, gain):
            def open_and_read():
                audio = tfio.IOTensor.graph(dtype).from_audio(tf.gather(paths, index))
                return audio[start : start + samples]

            audio = _to_float(lock.execute(open_and_read, exclusive_resource_access=False)) * gain
            taken = tf.gather(tf.transpose(audio), tf.maximum(channels, 0))
            mean = tf.reduce_mean(audio, axis=1)
            return tf.where((channels == MEAN)[:, None], mean, taken)

        return read

    paths = tf.constant([os.fsencode(info.path) for info in files])
    dtypes = [_TFIO_TYPES.get(info.encoding) if info.plain else None for info in files]
    kinds = list(dict.fromkeys(dtypes))
    branches = [branch(dtype) for dtype in kinds]
    which = tf.constant([kinds.index(dtype) for dtype in dtypes], tf.int32)

    def read_one(place):
        if len(branches) == 1:  # the usual case needs no switch in the graph
            return branches[0](*place)
        return tf.switch_case(
            tf.gather(which, place[0]), [lambda read=read: read(*place) for read in branches]
        )

    def read(*places):
        taken = places[2].shape[1]
        crop = tf.TensorSpec([taken, samples], tf.float32)
        return tf.map_fn(read_one, places, fn_output_signature=crop)

    return read


def _to_float(audio: tf.Tensor) -> tf.Tensor:
    """Scales samples of any type from tensorflow-io to [-1, 1)."""
    if audio.dtype == tf.float32:
        return audio
    if audio.dtype == tf.uint8:
        return (tf.cast(audio, tf.float32) - 128) / 128
    return tf.cast(audio, tf.float32) * (0.5 ** (audio.dtype.size * 8 - 1))
