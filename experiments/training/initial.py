"""Initial weights of a run, from another run of the same network."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sccunet.checkpoints import BEST, load_weights
from sccunet.config import Config, ConfigError, ModelConfig
from sccunet.runs import (
    CONFIG,
    PORTABLE,
    SAVED_MODEL,
    kind_of,
    load_config,
    model_path,
    shipped_names,
)
from sccunet.unet import build_model, output_layer

# These may differ: the weights fit, and the new run adapts them.
_ADAPTED = ("sample_rate", "frame_length", "hop_length")


def initial_weights(config: Config, source: str | os.PathLike) -> tuple[list[np.ndarray], str]:
    """Loads weights to start from; another order of the stems is changed to the config's.

    Args:
      config: the config of the new run.
      source: a workdir or a portable model, whose `BEST` is loaded, the name of a model that ships
        with sccunet, or a file of weights. The config beside the weights tells their stems; without
        one, they are taken to be those of the new run.

    Returns:
      The arrays for the new network's `set_weights`, and a line that says what was loaded.

    Raises:
      ConfigError: if there are no weights, or they are damaged or of another network.
    """
    path = _weights_at(model_path(source))
    ours = config.model
    known = (path.parent / CONFIG).is_file() and path.is_file()
    theirs = load_config(path.parent).model if known else ours
    _check_same_network(path, theirs, ours)
    unet = build_model(config)
    load_weights(unet, path)
    firsts = [theirs.stems.index(stem) * ours.channels for stem in ours.stems]
    order = [first + channel for first in firsts for channel in range(ours.channels)]
    output = output_layer(unet)
    output.set_weights([weight[..., order] for weight in output.get_weights()])
    told = f"initial weights: {path}, stems {_list(ours.stems)}"
    if not known:
        told += f" (found no {CONFIG} beside it, so their order is not checked)"
    elif theirs.stems != ours.stems:
        told += f" (there in the order {_list(theirs.stems)})"
    for field in _ADAPTED:
        if (there := getattr(theirs, field)) != (here := getattr(ours, field)):
            told += f"; {field} was {there}, is {here}"
    return unet.get_weights(), told


def _weights_at(path: Path) -> Path:
    """Returns the file of weights that a path means; it need not be one."""
    if (kind := kind_of(path)) in (PORTABLE, SAVED_MODEL) and not (path / BEST).is_file():
        raise ConfigError(
            f"{path}: found a {kind} without {BEST}, expected weights to train on: those of its"
            " network are for separating alone"
        )
    if not path.exists():
        raise ConfigError(
            f"{path}: found no such file, expected weights: those of a workdir, a .weights.h5 file,"
            f" or of a model that ships with sccunet ({shipped_names()})"
        )
    return path / BEST if path.is_dir() else path


def _check_same_network(path: Path, theirs: ModelConfig, ours: ModelConfig) -> None:
    if sorted(theirs.stems) != sorted(ours.stems):
        raise ConfigError(
            f"--init_from: found weights for the stems {_list(theirs.stems)} in {path}, expected"
            f" {_list(ours.stems)} as in the config"
        )
    for field in ("filters", "channels", "input_power", "output"):
        if (there := getattr(theirs, field)) != (here := getattr(ours, field)):
            raise ConfigError(
                f"--init_from: found weights for model.{field} = {there} in {path}, expected {here}"
                " as in the config"
            )


def _list(names: Sequence[str]) -> str:
    return ", ".join(names)
