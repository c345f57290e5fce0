"""Finds the audio files in folders, by their endings."""

import contextlib
import os
from collections.abc import Iterator

from data_pipeline.errors import AudioError, bad_file

# Endings of the files that are taken for audio.
# fmt: off
AUDIO_ENDINGS = frozenset((
    ".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".m4a", ".m4b", ".mp4", ".aac",
    ".wma", ".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".mka", ".mkv", ".webm",
    ".mov", ".avi", ".w64", ".rf64", ".ac3", ".eac3", ".dts", ".mp2", ".ape", ".wv", ".tta",
    ".amr", ".m4v", ".mpg", ".mpeg", ".3gp", ".wmv", ".flv",
))
# fmt: on


def recordings_in(folder: str | os.PathLike) -> list[str]:
    """Finds the audio files in a folder by `AUDIO_ENDINGS`; returns their paths, sorted by name.

    Hidden files and subfolders are left out.

    Raises:
      AudioError: if there are no audio files, or the folder can't be read.
    """
    return _some(_content(folder)[0], folder)


def recordings_below(folder: str | os.PathLike, apart: str | os.PathLike = "") -> list[str]:
    """Finds the audio files in a folder and in all folders inside it; returns their paths.

    Hidden files and folders are left out. Links to folders are followed, but not in circles.

    Args:
      folder: where to look.
      apart: a folder that is left out, such as one for the results.

    Raises:
      AudioError: if there are no audio files, or one of the folders can't be read.
    """
    return _some(list(_below(folder, apart)), folder)


def folders_with_recordings(folder: str | os.PathLike, apart: str | os.PathLike = "") -> list[str]:
    """Finds the folders directly in a folder that hold audio files, at any depth.

    Folders that can't be read are left out.

    Args:
      folder, apart: as for `recordings_below`.

    Raises:
      AudioError: if `folder` itself can't be read.
    """
    found = []
    for inner in _content(folder)[1]:
        with contextlib.suppress(AudioError):
            if any(True for _ in _below(inner, apart)):
                found.append(inner)
    return found


def _some(files: list[str], folder: str | os.PathLike) -> list[str]:
    """Returns the files, unless there are none."""
    if not files:
        raise bad_file(
            os.fspath(folder), "no audio files", "files that end in .wav, .flac, .mp3 or the like"
        )
    return files


def _below(
    folder: str | os.PathLike, apart: str | os.PathLike, above: frozenset[str] = frozenset()
) -> Iterator[str]:
    """Yields the audio files in a folder and all folders inside it; `above` are those around it."""
    real = os.path.realpath(folder)
    if real in above or (apart and real == os.path.realpath(apart)):
        return
    files, folders = _content(folder)
    yield from files
    for inner in folders:
        yield from _below(inner, apart, above | {real})


def _content(folder: str | os.PathLike) -> tuple[list[str], list[str]]:
    """Returns the paths of audio files and of folders in a folder, sorted, without hidden ones."""
    folder = os.fspath(folder)
    try:
        with os.scandir(folder) as entries:
            shown = [entry for entry in entries if not entry.name.startswith(".")]
            folders = {entry.name for entry in shown if entry.is_dir()}
    except FileNotFoundError as error:
        raise bad_file(folder, "no such folder", "a folder of audio files") from error
    except OSError as error:
        raise AudioError(
            f"{folder}: cannot be read ({error.strerror}), expected a folder of audio files"
        ) from error
    files = {  # a link to nothing is an error, not left out
        entry.name for entry in shown if os.path.splitext(entry.name)[1].lower() in AUDIO_ENDINGS
    } - folders
    return tuple(
        [os.path.join(folder, name) for name in sorted(names)] for names in (files, folders)
    )
