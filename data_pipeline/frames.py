"""Decodes the packets of an audio stream to frames, each codec as it needs it.

PyAV is imported only where it is used, so that programs show their flags at once.
"""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

# Codecs whose checksums FFmpeg's libraries check only if told to: those without loss, and AC-3,
# whose standard asks decoders to check (ATSC A/52, 7.10). MP3's are left alone: players ignore them
# too, and some encoders write wrong ones.
_CHECKED = ("flac", "wavpack", "tta", "tak", "ape", "mlp", "truehd", "ac3", "eac3")
# Containers in which frames follow each other, with nothing around them.
BARE = ("mp3", "aac", "ac3", "eac3", "dts", "flac")
# Bytes that are kept of what is decoded: the longest start of a FLAC frame, up to its number.
_HEAD = 11


@dataclasses.dataclass
class Frame:
    """A decoded frame.

    Attributes:
      frame: PyAV's frame.
      samples: number of its samples, from its first on, that belong to the recording.
      time: its timestamp, in seconds, or None.
      head: the first bytes of its packet, or nothing if it is not the first frame of its packet.
      position: of its packet in the file, in bytes, or None.
      size: of its packet, in bytes; 0 if it is not the first frame of its packet.
      chained: whether a further part of a chained Ogg file, or of joined MP3 files, begins here.
    """

    frame: Any
    samples: int
    time: float | None
    head: bytes
    position: int | None
    size: int
    chained: bool


@dataclasses.dataclass
class Failure:
    """A place in a file where nothing could be decoded.

    Attributes:
      reason: FFmpeg's error message.
      head: the first bytes there, if they may be anything, or nothing; None if the container says
        that they are audio.
    """

    reason: str
    head: bytes | None


def frames(container: Any, stream: Any) -> Iterator[Frame | Failure]:
    """Yields a stream's frames, and failures in place of those that can't be decoded."""
    import av

    kind, context = container.format.name, stream.codec_context
    vorbis = _OggVorbis() if (kind, context.name) == ("ogg", "vorbis") else None
    options = {"err_detect": "crccheck+explode"} if context.name in _CHECKED else {}
    context.options = {**options, "flags2": "+skip_manual"} if vorbis else options
    errors = (av.error.FFmpegError, OSError)
    first, chained = True, False
    try:
        for packet, following in _with_next(_packets(container, stream)):
            if kind == "ogg" and not first and _begins_part(packet, context.name):
                # Else the second part overlaps with the first, and is wrong for a while.
                context.flush_buffers()
                chained = True
                vorbis = vorbis and _OggVorbis(chained=True)
            first = False
            head, count = bytes(memoryview(packet)[:_HEAD]), 0
            try:
                for frame in packet.decode():
                    count += 1
                    samples = frame.samples
                    if vorbis:
                        ends = not following.size or _begins_part(following, context.name)
                        samples = vorbis.kept(packet, frame, ends)
                    if samples:
                        start = head if count == 1 else b""
                        size = packet.size if count == 1 else 0
                        time = _time(frame)
                        yield Frame(frame, samples, time, start, packet.pos, size, chained)
                        chained = False
            except errors as error:
                # A tag between frames is what the next of several joined files begins with.
                chained = chained or (kind == "mp3" and head.startswith(b"ID3"))
                if not (chained and kind == "mp3"):
                    yield Failure(error.strerror, head if kind in BARE else None)
            else:
                if kind == "flac" and head and not count:
                    yield Failure("incomplete frame", head)
    except errors as error:
        yield Failure(error.strerror, b"")


def _packets(container: Any, stream: Any) -> Iterator[Any]:
    """Yields a stream's packets. PyAV ends with IndexError if others begin within the file."""
    with contextlib.suppress(IndexError):
        yield from container.demux(stream)


def _with_next(packets: Iterator[Any]) -> Iterator[tuple[Any, Any]]:
    """Yields each packet with the next one. The last packet, which flushes the decoder, is empty.

    An error of `packets` comes after the packet before it.
    """
    before = failure = None
    try:
        for packet in packets:
            if before is not None:
                yield before, packet
            before = packet
    except Exception as error:
        failure = error
    if before is not None:
        yield before, before
    if failure:
        raise failure


def _begins_part(packet: Any, codec: str) -> bool:
    """Whether a further part of a chained Ogg file begins with this packet."""
    if codec == "opus":  # a part begins with samples to skip
        skipped = packet.has_sidedata("skip_samples") and packet.get_sidedata("skip_samples")
        return bool(skipped) and any(bytes(skipped)[:4])
    return packet.has_sidedata("new_extradata")


def _time(timed: Any) -> float | None:
    known = timed.pts is not None and timed.time_base
    return float(timed.pts * timed.time_base) if known else None


class _OggVorbis:
    """Tells which samples of Ogg Vorbis, or of one part of a chained file, are kept.

    A part's first packet only prepares the overlap with the second, and the last packet ends where
    its page says (Vorbis I specification, A.2). FFmpeg's libraries cut at the wrong place in a
    part of one page, and return the first block of all parts but the first.
    """

    def __init__(self, chained: bool = False):
        self.chained = chained
        self.overlap = None  # samples of the first packet
        self.one_page = True  # so far
        self.expected = 0  # the timestamp of the next packet

    def kept(self, packet: Any, frame: Any, ends: bool) -> int:
        """Returns the number of a frame's samples; `ends` tells whether a part ends with it."""
        first = self.overlap is None
        if first:
            self.overlap = frame.samples
            # With more pages, timestamps count from the last page back.
            self.one_page = self.chained or packet.pts == 0
        elif packet.pts != self.expected:
            self.one_page = False
        # In the last packet the duration may be negative, but FFmpeg's libraries wrap it around.
        duration = packet.duration or frame.samples
        duration -= 2**32 * (duration >= 2**31)
        self.expected = packet.pts + duration if packet.pts is not None else None
        if first:
            return 0
        if not ends:  # durations within a part are sometimes too short
            return frame.samples
        if duration < frame.samples and self.one_page:
            duration += self.overlap
        return min(max(duration, 0), frame.samples)


def flac_time(head: bytes, block: int, rate: int) -> float | None:
    """The time of the FLAC frame that begins with `head`, in seconds; None if none begins so.

    FFmpeg's timestamps do not replace it: in front of a damaged frame they are a later frame's.
    Source: RFC 9639, section 9.1.

    Args:
      head: its first bytes.
      block: number of samples of each frame but the last, if it is the same for all.
      rate: sample rate, in Hz.
    """
    if len(head) < _HEAD or head[0] != 0xFF or head[1] not in (0xF8, 0xF9):
        return None
    size = 8 - (head[4] ^ 0xFF).bit_length()  # the leading ones: bytes of the number; 0 for one
    number = head[4] & (0x7F >> size)
    for byte in head[5 : 4 + size]:
        number = (number << 6) | (byte & 0x3F)
    return number * (1 if head[1] == 0xF9 else block) / rate


def frame_samples(frame: Any) -> np.ndarray:
    """Converts a frame to float32 `[samples, channels]`; integers are scaled exactly.

    Raises:
      ValueError: if PyAV cannot convert the frame's format to NumPy.
    """
    if frame.format.is_planar and frame.layout.nb_channels >= 8:
        import av

        # PyAV reads past the end of 8 or more planes and may crash; this only interleaves them.
        kind = frame.format.packed.name
        resampler = av.AudioResampler(kind, frame.layout.name, frame.sample_rate)
        frame.pts = None
        (frame,) = resampler.resample(frame)
    data = frame.to_ndarray()
    data = data.T if frame.format.is_planar else data.reshape(-1, frame.layout.nb_channels)
    if data.dtype == np.uint8:
        return (data.astype(np.float32) - 128) / 128
    if data.dtype.kind == "i":
        return data.astype(np.float32) / np.float32(2 ** (8 * data.dtype.itemsize - 1))
    return np.ascontiguousarray(data, np.float32)


def counted_by_encoder(path: str, position: int, rate: int) -> tuple[int, int] | None:
    """Returns what an MP3's encoder noted in front of the first frame, or None.

    Args:
      path: an MP3 file.
      position: of its first frame of audio, in bytes.
      rate: sample rate, in Hz.

    Returns:
      The number of frames, and of the samples in them without the encoder's delay and padding.
    """
    with open(path, "rb") as file:
        front = file.read(position)
    at = max(front.rfind(b"Xing"), front.rfind(b"Info"))
    if at < 0 or len(front) < at + 12 or not front[at + 7] & 1:
        return None
    frames = int.from_bytes(front[at + 8 : at + 12], "big")
    # Behind the optional fields, LAME and FFmpeg's libraries write 12 bits for each of the two.
    fields = sum(size for bit, size in enumerate((4, 4, 100, 4)) if front[at + 7] >> bit & 1)
    delays = front[at + 8 + fields + 21 :][:3].ljust(3, b"\0")
    delay, padding = int.from_bytes(delays, "big") >> 12, int.from_bytes(delays, "big") & 0xFFF
    return frames, frames * (1152 if rate >= 32_000 else 576) - delay - padding
