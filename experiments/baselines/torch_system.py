"""What other people's networks in PyTorch share: packages, weights, and their own sample rate.

Each network runs as its authors run it, at its own sample rate and in stereo. The packages come
with `make comparison`; nothing here imports them before a network is loaded. Weights are loaded
without running code that their files hold, but for Demucs's that the package itself downloads.
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
from sccunet.config import Config, ConfigError

TORCH = "torch==2.13.0"  # as `make comparison` installs it

# Left and right of the mixture, torch.float32 [2, samples] -> each stem's, shaped as it.
Estimate = Callable[[Any], Mapping[str, Any]]


def import_package(name: str) -> ModuleType:
    """Imports one of the packages, or a module of one.

    Raises:
      ConfigError: if it cannot be imported.
    """
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:  # OSError: of a compiled library
        raise missing(name, str(error)) from error


def missing(name: str, reason: str) -> ConfigError:
    """The error for a package that cannot be imported."""
    reason = (reason.splitlines() or [""])[0]
    return ConfigError(f"{name}: cannot be imported ({reason}), expected it here: make comparison")


@contextlib.contextmanager
def loading(weights: str | os.PathLike, expected: str) -> Iterator[None]:
    """Files and downloads may be anything, and so may what a package fails with."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
        raise ConfigError(
            f"weights: {weights}: cannot be loaded ({reason}), expected {expected}"
        ) from error


def count_parameters(*networks: Any) -> int:
    """How many trained numbers networks have."""
    return sum(parameter.numel() for network in networks for parameter in network.parameters())


def resampled(
    torch: ModuleType,
    estimate: Estimate,
    stems: Iterable[str],
    rate: int,
    config: Config,
    least: int = 4096,
) -> Separate:
    """A system's function for recordings of the config's sample rate, mono ones too.

    Args:
      torch: the package.
      estimate: for the system's own sample rate.
      stems: what it estimates.
      rate: that sample rate, in Hz.
      config: stems and sample rate wanted.
      least: what is shorter is filled up with zeros for the system to this many samples.
    """
    pick_stems(dict.fromkeys(stems, np.zeros((0, 2))), config)  # says now what is missing
    our_rate = config.model.sample_rate

    def separate(mixture: np.ndarray, references: np.ndarray, key: str) -> np.ndarray:
        samples, channels = mixture.shape
        if channels > 2:
            raise ConfigError(f"{key}: found {channels} channels, expected 1 or 2")
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
    """[any, channels] cut, or filled up with zeros, to [samples, channels]."""
    waveform = waveform[:samples]
    return np.pad(waveform, ((0, samples - len(waveform)), (0, 0)))
