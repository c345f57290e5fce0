"""Opens, reads and resamples audio files, for the programs.

Audio is float32 `[samples, channels]` with full scale [-1, 1). Modules that take long to import are
imported only where they are used, so that programs show their flags at once.
"""

import contextlib
import dataclasses
import itertools
import math
import os
import sys
from collections.abc import Iterator

import numpy as np

from data_pipeline import containers, decode
from data_pipeline.errors import (
    AudioError,
    DamagedError,
    EncodingError,
    NoWavError,
    bad_file,
)
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


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of a recording.

    Attributes:
      start: where it begins, in seconds.
      seconds: how long it is, if the recording does not end before; None: to the end.
    """

    start: float = 0.0
    seconds: float | None = None

    def samples(self, rate: int) -> tuple[int, float]:
        """Returns the number of its first sample, and how many it has at most, at a rate in Hz."""
        count = math.inf if self.seconds is None else max(round(self.seconds * rate), 1)
        return round(self.start * rate), count

    def length(self, whole: float | None) -> float | None:
        """Returns its seconds in a recording of `whole` seconds, or None if that is not known."""
        if whole is None:
            return None
        left = max(whole - self.start, 0.0)
        return left if self.seconds is None else min(left, self.seconds)


WHOLE = Part()


def probe(path: str | os.PathLike) -> AudioInfo:
    """Reads the properties of an audio file, in any format that FFmpeg's libraries read.

    Raises:
      AudioError: if the file is missing, unreadable, empty or has no audio that decodes.
    """
    with recording(path) as (info, _):
        return info


@contextlib.contextmanager
def recording(
    path: str | os.PathLike,
    stream: int | None = None,
    salvage: bool = False,
    part: Part = WHOLE,
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
      part: yield only this part, and give its length in `info`. What is behind it is not decoded.

    Raises:
      AudioError: on entering, if the file is missing, unreadable, empty, has no audio or ends
        before the part; on entering or from `blocks`, if the audio can't be decoded to its end.
      DamagedError: from `blocks` with `salvage`, after the last block, if audio was lost.
    """
    path = os.fspath(path)
    with contextlib.ExitStack() as stack:
        try:
            found = _wav(path, stream, salvage, stack, part)
        except EncodingError as error:
            if path == "-":
                raise
            found = _other(path, stream, salvage, stack, part, error)
        containers.check_plausible(path, found[0].sample_rate, found[0].channels)
        yield found


def _wav(
    path: str, stream: int | None, salvage: bool, stack: contextlib.ExitStack, part: Part
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
    seconds = part.length(wav.seconds or None)
    info = AudioInfo(wav.sample_rate, wav.channels, 1, seconds, seconds or part.seconds)
    first, count = part.samples(wav.sample_rate)
    if wav.frames > first > 0 and file.seekable():
        file.seek(first * wav.frame_bytes, os.SEEK_CUR)
        wav = dataclasses.replace(wav, frames=wav.frames - first)
        first = 0
    blocks = stack.enter_context(contextlib.closing(wav_blocks(wav, file, salvage)))
    return info, _begun(path, blocks, first, count, wav.sample_rate)


def _other(
    path: str,
    stream: int | None,
    salvage: bool,
    stack: contextlib.ExitStack,
    part: Part,
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
    about = part.length(seconds or (container.duration or 0) / 1e6 or None)
    rate = source.codec_context.sample_rate
    seconds, about = part.length(seconds), about or part.seconds
    info = AudioInfo(rate, first.shape[1], streams, seconds, about, choice)
    return info, _begun(path, itertools.chain([first], blocks), *part.samples(rate), rate)


def _begun(
    path: str, blocks: Iterator[np.ndarray], first: int, count: float, rate: int
) -> Iterator[np.ndarray]:
    """Returns `count` samples of blocks from sample `first` on.

    Raises:
      AudioError: if there is no sample `first`.
    """
    cut = _cut(blocks, first, count)
    try:
        return itertools.chain([next(cut)], cut)
    except (StopIteration, DamagedError) as error:
        found = f"no audio from {first / rate:g} s on"
        raise bad_file(path, found, "a part that begins before the end") from error


def _cut(blocks: Iterator[np.ndarray], first: int, count: float) -> Iterator[np.ndarray]:
    for block in blocks:
        block, first = block[first:], max(first - len(block), 0)
        if len(block):
            yield block[: min(count, len(block))]
            count -= len(block)
        if count <= 0:
            return


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
