"""Files and folders that are never seen half-written."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


def write_whole(path: str | os.PathLike, text: str) -> None:
    """Writes a file, and its folder where that is missing; it appears whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def folder_written_whole(folder: str | os.PathLike) -> Iterator[Path]:
    """A context manager that gives a hidden folder, which gets its name if nothing fails.

    Args:
      folder: its name. If it is there already, the new files go into it one by one; what else lies
        there is left alone.
    """
    folder = Path(folder)
    partial = folder.with_name(f".{folder.name[:50]}.part")  # a name has 255 bytes at most
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        yield partial
        if folder.exists():
            for file in partial.iterdir():
                os.replace(file, folder / file.name)
        else:
            os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
