"""Joins short recordings of a voice to one: speech, and the samples of singers."""

import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from data_pipeline import audio

RATE = 44_100  # Hz, of the whole set
_PAUSE = 0.1  # seconds between two recordings
_SILENT = 5e-5  # mean square over 50 ms, -43 dBFS
_BEFORE, _AFTER = 2_000, 4_000  # samples that are kept around what sounds


def trimmed(samples: np.ndarray) -> np.ndarray:
    """Returns a mono recording without the silence around it; nothing if it is silent or short."""
    from scipy.ndimage import uniform_filter1d

    window = RATE // 20
    if len(samples) < 2 * window:
        return samples[:0]
    power = uniform_filter1d(np.square(samples, dtype=np.float64), window, mode="constant")
    (sounding,) = np.nonzero(power > _SILENT)
    if len(sounding) < 2 * window:
        return samples[:0]
    return samples[max(0, sounding[0] - _BEFORE) : sounding[-1] + _AFTER]


def mono(path: Path) -> np.ndarray:
    """Reads the mean of a file's channels at the set's rate: float32 `[samples]`."""
    samples, rate = audio.read(path)
    return audio.resample(samples, rate, RATE).mean(axis=1)


def joined(recordings: Iterable[np.ndarray], even: bool, seconds: float = np.inf) -> np.ndarray:
    """Joins mono recordings, trimmed, with short pauses.

    Args:
      recordings: float `[samples]`; no more are taken than are needed.
      even: whether each gets the same peak, rather than the whole.
      seconds: ends behind the first recording that makes it this long.

    Returns:
      float64 `[samples]`, with a peak of 0.7; nothing if all are silent.
    """
    pause, parts = np.zeros(round(_PAUSE * RATE)), []
    for samples in recordings:
        peak = np.abs(samples).max(initial=0)
        if even and peak > 1e-3:
            samples = samples * (0.7 / peak)
        if len(part := trimmed(samples)):
            parts += [part, pause]
        if sum(map(len, parts)) >= seconds * RATE:
            break
    whole = np.concatenate(parts or [pause[:0]]).astype(np.float64)
    return whole * (0.7 / max(np.abs(whole).max(initial=0), 1e-3))


def shuffled(name: str, paths: Iterable[str]) -> Iterator[str]:
    """Yields paths in an order that `name` determines."""
    paths = sorted(paths)
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    yield from (paths[i] for i in rng.permutation(len(paths)))
