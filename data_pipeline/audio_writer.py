"""Writes audio files, whole or not at all.

Audio is float `[samples, channels]` with full scale [-1, 1).
"""

import contextlib
import math
import os
import shutil
from collections.abc import Callable, Iterator

import numpy as np

from data_pipeline.errors import AudioError, bad_file
from data_pipeline.wav_header import make_riff
from sccunet.checks import counted
from sccunet.files import file_written_whole

# Formats that `audio_writer` writes: ending, as libsndfile names the format -> encodings, the first
# being the default.
WRITABLE = {".wav": ("float32", "pcm24", "pcm16"), ".flac": ("pcm24", "pcm16")}
_MOST_CHANNELS = {"FLAC": 8, "WAV": 1_024}  # the latter is libsndfile's
# Encoding -> libsndfile's name for it, and bits per sample.
_SUBTYPES = {"pcm16": ("PCM_16", 16), "pcm24": ("PCM_24", 24), "float32": ("FLOAT", 32)}


def write_wav(
    path: str | os.PathLike, audio: np.ndarray, sample_rate: int, encoding: str = "pcm16"
) -> None:
    """Writes float `[samples, channels]` as WAV, whole or not at all.

    Integers are `audio * 2**(bits - 1)`, rounded half to even and clipped to full scale: samples
    read by `read_wav` are written back unchanged. The folder is created if missing.

    Args:
      path: the file, replaced if it exists.
      audio: float32 or float64 samples.
      sample_rate: in Hz.
      encoding: "pcm16", "pcm24" or "float32".

    Raises:
      AudioError: if a sample is NaN or infinite, or the file can't be written.
    """
    frames, channels = audio.shape
    with audio_writer(path, sample_rate, channels, encoding, frames) as write:
        write(audio)


@contextlib.contextmanager
def audio_writer(
    path: str | os.PathLike,
    sample_rate: int,
    channels: int,
    encoding: str = "pcm16",
    frames: int | None = None,
) -> Iterator[Callable[[np.ndarray], None]]:
    """Context manager that yields a function to write blocks `[samples, channels]`.

    The file appears when the context ends without an error and all samples are written. The path's
    ending determines the format, if it is in `WRITABLE`; otherwise the format is WAV.

    Args:
      path, sample_rate, encoding: as for `write_wav`; FLAC has no "float32".
      channels: number of channels in every block; FLAC has at most 8.
      frames: total number of samples, if known. A file of more than 4 GiB, which a WAV header
        cannot count, is written as RF64; if the number is unknown, space is left for that.

    Raises:
      AudioError: as `write_wav`, or if FLAC can't hold such samples.
    """
    import soundfile

    path = os.fspath(path)
    subtype, bits = _SUBTYPES[encoding]
    kind = check_format(path, sample_rate, channels, encoding)
    size = (frames or 0) * channels * bits // 8
    if kind == "WAV" and (frames is None or size >= 2**32 - 2**16):
        kind = "RF64"
    written = 0

    def write(audio: np.ndarray) -> None:
        nonlocal written
        if not np.isfinite(audio).all():
            raise bad_file(path, "NaN or infinite samples to write", "finite ones")
        file.write(_encoded(audio, encoding))
        written += len(audio)

    try:
        with file_written_whole(path) as part:
            with soundfile.SoundFile(
                os.fsencode(part), "w", sample_rate, channels, subtype, format=kind
            ) as file:
                yield write
            # libsndfile reports no error if it can't write the end of a FLAC file.
            if written and soundfile.info(os.fsencode(part)).frames != written:
                raise OSError(f"not all of the {written} samples were written")
            if kind == "RF64" and written and os.path.getsize(part) < 2**32:
                make_riff(part)
    except (OSError, soundfile.LibsndfileError) as error:
        # libsndfile reports a full disk as a system error.
        folder = os.path.dirname(os.path.abspath(path))
        free = shutil.disk_usage(folder).free if os.path.isdir(folder) else math.inf
        # The errors' own text names the hidden file.
        reason = "no space left" if free < 2**20 else _reason(error)
        raise AudioError(f"{path}: cannot be written ({reason})") from error


def _reason(error: Exception) -> str:
    """An error of the system or of libsndfile without the name of a file."""
    text = getattr(error, "strerror", getattr(error, "error_string", "")) or str(error)
    return text.removeprefix("Error : ").rstrip(".")


def check_format(path: str | os.PathLike, sample_rate: int, channels: int, encoding: str) -> str:
    """Checks that `audio_writer` can write such a file; returns libsndfile's name of the format.

    Raises:
      AudioError: if the format can't hold such samples.
    """
    path = os.fspath(path)
    ending = os.path.splitext(path)[1].lower()
    kind = ending[1:].upper() if ending in WRITABLE else "WAV"
    encodings = sorted(WRITABLE[f".{kind.lower()}"])
    if encoding not in encodings:
        raise bad_file(path, f"{encoding} samples for a {kind} file", " or ".join(encodings))
    if channels > (most := _MOST_CHANNELS[kind]):
        raise bad_file(path, f"{counted(channels, 'channel')} for a {kind} file", f"at most {most}")
    tens = sample_rate <= 655_350 and sample_rate % 10 == 0  # as FLAC counts higher rates
    if kind == "FLAC" and sample_rate > 65_535 and not tens:
        raise bad_file(
            path,
            f"{sample_rate} Hz for a FLAC file",
            "at most 65535 Hz, or a multiple of 10 Hz up to 655350 Hz",
        )
    return kind


def _encoded(audio: np.ndarray, encoding: str) -> np.ndarray:
    """Converts float samples to soundfile's input for one of `_SUBTYPES`."""
    if encoding == "float32":
        return np.asarray(audio, np.float32)
    bits = _SUBTYPES[encoding][1]
    full = 2 ** (bits - 1)
    data = np.clip(np.rint(audio * float(full)), -full, full - 1)
    # soundfile expects 24 bits as the upper bits of 32.
    return data.astype(np.int16) if bits == 16 else data.astype(np.int32) << 8
