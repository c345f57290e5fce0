"""Errors for users, and checks of their values. This module does not import TensorFlow."""

import math
from collections.abc import Callable
from typing import Any


class UserError(ValueError):
    """A user's mistake, in one line: the file or flag, what was found and what was expected."""


class ConfigError(UserError):
    """An invalid configuration; the message names the field, what was found and expected."""


def check_value(ok: bool, field: str, found: Any, expected: str) -> None:
    """Raises `ConfigError` unless `ok`; `field` is as in `model.stems`, "" is the whole config."""
    if not ok:
        where = f"config.{field}".rstrip(".")
        raise ConfigError(f"{where}: found {found!r}, expected {expected}")


def checks_of(config: Any, prefix: str) -> Callable[[str, bool, str], None]:
    """Returns `check_value` for one dataclass, as a function of (field, ok, expected)."""
    return lambda field, ok, expected: check_value(
        ok, prefix + field, getattr(config, field), expected
    )


def is_whole(value: Any, least: int) -> bool:
    """Whether a value is an int (not a bool) of at least `least`."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_number(value: Any, least: float, below: float = math.inf) -> bool:
    """Whether a value is a finite number (not a bool), at least `least` and less than `below`."""
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value < below


def is_chance(value: Any) -> bool:
    """Whether a value is a number from 0 to 1."""
    return is_number(value, 0) and value <= 1


def is_numbers(value: Any) -> bool:
    """Whether a value is a list, perhaps empty, of finite numbers, each 0 or more."""
    return isinstance(value, list | tuple) and all(is_number(number, 0) for number in value)


def is_range(value: Any) -> bool:
    """Whether a value is an empty list, or one of two finite numbers, the second the larger."""
    if not isinstance(value, list | tuple) or not all(is_number(x, -math.inf) for x in value):
        return False
    return not value or (len(value) == 2 and -math.inf < value[0] < value[1])


def is_names(value: Any) -> bool:
    """Whether a value is a list of one or more strings, none of them empty."""
    return (
        isinstance(value, list | tuple)
        and len(value) > 0
        and all(isinstance(name, str) and name for name in value)
    )


def counted(number: int, noun: str) -> str:
    """Returns a number with its noun, for messages: "1 track", "2 tracks"."""
    return f"{number} {noun}" + ("s" if number != 1 else "")
