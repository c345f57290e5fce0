"""The systems that a comparison is told to compare, with the weights of their runs."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

from experiments.baselines.systems import SYSTEMS
from experiments.reports import results
from sccunet.config import ConfigError


@dataclasses.dataclass(frozen=True)
class Choice:
    """A system of a comparison.

    Attributes:
      label: name in the report.
      system: one of `SYSTEMS`.
      weights: weights of each run of the system; None for a run without.
    """

    label: str
    system: str
    weights: tuple[str | None, ...]

    def runs(self, folder: Path) -> list[tuple[str | None, Path]]:
        """Returns weights and folder of each run, below a folder for all systems."""
        folders = results.run_folders(folder / self.label, len(self.weights))
        return list(zip(self.weights, folders, strict=True))


def parse_systems(values: Sequence[str]) -> list[Choice]:
    """Parses each "[label:]system[=weights]"; the default label is the system's name.

    A label that is given several times is one system with several runs.

    Raises:
      ConfigError: for an unknown system, missing or superfluous weights, a label that cannot be the
        name of a folder, or one that is used for two systems or twice for the same weights.
    """
    entries: dict[str, Choice] = {}
    for value in values:
        head, _, weights = value.partition("=")
        label, _, system = head.rpartition(":")
        label = label or system
        where = f"--systems: {value}:"
        if system not in SYSTEMS:
            raise ConfigError(f"{where} found {system!r}, expected one of {', '.join(SYSTEMS)}")
        if SYSTEMS[system].weights and not weights:
            raise ConfigError(f"{where} found no weights, expected {system}=WEIGHTS")
        if weights and not SYSTEMS[system].weights and system != "model":
            raise ConfigError(f"{where} found weights, expected none")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 _.+-]*", label):
            raise ConfigError(
                f"{where} found the label {label!r}, expected letters, digits, spaces and _ . + -"
            )
        before = entries.get(label, Choice(label, system, ()))
        if before.system != system or (weights or None) in before.weights:
            raise ConfigError(
                f"{where} found the label {label!r} twice, expected other weights of the same"
                " system for each of its runs, or another label"
            )
        entries[label] = Choice(label, system, (*before.weights, weights or None))
    return list(entries.values())
