"""Parses the arguments of a program; mistakes become one line."""

import difflib
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from absl import app, flags

from experiments import configs, missing
from sccunet.config import Config, ConfigError


def define_config(purpose: str, default: str | None = None) -> flags.FlagHolder:
    """Defines the flag config, and with it a flag for each field of the config.

    Without ml_collections there is the flag alone, for --help; `parse` refuses to use it.
    """
    try:
        from ml_collections import config_flags

        define = config_flags.DEFINE_config_file
    except ModuleNotFoundError:
        define = flags.DEFINE_string
    return define(
        "config",
        default,
        f"{purpose} One of {', '.join(configs.names())} (see sccunet configs), or a file."
        " --config.FIELD=VALUE sets any field of it, such as --config.batch_size=4.",
    )


def parse(
    argv: Sequence[str], values: flags.FlagValues | None = None, needs: Sequence[str] = ()
) -> list[str]:
    """Parses flags with absl; returns the other arguments.

    A config file is code and can raise anything; every such error is the user's.

    Args:
      argv: the program's name and its arguments.
      values: the flags, if they are not those of this program.
      needs: modules that must be installed, in `missing.EXTRAS`.

    Raises:
      UserError: for a mistake, where absl would print its usage text, and for a missing module.
      SystemExit: after --help.
    """
    argv = _long_forms(argv)
    values = flags.FLAGS if values is None else values
    if any(argument in ("--help", "-help", "--helpfull") for argument in argv[1:]):
        try:
            return app.parse_flags_with_usage(argv)
        except SystemExit:  # absl exits with 1
            sys.exit(0)
    missing.check(*needs)
    if "config" in values and (values["config"].default or any(_config_flags(argv))):
        missing.check("ml_collections", flag="--config")
    try:
        left = values(argv)
        if "config" in values:
            # ml_collections reports a missing file only when a field is read.
            getattr(values.config, "model", None)
        return left
    except flags.Error as error:
        raise ConfigError(_reason(error)) from error
    except Exception as error:
        raise ConfigError(f"--config{_reason_of_config(error, argv)}") from error


def override_flags(overrides: Mapping[str, Any]) -> list[str]:
    """Returns the flags that set fields of the config; `overrides` is field -> value."""
    return [f"--config.{field}={value}" for field, value in overrides.items()]


def config_of(file: str, overrides: Mapping[str, Any]) -> Config:
    """Returns the config of a program that is given a file, or a name, and some `override_flags`.

    Raises:
      ConfigError: as that program would.
    """
    from ml_collections import config_flags

    argv = ["", f"--config={file}", *override_flags(overrides)]
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    parse(argv, values)
    return Config.from_dict(values.config)


def _reason(error: flags.Error) -> str:
    """Returns what is wrong with a flag."""
    reason = str(error).splitlines()[0]
    if missing := re.match(r"flag --(\w+)=None: ", reason):
        return f"--{missing[1]}: not given, expected a value (--help lists all flags)"
    field = re.match(r"Unknown command line flag '(config\.[\w.]+)'", reason)
    if field and "config" in flags.FLAGS:
        return f"--{field[1]}: found no --config before it, expected {_some_config()}"
    return reason


def _reason_of_config(error: Exception, argv: Sequence[str]) -> str:
    """Returns what is wrong with a config file, or with the fields that are set."""
    file = next((value for field, value in _config_flags(argv) if not field), None)
    if file is not None and not os.path.exists(file):
        return f": found no file {configs.name_of(file)!r}, expected {_some_config()}"
    fields = list(_fields(Config().to_dict()))
    for field, _ in _config_flags(argv):
        if field and field not in fields and not field.startswith("sources."):
            return f".{field}: found no such field, expected {_near(field, fields)}"
    last = (str(error).splitlines() or [""])[-1].strip()
    if isinstance(error, OSError):
        last = last.rpartition("failure to load: ")[2].strip(" )")  # ml_collections' words
        return f": cannot be read ({last}), expected {_some_config()}"
    return (
        f": found {type(error).__name__}: {last}, expected a config file that can be read, and"
        " overrides of its own fields"
    )


def _some_config() -> str:
    return f"a config file, or one of {', '.join(configs.names())}"


def _config_flags(argv: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yields field and value of each flag for the config; the field of --config itself is ""."""
    for argument, after in zip(argv, [*argv[1:], ""], strict=True):
        if found := re.fullmatch(r"--?config(?:\.([^=]+))?(?:=(.*))?", argument, re.DOTALL):
            field, value = found.groups()
            yield field or "", after if value is None else value


def _fields(config: Mapping[str, Any], start: str = "") -> Iterator[str]:
    """Yields the names of all fields, such as "model.stems"."""
    for name, value in config.items():
        if isinstance(value, dict) and value:
            yield from _fields(value, f"{start}{name}.")
        else:
            yield f"{start}{name}"


def _near(field: str, fields: Sequence[str]) -> str:
    """Returns the fields with similar names, or all."""
    last = {name: name.rpartition(".")[2] for name in fields}
    near = difflib.get_close_matches(field.rpartition(".")[2], last.values(), 3, 0.7)
    return (
        " or ".join(name for name in fields if last[name] in near) or f"one of {', '.join(fields)}"
    )


def _long_forms(argv: Sequence[str]) -> list[str]:
    """Arguments as absl expects them: --help for -h, a file for a configuration's name."""
    named = ("--config", "-config")
    long = []
    for argument in argv:
        flag, given, value = argument.partition("=")
        if argument == "-h":
            argument = "--help"
        elif given and flag in named:
            argument = f"{flag}={configs.path_of(value)}"
        elif long and long[-1] in named:
            argument = configs.path_of(argument)
        long.append(argument)
    return long
