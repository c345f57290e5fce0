"""Configurations to train: the `get_config()` of each file returns a ConfigDict.

`--config` accepts the name of a configuration here, or the path of another file.
"""

from pathlib import Path

_FOLDER = Path(__file__).parent


def names() -> list[str]:
    """Returns the names of the configurations here, such as "paper_4stems"."""
    return sorted(file.stem for file in _FOLDER.glob("[a-z]*.py"))


def path_of(config: str) -> str:
    """Returns the file of a configuration in this folder; any other text is returned unchanged."""
    return str(_FOLDER / f"{config}.py") if config in names() else config


def name_of(file: str) -> str:
    """Inverts `path_of`."""
    path = Path(file)
    ours = path.stem in names() and path.resolve().parent == _FOLDER.resolve()
    return path.stem if ours else file
