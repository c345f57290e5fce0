"""Finds and loads trained models: portable models, training workdirs and exported SavedModels.

A portable model is a folder with `NETWORK` and `CONFIG` (`sccunet.portable` writes it), a workdir
one with `CONFIG` and `BEST`, and an export one with `saved_model.pb` and `METADATA`. The package
ships portable models in `sccunet/pretrained/`; their names are those of their folders.

Only `load_unet` and `load_saved_model` import TensorFlow, and only when called.
"""

import os
from collections.abc import Callable
from pathlib import Path

from sccunet import keras_settings
from sccunet.checks import ConfigError, UserError
from sccunet.config import Config
from sccunet.files import plain_path, read_json

CONFIG = "config.json"
# The network of a portable model, as `sccunet.tflite` writes it.
NETWORK = "network.tflite"
# The card of a portable model, as `sccunet.model_card` writes it.
CARD = "README.md"
# The weights of a workdir's best epoch; a portable model may have them for training.
BEST = "best.weights.h5"
# The last weights of a workdir, from which a run goes on.
CHECKPOINT = "last.weights.h5"
# The description inside an export; it includes the config.
METADATA = Path("assets") / "metadata.json"

# What a path can be, in the words of messages.
PORTABLE, WORKDIR, SAVED_MODEL = "portable model", "training workdir", "SavedModel"
MODELS = f"a {PORTABLE}, a {WORKDIR} or an exported {SAVED_MODEL}"

# The model that programs take if none is given.
DEFAULT = "free-2stems"
_SHIPPED = Path(__file__).parent / "pretrained"


def model_path(path: str | os.PathLike | None = None) -> Path:
    """Returns the path of a model.

    Args:
      path: a path, the name of a model that ships with the package, or None for `shipped_model`. If
        there is a file or folder of that name, it is meant.

    Raises:
      ConfigError: as `shipped_model`.
    """
    if path is None:
        return shipped_model()
    name, path = os.fspath(path).rstrip(os.sep), Path(path)
    named = {folder.name: folder for folder in shipped_models()}.get(name)
    return named if named and not path.exists() else path


def shipped_models() -> list[Path]:
    """Returns the folders of the portable models that ship with the package, the default first."""
    folders = [network.parent for network in _SHIPPED.glob(f"*/{NETWORK}")]
    return sorted(folders, key=lambda folder: (folder.name != DEFAULT, folder.name))


def shipped_model() -> Path:
    """Returns the folder of the model that is taken if none is given.

    Raises:
      ConfigError: if it is not there.
    """
    folder = _SHIPPED / DEFAULT
    if not (folder / NETWORK).is_file():
        raise ConfigError(
            f"--model: not given, expected {MODELS}: no model ships with this installation"
        )
    return folder


def shipped_names() -> str:
    """Returns the names of the models that ship with the package, for messages."""
    return ", ".join(folder.name for folder in shipped_models()) or "none"


def kind_of(path: str | os.PathLike) -> str | None:
    """Returns PORTABLE, WORKDIR or SAVED_MODEL; None if `path` is none of them.

    A workdir that somebody exported a `NETWORK` into remains a workdir: its weights may be newer. A
    portable model with weights for training is one with a card and without a checkpoint.
    """
    path = Path(path)
    trains = (path / CHECKPOINT).exists() or not (path / CARD).is_file()
    if (path / NETWORK).is_file() and not ((path / BEST).exists() and trains):
        return PORTABLE
    if (exported_version(path) / "saved_model.pb").is_file():
        return SAVED_MODEL
    return WORKDIR if (path / CONFIG).is_file() else None


def weights_of(path: str | os.PathLike) -> list[Path]:
    """Returns the files that determine a model's estimates; some may be missing."""
    kind, path = kind_of(path), exported_version(path)
    if kind == SAVED_MODEL:
        return [path / "saved_model.pb", *sorted((path / "variables").glob("*"))]
    return [path / CONFIG, path / (NETWORK if kind == PORTABLE else BEST)]


def load_config(path: str | os.PathLike, workdir: bool = False) -> Config:
    """Loads the config of a portable model, a training workdir or an exported SavedModel.

    Args:
      path: folder of the model.
      workdir: whether only a workdir will do.

    Raises:
      ConfigError: if `path` is none of them, or its config is damaged.
    """
    path = Path(path)
    expected = f"a {WORKDIR}" if workdir else MODELS
    if workdir and (kind := kind_of(path)) in (PORTABLE, SAVED_MODEL):
        why = "no others can be trained, calibrated, converted or exported"
        raise ConfigError(f"{path}: found a {kind}, expected {expected}: {why}")
    run, export = path / CONFIG, exported_version(path) / METADATA
    found = run if run.is_file() else export
    try:
        values = read_json(run) if found == run else read_json(export, "config")["config"]
    except (FileNotFoundError, NotADirectoryError) as error:
        there = "no config.json" if path.is_dir() else "a file" if path.exists() else None
        if not (there or workdir):
            expected += f", or the name of one that ships with sccunet ({shipped_names()})"
        raise ConfigError(
            f"{path}: found {there or 'no such folder'}, expected {expected}"
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
    from sccunet.checkpoints import load_weights
    from sccunet.unet import build_model

    unet = build_model(config, precision)
    load_weights(unet, Path(workdir) / BEST)
    return unet


def load_saved_model(path: str | os.PathLike, config: Config) -> Callable:
    """Loads the network of an exported SavedModel; it is called as that of `load_unet`.

    Raises:
      ConfigError: if it cannot be loaded.
    """
    import tensorflow as tf

    export = exported_version(path)
    with plain_path(export) as plain:
        try:
            module = tf.saved_model.load(plain)
            signature = module.signatures["magnitudes"]
        except (OSError, ValueError, KeyError, tf.errors.OpError) as error:
            reason = (str(error).splitlines() or [""])[0]
            raise ConfigError(
                f"{export}: found a SavedModel that does not load ({reason}), expected one that"
                " sccunet export wrote"
            ) from error

    def unet(magnitudes, training, module=module):  # it owns the variables: keep it alive
        one = config.model.channels == 1
        found = signature(mixture_magnitudes=magnitudes[..., 0] if one else magnitudes)
        estimates = [found[stem] for stem in config.model.stems]
        return tf.stack(estimates, axis=-1) if one else tf.concat(estimates, axis=-1)

    return unet
