"""Which folder each recording's stems go to, and what happens to folders that are there already."""

import os
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from data_pipeline import audio
from sccunet.config import ConfigError
from sccunet.files import remove_left


def define_flags() -> None:
    """Flags for what happens to stems that are there: overwrite, skip_existing."""
    flags.DEFINE_bool("overwrite", False, "Replace stems that are there already.")
    flags.DEFINE_bool(
        "skip_existing", False, "Leave out files whose stems are there: goes on where it stopped."
    )


def plan(
    files: Sequence[str],
    output_dir: str | os.PathLike,
    overwrite: bool,
    skip_existing: bool,
    written: Sequence[str] = (),
) -> dict[Path, str]:
    """Folder of stems -> file, for each file to be separated.

    Args:
      files: files, folders of files, and "-" for standard input.
      output_dir: where the folders are.
      overwrite: whether they may exist.
      skip_existing: leave out the files whose folders hold what is to be written. What processes
        that were killed left beside such folders is removed.
      written: names of the files that are to be written into each folder.

    Raises:
      ConfigError: if two files would share a folder, one exists or cannot be made, or a file lies
        in one.
      AudioError: for a folder without audio files.
    """
    if not os.fspath(output_dir):
        raise ConfigError("--output_dir: found nothing, expected a folder")
    if overwrite and skip_existing:
        raise ConfigError("--skip_existing: found --overwrite too, expected one of them")
    folders = _folders(files, Path(output_dir))
    finished = []
    for folder, file in list(folders.items()):
        if not os.path.lexists(folder):
            continue
        if not folder.is_dir():
            raise ConfigError(f"{folder}: found a file, expected a folder or nothing")
        if skip_existing and all((folder / name).exists() for name in written):
            finished.append(folder.name)
            del folders[folder]
        elif not (overwrite or skip_existing):
            raise ConfigError(
                f"{folder}: found already there, expected --overwrite, --skip_existing or a new"
                " folder"
            )
        elif Path(file).resolve().parent == folder.resolve():
            raise ConfigError(f"{file}: found in the folder of its own stems, expected another")
    _check_writable(Path(output_dir))
    if finished:  # nobody writes these again, and with that removes what a killed process left
        remove_left(Path(output_dir), finished)
    return folders


def _folders(files: Sequence[str], output_dir: Path) -> dict[Path, str]:
    """Folder of stems -> file, each folder once."""
    folders: dict[Path, str] = {}
    for given in files:
        for file in audio.recordings_in(given) if os.path.isdir(given) else [given]:
            name = "stdin" if file == "-" else Path(file).stem
            if not name.strip("."):
                raise ConfigError(f"{file}: found no name before its ending, expected one")
            folder = output_dir / name
            if folder in folders:
                raise ConfigError(
                    f"{file}: would be written to {folder} as {folders[folder]} is,"
                    " expected names that differ before their ending"
                )
            folders[folder] = file
    return folders


def _check_writable(folder: Path) -> None:
    """Raises ConfigError if a folder, which need not be there yet, cannot be written to."""
    parent = folder
    while not os.path.lexists(parent):
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise ConfigError(f"{folder}: cannot be written to, expected a folder that can")
