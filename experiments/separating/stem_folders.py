"""Output folders of recordings' stems, and the treatment of existing ones."""

import dataclasses
import itertools
import os
from collections.abc import Callable, Iterable, Sequence, Set
from pathlib import Path

from absl import flags

from data_pipeline import listing
from data_pipeline.errors import AudioError
from experiments import cli
from sccunet.checks import counted
from sccunet.config import ConfigError
from sccunet.files import remove_left

_STDIN = "-"
_SHOWN = 10  # folders named in a warning


@dataclasses.dataclass(frozen=True)
class StemFolders:
    """Where the stems of recordings go.

    Attributes:
      todo: folder of stems -> file, for each file to be separated.
      finished: folders that hold all their stems.
      left_out: folders inside the given ones that hold recordings, but were not asked for.
    """

    todo: dict[Path, str]
    finished: list[Path]
    left_out: list[str]


def define_flags() -> None:
    """Defines the flags for folders and existing stems: recursive, overwrite, skip_existing."""
    define_recursive()
    flags.DEFINE_bool("overwrite", False, "Replace existing stems.")
    flags.DEFINE_bool(
        "skip_existing", False, "Skip files whose stems exist: continues an interrupted run."
    )


def define_recursive() -> None:
    """Defines the flag recursive alone."""
    flags.DEFINE_bool(
        "recursive",
        False,
        "Enter the folders inside given folders, too, and repeat them in --output_dir, from the"
        " deepest folder on that contains all that is given.",
    )


def plan(
    files: Sequence[str],
    output_dir: str | os.PathLike,
    overwrite: bool,
    skip_existing: bool,
    written: Callable[[str], Iterable[str]] = lambda _: (),
    recursive: bool = False,
) -> StemFolders:
    """Plans where the stems of each file go.

    Args:
      files: files, folders of files, and "-" for standard input.
      output_dir: parent of the folders.
      overwrite: whether the folders may exist.
      skip_existing: leave out files whose folders hold all of `written`. Leftovers of killed
        processes beside such folders are removed.
      written: name of a folder -> names of the files that will be written into it.
      recursive: enter the folders inside given folders, too, and repeat them in `output_dir`, from
        the deepest folder on that contains all files and folders given.

    Raises:
      ConfigError: if two files would share a folder, if a folder exists or cannot be made, or if a
        file is in the folder of its own stems.
      AudioError: for a folder without audio files.
    """
    if not os.fspath(output_dir):
        raise ConfigError("--output_dir: found nothing, expected a folder")
    if overwrite and skip_existing:
        raise ConfigError("--skip_existing: found --overwrite too, expected one of them")
    output_dir = Path(output_dir)
    folders, left_out = _folders(files, output_dir, recursive)
    finished = []
    for folder, file in list(folders.items()):
        if not os.path.lexists(folder):
            continue
        if not folder.is_dir():
            raise ConfigError(f"{folder}: found a file, expected a folder or nothing")
        if skip_existing and all((folder / name).exists() for name in written(folder.name)):
            finished.append(folder)
            del folders[folder]
        elif not (overwrite or skip_existing):
            raise ConfigError(
                f"{folder}: found an existing folder, expected --overwrite, --skip_existing or a"
                " new folder"
            )
        elif Path(file).resolve().parent == folder.resolve():
            raise ConfigError(f"{file}: found in the folder of its own stems, expected another")
    _check_writable(output_dir)
    # Writing removes leftovers of a killed process, but these are not written again.
    for parent, group in itertools.groupby(sorted(finished), lambda folder: folder.parent):
        remove_left(parent, [folder.name for folder in group])
    return StemFolders(folders, finished, left_out)


def warn_of_left_out(planned: StemFolders) -> None:
    """Prints a line that names the folders whose recordings are left out, if there are any."""
    if planned.left_out:
        more = len(planned.left_out) - _SHOWN
        cli.warn(
            f"left out without --recursive: {', '.join(planned.left_out[:_SHOWN])}"
            + (f", and {counted(more, 'more folder')}" if more > 0 else "")
        )


def _folders(
    files: Sequence[str], output_dir: Path, recursive: bool
) -> tuple[dict[Path, str], list[str]]:
    """Returns `StemFolders.todo` for all files, and `StemFolders.left_out`."""
    given_folders = {file for file in files if file != _STDIN and os.path.isdir(file)}
    root = _common_folder(files, given_folders) if recursive else ""
    folders: dict[Path, str] = {}
    left_out: list[str] = []
    for given in files:
        found = [given]
        if given in given_folders:
            found, inner = _recordings(given, output_dir, recursive)
            left_out += inner
        for file in found:
            folder = _folder_of(file, output_dir, root)
            if folder in folders:
                raise ConfigError(
                    f"{file}: its stems would be written to {folder}, as those of"
                    f" {folders[folder]}; expected names that differ before the extension"
                    + ("" if recursive else ", or --recursive for files in different folders")
                )
            folders[folder] = file
    if recursive:
        _check_apart(folders, given_folders, output_dir)
    return folders, left_out


def _recordings(given: str, output_dir: Path, recursive: bool) -> tuple[list[str], list[str]]:
    """Returns the recordings in a folder, and the folders in it whose recordings are left out."""
    if recursive:
        return listing.recordings_below(given, output_dir), []
    inner = listing.folders_with_recordings(given, output_dir)
    try:
        return listing.recordings_in(given), inner
    except AudioError as error:
        if inner:
            raise ConfigError(
                f"{given}: found audio files only in folders inside it, expected --recursive, or"
                " some in the folder itself"
            ) from error
        raise


def _common_folder(files: Sequence[str], given_folders: Set[str]) -> str:
    """Returns the deepest folder that contains all that is given."""
    places = [
        os.path.abspath(file if file in given_folders else os.path.dirname(file))
        for file in files
        if file != _STDIN
    ]
    return os.path.commonpath(places) if places else ""


def _folder_of(file: str, output_dir: Path, root: str) -> Path:
    """Returns the folder of a file's stems; with `root`, where the file is below it."""
    name = "stdin" if file == _STDIN else Path(file).stem
    if not name.strip("."):
        raise ConfigError(f"{file}: found no name before the extension, expected one")
    if root and file != _STDIN:
        output_dir /= os.path.relpath(os.path.dirname(os.path.abspath(file)), root)
    return output_dir / name


def _check_apart(folders: Iterable[Path], given_folders: Iterable[str], output_dir: Path) -> None:
    """Raises ConfigError if stems would be written where a later run looks for recordings."""
    real = output_dir.resolve()
    # A search leaves out an `output_dir` inside the folder.
    searched = {Path(given).resolve() for given in given_folders} - {*real.parents}
    for folder in folders:
        for inside in searched & {*(real / folder.relative_to(output_dir)).parents}:
            raise ConfigError(
                f"{folder}: found in {inside}, which is searched for recordings, expected another"
                " --output_dir with --recursive"
            )


def _check_writable(folder: Path) -> None:
    """Raises ConfigError if a folder, which need not exist yet, cannot be written to."""
    parent = folder
    while not os.path.lexists(parent):
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise ConfigError(f"{folder}: cannot be written to, expected a writable folder")
