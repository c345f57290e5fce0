"""Says which extra of the package brings what is not installed, in one line."""

import importlib.util
import sys
from pathlib import Path

from sccunet.checks import UserError

# Module -> extra, as setup.py defines them.
EXTRAS = {
    "tensorflow": "train",
    "keras": "train",
    "ml_collections": "train",
    "tensorboard": "train",
    "scipy": "train",
    "musdb": "train",
    "museval": "train",
    "stempeg": "train",
    "yaml": "train",
    "matplotlib": "train",
    "PIL": "train",
    "jax": "jax",
    "norbert": "wiener",
    "tensorflow_serving": "serve",
    "grpc": "serve",
    "apache_beam": "beam",
    "distributed": "dask",
    "mutagen": "tags",
    "pyworld": "free",
    "starlette": "player",
    "uvicorn": "player",
}


def check(*modules: str, flag: str = "") -> None:
    """Checks that modules are installed, without importing them.

    Args:
      modules: names of modules, in `EXTRAS`.
      flag: the flag that needs them, such as "--mask=wiener"; "" if the program does.

    Raises:
      UserError: if one is not installed; it says how to install it.
    """
    for module in modules:
        if not _is_installed(module):
            raise UserError(_line(module, flag))


def reason(error: ModuleNotFoundError) -> str:
    """Returns how to install what was not found, in one line.

    Raises:
      ModuleNotFoundError: the given error, if no extra brings the module.
    """
    module = (error.name or "").partition(".")[0]
    if module not in EXTRAS:
        raise error
    return _line(module)


def _line(module: str, flag: str = "") -> str:
    program = Path(sys.argv[0])
    name = program.stem if program.parent.name == "experiments" else ""  # a worker is none
    who = " ".join(filter(None, ("sccunet", name, flag)))
    return f"{who} needs {module}: pip install 'sccunet[{EXTRAS[module]}]'"


def _is_installed(module: str) -> bool:
    try:
        return bool(sys.modules.get(module)) or importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
