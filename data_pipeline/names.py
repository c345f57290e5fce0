"""Names as users list them: with commas between them, which names can contain, or in a file."""

import codecs
import itertools
import os
from collections.abc import Collection, Sequence
from pathlib import Path

from data_pipeline.errors import AudioError

# Windows programs put one of these in front of a text file.
_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}


Directories = str | os.PathLike | Sequence[str | os.PathLike]  # one or several


def listed(given: Sequence[str], known: Collection[str]) -> list[str]:
    """Returns the names that a user lists, each once, in their order.

    Args:
      given: texts, each a known name; or the path of a file with a name on each line; or several
        names with commas between them.
      known: the names that exist. Only these can contain commas outside a file.

    Returns:
      Names; the caller reports those that are not known.

    Raises:
      AudioError: for a file without names, or one that cannot be read.
    """
    names: list[str] = []
    for text in given:
        if text not in known and os.path.exists(text) and not os.path.isdir(text):
            names += lines_of(text)
        else:
            names += split_names(text, known)
    return list(dict.fromkeys(names))


def directories(given: Directories) -> tuple[str | os.PathLike, ...]:
    """Returns one or several directories as a tuple."""
    return (given,) if isinstance(given, str | os.PathLike) else tuple(given)


def full_paths(dirs: Sequence[str | os.PathLike]) -> str | list[str]:
    """Returns the full path of a directory, or a list of several, for JSON."""
    found = [str(Path(path).resolve()) for path in dirs]
    return found if len(found) > 1 else found[0]


def listed_directories(given: Sequence[str]) -> list[str]:
    """Returns the directories in texts with commas between them; those that exist can have some."""
    found = []
    for text in given:
        parts = text.split(",")
        ends = itertools.combinations(range(len(parts) + 1), 2)
        joined = {",".join(parts[first:end]) for first, end in ends}
        found += split_names(text, set(filter(os.path.isdir, joined)))
    return found


def split_names(text: str, known: Collection[str]) -> list[str]:
    """Splits a text at its commas, but not within the known names, of which the longest counts.

    Spaces around other names are removed.
    """
    parts, names = text.split(","), []
    while parts:
        heads = (",".join(parts[:end]) for end in range(len(parts), 0, -1))
        name = next((head for head in heads if head in known or head.strip() in known), parts[0])
        parts = parts[name.count(",") + 1 :]
        names.append(name if name in known else name.strip())
    return names


def lines_of(path: str | os.PathLike) -> list[str]:
    """Reads a file with a name on each line; names need not be UTF-8.

    Raises:
      AudioError: if there are no names, or the file can't be read.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise AudioError(
            f"{path}: cannot be read ({error.strerror}), expected a file with a name on each line"
        ) from error
    mark = next((mark for mark in _MARKS if content.startswith(mark)), b"")
    text = content[len(mark) :].decode(_MARKS.get(mark, "utf-8"), "surrogateescape")
    lines = [line.removesuffix("\r") for line in text.split("\n")]  # also the line ends of Windows
    lines = [line for line in lines if line.strip()]
    if not lines:
        raise AudioError(f"{path}: found no names, expected one on each line")
    return lines
