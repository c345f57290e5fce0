"""The variants of an ablation: names, and the fields of the config that each changes."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from experiments import arguments
from experiments.reports import ablation
from experiments.reports.results import slug
from sccunet.config import Config, ConfigError

# Scores of other stems could not stand in one table.
_SAME = ("model.stems", "model.sample_rate", "sources")


@dataclasses.dataclass(frozen=True)
class Variant:
    """One way to train.

    Attributes:
      name: its name in the report.
      changes: field of the config -> value, what it is that makes the variant.
      overrides: the same with the fields that all variants change.
      config: the whole config that results.
    """

    name: str
    changes: Mapping[str, str]
    overrides: Mapping[str, Any]
    config: Config


def variants_of(values: Sequence[str], file: str, overrides: Mapping[str, Any]) -> list[Variant]:
    """Parses each "NAME" or "NAME:FIELD=VALUE,FIELD=VALUE"; commas in brackets divide nothing.

    Args:
      values: of --variants.
      file: the config file.
      overrides: field -> value for all variants; a variant's own value takes its place.

    Raises:
      ConfigError: for names that are no different folders, unknown fields, wrong values, or other
        stems than those of the config.
    """
    changes = {}
    for value in values:
        name, _, fields = value.partition(":")
        if name in changes:
            raise ConfigError(f"--variants: found {name!r} twice, expected it once")
        changes[name] = _fields(value, fields)
    slugs = {slug(name) for name in changes}
    if not changes or len({*slugs, ablation.SCALED, ""}) < len(changes) + 2:
        raise ConfigError(
            f"--variants: found {', '.join(changes) or 'none'}, expected names that make different"
            f" folders, and not {ablation.SCALED}"
        )
    return [_variant(name, own, file, overrides) for name, own in changes.items()]


def _fields(value: str, fields: str) -> dict[str, str]:
    # At each comma after which no bracket is closed before one is opened.
    parts = re.split(r",(?![^(]*\))", fields) if fields else []
    for part in parts:
        if not re.fullmatch(r"[\w.]+=.*", part):
            raise ConfigError(f"--variants: found {part!r} in {value}, expected FIELD=VALUE")
    return dict(part.split("=", 1) for part in parts)


def _variant(
    name: str, changes: Mapping[str, str], file: str, overrides: Mapping[str, Any]
) -> Variant:
    for field in changes:
        if field in _SAME or field.startswith("sources."):
            raise ConfigError(
                f"--variants: found {field} in {name}, expected the same stems for all variants"
            )
    both = {**overrides, **changes}
    try:
        return Variant(name, changes, both, arguments.config_of(file, both))
    except ConfigError as error:
        raise ConfigError(f"--variants: {name}: {error}" if changes else str(error)) from error
