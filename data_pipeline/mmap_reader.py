"""Reads crops of WAV files from memory maps, in one NumPy call per batch."""

import functools
import mmap
import os
import sys
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from data_pipeline.draws import MEAN
from data_pipeline.errors import AudioError
from data_pipeline.wav import pcm_to_float
from data_pipeline.wav_header import WavInfo
from sccunet.checks import counted

if TYPE_CHECKING:
    import tensorflow as tf

# (file index int64 [n], first sample int64 [n], channels int32 [n, taken] or only MEAN [n, 1],
# gain float32 [n]) -> float32 [n, taken, samples].
NumpyReader = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]
Reader = Callable[["tf.Tensor", "tf.Tensor", "tf.Tensor", "tf.Tensor"], "tf.Tensor"]
# (files, samples of a crop) -> Reader
MakeReader = Callable[[Sequence[WavInfo], int], Reader]

# Encodings that NumPy converts directly from the file: type, and full scale.
_DIRECT = {"pcm16": ("<i2", 2**15), "pcm32": ("<i4", 2**31), "float32": ("<f4", 1)}
_BLOCK = 44_100  # samples per channel that are converted at once, in the processor's cache
_ALIGNMENT = 64  # bytes; TensorFlow turns an array of this alignment into a tensor without a copy


def numpy_reader(files: Sequence[WavInfo], samples: int) -> NumpyReader:
    """Makes a reader of crops of `samples` samples from memory maps.

    The reader raises AudioError if a file is gone or was truncated.
    """
    floats = min(samples, _BLOCK) * max(info.channels for info in files)

    def read(indices, starts, channels, gains) -> np.ndarray:
        crops = _new_crops((*channels.shape, samples))
        memory = np.empty(floats, np.float32)
        places = zip(indices.tolist(), starts.tolist(), channels.tolist(), gains, strict=True)
        try:
            for (index, *place), out in zip(places, crops, strict=True):
                _read_crop(files[index], *place, memory, out)
        except AudioError as error:
            # TensorFlow crashes if a message is not UTF-8, as the name of a file may be.
            raise AudioError(str(error).encode(errors="backslashreplace").decode()) from None
        return crops

    return read


def mmap_reader(files: Sequence[WavInfo], samples: int) -> Reader:
    """Makes the same for tensors; TensorFlow wraps the AudioError."""
    import tensorflow as tf

    read_numpy = numpy_reader(files, samples)

    def read(indices, starts, channels, gains):
        crops = tf.numpy_function(read_numpy, [indices, starts, channels, gains], tf.float32)
        return tf.ensure_shape(crops, [*channels.shape, samples])

    return read


def _read_crop(
    info: WavInfo,
    start: int,
    taken: list[int],
    gain: np.float32,
    memory: np.ndarray,
    out: np.ndarray,
) -> None:
    """Fills `out` [taken channels, samples] with a file's samples from `start` on.

    Nothing is read for a gain of 0, as of silenced stems and of crops without a second voice.

    Args:
      info, start, taken, gain: a place, as in `Reader`.
      memory: float32, for a block of samples of all channels.
      out: float32.
    """
    if not gain:
        out.fill(0)
        return
    try:
        status = os.stat(info.path)
        _check_unchanged(info, status.st_size)
        mapped = _mapped(info, status.st_ino, status.st_mtime_ns)
    except OSError as error:
        raise AudioError(f"{info.path}: cannot be read any more ({error.strerror})") from error
    first = start * info.frame_bytes
    block = len(memory) // info.channels
    for begin in range(0, out.shape[1], block):
        part = out[:, begin : begin + block]
        end = first + part.shape[1] * info.frame_bytes
        _convert(mapped[first:end], info, taken, gain, memory, part)
        first = end


def _most_maps() -> int:
    """The number of maps to keep. Each has a descriptor; Linux limits maps to 65 530."""
    try:
        import resource
    except ImportError:  # Windows, which has no such limits
        return 2**14
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 2**14 if soft == resource.RLIM_INFINITY else min(soft // 2, 2**14)


@functools.lru_cache(_most_maps())
def _mapped(info: WavInfo, *version: int) -> np.ndarray:
    """Maps the bytes of a file's samples, uint8; `version` changes if the file is replaced."""
    end = info.data_offset + info.frames * info.frame_bytes
    with open(info.path, "rb") as file:
        mapped = mmap.mmap(file.fileno(), end, access=mmap.ACCESS_READ)
    return np.frombuffer(mapped, np.uint8, offset=info.data_offset)


def _convert(
    raw: np.ndarray,
    info: WavInfo,
    taken: list[int],
    gain: np.float32,
    memory: np.ndarray,
    out: np.ndarray,
) -> None:
    """Converts bytes of samples; arguments as for `_read_crop`."""
    kind, full_scale = _DIRECT.get(info.encoding, (None, 1))
    floats = memory[: out.shape[1] * info.channels]
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


def _check_unchanged(info: WavInfo, size: int) -> None:
    """Checks a file before its memory map is read: a truncated file would end the process."""
    if size < info.data_offset + info.frames * info.frame_bytes:
        found = counted(max(size - info.data_offset, 0) // info.frame_bytes, "sample")
        raise AudioError(
            f"{info.path}: found {found}, expected {info.frames} as before: it was cut short"
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
