"""Writes audio files, whole or not at all.

Audio is float `[samples, channels]` with full scale [-1, 1). Modules that take long to import are
imported only where they are used, so that programs show their flags at once.
"""

import contextlib
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from data_pipeline.encoders import Write, libsndfile_writer, mp4_writer
from data_pipeline.errors import AudioError, bad_file
from data_pipeline.formats import WRITABLE, check_format, ending_of
from data_pipeline.stem_file import add_stem_atom
from sccunet.files import file_written_whole


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
    encoding: str | None = "pcm16",
    frames: int | None = None,
    bitrate: int | None = None,
    stems: Sequence[str] = (),
) -> Iterator[Callable[[np.ndarray], None]]:
    """Context manager that yields a function to write blocks `[samples, channels]`.

    The file appears when the context ends without an error and all samples are written. The path's
    ending determines the format, if it is in `WRITABLE`; otherwise the format is WAV.

    Args:
      path: as for `write_wav`.
      sample_rate: of the blocks. If the format does not have it, they are resampled to
        `Format.rate` of it.
      channels: number of channels in every block; lossy formats have at most 2, FLAC 8.
      encoding: as for `write_wav`; FLAC has no "float32", and lossy formats ignore it.
      frames: total number of samples, if known. A WAV of more than 4 GiB, which its header cannot
        count, is written as RF64; if the number is unknown, space is left for that.
      bitrate: of a lossy format, for all channels together, in kbit/s; default: `Format.bitrate`
        for each. If the format does not have it at this rate, it is the nearest that it has.
      stems: for a .stem.mp4, the names of the stems. Blocks are then
        `[samples, (1 + stems) * channels]`: the mixture's channels and those of each stem.

    Raises:
      AudioError: as `write_wav`, or if the format can't hold such samples.
    """
    path = os.fspath(path)
    check_format(path, sample_rate, channels, encoding)
    ending = ending_of(path)
    kind = WRITABLE[ending]
    rate, bitrate = kind.rate(sample_rate), bitrate or kind.bitrate * channels
    with _whole_file(path) as part, contextlib.ExitStack() as stack:
        names = ["mixture", *stems] if kind.stems else [""]
        if kind.mp4:
            opened = mp4_writer(part, rate, channels, bitrate, names)
        else:
            opened = libsndfile_writer(part, ending, rate, channels, encoding, bitrate, frames)
        put = stack.enter_context(opened)
        put = stack.enter_context(_resampled(put, sample_rate, rate, channels * len(names)))

        def write(audio: np.ndarray) -> None:
            if not np.isfinite(audio).all():
                raise bad_file(path, "NaN or infinite samples to write", "finite ones")
            put(audio)

        yield write
        stack.close()
        if kind.stems:
            add_stem_atom(part, stems)


@contextlib.contextmanager
def _whole_file(path: str) -> Iterator[str]:
    """Context manager that yields a hidden path, as `file_written_whole`; errors name the file."""
    import soundfile

    try:
        with file_written_whole(path) as part:
            yield os.fspath(part)
    except (OSError, soundfile.LibsndfileError) as error:
        # libsndfile reports a full disk as a system error.
        folder = os.path.dirname(os.path.abspath(path))
        free = shutil.disk_usage(folder).free if os.path.isdir(folder) else math.inf
        # The errors' own text names the hidden file.
        reason = "no space left" if free < 2**20 else _reason(error)
        raise AudioError(f"{path}: cannot be written ({reason})") from error


def _reason(error: Exception) -> str:
    """An error of the system or of a library without the name of a file."""
    text = getattr(error, "strerror", getattr(error, "error_string", "")) or str(error)
    return text.removeprefix("Error : ").rstrip(".")


@contextlib.contextmanager
def _resampled(put: Write, from_rate: int, to_rate: int, channels: int) -> Iterator[Write]:
    """Context manager that yields `put` for blocks at another rate.

    The number of samples is that of `audio.resample`, but at least 1.
    """
    if from_rate == to_rate:
        yield put
        return
    import soxr

    stream = soxr.ResampleStream(from_rate, to_rate, channels, "float32", "VHQ")
    given = written = 0

    def resample(audio: np.ndarray) -> None:
        nonlocal given, written
        out = stream.resample_chunk(np.ascontiguousarray(audio, np.float32))
        given, written = given + len(audio), written + len(out)
        put(out)

    yield resample
    out = stream.resample_chunk(np.zeros((0, channels), np.float32), last=True)
    samples = max((2 * given * to_rate + from_rate) // (2 * from_rate), 1)
    left = max(samples - written, 0)
    put(np.pad(out[:left], ((0, max(left - len(out), 0)), (0, 0))))
