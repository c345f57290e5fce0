"""Our trained model as a system that can be scored."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.baselines.system import System, versions
from sccunet.config import Config
from sccunet.reconstruction import Reconstruction
from sccunet.runs import PORTABLE, kind_of, model_path


def load(
    config: Config,
    model: str | os.PathLike | None,
    reconstruction: Reconstruction | None = None,
    running: Mapping[str, Any] | None = None,
) -> System:
    """Loads a model.

    Args:
      config: the model's config, which names the stems.
      model: its folder, as for `Separator.load`.
      reconstruction: how the model's estimates become stems; by default as in the paper.
      running: how its network runs: keyword arguments of `Separator.load`.

    Raises:
      ConfigError: if the model cannot be loaded.
    """
    from sccunet.separation import Separator

    model, running = model_path(model), running or {}
    separator = Separator.load(model, reconstruction, **running)

    def separate(mixture: np.ndarray, references: np.ndarray, key: str) -> np.ndarray:
        estimates = separator(mixture, config.model.sample_rate)
        return np.stack([estimates[stem] for stem in config.model.stems])

    packages = ["tensorflow", "keras"]
    if kind_of(model) == PORTABLE:
        packages = ["tensorflow" if running.get("runtime") == "tensorflow" else "openvino"]
    return System(separate, lambda: config.model.parameters, versions(*packages))
