"""Shared by other people's PyTorch networks: packages, weights, and resampling.

Each network runs as its authors run it, at its own sample rate and in stereo. `make comparison`
installs the packages, which are imported only when a network is loaded. Weights are loaded without
running code from their files, except for weights that Demucs itself downloads.
"""

import contextlib
import importlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any

import numpy as np

from data_pipeline import audio
from experiments.baselines.system import Separate, pick_stems
from sccunet.checks import counted
from sccunet.config import Config, ConfigError

TORCH = "torch==2.13.0"  # as `make comparison` installs it

# Left and right of the mixture, torch.float32 [2, samples] -> stem name -> stem of the same shape.
Estimate = Callable[[Any], Mapping[str, Any]]


def import_package(name: str) -> ModuleType:
    """Imports one of the packages, or a module of one.

    Raises:
      ConfigError: if it cannot be imported.
    """
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:  # OSError: from a compiled library
        raise missing(name, str(error)) from error


def missing(name: str, reason: str) -> ConfigError:
    """Returns the error for a package that cannot be imported."""
    reason = (reason.splitlines() or [""])[0]
    return ConfigError(
        f"{name}: cannot be imported ({reason}), expected an installed package: make comparison"
    )


@contextlib.contextmanager
def loading(weights: str | os.PathLike, expected: str) -> Iterator[None]:
    """Turns any error of loading weights into a ConfigError; packages may raise anything."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
        raise ConfigError(
            f"--weights: {weights}: cannot be loaded ({reason}), expected {expected}"
        ) from error


def count_parameters(*networks: Any) -> int:
    """Returns the number of trained parameters of networks."""
    return sum(parameter.numel() for network in networks for parameter in network.parameters())


def resampled(
    torch: ModuleType,
    estimate: Estimate,
    stems: Iterable[str],
    rate: int,
    config: Config,
    least: int = 4096,
) -> Separate:
    """Returns a `Separate` at the config's sample rate, for mono recordings, too.

    Args:
      torch: the package.
      estimate: the system's function, at its own sample rate.
      stems: names of the stems that it estimates.
      rate: the system's sample rate, in Hz.
      config: gives the wanted stems and sample rate.
      least: shorter recordings are padded with zeros to this many samples.
    """
    pick_stems(dict.fromkeys(stems, np.zeros((0, 2))), config)  # reports a missing stem now
    our_rate = config.model.sample_rate

    def separate(mixture: np.ndarray, references: np.ndarray, key: str) -> np.ndarray:
        samples, channels = mixture.shape
        if channels > 2:
            raise ConfigError(f"{key}: found {counted(channels, 'channel')}, expected 1 or 2")
        stereo = np.ascontiguousarray(np.broadcast_to(mixture, (samples, 2)), np.float32)
        stereo = _fit(audio.resample(stereo, our_rate, rate), math.ceil(samples * rate / our_rate))
        waveforms = torch.from_numpy(_fit(stereo, max(len(stereo), least)).T.copy())
        with torch.inference_mode():
            estimates = estimate(waveforms)
        picked = {}
        for name, stem in estimates.items():
            stem = stem[:, : len(stereo)].numpy().T
            stem = _fit(audio.resample(stem, rate, our_rate), samples)
            picked[name] = stem if channels == 2 else stem.mean(axis=1, keepdims=True)
        return pick_stems(picked, config)

    return separate


def _fit(waveform: np.ndarray, samples: int) -> np.ndarray:
    """Cuts or zero-pads a waveform [any, channels] to [samples, channels]."""
    waveform = waveform[:samples]
    return np.pad(waveform, ((0, samples - len(waveform)), (0, 0)))
