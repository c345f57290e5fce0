"""Spectrograms of stems, side by side, on a logarithmic frequency axis from 20 Hz."""

import math
import os
from collections.abc import Mapping

import numpy as np

from experiments.reports.pictures import load_pyplot, save
from sccunet.pictures import HIGHEST_DB, LOWEST_DB, LOWEST_HZ, log_frequency_bands

_FRAME_SECONDS = 0.093  # 11 Hz between bins: the bass has tones of its own
_ROWS, _MOST_COLUMNS = 240, 1000
_TICKS = {20: "20", 50: "50", 100: "100", 200: "200", 500: "500", 1000: "1k", 2000: "2k"}
_TICKS |= {5000: "5k", 10_000: "10k"}


def levels(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """Computes a spectrogram that is no larger than a picture, however long the signal is.

    Args:
      samples: float [samples].
      sample_rate: in Hz.

    Returns:
      float32 [rows, columns], dB, the lowest frequency first; a sine of full scale has about 0.
    """
    frame = 2 ** round(np.log2(_FRAME_SECONDS * sample_rate))
    hop = int(np.clip(len(samples) // _MOST_COLUMNS, 1, frame // 2))
    columns = -(-len(samples) // hop)
    group = -(-columns // _MOST_COLUMNS)  # columns in one of the picture
    padded = np.pad(np.asarray(samples, np.float32), frame // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, frame)[::hop][:columns]
    window = np.hanning(frame + 1)[:-1].astype(np.float32)
    bands = log_frequency_bands(sample_rate, frame, _ROWS)
    powers = []
    for start in range(0, columns, group * 64):
        spectra = np.fft.rfft(frames[start : start + group * 64] * window)
        starts = np.arange(0, len(spectra), group)
        sums = np.add.reduceat(np.abs(spectra) ** 2, starts, axis=0)
        counts = np.diff([*starts, len(spectra)])[:, None]
        powers.append(bands @ (sums / counts).T)  # [rows, columns]
    full_scale = (frame / 4) ** 2
    return 10 * np.log10(np.maximum(np.concatenate(powers, axis=1) / full_scale, 1e-20))


def of_systems(
    columns: Mapping[str, Mapping[str, np.ndarray]], sample_rate: int, path: str | os.PathLike
) -> None:
    """Draws spectrograms, a row for each stem and a column for each system.

    Args:
      columns: title -> stem -> float [samples].
      sample_rate: in Hz.
      path: the PNG.
    """
    pyplot = load_pyplot()
    stems = list(next(iter(columns.values())))
    figure, axes = pyplot.subplots(
        len(stems),
        len(columns),
        figsize=(10, 0.6 + 1.5 * len(stems)),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for (title, signals), column in zip(columns.items(), axes.T, strict=True):
        column[0].set_title(title, fontsize=10)
        for stem, axis in zip(stems, column, strict=True):
            seconds = len(signals[stem]) / sample_rate
            image = _draw(axis, levels(signals[stem], sample_rate), sample_rate, 0, seconds)
    for stem, axis in zip(stems, axes[:, 0], strict=True):
        axis.set_ylabel(f"{stem}\nHz", fontsize=9)
    for axis in axes[-1]:
        axis.set_xticks(range(0, int(seconds) + 1, 2))
        axis.set_xlabel("seconds", fontsize=9)
    figure.colorbar(image, ax=axes, label="dB", shrink=0.4, aspect=30, pad=0.01)
    save(figure, path)


def of_pairs(
    pairs: Mapping[str, tuple[np.ndarray, np.ndarray]],
    sample_rate: int,
    start: float,
    seconds: float,
    path: str | os.PathLike,
) -> None:
    """Draws spectrograms, a row for the mixture and each stem: truth left, estimate right.

    Args:
      pairs: "mixture" and stems -> truth and estimate, from `levels`.
      sample_rate: in Hz.
      start: time of the first sample, in seconds.
      seconds: length.
      path: the PNG.
    """
    pyplot = load_pyplot()
    figure, axes = pyplot.subplots(
        len(pairs),
        2,
        figsize=(12, 2.2 * len(pairs)),
        sharex=True,
        sharey=True,
        layout="constrained",
    )
    for (name, pair), row in zip(pairs.items(), axes, strict=True):
        for axis, what, image in zip(row, ("truth", "estimate"), pair, strict=True):
            drawn = _draw(axis, image, sample_rate, start, seconds)
            axis.set_title(f"{name}, {what}")
        row[0].set_ylabel("Hz")
    axes[0, 0].set_title("sum of the true stems")
    axes[0, 1].set_title("sum of the estimates")
    for axis in axes[-1]:
        axis.set_xlabel("seconds")
    figure.colorbar(drawn, ax=axes, label="dB", shrink=0.4)
    save(figure, path, most_bytes=math.inf)


def _draw(axis, image: np.ndarray, sample_rate: int, start: float, seconds: float):
    """Draws a result of `levels` into an axis of matplotlib; returns matplotlib's image."""
    drawn = axis.imshow(
        image,
        extent=(start, start + seconds, np.log2(LOWEST_HZ), np.log2(sample_rate / 2)),
        origin="lower",
        aspect="auto",
        vmin=LOWEST_DB,
        vmax=HIGHEST_DB,
        cmap="magma",
    )
    ticks = {hertz: label for hertz, label in _TICKS.items() if hertz < sample_rate / 2}
    axis.set_yticks(np.log2(list(ticks)), ticks.values())
    axis.tick_params(labelsize=7)
    return drawn
