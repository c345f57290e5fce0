"""The flag --model, which most programs have, and what runs its network in those that separate."""

from pathlib import Path
from typing import Any

from absl import flags

from experiments import cli, missing
from sccunet.config import ConfigError
from sccunet.runs import DEFAULT, MODELS, PORTABLE, kind_of, model_path
from sccunet.runtime import RUNTIMES

flags.disclaim_key_flags()  # the flag is one of the module that calls `define`


def define(purpose: str = "") -> None:
    """Defines the flag; `purpose` follows the kinds of models in its description."""
    flags.DEFINE_string(
        "model",
        None,
        f"{MODELS[0].upper()}{MODELS[1:]}, or the name of one that sccunet models lists{purpose}."
        f" Default: {DEFAULT}.",
    )


# Flags of `define_runtime`.
RUNTIME_FLAGS = ("runtime", "device", "batch_size", "gpu_memory_mb")


def define_runtime() -> None:
    """Defines `RUNTIME_FLAGS`, with the meaning that `Separator.load` gives them."""
    flags.DEFINE_enum(
        "runtime",
        "auto",
        RUNTIMES,
        "What runs the network. auto: openvino for a portable model, tensorflow for others.",
    )
    flags.DEFINE_string(
        "device",
        None,
        "What the network runs on. OpenVINO has the names CPU, GPU and, of several, GPU.1; default:"
        " CPU. TensorFlow has cpu, gpu and gpu:1; default: a GPU if there is one.",
    )
    flags.DEFINE_integer(
        "batch_size",
        None,
        "The most patches, of all channels and several places, in a call of TensorFlow's network."
        " Default: 1 on a CPU, more on a GPU.",
        lower_bound=1,
    )
    flags.DEFINE_integer(
        "gpu_memory_mb",
        None,
        "The most memory that TensorFlow takes of a GPU, in MB. Default: all that it needs.",
        lower_bound=1,
    )


def runtime() -> dict[str, Any]:
    """Returns the values of `RUNTIME_FLAGS`: keyword arguments of `Separator.load`."""
    return {name: getattr(flags.FLAGS, name) for name in RUNTIME_FLAGS}


def value() -> Path:
    """Returns the path of the model, which can be loaded here.

    Raises:
      UserError: if none is given, and none ships with the package; or if it needs TensorFlow, which
        is not installed.
    """
    path = model_path(flags.FLAGS.model)
    if kind_of(path) not in (PORTABLE, None):
        missing.check("tensorflow", flag=f"--model={path}")
    return path


def value_without_config() -> Path | None:
    """Returns the path of the model, None beside --config, which then defines the stems.

    Raises:
      ConfigError: if both are given; if neither is, and no model ships with the package.
    """
    given = flags.FLAGS
    cli.refuse_idle(["config"], given.model, "beside --model, whose config defines the stems")
    if given.config:
        return None
    try:
        return model_path(given.model)
    except ConfigError as error:
        raise ConfigError(f"{error}; without a model, --config defines the stems") from error
