"""Writes files and folders whole or not at all, reads them again, and locks folders.

Whole also means that a power cut leaves the old content or the new: content is flushed to the disk
before it gets its name, and the folder with the name after that.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from sccunet.config import UserError

_LOCK = ".lock"
_LONGEST = 255  # bytes of a name, on the usual file systems


class TakenError(UserError):
    """A folder that had to be new was made by another process first."""


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
    _make_folder(path.parent)
    # Not the process id: processes of several machines may share a folder and have the same id. Not
    # the file's ending: whoever looks for *.json must not find it.
    part = path.with_name(f".{path.name}" if alone else f".{secrets.token_hex(8)}.part")
    try:
        yield part
        flush(part)
        os.replace(part, path)
        flush(path.parent)
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def write_whole(path: str | os.PathLike, content: str | bytes) -> None:
    """Writes a file whole or not at all; creates its folder if missing.

    Names of files that are not UTF-8 may be in the text; they keep their bytes.
    """
    with file_written_whole(path) as part:
        if isinstance(content, str):
            content = content.encode(errors="surrogateescape")
        part.write_bytes(content)


def read_json(path: str | os.PathLike, *fields: str) -> Any:
    """Reads a JSON file that `write_whole` wrote.

    Args:
      path: the file.
      fields: what must be in it; without any, its content may be of any kind.

    Raises:
      UserError: if it is empty, no JSON, or lacks a field.
      OSError: if it cannot be read.
    """
    content = Path(path).read_bytes()
    expected = "the JSON that was written there"
    try:
        found = json.loads(content)
    except ValueError as error:  # also for bytes that are not UTF-8
        what = f"no JSON ({error})" if content else "an empty file"
        raise UserError(f"{path}: found {what}, expected {expected}") from error
    missing = [name for name in fields if not isinstance(found, dict) or name not in found]
    if missing:
        raise UserError(f"{path}: found no {missing[0]!r} in it, expected {expected}")
    return found


def sha256_of(paths: Iterable[Path]) -> str:
    """Returns the SHA-256 of files, names included; missing files are left out."""
    digest = hashlib.sha256()
    for path in paths:
        if path.is_file():
            digest.update(os.fsencode(path.name))
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def flush(path: str | os.PathLike) -> None:
    """Flushes a file's content, or a folder's list of names, to the disk.

    Raises:
      OSError: if a file's content cannot be written.
    """
    folder = os.path.isdir(path)
    windows = os.name == "nt"  # where a file must be open for writing, and no folder can be opened
    with contextlib.suppress(OSError if folder else ()):  # not all file systems flush folders
        descriptor = os.open(path, os.O_RDWR if windows else os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _make_folder(folder: Path) -> None:
    """Makes a folder and its parents, and flushes the names of new ones."""
    new = [made for made in (folder, *folder.parents) if not made.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for made in new:
        flush(made.parent)


def name_that_fits(name: str, ending: str) -> str:
    """Returns `name` with an ending; if that is too long, with a hash in place of its own end.

    Args:
      name: a name that a file system accepts without the ending.
      ending: such as ".json".
    """
    if len(os.fsencode(name + ending)) <= _LONGEST:
        return name + ending
    ending = f"~{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}{ending}"
    while len(os.fsencode(name + ending)) > _LONGEST:
        name = name[:-1]  # by characters, which have several bytes
    return name + ending


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
      TakenError: if it is not new.
    """
    folder = Path(folder)
    try:
        _make_folder(folder.parent)
        remove_left(folder.parent, [folder.name])
        with _hidden_folder(_start(folder.name), folder.parent) as hidden:
            partial = hidden / "content"
            partial.mkdir()
            try:
                yield partial
            except UserError as error:
                message = str(error).replace(str(partial), str(folder))
                raise type(error)(message) from error
            for written in (*partial.rglob("*"), partial):
                flush(written)
            if folder.exists() and not new:
                for file in partial.iterdir():
                    os.replace(file, folder / file.name)
                flush(folder)
            else:
                os.rename(partial, folder)  # fails if it exists and is not empty
                flush(folder.parent)
    except OSError as error:
        taken = new and error.errno in (errno.EEXIST, errno.ENOTEMPTY)
        kind = TakenError if taken else UserError
        raise kind(f"{folder}: cannot be written ({error.strerror or error})") from error


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
def lock_folder(folder: str | os.PathLike, name: str = _LOCK) -> Iterator[bool | None]:
    """Context manager that locks a folder and yields whether it got the lock.

    The lock is a hidden file in the folder. A killed process leaves the file, but not the lock.

    Args:
      folder: an existing folder.
      name: the file's name; locks of different names do not exclude each other.

    Yields:
      False if another process has the lock, None if there can be none: the folder cannot be
      written, or its file system has no locks.
    """
    import filelock  # takes a tenth of the time of --help

    lock = filelock.FileLock(Path(folder) / name)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        yield False
        return
    except (OSError, NotImplementedError):  # the last: no locks on this system
        yield None
        return
    try:
        yield True
    finally:
        lock.release()


@contextlib.contextmanager
def plain_path(folder: str | os.PathLike) -> Iterator[str]:
    """Context manager that yields a path under which TensorFlow finds a folder.

    TensorFlow takes brackets and the like in a path for a pattern, and knows UTF-8 alone. The path
    is a temporary link if the folder's own is not plain. UserErrors raised inside name the folder.
    """
    own = os.path.abspath(folder)
    if not re.search(r"[][*?\\\ud800-\udfff]", own):  # the last: bytes that are not UTF-8
        yield own
        return
    with tempfile.TemporaryDirectory() as parent:
        link = os.path.join(parent, "folder")
        os.symlink(own, link)
        try:
            yield link
        except UserError as error:
            raise type(error)(str(error).replace(link, own)) from error
