"""Files that are made while they are sent: WAVs of float32, ZIPs of them, and mixes."""

import io
import struct
import zipfile
from collections.abc import Iterator, Sequence

import numpy as np

from experiments.playing.tracks import Tracks


def wav_head(frames: int, channels: int, sample_rate: int) -> bytes:
    """Returns the header of a WAV of float32; from 4 GiB on it is an RF64 (EBU Tech 3306)."""
    size = 4 * frames * channels
    layout = struct.pack(
        "<4sIHHIIHH", b"fmt ", 16, 3, channels, sample_rate, 4 * channels * sample_rate,
        4 * channels, 32,
    )  # fmt: skip
    riff = 4 + len(layout) + 8 + size
    if riff < 2**32:
        start, stated = struct.pack("<4sI4s", b"RIFF", riff, b"WAVE"), size
    else:
        long = struct.pack("<4sIQQQI", b"ds64", 28, riff + 36, size, frames, 0)
        start, stated = struct.pack("<4sI4s", b"RF64", 2**32 - 1, b"WAVE") + long, 2**32 - 1
    return start + layout + struct.pack("<4sI", b"data", stated)


def wav(tracks: Tracks, track: int) -> Iterator[bytes]:
    """Yields a WAV of a track."""
    yield wav_head(tracks.frames, tracks.channels, tracks.sample_rate)
    for block in tracks.blocks(track):
        yield block.tobytes()


def archive(tracks: Tracks) -> Iterator[bytes]:
    """Yields a ZIP of a WAV for each stem."""
    sent = _Sent()
    with zipfile.ZipFile(sent, "w") as file:  # not compressed, as floats hardly can be
        for track, name in list(enumerate(tracks.names))[1:]:
            with file.open(f"{name}.wav", "w", force_zip64=True) as member:
                for part in wav(tracks, track):
                    member.write(part)
                    yield sent.taken()
    yield sent.taken()


class _Sent(io.RawIOBase):
    """A file that cannot be sought in, whose content is taken away."""

    def __init__(self):
        self._content = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, part) -> int:
        self._content += part
        return len(part)

    def taken(self) -> bytes:
        content = bytes(self._content)
        self._content.clear()
        return content


def mix(tracks: Tracks, gains: Sequence[float], pans: Sequence[float]) -> Iterator[bytes]:
    """Yields a stereo WAV of the sum of the stems, as the page plays it.

    Args:
      tracks: the song.
      gains: a factor for each stem.
      pans: from -1 (left) to 1 for each stem, as `panned` has it.
    """
    yield wav_head(tracks.frames, 2, tracks.sample_rate)
    heard = [(1 + i, gain, pan) for i, (gain, pan) in enumerate(zip(gains, pans, strict=True))]
    heard = [(track, gain, pan) for track, gain, pan in heard if gain]
    for start in range(0, tracks.frames, 1 << 16):
        total = np.zeros((min(1 << 16, tracks.frames - start), 2), np.float32)
        for track, gain, pan in heard:
            total += panned(np.float32(gain) * stereo(tracks.read(track, start, 1 << 16)), pan)
        yield total.tobytes()


def stereo(block: np.ndarray) -> np.ndarray:
    """[samples, channels] -> what is heard, [samples, 2]: unless there are two, their mean."""
    return block if block.shape[1] == 2 else block.mean(axis=1, keepdims=True).repeat(2, axis=1)


def panned(block: np.ndarray, pan: float) -> np.ndarray:
    """Pans [samples, 2] as a StereoPannerNode does (Web Audio API, "Stereo panning algorithm")."""
    angle = np.pi / 2 * (pan + 1 if pan <= 0 else pan)
    near, far = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    left, right = block.T
    if pan <= 0:
        return np.stack([left + right * near, right * far], axis=1)
    return np.stack([left * near, right + left * far], axis=1)
