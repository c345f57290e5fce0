"""Parses headers of WAV files: RIFF, RF64 and BW64.

This module does not import TensorFlow.
"""

import dataclasses
import os
import struct
from typing import BinaryIO

from data_pipeline.errors import EncodingError, NoWavError, bad_file, unreadable
from sccunet.checks import counted

# WAV (format tag, bits per sample) -> our name for the encoding.
_ENCODINGS = {
    (1, 8): "pcm8",
    (1, 16): "pcm16",
    (1, 24): "pcm24",
    (1, 32): "pcm32",
    (3, 32): "float32",
    (3, 64): "float64",
}
BYTES = {name: bits // 8 for (_, bits), name in _ENCODINGS.items()}
_EXTENSIBLE = 0xFFFE
_MOST_CHUNKS = 10_000  # before the samples; gigabytes of zeros would be millions of empty chunks


@dataclasses.dataclass(frozen=True)
class WavInfo:
    """The header of a WAV file.

    Attributes:
      path: path of the file.
      sample_rate: in Hz.
      channels: number of channels, the samples per frame.
      frames: length, in samples per channel.
      encoding: "pcm8", "pcm16", "pcm24", "pcm32", "float32" or "float64"; with "be" behind it if
        the bytes of each sample are in the opposite order (RIFX).
      data_offset: position of the first sample in the file, in bytes.
      plain: whether simple parsers read the same samples: the file starts with RIFF, the chunks
        before the samples have even lengths, and the header states the samples' true length.
    """

    path: str
    sample_rate: int
    channels: int
    frames: int
    encoding: str
    data_offset: int
    plain: bool = True

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.frames / self.sample_rate

    @property
    def frame_bytes(self) -> int:
        """Bytes per frame: one sample of all channels."""
        return self.channels * BYTES[self.encoding.removesuffix("be")]


def wav_header(path: str, file: BinaryIO, size: int | None = None) -> WavInfo:
    """Reads a WAV up to its first sample; the file has `size` bytes and may be truncated.

    If the header does not state the length, the samples go to the end of the file. Without a size
    the file is a pipe; `frames` is 0 then.

    Raises:
      EncodingError: if FFmpeg's libraries may read the file; `NoWavError` if it is no WAV.
      AudioError: if the file cannot be read, or has no samples.
    """
    try:
        head = _head(path, file)
        if size is not None:
            length = _length(file, head, size)
        else:
            length = 0 if _is_placeholder(head.stated) else head.stated
    except OSError as error:
        raise unreadable(path, error) from error
    layout = head.chunks.get(b"fmt ", b"")
    if len(layout) < 14:
        # The chunk may be behind the samples, where FFmpeg's libraries find it.
        raise EncodingError(
            f"{path}: found no format chunk before the samples, expected a whole WAV header"
        )
    tag, channels, rate, _, frame_bytes, bits = struct.unpack_from(
        f"{head.order}HHIIHH", layout.ljust(16, b"\0")
    )
    if tag == _EXTENSIBLE and len(layout) >= 26:
        tag = struct.unpack_from(f"{head.order}H", layout, 24)[0]
    encoding = _ENCODINGS.get((tag, bits))
    if encoding is None or not channels or not rate or frame_bytes != channels * BYTES[encoding]:
        raise EncodingError(
            f"{path}: found WAV format {tag} with {bits} bits, {counted(channels, 'channel')} and"
            f" {rate} Hz, expected one of {', '.join(BYTES)}"
        )
    frames = length // frame_bytes
    if frames == 0 and size is not None:
        raise bad_file(path, "a WAV header without samples", "a WAV file with samples")
    encoding += "be" if head.order == ">" else ""
    plain = head.plain and length == head.stated
    return WavInfo(path, rate, channels, frames, encoding, head.offset, plain)


def states_length(path: str) -> bool:
    """Whether the header of a WAV, in any encoding, states how much audio there is."""
    with open(path, "rb") as file:
        head = _head(path, file)
        return _length(file, head, os.path.getsize(path)) == head.stated


@dataclasses.dataclass
class _Head:
    """A file up to its first sample.

    Attributes:
      order: of the bytes in a number, for `struct`.
      chunks: name -> the start of the chunk's content.
      stated: length of the samples, in bytes, as the header has it.
      offset: position of the first sample, in bytes.
      plain: as far as the header alone tells, see `WavInfo`.
    """

    order: str
    chunks: dict[bytes, bytes]
    stated: int
    offset: int
    plain: bool


def _head(path: str, file: BinaryIO) -> _Head:
    start, offset = file.read(12), 12
    if not start:
        raise bad_file(path, "nothing (0 bytes)", "a WAV file")
    tagged = start[:3] == b"ID3" and len(start) == 12
    if tagged:
        size = int("".join(f"{byte & 127:07b}" for byte in start[6:10]), 2)
        size += 10 * (start[5] >> 4 & 1)  # a footer
        _skip(file, size - 2)
        start, offset = file.read(12), 10 + size + 12
    kind = start[:4]
    if kind not in (b"RIFF", b"RIFX", b"RF64", b"BW64") or start[8:] != b"WAVE":
        raise NoWavError(f"{path}: found no WAV header, expected a WAV file")
    order, plain, chunks = ">" if kind == b"RIFX" else "<", kind == b"RIFF" and not tagged, {}
    for _ in range(_MOST_CHUNKS):
        if len(start := file.read(8)) < 8:
            break
        name, length = struct.unpack(f"{order}4sI", start)
        offset += 8
        if name == b"data":
            long = chunks.get(b"ds64", b"")
            if length == 0xFFFFFFFF and len(long) >= 16:
                length = struct.unpack_from("<Q", long, 8)[0]
            return _Head(order, chunks, length, offset, plain and not long)
        chunks[name] = file.read(min(length, 64))
        padded = length + length % 2
        _skip(file, padded - len(chunks[name]))
        offset += padded
        plain = plain and padded == length
    raise bad_file(path, "a WAV header without a data chunk", "a WAV file with samples")


def _skip(file: BinaryIO, count: int) -> None:
    if file.seekable():
        file.seek(count, os.SEEK_CUR)
    else:
        while count > 0 and (held := len(file.read(min(count, 2**16)))):
            count -= held


def _is_placeholder(length: int) -> bool:
    """Whether programs state this length where they do not know it, as in a pipe.

    It is 0 or about the largest that they know: SoX writes 0x7FFFF000, FFmpeg 0xFFFFFFFF, others
    subtract a header.
    """
    return length == 0 or any(0 <= 2**bits - length < 2**13 for bits in (31, 32, 63, 64))


def _length(file: BinaryIO, head: _Head, size: int) -> int:
    """Returns the length of the samples in a file of `size` bytes, and goes to the first."""
    stated, left = head.stated, size - head.offset
    if _is_placeholder(stated):
        file.seek(head.offset + min(stated + stated % 2, left))
        known = stated <= left and _ends(file, head.order, size)
        file.seek(head.offset)
        if not known:
            return left
    # Programs that do not check count modulo 4 GiB.
    return stated + max(left - stated, 0) // 2**32 * 2**32


def _ends(file: BinaryIO, order: str, size: int) -> bool:
    """Whether a file of `size` bytes ends here, or another chunk starts."""
    start = file.read(8)
    if len(start) < 8:
        return not start
    name, length = struct.unpack(f"{order}4sI", start)
    return all(32 <= byte < 127 for byte in name) and file.tell() + length <= size


def make_riff(path: str) -> None:
    """Turns an RF64 file of less than 4 GiB into a plain WAV, which every program reads."""
    size = os.path.getsize(path)
    with open(path, "r+b") as file:
        info = wav_header(path, file, size)
        file.seek(0)
        file.write(struct.pack("<4sI4s4s", b"RIFF", size - 8, b"WAVE", b"JUNK"))
        file.seek(info.data_offset - 4)
        file.write(struct.pack("<I", info.frames * info.frame_bytes))
