"""Reads crops of WAV files from memory maps, in one NumPy call per batch."""

import os
import sys
import threading
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import tensorflow as tf

from data_pipeline.augment import MEAN
from data_pipeline.wav import AudioError, WavInfo, pcm_to_float

# (file index int64 [n], first sample int64 [n], channels int32 [n, taken] or only MEAN [n, 1],
# gain float32 [n]) -> float32 [n, taken, samples].
Reader = Callable[[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]
# (files, samples of a crop) -> Reader
MakeReader = Callable[[Sequence[WavInfo], int], Reader]

# Encodings that NumPy converts directly from the file: type, and full scale.
_DIRECT = {"pcm16": ("<i2", 2**15), "pcm32": ("<i4", 2**31), "float32": ("<f4", 1)}
_ALIGNMENT = 64  # bytes; TensorFlow turns an array of this alignment into a tensor without a copy


def mmap_reader(files: Sequence[WavInfo], samples: int) -> Reader:
    """Makes a reader of crops of `samples` samples from memory maps, each file opened once.

    The reader raises AudioError, wrapped by TensorFlow, if a file is gone or was truncated.
    """

    @cache
    def rows(index: int) -> np.ndarray:
        """Maps a file's samples [frames, channels], or bytes, uint8 [frames, bytes per frame]."""
        info = files[index]
        direct = _DIRECT.get(info.encoding)
        return np.memmap(
            info.path,
            direct[0] if direct else np.uint8,
            mode="r",
            offset=info.data_offset,
            shape=(info.frames, info.channels if direct else info.frame_bytes),
        )

    def read_one(
        index: int, start: int, channels: list[int], gain: np.float32, out: np.ndarray
    ) -> None:
        info = files[index]
        _check_unchanged(info)
        crop = rows(index)[start : start + samples]
        if info.encoding in _DIRECT:
            full_scale = _DIRECT[info.encoding][1]
        else:
            crop = pcm_to_float(crop.reshape(-1), info.encoding).reshape(samples, info.channels)
            full_scale = 1
        if channels == [MEAN]:
            full_scale *= info.channels
        floats = np.multiply(crop, np.float32(gain / full_scale), dtype=np.float32)
        if channels == [MEAN]:
            # Many times faster than NumPy's sum over such a short axis.
            left, *others = floats.T
            out[0] = left if not others else np.add(left, others[0], out=out[0])
            for other in others[1:]:
                out[0] += other
        else:
            for channel, row in zip(channels, out, strict=True):
                row[:] = floats[:, channel]

    def read_numpy(indices, starts, channels, gains) -> np.ndarray:
        crops = _new_crops((*channels.shape, samples))
        places = zip(indices.tolist(), starts.tolist(), channels.tolist(), gains, strict=True)
        for place, out in zip(places, crops, strict=True):
            read_one(*place, out)
        return crops

    def read(indices, starts, channels, gains):
        crops = tf.numpy_function(read_numpy, [indices, starts, channels, gains], tf.float32)
        return tf.ensure_shape(crops, [*channels.shape, samples])

    return read


def _check_unchanged(info: WavInfo) -> None:
    """Checks a file before its memory map is read: a truncated file would end the process."""
    try:
        size = os.stat(info.path).st_size
    except OSError as error:
        raise AudioError(f"{info.path}: cannot be read any more ({error.strerror})") from error
    if size < info.data_offset + info.frames * info.frame_bytes:
        found = max(size - info.data_offset, 0) // info.frame_bytes
        raise AudioError(
            f"{info.path}: found {found} samples, expected {info.frames} as before: it was cut"
            " short"
        )


_memories: list[np.ndarray] = []
_lock = threading.Lock()


def _new_crops(shape: Sequence[int]) -> np.ndarray:
    """Returns an uninitialised float32 array that TensorFlow uses as a tensor without a copy.

    The memory is reused once nothing holds the tensor or a view of it. The kernel would have to
    zero new memory, which took a fifth of the time.
    """
    size = int(np.prod(shape)) * 4
    with _lock:
        counts = _references(_memories)
        unused = [m for m, n in zip(_memories, counts, strict=True) if n <= _NOT_IN_USE]
        fitting = [m for m in unused if len(m) == size + _ALIGNMENT]
        kept = {id(memory) for memory in fitting[:2]}
        # Memory that another stream or a full queue needed is returned to the system.
        gone = {id(memory) for memory in unused} - kept
        _memories[:] = [m for m in _memories if id(m) not in gone]
        if fitting:
            memory = fitting[0]
        else:
            memory = np.empty(size + _ALIGNMENT, np.uint8)
            _memories.append(memory)
        first = -memory.ctypes.data % _ALIGNMENT
        return memory[first : first + size].view(np.float32).reshape(shape)


def _references(memories: Sequence[np.ndarray]) -> list[int]:
    """Counts references to each array: from this module and from every view."""
    return [sys.getrefcount(memory) for memory in memories]


# Counted in the same way, since Python versions count differently.
_NOT_IN_USE = _references([np.empty(1)])[0]
