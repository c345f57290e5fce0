"""Our trained model as a system that can be scored."""

import math
import os

import numpy as np

from experiments.baselines.system import System, versions
from sccunet.config import Config
from sccunet.reconstruction import Reconstruction


def load(
    config: Config,
    model: str | os.PathLike | None,
    reconstruction: Reconstruction | None = None,
    runtime: str = "auto",
    device: str | None = None,
) -> System:
    """Loads a portable model, a training workdir or an exported SavedModel.

    Args:
      config: the model's config, which names the stems.
      model: folder of the model.
      reconstruction: how the model's estimates become stems; by default as in the paper.
      runtime, device: as for `Separator.load`.

    Raises:
      ConfigError: if the model cannot be loaded.
    """
    from sccunet.separation import Separator
    from sccunet.unet import build_model

    separator = Separator.load(model, reconstruction, runtime=runtime, device=device)

    def separate(mixture: np.ndarray, references: np.ndarray, key: str) -> np.ndarray:
        estimates = separator(mixture, config.model.sample_rate)
        return np.stack([estimates[stem] for stem in config.model.stems])

    def count_parameters() -> int:
        return sum(math.prod(w.shape) for w in build_model(config).trainable_weights)

    return System(separate, count_parameters, versions("tensorflow", "keras"))
