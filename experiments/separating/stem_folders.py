"""Output folders of recordings' stems, and the treatment of existing ones."""

import os
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from data_pipeline import audio
from sccunet.config import ConfigError
from sccunet.files import remove_left


def define_flags() -> None:
    """Defines the flags for existing stems: overwrite, skip_existing."""
    flags.DEFINE_bool("overwrite", False, "Replace existing stems.")
    flags.DEFINE_bool(
        "skip_existing", False, "Skip files whose stems exist: continues an interrupted run."
    )


def plan(
    files: Sequence[str],
    output_dir: str | os.PathLike,
    overwrite: bool,
    skip_existing: bool,
    written: Sequence[str] = (),
) -> dict[Path, str]:
    """Returns folder of stems -> file, for each file to be separated.

    Args:
      files: files, folders of files, and "-" for standard input.
      output_dir: parent of the folders.
      overwrite: whether the folders may exist.
      skip_existing: leave out files whose folders hold all of `written`. Leftovers of killed
        processes beside such folders are removed.
      written: names of the files that will be written into each folder.

    Raises:
      ConfigError: if two files would share a folder, if a folder exists or cannot be made, or if a
        file is in the folder of its own stems.
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
                f"{folder}: found an existing folder, expected --overwrite, --skip_existing or a"
                " new folder"
            )
        elif Path(file).resolve().parent == folder.resolve():
            raise ConfigError(f"{file}: found in the folder of its own stems, expected another")
    _check_writable(Path(output_dir))
    if finished:  # writing removes leftovers of a killed process, but these are not written again
        remove_left(Path(output_dir), finished)
    return folders


def _folders(files: Sequence[str], output_dir: Path) -> dict[Path, str]:
    """Returns folder of stems -> file; raises ConfigError for files that share a folder."""
    folders: dict[Path, str] = {}
    for given in files:
        for file in audio.recordings_in(given) if os.path.isdir(given) else [given]:
            name = "stdin" if file == "-" else Path(file).stem
            if not name.strip("."):
                raise ConfigError(f"{file}: found no name before the extension, expected one")
            folder = output_dir / name
            if folder in folders:
                raise ConfigError(
                    f"{file}: its stems would be written to {folder}, as those of"
                    f" {folders[folder]}; expected names that differ before the extension"
                )
            folders[folder] = file
    return folders


def _check_writable(folder: Path) -> None:
    """Raises ConfigError if a folder, which need not exist yet, cannot be written to."""
    parent = folder
    while not os.path.lexists(parent):
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise ConfigError(f"{folder}: cannot be written to, expected a writable folder")
