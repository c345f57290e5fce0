"""Read crops of WAV files inside a tf.data graph, by tensorflow-io or by memory maps.

tensorflow-io's last release loads its ops with TensorFlow 2.16 and 2.17 only, and misreads some
encodings without a word; both cases go to the memory maps. A reader reads only the crop's bytes.
"""

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import tensorflow as tf

from data_pipeline.audio import WavInfo, pcm_to_float

# (index of the file, first sample) -> float32 [samples, channels], both int64 scalars.
Reader = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

# Encodings that tensorflow-io reads rightly, if asked for the file's own type. It takes 32-bit
# integers for floats, and refuses 64-bit floats.
_TFIO_TYPES = {"pcm8": tf.uint8, "pcm16": tf.int16, "pcm24": tf.int32, "float32": tf.float32}


@cache
def tfio_available() -> bool:
    """Whether tensorflow-io is installed and its ops load with this TensorFlow."""
    try:
        from tensorflow_io.python.ops import core_ops

        # Importing loads nothing: the library is loaded when an op is first asked for, and raises
        # NotImplementedError where it does not fit this TensorFlow.
        return callable(core_ops.io_audio_readable_init)
    except (ImportError, NotImplementedError, AttributeError):
        return False


def best_reader(files: Sequence[WavInfo], samples: int) -> Reader:
    """The reader of this installation: tensorflow-io where it works, memory maps elsewhere."""
    return (tfio_reader if tfio_available() else mmap_reader)(files, samples)


def tfio_reader(files: Sequence[WavInfo], samples: int) -> Reader:
    """Reads `samples` samples of one of `files` by tensorflow-io, without Python.

    Files in an encoding that tensorflow-io misreads go to `mmap_reader`.
    """
    import tensorflow_io as tfio

    fallback = mmap_reader(files, samples)
    # Its opened file belongs to the graph's node, not to the call (tensorflow/io issues 1647 and
    # 1764): without this lock two parallel calls of a map read from each other's files.
    lock = tf.CriticalSection()

    def branch(encoding: str):
        if encoding not in _TFIO_TYPES:
            return fallback
        dtype = _TFIO_TYPES[encoding]

        def read(index, start):
            def open_and_read():
                audio = tfio.IOTensor.graph(dtype).from_audio(tf.gather(paths, index))
                return audio[start : start + samples]

            return _to_float(lock.execute(open_and_read, exclusive_resource_access=False))

        return read

    paths = tf.constant([info.path for info in files])
    encodings = sorted({info.encoding for info in files})
    branches = [branch(encoding) for encoding in encodings]
    if len(branches) == 1:  # the usual case needs no switch in the graph
        return branches[0]
    which = tf.constant([encodings.index(info.encoding) for info in files], tf.int32)

    def read_any(index, start):
        return tf.switch_case(
            tf.gather(which, index),
            [lambda read=read: read(index, start) for read in branches],
        )

    return read_any


def mmap_reader(files: Sequence[WavInfo], samples: int) -> Reader:
    """Reads `samples` samples of one of `files` from a memory map, opened once per file."""

    @cache
    def rows(index: int) -> np.ndarray:
        """Bytes of a file's data, uint8 [frames, bytes per frame]."""
        info = files[index]
        return np.memmap(
            info.path,
            np.uint8,
            mode="r",
            offset=info.data_offset,
            shape=(info.frames, info.frame_bytes),
        )

    def read_numpy(index: np.ndarray, start: np.ndarray) -> np.ndarray:
        info = files[int(index)]
        crop = rows(int(index))[int(start) : int(start) + samples]
        return pcm_to_float(crop.reshape(-1), info.encoding).reshape(samples, info.channels)

    def read(index, start):
        audio = tf.numpy_function(read_numpy, [index, start], tf.float32)
        return tf.ensure_shape(audio, [samples, None])

    return read


def _to_float(audio: tf.Tensor) -> tf.Tensor:
    """Samples of any type that tensorflow-io gives, scaled to [-1, 1)."""
    if audio.dtype == tf.float32:
        return audio
    if audio.dtype == tf.uint8:
        return (tf.cast(audio, tf.float32) - 128) / 128
    return tf.cast(audio, tf.float32) * (0.5 ** (audio.dtype.size * 8 - 1))
