"""Reads WAV files with its own parser, which locates each sample and notices missing ones.

Audio is float32 `[samples, channels]` with full scale [-1, 1). Integer PCM of b bits is divided by
2**(b - 1), exactly. This module does not import TensorFlow.
"""

import dataclasses
import math
import os
import stat
import struct
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from sccunet.checks import counted
from sccunet.config import UserError

# WAV (format tag, bits per sample) -> our name for the encoding.
_ENCODINGS = {
    (1, 8): "pcm8",
    (1, 16): "pcm16",
    (1, 24): "pcm24",
    (1, 32): "pcm32",
    (3, 32): "float32",
    (3, 64): "float64",
}
_BYTES = {name: bits // 8 for (_, bits), name in _ENCODINGS.items()}
_EXTENSIBLE = 0xFFFE


class AudioError(UserError):
    """A file that can't be used. One line names the file, what was found and what was expected."""


class DamagedError(AudioError):
    """A file that decodes only in part; that part was returned before the error."""


class EncodingError(AudioError):
    """A WAV file in an encoding that only FFmpeg's libraries may decode."""


@dataclasses.dataclass(frozen=True)
class WavInfo:
    """The header of a WAV file.

    Attributes:
      path: path of the file.
      sample_rate: in Hz.
      channels: number of channels, the samples per frame.
      frames: length, in samples per channel.
      encoding: "pcm8", "pcm16", "pcm24", "pcm32", "float32" or "float64".
      data_offset: position of the first sample in the file, in bytes.
    """

    path: str
    sample_rate: int
    channels: int
    frames: int
    encoding: str
    data_offset: int

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.frames / self.sample_rate

    @property
    def frame_bytes(self) -> int:
        """Bytes per frame: one sample of all channels."""
        return self.channels * _BYTES[self.encoding]


def wav_info(path: str | os.PathLike) -> WavInfo:
    """Reads a WAV file's header (RIFF or RF64) and checks that all samples it states are there.

    Raises:
      AudioError: if the file is missing, unreadable, empty, not a WAV, without samples, shorter
        than its header says, or in an encoding that `WavInfo` does not list.
    """
    path = os.fspath(path)
    size = file_size(path, "a WAV file")
    with open(path, "rb") as file:
        info = wav_header(path, file, size)
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
        raise bad_file(info.path, "a file that got shorter while in use", f"{info.frames} samples")
    return pcm_to_float(raw, info.encoding).reshape(frames, info.channels)


def pcm_to_float(raw: np.ndarray, encoding: str) -> np.ndarray:
    """Converts bytes of samples, uint8 `[n]`, to float32 `[n / bytes per sample]`."""
    if encoding in ("float32", "float64"):
        return raw.view(f"<f{_BYTES[encoding]}").astype(np.float32)
    if encoding == "pcm8":
        return (raw.astype(np.float32) - 128) / 128
    if encoding == "pcm24":
        # As the upper bytes of 32 bits the sign is right; float32 holds 24 bits exactly.
        wide = np.zeros((raw.size // 3, 4), np.uint8)
        wide[:, 1:] = raw.reshape(-1, 3)
        raw, encoding = wide.reshape(-1), "pcm32"
    size = _BYTES[encoding]
    return raw.view(f"<i{size}").astype(np.float32) / np.float32(2 ** (8 * size - 1))


def wav_header(path: str, file: BinaryIO, size: int | None = None) -> WavInfo:
    """Reads a WAV up to its first sample; the file has `size` bytes and may be truncated.

    Without a size the file is a pipe, whose header may not state the length; `frames` is 0 then.
    """
    try:
        head = file.read(12)
        if not head:
            raise bad_file(path, "nothing (0 bytes)", "a WAV file")
        if head[:4] not in (b"RIFF", b"RF64") or head[8:] != b"WAVE":
            raise bad_file(path, "no WAV header", "a WAV file")
        offset, layout, long_size = 12, None, None
        while len(chunk := file.read(8)) == 8:
            name, length = struct.unpack("<4sI", chunk)
            offset += 8
            if name == b"data":
                break
            body = file.read(length + length % 2)
            offset += len(body)
            if name == b"fmt " and length >= 16:
                layout = body
            elif name == b"ds64" and length >= 16:
                long_size = struct.unpack_from("<Q", body, 8)[0]
        else:
            raise bad_file(path, "a WAV header without a data chunk", "a WAV file with samples")
    except OSError as error:
        raise unreadable(path, error) from error
    if layout is None:
        raise bad_file(path, "a WAV header without a format chunk", "a whole WAV header")
    tag, channels, rate, _, frame_bytes, bits = struct.unpack_from("<HHIIHH", layout)
    if tag == _EXTENSIBLE and len(layout) >= 26:
        tag = struct.unpack_from("<H", layout, 24)[0]
    encoding = _ENCODINGS.get((tag, bits))
    if encoding is None or not channels or not rate or frame_bytes != channels * _BYTES[encoding]:
        raise EncodingError(
            f"{path}: found WAV format {tag} with {bits} bits, {counted(channels, 'channel')} and"
            f" {rate} Hz, expected one of {', '.join(_BYTES)}"
        )
    if length == 0xFFFFFFFF:  # the count is in ds64, or the length is unknown
        length = long_size if long_size is not None else size - offset if size is not None else 0
    if size is None and (2**31 - 2**13 < length <= 2**31 or length == 2**64 - 1):
        length = 0  # SoX and arecord write the largest length they know into a pipe
    frames = length // frame_bytes
    if frames == 0 and size is not None:
        raise bad_file(path, "a WAV header without samples", "a WAV file with samples")
    return WavInfo(path, rate, channels, frames, encoding, offset)


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
    promised = f"the {wav.frames} samples that its header promises"
    return bad_file(wav.path, f"{counted(held, 'sample')} (truncated)", promised)


def file_size(path: str, expected: str) -> int:
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
    except FileNotFoundError as error:
        raise bad_file(path, "no such file", expected) from error
    except OSError as error:
        raise unreadable(path, error) from error
    if not stat.S_ISREG(status.st_mode):
        raise bad_file(path, "a pipe or a device", f"{expected}, or - for a WAV on standard input")
    if status.st_size == 0:
        raise bad_file(path, "an empty file (0 bytes)", expected)
    return status.st_size


def make_riff(path: str) -> None:
    """Turns an RF64 file of less than 4 GiB into a plain WAV, which every program reads."""
    size = os.path.getsize(path)
    with open(path, "r+b") as file:
        info = wav_header(path, file, size)
        file.seek(0)
        file.write(struct.pack("<4sI4s4s", b"RIFF", size - 8, b"WAVE", b"JUNK"))
        file.seek(info.data_offset - 4)
        file.write(struct.pack("<I", info.frames * info.frame_bytes))


def bad_file(path: str, found: str, expected: str) -> AudioError:
    return AudioError(f"{path}: found {found}, expected {expected}")


def unreadable(path: str, error: OSError) -> AudioError:
    return AudioError(f"{path}: cannot be read ({error.strerror}), expected a readable file")


def damaged(
    path: str, found: float, promised: float | None, silent: float = 0, first: float | None = None
) -> DamagedError:
    """Returns the error for lost audio, all in seconds; `promised` is None if the end is there."""
    text = f"{path}: found {found:.2f} s of audio ("
    text += "damaged)" if promised is None else "truncated or damaged)"
    if silent:
        text += f", {silent:.2f} s of it, from {first:.2f} s on, cannot be decoded and are silent"
    if promised is not None:
        text += f", {promised - found:.2f} s of the {promised:.2f} s that its header promises"
        text += " are missing"
    elif not silent:
        text += f", parts of it from {first:.2f} s on cannot be decoded"
    return DamagedError(text)
