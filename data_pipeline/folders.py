"""Finds the track folders of a data directory, `DATA/<split>/<track>`; opens no files."""

import os
from collections.abc import Sequence

from data_pipeline.errors import AudioError
from data_pipeline.names import listed

SPLITS = ("train", "valid", "test")
_SHOWN = 10


def chosen_folders(
    data_dir: str | os.PathLike, split: str | None, names: Sequence[str]
) -> list[tuple[str, str]]:
    """Lists `(split, track)` of the folders that `find_tracks` loads, with its arguments.

    Raises:
      AudioError: if there are no tracks, or a name is unknown.
    """
    folders = track_folders(data_dir)
    if names:
        folders = named(data_dir, folders, names)
    elif split is not None:
        folders = [folder for folder in folders if folder[0] == split]
    if not folders:
        raise no_tracks(data_dir, (split,) if split else SPLITS)
    return folders


def track_folders(data_dir: str | os.PathLike) -> list[tuple[str, str]]:
    """Lists `(split, track)` of each track folder, sorted."""
    if not os.path.isdir(data_dir):
        raise AudioError(f"{data_dir}: found no such directory, expected tracks in {_layout()}")
    folders = []
    for split in SPLITS:
        path = os.path.join(data_dir, split)
        if os.path.isdir(path):
            with os.scandir(path) as entries:
                folders += [
                    (split, entry.name)
                    for entry in entries
                    if entry.is_dir() and not entry.name.startswith(".")
                ]
    return sorted(folders)


def _layout() -> str:
    return "<split>/<track>/<file>.wav, split being train, valid or test"


def no_tracks(data_dir: str | os.PathLike, splits: Sequence[str]) -> AudioError:
    """Returns the error for a data directory without tracks in these splits."""
    for split in splits:
        path = os.path.join(data_dir, split)
        if os.path.isdir(path) and any(name.endswith(".stem.mp4") for name in os.listdir(path)):
            return AudioError(f"{path}: found .stem.mp4 files, {run_prepare(data_dir)}")
    where = os.path.join(data_dir, splits[0]) if len(splits) == 1 else data_dir
    return AudioError(f"{where}: found no tracks, expected {_layout()}")


def run_prepare(data_dir: str | os.PathLike) -> str:
    """Returns the end of an error message about files that training cannot read."""
    return (
        f"expected .wav files: run sccunet prepare --input_dir={data_dir} --data_dir=ANOTHER_FOLDER"
    )


def named(
    data_dir: str | os.PathLike, folders: Sequence[tuple[str, str]], names: Sequence[str]
) -> list[tuple[str, str]]:
    """Returns the folders of the named tracks, which `names.listed` finds in the given texts."""
    known = {name for _, name in folders}
    names = listed(names, known)
    for name in names:
        if name not in known:
            raise AudioError(
                f"{data_dir}: found no track named {name!r}, expected {one_of(sorted(known))}"
            )
    return [folder for folder in folders if folder[1] in names]


def one_of(names: Sequence[str]) -> str:
    """Lists the first few names, for an error message."""
    return f"one of {shown(names) or '(there are no tracks)'}"


def shown(names: Sequence[str]) -> str:
    """Lists the first few names."""
    first = ", ".join(map(repr, names[:_SHOWN]))
    return first + (f", ... ({len(names)} in all)" if len(names) > _SHOWN else "")
