"""Errors of audio files."""

from sccunet.checks import UserError


class AudioError(UserError):
    """A file that can't be used. One line names the file, what was found and what was expected."""


class DamagedError(AudioError):
    """A file that decodes only in part; that part was returned before the error."""


class EncodingError(AudioError):
    """A file in a format or an encoding that only FFmpeg's libraries may decode."""


class NoWavError(EncodingError):
    """A file that is no WAV."""


def bad_file(path: str, found: str, expected: str) -> AudioError:
    return AudioError(f"{path}: found {found}, expected {expected}")


def unreadable(path: str, error: OSError) -> AudioError:
    return AudioError(f"{path}: cannot be read ({error.strerror}), expected a readable file")


def damaged(
    path: str, found: float, promised: float | None, silent: float = 0, first: float | None = None
) -> DamagedError:
    """Returns the error for lost audio, all in seconds; `promised` is None if the end is there."""
    text = f"{path}: found {found:.2f} s of audio ("
    text += "damaged)" if promised is None else "truncated or damaged)"
    if silent:
        text += f", {silent:.2f} s of it, from {first:.2f} s on, cannot be decoded and are silent"
    if promised is not None:
        text += f", {promised - found:.2f} s of the {promised:.2f} s that its header promises"
        text += " are missing"
    elif not silent:
        text += f", parts of it from {first:.2f} s on cannot be decoded"
    return DamagedError(text)
