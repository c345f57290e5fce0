"""Pictures of tracks for the page: waveforms and spectrograms, as PNGs."""

import struct
import zlib
from collections.abc import Sequence

import numpy as np

from experiments.playing.tracks import Tracks

_COLUMN = 3  # pixels of a column of a waveform, one of them empty
_WINDOW = 2048  # samples of a column of a spectrogram
_LOWEST = 40.0  # Hz
_RANGE = 90.0  # dB


def waveform(peaks: np.ndarray, rows: int) -> np.ndarray:
    """Returns a bar for each peak, uint8 [rows, 3 * columns], 255 being ink.

    Args:
      peaks: uint8 [columns], full scale being 255.
      rows: height of full scale.
    """
    tall = np.maximum(peaks / 255 * rows, 2)
    middle = np.abs(np.arange(rows) - (rows - 1) / 2)
    ink = np.repeat(middle[:, None] < tall / 2, _COLUMN, axis=1)
    ink[:, _COLUMN - 1 :: _COLUMN] = False
    return np.where(ink, np.uint8(255), np.uint8(0))


def spectrogram(tracks: Tracks, track: int, frames: int, columns: int, rows: int) -> np.ndarray:
    """Returns levels, uint8 [rows, columns], from 0 at -90 dBFS to 255 at 0 dBFS.

    The first row has the highest frequencies; rows are spaced evenly in octaves. Each column is a
    window in the middle of its part, so that the time does not depend on the song's length.

    Args:
      tracks, track: what is drawn.
      frames: number of samples that are shown; beyond the end there is nothing.
      columns, rows: size of the picture.
    """
    found, highest = np.zeros((rows, columns), np.uint8), tracks.sample_rate / 2
    edges = np.geomspace(min(_LOWEST, highest / 2), highest, rows + 1) / highest * (_WINDOW // 2)
    middles, bins = (edges[1:] + edges[:-1]) / 2, np.arange(_WINDOW // 2 + 1)
    window = np.hanning(_WINDOW)
    for column in range(columns):
        middle = int(frames * (column + 0.5) / columns)
        if middle >= tracks.frames:
            break
        samples = tracks.read(track, max(middle - _WINDOW // 2, 0), _WINDOW).mean(axis=1)
        samples = np.pad(samples, (0, _WINDOW - len(samples)))
        power = np.square(np.abs(np.fft.rfft(samples * window)) / (window.sum() / 2))
        # Low rows are narrower than a bin; high ones contain several, of which the loudest counts.
        loudest = np.maximum.reduceat(power, edges[:-1].astype(int))
        level = np.where(np.diff(edges) > 1, loudest, np.interp(middles, bins, power))
        decibels = 10 * np.log10(np.maximum(level, 1e-12))
        found[:, column] = (255 * (1 + decibels / _RANGE)).clip(0, 255)[::-1]
    return found


def png(ink: np.ndarray, colour: Sequence[int]) -> bytes:
    """Returns a picture in one colour as a PNG.

    Args:
      ink: uint8 [rows, columns], from 0 (transparent) to 255.
      colour: red, green and blue, from 0 to 255.
    """
    rows, columns = ink.shape
    lines = np.pad(ink, ((0, 0), (1, 0)))  # each begins with its filter, 0 being none
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", columns, rows, 8, 3, 0, 0, 0),
        b"PLTE": bytes(colour) * 256,
        b"tRNS": bytes(range(256)),
        b"IDAT": zlib.compress(lines.tobytes(), 1),
        b"IEND": b"",
    }
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks.items()
    )
