"""Finds and loads trained models: training workdirs and exported SavedModels.

Only `load_unet` imports TensorFlow, and only when called.
"""

import os
from pathlib import Path

from sccunet import keras_settings
from sccunet.checks import ConfigError, UserError
from sccunet.config import Config
from sccunet.files import read_json

CONFIG = "config.json"
# The description inside an export; it includes the config.
METADATA = Path("assets") / "metadata.json"


def load_config(path: str | os.PathLike) -> Config:
    """Loads the config of a training workdir or of an exported SavedModel.

    Raises:
      ConfigError: if `path` is neither, or its config is damaged.
    """
    path = Path(path)
    run, export = path / CONFIG, exported_version(path) / METADATA
    found = run if run.is_file() else export
    try:
        values = read_json(run) if found == run else read_json(export, "config")["config"]
    except (FileNotFoundError, NotADirectoryError) as error:
        there = "no config.json" if path.is_dir() else "a file" if path.exists() else None
        raise ConfigError(
            f"{path}: found {there or 'no such folder'},"
            " expected a training workdir or an exported SavedModel"
        ) from error
    except UserError as error:
        raise ConfigError(str(error)) from error
    try:
        return Config.from_dict(values)
    except UserError as error:
        raise ConfigError(f"{found}: {error}") from error


def exported_version(path: str | os.PathLike) -> Path:
    """Returns the newest version in an export's base folder; any other `path` unchanged."""
    path = Path(path)
    if not path.is_dir() or (path / CONFIG).exists():
        return path
    versions = [
        entry
        for entry in path.iterdir()
        if entry.name.isdecimal() and (entry / "saved_model.pb").is_file()
    ]
    return max(versions, key=lambda entry: int(entry.name), default=path)


def new_version(base_dir: str | os.PathLike, version: int | None = None) -> int:
    """Returns the number of the next export: `version`, or the highest existing one plus 1.

    Raises:
      ConfigError: if the version exists, or if `base_dir` is not a folder for versions.
    """
    base_dir = Path(base_dir)
    if base_dir.exists() and not base_dir.is_dir():
        raise ConfigError(f"{base_dir}: found a file, expected a folder for versions")
    for name in (CONFIG, "saved_model.pb"):
        if (base_dir / name).exists():
            raise ConfigError(f"{base_dir}: found {name} in it, expected a folder for versions")
    there = {
        int(entry.name)
        for entry in (base_dir.iterdir() if base_dir.exists() else ())
        if entry.name.isdecimal()
    }
    if version is None:
        return max(there, default=0) + 1
    if version in there:
        raise ConfigError(f"{base_dir / str(version)}: found already there, expected a new version")
    return version


def load_unet(workdir: str | os.PathLike, config: Config, precision: str = "float32"):
    """Loads the network of a training workdir with its best weights.

    Args:
      workdir: folder of a training run.
      config: the run's config.
      precision: "float32" or "mixed_bfloat16"; weights are always float32.

    Raises:
      ConfigError: if there are no weights, or they do not fit, or Keras's settings are unsuitable.
    """
    keras_settings.check()
    from sccunet.checkpoints import BEST, load_weights
    from sccunet.unet import build_model

    unet = build_model(config, precision)
    load_weights(unet, Path(workdir) / BEST)
    return unet
