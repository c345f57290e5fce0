"""Writes files and folders whole or not at all, and locks folders."""

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
    """Context manager that yields a hidden path and renames the file there if nothing fails.

    Args:
      path: the file, replaced if it exists; its folder is created if missing.
      alone: whether no other process writes this file at the same time. The hidden name is then
        always the same, with the file's ending, and the next write replaces the remains of a killed
        one.

    Raises:
      OSError: if the folder cannot be created or the file cannot be renamed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not the process id: processes of several machines may share a folder and have the same id. Not
    # the file's ending: whoever looks for *.json must not find it.
    part = path.with_name(f".{path.name}" if alone else f".{secrets.token_hex(8)}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def write_whole(path: str | os.PathLike, content: str | bytes) -> None:
    """Writes a file whole or not at all; creates its folder if missing."""
    with file_written_whole(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def folder_written_whole(folder: str | os.PathLike, new: bool = False) -> Iterator[Path]:
    """Context manager that yields a hidden folder and renames it to `folder` if nothing fails.

    Hidden folders that killed processes left for the same name are removed first.

    Args:
      folder: the final name. If it exists, the new files are moved into it one by one, and its
        other files are left alone.
      new: whether the folder must be new, or empty; an error is raised if another process fills
        it meanwhile.

    Raises:
      UserError: if it cannot be written. Errors raised inside name the folder, not the hidden one.
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
                os.rename(partial, folder)  # fails if it exists and is not empty
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror or error})") from error


def remove_left(parent: Path, names: Iterable[str]) -> None:
    """Removes hidden folders of `folder_written_whole` that killed processes left.

    Args:
      parent: the folder that contains them.
      names: the final names of the hidden folders.
    """
    starts = set(map(_start, names))
    for left in parent.glob(".*.part"):
        if left.name.rsplit(".", 2)[0] + "." in starts:
            with lock_folder(left) as ours:
                if ours:
                    shutil.rmtree(left, ignore_errors=True)


def _start(name: str) -> str:
    """Start of the name of a folder's hidden folder."""
    return f".{name[:50]}."  # a name has 255 bytes at most


@contextlib.contextmanager
def _hidden_folder(start: str, parent: Path) -> Iterator[Path]:
    """Context manager that yields a new, locked folder and removes it at the end."""
    with contextlib.ExitStack() as stack:
        # Another process's clean-up may remove a folder before it is locked: then try again. File
        # systems without locks see no clean-up either, so the last folder is safe to use there.
        for _ in range(3):
            hidden = stack.enter_context(tempfile.TemporaryDirectory(".part", start, parent))
            if stack.enter_context(lock_folder(hidden)):
                break
        yield Path(hidden)


@contextlib.contextmanager
def lock_folder(folder: str | os.PathLike) -> Iterator[bool]:
    """Context manager that locks a folder and yields whether it got the lock.

    The lock is a hidden file in the folder. A killed process leaves the file, but not the lock.
    """
    lock = filelock.FileLock(Path(folder) / _LOCK)
    try:
        lock.acquire(blocking=False)
    except (filelock.Timeout, OSError, NotImplementedError):  # the last: no locks on this system
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
