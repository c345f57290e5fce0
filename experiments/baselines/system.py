"""The interface of a separation system for the programs that score and measure it."""

import dataclasses
from collections.abc import Callable, Mapping
from importlib import metadata

import numpy as np

from sccunet.config import Config, ConfigError

# (mixture [samples, channels], references [stems, samples, channels], "<split>/<track>")
# -> estimates, shaped as the references.
Separate = Callable[[np.ndarray, np.ndarray, str], np.ndarray]


@dataclasses.dataclass(frozen=True)
class System:
    """A way to estimate the stems of a track.

    Attributes:
      separate: (mixture [samples, channels], references [stems, samples, channels],
        "<split>/<track>") -> estimates, shaped as the references. Only references and oracles use
        the true stems; only a folder of estimates uses the track's name.
      count_parameters: returns the number of trained parameters; None if nothing was trained.
      versions: versions of the packages that do the work.
    """

    separate: Separate
    count_parameters: Callable[[], int] | None = None
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)


def versions(*packages: str) -> dict[str, str]:
    """Returns the installed versions of packages."""
    return {package: metadata.version(package) for package in packages}


def pick_stems(estimates: Mapping[str, np.ndarray], config: Config) -> np.ndarray:
    """Picks the config's stems from a system's; a missing stem is the sum of its sources.

    Args:
      estimates: name -> [samples, channels].
      config: names the stems, and the sources of a sum.

    Returns:
      [stems, samples, channels].

    Raises:
      ConfigError: if a stem and one of its sources are missing.
    """
    picked = []
    for stem in config.model.stems:
        sources = (stem,) if stem in estimates else config.files_of(stem)
        if not set(sources) <= set(estimates):
            raise ConfigError(
                f"stem {stem}: found a system with {', '.join(estimates)}, expected one with"
                f" {' and '.join(sources)}"
            )
        picked.append(sum(estimates[source] for source in sources))
    return np.stack(picked)
