"""Files and folders that are never seen half-written, and the lock that keeps processes apart."""

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import filelock

from sccunet.config import UserError

_LOCK = ".lock"


@contextlib.contextmanager
def file_written_whole(path: str | os.PathLike, alone: bool = False) -> Iterator[Path]:
    """A context manager that gives a hidden path, whose file gets its name if nothing fails.

    Args:
      path: the file, replaced where it exists; its folder is made where it is missing. The hidden
        name has the same endings.
      alone: whether nobody else writes this file at the same time. Then the hidden name is always
        the same, and the next write replaces what a killed one left.

    Raises:
      OSError: if the folder cannot be made or the file cannot get its name.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Processes of several machines may write into one folder, with the same number each.
    hidden = f".{secrets.token_hex(4)}.part{''.join(path.suffixes[-2:])}"
    part = path.with_name(f".{path.name}" if alone else hidden)
    try:
        yield part
        os.replace(part, path)
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def write_whole(path: str | os.PathLike, content: str | bytes) -> None:
    """Writes a file, and its folder where that is missing; it appears whole or not at all."""
    with file_written_whole(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def folder_written_whole(folder: str | os.PathLike, new: bool = False) -> Iterator[Path]:
    """A context manager that gives a hidden folder, which gets its name if nothing fails.

    Removes what killed processes left of the same folder.

    Args:
      folder: its name. If it is there already, the new files go into it one by one, and the other
        files in it are left alone.
      new: whether it has to be a new folder, which fails if somebody else makes it meanwhile.

    Raises:
      UserError: if it cannot be written; errors from inside name the folder, not the hidden one.
    """
    folder = Path(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_left(folder.parent, [folder.name])
        with _hidden_folder(_start(folder.name), folder.parent) as hidden:
            partial = hidden / "content"
            partial.mkdir()
            try:
                yield partial
            except UserError as error:
                message = str(error).replace(str(partial), str(folder))
                raise type(error)(message) from error
            if folder.exists() and not new:
                for file in partial.iterdir():
                    os.replace(file, folder / file.name)
            else:
                os.rename(partial, folder)  # fails where it is there, unless it is empty
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror or error})") from error


def remove_left(parent: Path, names: Iterable[str]) -> None:
    """Removes the hidden folders that killed processes left of `folder_written_whole`.

    Args:
      parent: the folder that they lie in.
      names: those that the hidden folders were to get.
    """
    starts = set(map(_start, names))
    for left in parent.glob(".*.part"):
        if left.name.rsplit(".", 2)[0] + "." in starts:
            with lock_folder(left) as ours:
                if ours:
                    shutil.rmtree(left, ignore_errors=True)


def _start(name: str) -> str:
    """What the name of a folder's hidden folder starts with."""
    return f".{name[:50]}."  # a name has 255 bytes at most


@contextlib.contextmanager
def _hidden_folder(start: str, parent: Path) -> Iterator[Path]:
    """A new folder, locked, that is removed at the end."""
    with contextlib.ExitStack() as stack:
        # Before it is locked, somebody who cleans up may take it for a killed process's. Some file
        # systems have no locks: there nobody cleans up either, and the last one will do.
        for _ in range(3):
            hidden = stack.enter_context(tempfile.TemporaryDirectory(".part", start, parent))
            if stack.enter_context(lock_folder(hidden)):
                break
        yield Path(hidden)


@contextlib.contextmanager
def lock_folder(folder: str | os.PathLike) -> Iterator[bool]:
    """Locks a folder while this process lives; gives whether no other process has it locked.

    The lock is a hidden file in the folder. A killed process leaves the file, but not the lock.
    """
    lock = filelock.FileLock(Path(folder) / _LOCK)
    try:
        lock.acquire(blocking=False)
    except (filelock.Timeout, OSError, NotImplementedError):
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
