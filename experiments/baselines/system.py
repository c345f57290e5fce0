"""What a separation system is to the programs that score and measure one."""

import dataclasses
from collections.abc import Callable, Mapping
from importlib import metadata

import numpy as np

from sccunet.config import Config, ConfigError

# (mixture [samples, channels], references [stems, samples, channels], "<split>/<track>")
# -> estimates, as references.
Separate = Callable[[np.ndarray, np.ndarray, str], np.ndarray]


@dataclasses.dataclass(frozen=True)
class System:
    """A way to estimate the stems of a track.

    Attributes:
      separate: (mixture [samples, channels], references [stems, samples, channels],
        "<split>/<track>") -> estimates, shaped as the references. Only oracles look at the
        references, only a folder of estimates at the track's name.
      count_parameters: how many trained numbers it has; None where nothing was trained.
      versions: of the packages that do the work.
    """

    separate: Separate
    count_parameters: Callable[[], int] | None = None
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)


def versions(*packages: str) -> dict[str, str]:
    """Installed versions of packages."""
    return {package: metadata.version(package) for package in packages}


def pick_stems(estimates: Mapping[str, np.ndarray], config: Config) -> np.ndarray:
    """The config's stems out of a system's; where it lacks one, the sum of that one's sources.

    Args:
      estimates: name -> [samples, channels].
      config: names the stems, and the sources of a sum.

    Returns:
      [stems, samples, channels].

    Raises:
      ConfigError: if a stem cannot be had.
    """
    picked = []
    for stem in config.model.stems:
        sources = (stem,) if stem in estimates else config.files_of(stem)
        if not set(sources) <= set(estimates):
            raise ConfigError(
                f"stem {stem}: found a system of {', '.join(estimates)}, expected one that has"
                f" {' and '.join(sources)}"
            )
        picked.append(sum(estimates[source] for source in sources))
    return np.stack(picked)
