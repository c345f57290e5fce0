"""What to train: a configuration in each file, whose `get_config()` returns a ConfigDict.

`--config` takes a file of one's own, or the name of one of these.
"""

from pathlib import Path

_FOLDER = Path(__file__).parent


def names() -> list[str]:
    """Names of the configurations here, such as "paper_4stems"."""
    return sorted(file.stem for file in _FOLDER.glob("[a-z]*.py"))


def path_of(config: str) -> str:
    """The file of a configuration of this folder; any other text as it is."""
    return str(_FOLDER / f"{config}.py") if config in names() else config


def name_of(file: str) -> str:
    """The inverse of `path_of`."""
    path = Path(file)
    ours = path.stem in names() and path.resolve().parent == _FOLDER.resolve()
    return path.stem if ours else file
