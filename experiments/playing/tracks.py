"""The mixture and the stems of a song, in files that grow while others read them."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

_BIN = 256  # samples of a peak
_BLOCK = 1 << 16


class Tracks:
    """Recordings of equal length, all with the same channels, in a file of float32 each.

    One thread appends, others may read what is there.

    Args:
      folder: an existing folder for the files.
      names: the mixture's name, then those of the stems.
      sample_rate: in Hz.
      channels: of each track.

    Attributes:
      frames: number of samples that all tracks have.
    """

    def __init__(self, folder: Path, names: Sequence[str], sample_rate: int, channels: int):
        self.names, self.sample_rate, self.channels = [*names], sample_rate, channels
        self.frames = 0
        self._files = [folder / f"{number}.f32" for number in range(len(names))]
        self._peaks = [bytearray() for _ in names]
        self._rest = np.zeros((len(names), 0), np.float32)

    def append(self, blocks: Sequence[np.ndarray]) -> None:
        """Adds samples to every track: a block [samples, channels] for each."""
        for file, block in zip(self._files, blocks, strict=True):
            with file.open("ab") as out:
                out.write(np.ascontiguousarray(block, "<f4").data)
        loudest = np.stack([np.abs(block).max(axis=1, initial=0) for block in blocks])
        loudest = np.concatenate([self._rest, loudest], axis=1)
        whole = loudest.shape[1] // _BIN * _BIN
        self._note_peaks(loudest[:, :whole].reshape(len(blocks), -1, _BIN))
        self._rest = loudest[:, whole:]
        self.frames += len(blocks[0])

    def finish(self) -> None:
        """Notes the last peak, of fewer samples."""
        if self._rest.size:
            self._note_peaks(self._rest[:, None])

    def _note_peaks(self, bins: np.ndarray) -> None:
        """Adds the maxima of [tracks, bins, samples]."""
        heights = np.ceil(255 * bins.max(axis=2).clip(0, 1)).astype(np.uint8)
        for peaks, new in zip(self._peaks, heights, strict=True):
            peaks += new.tobytes()

    def read(self, track: int, start: int, frames: int) -> np.ndarray:
        """Reads samples of a track, float32 [frames, channels]; fewer at its end."""
        frames = max(min(frames, self.frames - start), 0)
        count, offset = frames * self.channels, 4 * start * self.channels
        if not count:
            return np.zeros((0, self.channels), np.float32)
        samples = np.fromfile(self._files[track], "<f4", count, offset=offset)
        return samples.reshape(-1, self.channels)

    def blocks(self, track: int) -> Iterator[np.ndarray]:
        """Yields a whole track in blocks."""
        for start in range(0, self.frames, _BLOCK):
            yield self.read(track, start, _BLOCK)

    def peaks(self, track: int, frames: int, columns: int) -> np.ndarray:
        """Returns the heights of a waveform, uint8 [columns], full scale being 255.

        Args:
          track: its number.
          frames: number of samples that are shown; beyond the end there is nothing.
          columns: number of equal parts of it.
        """
        first = (frames * np.arange(columns) / columns / _BIN).astype(int)
        peaks = np.frombuffer(bytes(self._peaks[track]), np.uint8)
        found, there = np.zeros(columns, np.uint8), first < len(peaks)
        if len(peaks):
            found[there] = np.maximum.reduceat(peaks, first[there])
        return found
