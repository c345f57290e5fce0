"""Settings of Keras that its user may have changed: programs ignore them, the library checks them.

Keras reads them when it is imported: from KERAS_* in the environment, and from keras.json in
KERAS_HOME. This module imports Keras only in `check`.
"""

import os

from sccunet.checks import ConfigError


def ignore(keep_backend: bool = False) -> None:
    """Makes Keras use its defaults, on TensorFlow; to be called before Keras is imported.

    Processes that this one starts inherit that.

    Args:
      keep_backend: whether KERAS_BACKEND still selects the backend.
    """
    backend = os.environ.get("KERAS_BACKEND", "") if keep_backend else ""
    for name in [name for name in os.environ if name.startswith("KERAS_")]:
        del os.environ[name]  # KERAS_MAX_EPOCHS, for one, would shorten a training
    os.environ["KERAS_BACKEND"] = backend or "tensorflow"
    # No folder, so Keras neither finds keras.json there nor writes one.
    os.environ["KERAS_HOME"] = os.devnull


def check() -> None:
    """Imports Keras and checks what would change results.

    Raises:
      ModuleNotFoundError: if Keras or TensorFlow is not installed.
      ConfigError: if Keras cannot be imported, or its default precision is not float32.
    """
    try:
        import keras
    except (ImportError, ValueError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name in ("keras", "tensorflow"):
            error.add_note(
                "sccunet needs it for all but portable models: pip install 'sccunet[train]'"
            )
            raise
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(
            f"Keras: cannot be imported ({reason}), expected an installed backend and valid"
            f" settings; found KERAS_BACKEND={os.environ.get('KERAS_BACKEND', '')} and"
            f" {os.path.join(os.environ.get('KERAS_HOME', '~/.keras'), 'keras.json')}"
        ) from error
    if (found := keras.config.floatx()) != "float32":
        raise ConfigError(
            f"Keras: found floatx = {found!r}, expected 'float32', as keras.config.set_floatx or"
            " keras.json set it; build_model takes a precision of its own"
        )
