"""Spectrograms of stems, side by side."""

import os
from collections.abc import Mapping

import numpy as np

from experiments.reports.pictures import load_pyplot, save

_FRAME, _HOP = 2048, 512
_RANGE_DB = 80


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
            image = _draw(axis, signals[stem], sample_rate)
            ticks = [hertz for hertz in (100, 500, 2000, 8000) if hertz < sample_rate / 2]
            axis.set_yticks(ticks, map(str, ticks))
            axis.minorticks_off()
            axis.tick_params(labelsize=8)
    for stem, axis in zip(stems, axes[:, 0], strict=True):
        axis.set_ylabel(f"{stem}\nHz", fontsize=9)
    seconds = len(signals[stems[0]]) / sample_rate
    for axis in axes[-1]:
        axis.set_xticks(range(0, int(seconds) + 1, 2))
        axis.set_xlabel("seconds", fontsize=9)
    figure.colorbar(image, ax=axes, label="dB", shrink=0.4, aspect=30, pad=0.01)
    save(figure, path)


def of_pairs(
    pairs: Mapping[str, tuple[np.ndarray, np.ndarray]], sample_rate: int, path: str | os.PathLike
) -> None:
    """Draws spectrograms, a row for the mixture and each stem: truth left, estimate right.

    Args:
      pairs: "mixture" and stems -> truth and estimate, float [samples].
      sample_rate: in Hz.
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
        for axis, what, samples in zip(row, ("truth", "estimate"), pair, strict=True):
            image = _draw(axis, samples, sample_rate)
            axis.set_title(f"{name}, {what}")
        row[0].set_ylabel("Hz")
    axes[0, 1].set_title("sum of the estimates")
    for axis in axes[-1]:
        axis.set_xlabel("seconds")
    figure.colorbar(image, ax=axes, label="dB", shrink=0.4)
    save(figure, path)


def _draw(axis, samples, sample_rate: int):
    """Draws float `samples` [samples] into an axis of matplotlib; returns the image."""
    # Noise at -140 dB keeps the logarithm of digital silence finite.
    silence = 1e-7 * np.random.default_rng(0).standard_normal(len(samples))
    # Scaled so that a full-scale sine is at 0 dB.
    *_, image = axis.specgram(
        samples + silence,
        NFFT=_FRAME,
        noverlap=_FRAME - _HOP,
        Fs=sample_rate,
        mode="magnitude",
        scale="dB",
        vmin=-_RANGE_DB - 20,
        vmax=-20,
        cmap="magma",
    )
    axis.set_yscale("symlog", linthresh=500)
    axis.set_ylim(40, sample_rate / 2)
    return image
