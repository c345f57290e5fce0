"""Reads WAV files with its own parser, which locates each sample and notices missing ones.

Audio is float32 `[samples, channels]` with full scale [-1, 1). Integer PCM of b bits is divided by
2**(b - 1), exactly. This module does not import TensorFlow.
"""

import contextlib
import math
import os
import stat
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from data_pipeline.errors import AudioError, EncodingError, bad_file, damaged, unreadable
from data_pipeline.wav_header import BYTES, WavInfo, wav_header
from sccunet.checks import counted


def wav_info(path: str | os.PathLike) -> WavInfo:
    """Reads a WAV file's header and checks that all samples that it states are there.

    Raises:
      AudioError: if the file is missing, unreadable, empty, without samples or shorter than its
        header says.
      EncodingError: if it is not a WAV, or in an encoding that `WavInfo` does not list.
    """
    path = os.fspath(path)
    with opened(path, "a WAV file") as (file, size):
        try:
            info = wav_header(path, file, size)
        except EncodingError as error:
            raise EncodingError(f"{error} (sccunet prepare converts)") from error
    check_whole(info, size)
    return info


def read_wav(
    wav: WavInfo | str | os.PathLike, start: int = 0, frames: int | None = None
) -> np.ndarray:
    """Reads samples `start` to `start + frames` of a WAV file, float32 `[frames, channels]`.

    Args:
      wav: the file's `wav_info`, or its path.
      start: first sample.
      frames: number of samples; None takes all from `start`. The result is shorter if the file
        ends before.

    Raises:
      AudioError: as `wav_info`, or if the file has been truncated since.
    """
    info = wav if isinstance(wav, WavInfo) else wav_info(wav)
    left = max(info.frames - start, 0)
    frames = left if frames is None else min(frames, left)
    try:
        raw = np.fromfile(
            info.path,
            np.uint8,
            frames * info.frame_bytes,
            offset=info.data_offset + start * info.frame_bytes,
        )
    except OSError as error:
        raise unreadable(info.path, error) from error
    if raw.size != frames * info.frame_bytes:
        expected = counted(info.frames, "sample")
        raise bad_file(info.path, "a file that got shorter while in use", expected)
    return pcm_to_float(raw, info.encoding).reshape(frames, info.channels)


def pcm_to_float(raw: np.ndarray, encoding: str) -> np.ndarray:
    """Converts bytes of samples, uint8 `[n]`, to float32 `[n / bytes per sample]`."""
    if encoding.endswith("be"):
        encoding = encoding.removesuffix("be")
        raw = raw.reshape(-1, BYTES[encoding])[:, ::-1].reshape(-1)
    if encoding in ("float32", "float64"):
        return raw.view(f"<f{BYTES[encoding]}").astype(np.float32)
    if encoding == "pcm8":
        return (raw.astype(np.float32) - 128) / 128
    if encoding == "pcm24":
        # As the upper bytes of 32 bits the sign is right; float32 holds 24 bits exactly.
        wide = np.zeros((raw.size // 3, 4), np.uint8)
        wide[:, 1:] = raw.reshape(-1, 3)
        raw, encoding = wide.reshape(-1), "pcm32"
    size = BYTES[encoding]
    return raw.view(f"<i{size}").astype(np.float32) / np.float32(2 ** (8 * size - 1))


def check_whole(wav: WavInfo, size: int) -> None:
    held = max(size - wav.data_offset, 0) // wav.frame_bytes
    if held < wav.frames:
        raise _truncated(wav, held)


def wav_blocks(wav: WavInfo, file: BinaryIO, salvage: bool) -> Iterator[np.ndarray]:
    """Yields the samples of a file that has been read up to `wav.data_offset`."""
    count, wanted = 0, wav.frames or math.inf
    while count < wanted:
        frames = min(2**14, wanted - count)
        try:
            raw = file.read(frames * wav.frame_bytes)
        except OSError as error:
            raise unreadable(wav.path, error) from error
        held = len(raw) // wav.frame_bytes
        if held:
            whole = np.frombuffer(raw, np.uint8, held * wav.frame_bytes)
            yield pcm_to_float(whole, wav.encoding).reshape(held, wav.channels)
        count += held
        if held < frames:
            break
    if not count and not wav.frames:
        raise bad_file(wav.path, "a WAV header without samples", "a WAV file with samples")
    if count < wav.frames:
        if count and salvage:
            raise damaged(wav.path, count / wav.sample_rate, wav.seconds)
        raise _truncated(wav, count)


def _truncated(wav: WavInfo, held: int) -> AudioError:
    promised = f"the {counted(wav.frames, 'sample')} that its header promises"
    return bad_file(wav.path, f"{counted(held, 'sample')} (truncated)", promised)


@contextlib.contextmanager
def opened(path: str, expected: str) -> Iterator[tuple[BinaryIO, int]]:
    """Context manager that opens a file; yields it and its size in bytes.

    Raises:
      AudioError: if it is missing, unreadable, empty or no regular file.
    """
    try:
        status = os.stat(path)
        # Before it is opened, since that waits for a program that writes into the pipe.
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            expected += ", or - for a WAV on standard input"
            raise bad_file(path, "a pipe or a device", expected)
        file = open(path, "rb")  # noqa: SIM115
    except FileNotFoundError as error:
        raise bad_file(path, "no such file", expected) from error
    except OSError as error:
        raise unreadable(path, error) from error
    with file:
        if status.st_size == 0:
            raise bad_file(path, "an empty file (0 bytes)", expected)
        yield file, status.st_size
