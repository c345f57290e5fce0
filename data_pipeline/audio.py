"""Opens, reads, resamples and writes audio files, for the programs.

Audio is float32 `[samples, channels]` with full scale [-1, 1). Modules that take long to import are
imported only where they are used, so that programs show their flags at once.
"""

import contextlib
import dataclasses
import itertools
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator

import numpy as np

from data_pipeline import containers, decode
from data_pipeline.errors import AudioError, EncodingError, NoWavError, bad_file
from data_pipeline.wav import check_whole, opened, wav_blocks
from data_pipeline.wav_header import make_riff, wav_header
from sccunet.checks import counted
from sccunet.files import file_written_whole

# Formats that `audio_writer` writes: ending, as libsndfile names the format -> encodings, the first
# being the default.
WRITABLE = {".wav": ("float32", "pcm24", "pcm16"), ".flac": ("pcm24", "pcm16")}
_MOST_CHANNELS = {"FLAC": 8, "WAV": 1_024}  # the latter is libsndfile's
# Encoding -> libsndfile's name for it, and bits per sample.
_SUBTYPES = {"pcm16": ("PCM_16", 16), "pcm24": ("PCM_24", 24), "float32": ("FLOAT", 32)}


@dataclasses.dataclass(frozen=True)
class AudioInfo:
    """What a file's container states about its audio.

    Attributes:
      sample_rate: sample rate of the audio stream, in Hz.
      channels: number of channels of the audio stream.
      streams: number of audio streams in the file.
      seconds: length of the audio stream; None if the container doesn't state it.
      about: `seconds`, or FFmpeg's guess (good enough for a progress bar); None in a pipe.
      choice: if there are several audio streams and none was asked for: which one this is, in
        words; otherwise "".
    """

    sample_rate: int
    channels: int
    streams: int
    seconds: float | None
    about: float | None
    choice: str = ""


def probe(path: str | os.PathLike) -> AudioInfo:
    """Reads the properties of an audio file, in any format that FFmpeg's libraries read.

    Raises:
      AudioError: if the file is missing, unreadable, empty or has no audio that decodes.
    """
    with recording(path) as (info, _):
        return info


@contextlib.contextmanager
def recording(
    path: str | os.PathLike, stream: int | None = None, salvage: bool = False
) -> Iterator[tuple[AudioInfo, Iterator[np.ndarray]]]:
    """Opens a file once, for its properties and for its audio in blocks.

    A context manager that yields `(info, blocks)`. Each block is float32 `[samples, channels]` at
    `info.sample_rate`; `samples` varies.

    Args:
      path: a file that FFmpeg's libraries read, or "-" for a WAV from standard input. A WAV in a
        pipe may not state its length; `info.seconds` is None then.
      stream: index of the audio stream in the file (a .stem.mp4 has five). Default: the first that
        is marked as default, or else the first.
      salvage: yield everything that can be decoded of a damaged file, with zeros in the gaps whose
        length the file's timestamps tell, then raise `DamagedError`.

    Raises:
      AudioError: on entering, if the file is missing, unreadable, empty or has no audio; on
        entering or from `blocks`, if the audio can't be decoded to its end.
      DamagedError: from `blocks` with `salvage`, after the last block, if audio was lost.
    """
    path = os.fspath(path)
    with contextlib.ExitStack() as stack:
        try:
            found = _wav(path, stream, salvage, stack)
        except EncodingError as error:
            if path == "-":
                raise
            found = _other(path, stream, salvage, stack, error)
        containers.check_plausible(path, found[0].sample_rate, found[0].channels)
        yield found


def _wav(
    path: str, stream: int | None, salvage: bool, stack: contextlib.ExitStack
) -> tuple[AudioInfo, Iterator[np.ndarray]]:
    """Opens a WAV with our parser: FFmpeg's libraries read a truncated one as if it were shorter.

    Raises:
      EncodingError: if it has to be read with FFmpeg's libraries.
    """
    if path == "-":
        if sys.stdin is None:
            raise bad_file("standard input", "none", "a WAV file")
        file = sys.stdin.buffer
        wav = wav_header("standard input", file)
    else:
        file, size = stack.enter_context(opened(path, "an audio file"))
        wav = wav_header(path, file, size)
        if not salvage:
            check_whole(wav, size)
    if stream:
        raise containers.too_few_streams(wav.path, 1, stream)
    blocks = stack.enter_context(contextlib.closing(wav_blocks(wav, file, salvage)))
    first = next(blocks)
    seconds = wav.seconds or None
    info = AudioInfo(wav.sample_rate, wav.channels, 1, seconds, seconds)
    return info, itertools.chain([first], blocks)


def _other(
    path: str,
    stream: int | None,
    salvage: bool,
    stack: contextlib.ExitStack,
    refusal: EncodingError,
) -> tuple[AudioInfo, Iterator[np.ndarray]]:
    """Opens a file with FFmpeg's libraries, after our parser refused it."""
    try:
        container = stack.enter_context(containers.opened(path))
    except AudioError as error:
        # Of a WAV, our parser says more exactly what is wrong.
        raise (error if isinstance(refusal, NoWavError) else refusal) from error
    index, source = containers.audio_stream(path, container, stream)
    blocks = decode.decoded(path, container, source, salvage)
    stack.enter_context(contextlib.closing(blocks))
    first = next(blocks)  # decoder and container may disagree
    streams, choice = len(container.streams.audio), ""
    if stream is None and streams > 1:
        choice = f"found {counted(streams, 'audio stream')}, read number {index} (from 0)"
    seconds = containers.stated_seconds(container, source)
    about = seconds or (container.duration or 0) / 1e6 or None
    rate = source.codec_context.sample_rate
    info = AudioInfo(rate, first.shape[1], streams, seconds, about, choice)
    return info, itertools.chain([first], blocks)


def read(path: str | os.PathLike, stream: int | None = None) -> tuple[np.ndarray, int]:
    """Reads a whole file: float32 `[samples, channels]` at its own rate, and that rate in Hz.

    Args:
      path, stream: as for `recording`.

    Raises:
      AudioError: as `recording`.
    """
    with recording(path, stream) as (info, blocks):
        return np.concatenate(list(blocks)), info.sample_rate


def resample(audio: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """Resamples float32 `[samples, channels]`.

    Returns:
      float32 `[round(samples * to_rate / from_rate), channels]`.
    """
    if from_rate == to_rate:
        return audio
    import soxr

    samples = (2 * len(audio) * to_rate + from_rate) // (2 * from_rate)
    out = soxr.resample(audio, from_rate, to_rate, quality="VHQ")[:samples]
    return np.pad(out, ((0, samples - len(out)), (0, 0)))


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
