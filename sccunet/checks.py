"""Errors of users, and checks of the values that they give. Nothing imports TensorFlow."""

import math
from collections.abc import Callable
from typing import Any


class UserError(ValueError):
    """A user's mistake; one line that names the file or flag, what was found and what expected."""


class ConfigError(UserError):
    """A configuration that cannot work; the message names field, found and expected."""


def check_value(ok: bool, field: str, found: Any, expected: str) -> None:
    """Raises `ConfigError` unless `ok`; `field` as in `model.stems`, empty for the whole config."""
    if not ok:
        where = f"config.{field}".rstrip(".")
        raise ConfigError(f"{where}: found {found!r}, expected {expected}")


def checks_of(config: Any, prefix: str) -> Callable[[str, bool, str], None]:
    """`check_value` of (field, whether its value is right, what was expected) for one dataclass."""
    return lambda field, ok, expected: check_value(
        ok, prefix + field, getattr(config, field), expected
    )


def is_whole(value: Any, least: int) -> bool:
    """Whether a value is an int, no bool, of at least `least`."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_number(value: Any, least: float, below: float = math.inf) -> bool:
    """Whether a value is a finite number, no bool, of at least `least` and less than `below`."""
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value < below


def is_names(value: Any) -> bool:
    """Whether a value is a list of one or more words, none of them empty."""
    return (
        isinstance(value, list | tuple)
        and len(value) > 0
        and all(isinstance(name, str) and name for name in value)
    )
