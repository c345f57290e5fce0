"""The example of a comparison: a part of a track that is measured and drawn as spectrograms."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.baselines.folders import read_estimates
from experiments.reports import spectrograms
from sccunet.config import Config

_SECONDS = 6.0  # length of the drawn part


def liveliest(track: Any, config: Config, part: tuple[int, int], frames: int) -> tuple[int, int]:
    """Returns first sample and length of the excerpt in which the quietest stem is loudest.

    Elsewhere a stem may be silent.

    Args:
      track: a `data_pipeline.tracks.Track`.
      config: names the stems.
      part: first sample and length of the part of the track to search.
      frames: length of the excerpt, in samples.
    """
    from data_pipeline.tracks import read_stems

    first, length = part
    second = config.model.sample_rate
    if length - frames < second:
        return first, min(length, frames)
    stems = read_stems(track, config, first, length)[:, : length // second * second]
    powers = (stems**2).reshape(len(stems), -1, second * stems.shape[2]).sum(axis=2)
    seconds = max(1, frames // second)
    windows = np.apply_along_axis(np.convolve, 1, powers, np.ones(seconds), "valid")
    starts = first + second * np.arange(windows.shape[1])
    fits = starts + frames <= first + length
    return int(starts[fits][windows.min(axis=0)[fits].argmax()]), frames


def draw(
    track: Any,
    config: Config,
    folders: Mapping[str, Path],
    part: tuple[int, int],
    path: Path,
) -> dict[str, Any] | None:
    """Draws the spectrograms of the kept estimates.

    Args:
      track: the measured track.
      config: names the stems.
      folders: label of each system -> folder with <stem>.wav, in the order of the columns; systems
        whose folder does not exist are left out.
      part: first sample and length of the estimates.
      path: the PNG to write.

    Returns:
      "track", "start_seconds" and "seconds" of the drawn part; None if there are no estimates.
    """
    from data_pipeline.tracks import read_mixture, read_stems

    stems, rate = config.model.stems, config.model.sample_rate
    start, frames = liveliest(track, config, part, round(_SECONDS * rate))
    first = start - part[0]

    def mono(signals):  # [stems, samples, channels]
        return dict(zip(stems, signals.mean(axis=2), strict=True))

    estimates = {
        label: mono(read_estimates(folder, ".", config)[:, first:][:, :frames])
        for label, folder in folders.items()
        if folder.is_dir()
    }
    if not estimates:
        return None
    mixture = read_mixture(track, config, start, frames)
    columns = {
        "mixture": mono(mixture[None].repeat(len(stems), axis=0)),
        "truth": mono(read_stems(track, config, start, frames)),
        **estimates,
    }
    spectrograms.of_systems(columns, rate, path)
    key = f"{track.split}/{track.name}"
    return {"track": key, "start_seconds": start / rate, "seconds": frames / rate}
