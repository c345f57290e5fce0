"""Opens, reads and resamples audio files, for the programs.

Audio is float32 `[samples, channels]` with full scale [-1, 1). Modules that take long to import are
imported only where they are used, so that programs show their flags at once.
"""

import contextlib
import dataclasses
import itertools
import os
import sys
from collections.abc import Iterator

import numpy as np

from data_pipeline import containers, decode
from data_pipeline.errors import AudioError, EncodingError, NoWavError, bad_file
from data_pipeline.wav import check_whole, opened, wav_blocks
from data_pipeline.wav_header import wav_header
from sccunet.checks import counted


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
