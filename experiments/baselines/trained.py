"""Our trained model as a system that can be scored."""

import os

import numpy as np

from experiments.baselines.system import System, versions
from sccunet.config import Config
from sccunet.reconstruction import Reconstruction
from sccunet.runs import PORTABLE, kind_of, model_path


def load(
    config: Config,
    model: str | os.PathLike | None,
    reconstruction: Reconstruction | None = None,
    runtime: str = "auto",
    device: str | None = None,
) -> System:
    """Loads a model.

    Args:
      config: the model's config, which names the stems.
      model: its folder, as for `Separator.load`.
      reconstruction: how the model's estimates become stems; by default as in the paper.
      runtime, device: as for `Separator.load`.

    Raises:
      ConfigError: if the model cannot be loaded.
    """
    from sccunet.separation import Separator

    model = model_path(model)
    separator = Separator.load(model, reconstruction, runtime=runtime, device=device)

    def separate(mixture: np.ndarray, references: np.ndarray, key: str) -> np.ndarray:
        estimates = separator(mixture, config.model.sample_rate)
        return np.stack([estimates[stem] for stem in config.model.stems])

    packages = ["tensorflow", "keras"]
    if kind_of(model) == PORTABLE:
        packages = ["tensorflow" if runtime == "tensorflow" else "openvino"]
    return System(separate, lambda: config.model.parameters, versions(*packages))
