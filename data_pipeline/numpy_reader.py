"""Reads crops of WAV files with NumPy, in one Python call per batch."""

import os
import sys
import threading
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from data_pipeline.augment import MEAN
from data_pipeline.errors import AudioError
from data_pipeline.wav import pcm_to_float
from data_pipeline.wav_header import WavInfo
from sccunet.checks import counted

# (file index int64 [n], first sample int64 [n], channels int32 [n, taken] or only MEAN [n, 1],
# gain float32 [n]) -> float32 [n, taken, samples].
Reader = Callable[[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]
# (files, samples of a crop) -> Reader
MakeReader = Callable[[Sequence[WavInfo], int], Reader]

# Encodings that NumPy converts directly from the file: type, and full scale.
_DIRECT = {"pcm16": ("<i2", 2**15), "pcm32": ("<i4", 2**31), "float32": ("<f4", 1)}
_BLOCK = 2**15  # samples per channel; so few bytes stay in the processor's cache
_ALIGNMENT = 64  # bytes; TensorFlow turns an array of this alignment into a tensor without a copy


def numpy_reader(files: Sequence[WavInfo], samples: int) -> Reader:
    """Makes a reader of crops of `samples` samples.

    A file is open only while a crop is read from it: descriptors and memory maps are limited in
    number. The reader raises AudioError, wrapped by TensorFlow, if a file is gone or was truncated.
    """
    frame_bytes = max(info.frame_bytes for info in files)
    channels = max(info.channels for info in files)

    def read_numpy(indices, starts, taken, gains) -> np.ndarray:
        crops = _new_crops((*taken.shape, samples))
        block = _Block(min(samples, _BLOCK), frame_bytes, channels)
        places = zip(indices.tolist(), starts.tolist(), taken.tolist(), gains, strict=True)
        try:
            for (index, *place), out in zip(places, crops, strict=True):
                block.read_crop(files[index], *place, out)
        except AudioError as error:
            # TensorFlow crashes if a message is not UTF-8, as the name of a file may be.
            raise AudioError(str(error).encode(errors="backslashreplace").decode()) from None
        return crops

    def read(indices, starts, taken, gains):
        crops = tf.numpy_function(read_numpy, [indices, starts, taken, gains], tf.float32)
        return tf.ensure_shape(crops, [*taken.shape, samples])

    return read


class _Block:
    """Memory for samples that are read and converted at once."""

    def __init__(self, samples: int, frame_bytes: int, channels: int):
        self.samples = samples
        self.raw = np.empty(samples * frame_bytes, np.uint8)
        self.floats = np.empty(samples * channels, np.float32)

    def read_crop(
        self, info: WavInfo, start: int, taken: list[int], gain: np.float32, out: np.ndarray
    ) -> None:
        """Fills `out` [taken channels, samples] with a file's samples from `start` on."""
        try:
            with open(info.path, "rb", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                if size < info.data_offset + info.frames * info.frame_bytes:
                    raise _cut_short(info, size)
                file.seek(info.data_offset + start * info.frame_bytes)
                for first in range(0, out.shape[1], self.samples):
                    part = out[:, first : first + self.samples]
                    raw = self.raw[: part.shape[1] * info.frame_bytes]
                    filled = 0
                    while filled < raw.size:
                        if not (count := file.readinto(raw[filled:])):
                            raise _cut_short(info, file.tell())
                        filled += count
                    self._convert(raw, info, taken, gain, part)
        except OSError as error:
            raise AudioError(f"{info.path}: cannot be read any more ({error.strerror})") from error

    def _convert(
        self, raw: np.ndarray, info: WavInfo, taken: list[int], gain: np.float32, out: np.ndarray
    ) -> None:
        kind, full_scale = _DIRECT.get(info.encoding, (None, 1))
        floats = self.floats[: out.shape[1] * info.channels]
        np.copyto(floats, raw.view(kind) if kind else pcm_to_float(raw, info.encoding))
        channels = floats.reshape(-1, info.channels).T
        if taken == [MEAN]:
            # Many times faster than NumPy's sum over such a short axis.
            left, *others = channels
            out[0] = left if not others else np.add(left, others[0], out=out[0])
            for other in others[1:]:
                out[0] += other
            out *= np.float32(gain / (full_scale * info.channels))
        else:
            for channel, row in zip(taken, out, strict=True):
                np.multiply(channels[channel], np.float32(gain / full_scale), out=row)


def _cut_short(info: WavInfo, size: int) -> AudioError:
    found = max(size - info.data_offset, 0) // info.frame_bytes
    return AudioError(
        f"{info.path}: found {counted(found, 'sample')}, expected {info.frames} as before: it"
        " was cut short"
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
