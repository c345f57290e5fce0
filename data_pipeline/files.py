"""Files and folders that are never seen half-written."""

import contextlib
import fcntl
import glob
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from data_pipeline.audio import AudioError


def write_whole(path: str | os.PathLike, content: str | bytes) -> None:
    """Writes a file, and its folder where that is missing; it appears whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Processes of several machines may write into one folder, with the same number each.
    part = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.part")
    try:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def folder_written_whole(folder: str | os.PathLike) -> Iterator[Path]:
    """A context manager that gives a hidden folder, which gets its name if nothing fails.

    What processes that were killed left of the same folder is removed.

    Args:
      folder: its name. If it is there already, the new files go into it one by one; what else lies
        there is left alone.

    Raises:
      AudioError: if it cannot be written; errors from inside name the folder, not the hidden one.
    """
    folder = Path(folder)
    start = f".{folder.name[:50]}."  # a name has 255 bytes at most
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for left in folder.parent.glob(f"{glob.escape(start)}*.part"):
            with lock_folder(left) as ours:
                if ours:
                    shutil.rmtree(left, ignore_errors=True)
        with (
            tempfile.TemporaryDirectory(".part", start, folder.parent) as hidden,
            lock_folder(Path(hidden)),
        ):
            partial = Path(hidden) / "stems"
            partial.mkdir()
            try:
                yield partial
            except AudioError as error:
                message = str(error).replace(str(partial), str(folder))
                raise type(error)(message) from error
            if folder.exists():
                for file in partial.iterdir():
                    os.replace(file, folder / file.name)
            else:
                os.replace(partial, folder)
    except OSError as error:
        raise AudioError(f"{folder}: cannot be written ({error.strerror or error})") from error


@contextlib.contextmanager
def lock_folder(folder: Path) -> Iterator[bool]:
    """Locks a folder while this process lives; gives whether no other process has it locked."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        yield False
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        locked = True
    except OSError:
        locked = False
    try:
        yield locked
    finally:
        os.close(descriptor)
