"""Estimates in a folder, made by any other software."""

import os
from pathlib import Path

import numpy as np

from data_pipeline import audio
from data_pipeline.audio_writer import write_wav
from experiments.baselines.system import System, pick_stems
from experiments.preparing.inputs import sources_of
from sccunet.config import Config, ConfigError


def load(config: Config, folder: str | os.PathLike) -> System:
    """Returns a system that reads its estimates with `read_estimates`."""
    return System(lambda mixture, references, key: read_estimates(folder, key, config))


def read_estimates(folder: str | os.PathLike, key: str, config: Config) -> np.ndarray:
    """Reads a track's estimates in museval's layout: <folder>/<split>/<track>/<stem>.wav.

    Args:
      folder: folder of the estimates; the level <split> may be missing in it.
      key: "<split>/<track>".
      config: names the stems; a stem without a file is the sum of its sources.

    Returns:
      float32 [stems, samples, channels].

    Raises:
      AudioError: if a file cannot be read, or a stem has two files.
      ConfigError: if the track or a stem is missing, or has another sample rate.
    """
    tracks = [Path(folder) / key, Path(folder) / Path(key).name]
    track = next((path for path in tracks if path.is_dir()), None)
    if track is None:
        raise ConfigError(f"{tracks[0]}: found no such folder, expected the estimates of {key}")
    estimates = {}
    for stem, (path, stream) in sources_of(str(track)).items():
        if stem == "mixture":
            continue
        estimates[stem], rate = audio.read(path, stream)
        if rate != config.model.sample_rate:
            raise ConfigError(f"{path}: found {rate} Hz, expected {config.model.sample_rate} Hz")
        first = next(iter(estimates))
        if estimates[stem].shape != estimates[first].shape:
            raise ConfigError(
                f"{path}: found {estimates[stem].shape} (samples, channels), expected"
                f" {estimates[first].shape} as in {first}"
            )
    return pick_stems(estimates, config)


def write_estimates(folder: str | os.PathLike, estimates: np.ndarray, config: Config) -> None:
    """Writes estimates [stems, samples, channels] as <folder>/<stem>.wav, 32-bit floats."""
    for stem, samples in zip(config.model.stems, estimates, strict=True):
        write_wav(Path(folder) / f"{stem}.wav", samples, config.model.sample_rate, "float32")
