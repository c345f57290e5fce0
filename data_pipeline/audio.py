"""Reads and writes audio: WAV by a parser of its own, everything else through PyAV.

Audio is float32 `[samples, channels]`, full scale being [-1, 1); integer PCM of b bits is divided
by 2**(b - 1), exactly. Nothing here imports TensorFlow, and PyAV, soundfile and soxr are imported
where they are used, so that programs can show their flags at once.
"""

import contextlib
import dataclasses
import math
import os
import struct
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

# WAV (format tag, bits per sample) to our name for it.
_ENCODINGS = {
    (1, 8): "pcm8",
    (1, 16): "pcm16",
    (1, 24): "pcm24",
    (1, 32): "pcm32",
    (3, 32): "float32",
    (3, 64): "float64",
}
_BYTES = {name: bits // 8 for (_, bits), name in _ENCODINGS.items()}
_EXTENSIBLE = 0xFFFE
# Containers that state how long a stream is; others (mp3 above all) let FFmpeg guess.
_STATES_DURATION = ("wav", "flac", "ogg", "mov,mp4,m4a,3gp,3g2,mj2")
# Seconds by which stated and decoded length differ in sound files: a coder pads the end, Opus
# counts what is skipped at the start.
_DURATION_SLACK = 0.1


class AudioError(ValueError):
    """A file that can't be used; one line that names the file, what was found and what expected."""


class EncodingError(AudioError):
    """A WAV file whose samples are coded in a way that only FFmpeg's libraries may know."""


@dataclasses.dataclass(frozen=True)
class WavInfo:
    """The header of a WAV file whose samples are all there.

    Attributes:
      path: of the file.
      sample_rate: in Hz.
      channels: samples per frame.
      frames: length, in samples per channel.
      encoding: "pcm8", "pcm16", "pcm24", "pcm32", "float32" or "float64".
      data_offset: of the first sample in the file, in bytes.
    """

    path: str
    sample_rate: int
    channels: int
    frames: int
    encoding: str
    data_offset: int

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.frames / self.sample_rate

    @property
    def frame_bytes(self) -> int:
        """Bytes that one sample of all channels takes in the file."""
        return self.channels * _BYTES[self.encoding]


@dataclasses.dataclass(frozen=True)
class AudioInfo:
    """What a file's container says of its audio.

    Attributes:
      sample_rate: of the first audio stream, in Hz.
      channels: of the first audio stream.
      streams: how many audio streams there are.
      seconds: length of the first audio stream; None where the container doesn't state it.
    """

    sample_rate: int
    channels: int
    streams: int
    seconds: float | None


def wav_info(path: str | os.PathLike) -> WavInfo:
    """Reads a WAV file's header (RIFF or RF64) and checks that the file holds what it promises.

    Raises:
      AudioError: if the file is missing, unreadable, empty, no WAV, without samples, shorter than
        its header says, or in an encoding not in `WavInfo`.
    """
    path = os.fspath(path)
    size = _file_size(path, "a WAV file")
    with open(path, "rb") as file:
        head = file.read(12)
        if head[:4] not in (b"RIFF", b"RF64") or head[8:] != b"WAVE":
            raise _bad(path, "no WAV header", "a WAV file")
        layout = long_size = None
        while len(chunk := file.read(8)) == 8:
            name, length = struct.unpack("<4sI", chunk)
            if name == b"data":
                break
            body = file.read(length + length % 2)
            if name == b"fmt " and length >= 16:
                layout = body
            elif name == b"ds64" and length >= 16:
                long_size = struct.unpack_from("<Q", body, 8)[0]
        else:
            raise _bad(path, "a WAV header without a data chunk", "a WAV file with samples")
        offset = file.tell()
    if layout is None:
        raise _bad(path, "a WAV header without a format chunk", "a whole WAV header")
    tag, channels, rate, _, frame_bytes, bits = struct.unpack_from("<HHIIHH", layout)
    if tag == _EXTENSIBLE and len(layout) >= 26:
        tag = struct.unpack_from("<H", layout, 24)[0]
    encoding = _ENCODINGS.get((tag, bits))
    if encoding is None or not channels or not rate or frame_bytes != channels * _BYTES[encoding]:
        raise EncodingError(
            f"{path}: found WAV format {tag} with {bits} bits, {channels} channels and {rate} Hz,"
            f" expected one of {', '.join(_BYTES)}"
        )
    if length == 0xFFFFFFFF:  # a longer count elsewhere, or a stream of unknown length
        length = size - offset if long_size is None else long_size
    frames, held = length // frame_bytes, max(size - offset, 0) // frame_bytes
    if frames == 0:
        raise _bad(path, "a WAV header without samples", "a WAV file with samples")
    if held < frames:
        raise _bad(
            path, f"{held} samples (truncated)", f"the {frames} samples that its header promises"
        )
    return WavInfo(path, rate, channels, frames, encoding, offset)


def read_wav(
    wav: WavInfo | str | os.PathLike, start: int = 0, frames: int | None = None
) -> np.ndarray:
    """Samples `start` to `start + frames` of a WAV file, float32 `[frames, channels]`.

    Args:
      wav: the file's `wav_info`, or its path.
      start: first sample.
      frames: how many; None takes all from `start`. Fewer come back where the file ends.

    Raises:
      AudioError: as `wav_info`, or if the file got shorter since.
    """
    info = wav if isinstance(wav, WavInfo) else wav_info(wav)
    left = max(info.frames - start, 0)
    frames = left if frames is None else min(frames, left)
    try:
        raw = np.fromfile(
            info.path,
            np.uint8,
            frames * info.frame_bytes,
            offset=info.data_offset + start * info.frame_bytes,
        )
    except OSError as error:
        raise _unreadable(info.path, error) from error
    if raw.size != frames * info.frame_bytes:
        raise _bad(info.path, "a file that got shorter while in use", f"{info.frames} samples")
    return pcm_to_float(raw, info.encoding).reshape(frames, info.channels)


def pcm_to_float(raw: np.ndarray, encoding: str) -> np.ndarray:
    """Bytes of a WAV file's samples, uint8 `[n]`, to float32 `[n / bytes per sample]`."""
    if encoding in ("float32", "float64"):
        return raw.view(f"<f{_BYTES[encoding]}").astype(np.float32)
    if encoding == "pcm8":
        return (raw.astype(np.float32) - 128) / 128
    if encoding == "pcm24":
        # As the upper bytes of 32 bits: the sign comes out right, and 24 bits fit float32 exactly.
        wide = np.zeros((raw.size // 3, 4), np.uint8)
        wide[:, 1:] = raw.reshape(-1, 3)
        raw, encoding = wide.reshape(-1), "pcm32"
    size = _BYTES[encoding]
    return raw.view(f"<i{size}").astype(np.float32) / np.float32(2 ** (8 * size - 1))


def probe(path: str | os.PathLike) -> AudioInfo:
    """What an audio file of any kind that FFmpeg's libraries read says of itself.

    Raises:
      AudioError: if the file is missing, unreadable, empty or holds no audio.
    """
    path = os.fspath(path)
    with _opened(path) as container:
        stream = _audio_stream(path, container, 0)
        return AudioInfo(
            stream.codec_context.sample_rate,
            stream.codec_context.layout.nb_channels,
            len(container.streams.audio),
            _stated_seconds(container, stream),
        )


def decode(path: str | os.PathLike, stream: int = 0) -> Iterator[np.ndarray]:
    """The audio of any file that FFmpeg's libraries read, piece by piece.

    Args:
      path: the file.
      stream: which of its audio streams (a .stem.mp4 has five).

    Yields:
      float32 `[samples, channels]`, at the file's own rate; `samples` varies.

    Raises:
      AudioError: as `probe`, or if the audio can't be decoded to its end.
    """
    for samples, _ in _decode(os.fspath(path), stream):
        yield samples


def read(path: str | os.PathLike, stream: int = 0) -> tuple[np.ndarray, int]:
    """A whole file through `decode`: float32 `[samples, channels]` and its rate in Hz."""
    pieces, rates = zip(*_decode(os.fspath(path), stream), strict=True)
    return np.concatenate(pieces), rates[0]


def resample(audio: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """float32 `[samples, channels]` at another rate.

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

    Integers are `audio * 2**(bits - 1)` rounded half to even and clipped to full scale, so that
    what `read_wav` read is written back as it was. The folder is made where it is missing.

    Args:
      path: the file, replaced where it exists.
      audio: float32 or float64 samples.
      sample_rate: in Hz.
      encoding: "pcm16", "pcm24" or "float32".

    Raises:
      AudioError: if a sample is NaN or infinite, or the file can't be written.
    """
    frames, channels = audio.shape
    with wav_writer(path, sample_rate, channels, encoding, frames) as write:
        write(audio)


@contextlib.contextmanager
def wav_writer(
    path: str | os.PathLike,
    sample_rate: int,
    channels: int,
    encoding: str = "pcm16",
    frames: int | None = None,
) -> Iterator[Callable[[np.ndarray], None]]:
    """`write_wav` in blocks: a context manager that gives a function of `[samples, channels]`.

    The file appears when the context ends without an error.

    Args:
      path: as for `write_wav`, like `sample_rate` and `encoding`.
      channels: of every block.
      frames: how many samples are expected in all, if that is known: it decides whether the header
        counts bytes in 32 or, as RF64, in 64 bits.

    Raises:
      AudioError: as `write_wav`.
    """
    import soundfile

    path = os.fspath(path)
    subtype, bits = {"pcm16": ("PCM_16", 16), "pcm24": ("PCM_24", 24), "float32": ("FLOAT", 32)}[
        encoding
    ]
    long = (frames or 0) * channels * bits // 8 >= 2**32 - 2**16
    folder, name = os.path.split(os.path.abspath(path))
    part = os.path.join(folder, f".{name}.{os.getpid()}.part")

    def write(audio: np.ndarray) -> None:
        if not np.isfinite(audio).all():
            raise _bad(path, "NaN or infinite samples to write", "finite ones")
        if encoding == "float32":
            file.write(np.asarray(audio, np.float32))
            return
        full = 2 ** (bits - 1)
        data = np.clip(np.rint(audio * float(full)), -full, full - 1)
        # soundfile takes 24 bits as the upper ones of 32.
        file.write(data.astype(np.int16) if bits == 16 else data.astype(np.int32) << 8)

    try:
        os.makedirs(folder, exist_ok=True)
        kind = "RF64" if long else "WAV"
        with soundfile.SoundFile(part, "w", sample_rate, channels, subtype, format=kind) as file:
            yield write
        os.replace(part, path)
    except (OSError, soundfile.LibsndfileError) as error:
        raise AudioError(f"{path}: cannot be written ({error})") from error
    finally:
        with contextlib.suppress(OSError):
            os.remove(part)


def _bad(path: str, found: str, expected: str) -> AudioError:
    return AudioError(f"{path}: found {found}, expected {expected}")


def _unreadable(path: str, error: OSError) -> AudioError:
    return AudioError(f"{path}: cannot be read ({error.strerror}), expected a readable file")


def _file_size(path: str, expected: str) -> int:
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
    except FileNotFoundError as error:
        raise _bad(path, "no such file", expected) from error
    except OSError as error:
        raise _unreadable(path, error) from error
    if size == 0:
        raise _bad(path, "an empty file (0 bytes)", expected)
    return size


@contextlib.contextmanager
def _opened(path: str):
    import av

    _file_size(path, "an audio file")
    if path.lower().endswith(".wav"):
        # FFmpeg's libraries take a WAV that was cut short for a shorter one.
        with contextlib.suppress(EncodingError):
            wav_info(path)
    # Tags in an unknown code page are no reason to fail; PyAV 19 no longer has to be told.
    kept = {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}
    try:
        # An absolute path is never taken for a URL.
        container = av.open(os.path.abspath(path), **kept)
    except (av.error.FFmpegError, OSError) as error:
        raise _bad(path, f"no readable audio ({error.strerror})", "an audio file") from error
    with container:
        yield container


def _audio_stream(path: str, container: Any, index: int) -> Any:
    streams = container.streams.audio
    if len(streams) <= index:
        raise _bad(path, f"{len(streams)} audio streams", f"at least {index + 1}")
    context = streams[index].codec_context
    if context is None or not context.sample_rate or not context.layout.nb_channels:
        raise _bad(path, "an audio stream of unknown coding", "one that FFmpeg's libraries decode")
    return streams[index]


def _stated_seconds(container: Any, stream: Any) -> float | None:
    if container.format.name in _STATES_DURATION and stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return None


def _decode(path: str, index: int) -> Iterator[tuple[np.ndarray, int]]:
    """Yields `([samples, channels], rate)`."""
    import av

    count, rate, channels, end = 0, 0, 0, math.inf
    late = []  # what lies behind the stated end: the coder's padding
    with _opened(path) as container:
        stream = _audio_stream(path, container, index)
        stated = _stated_seconds(container, stream)
        # FLAC has checksums: damage is told from noise if that is asked for.
        options = {"err_detect": "crccheck+explode"}
        # FFmpeg's libraries cut an Ogg file of one page, always a short one, at the wrong place.
        # Told not to cut, they also give a first frame from before the first sample.
        short_ogg = stated is not None and stated < 60 and stream.codec_context.name == "vorbis"
        if short_ogg:
            options["flags2"] = "+skip_manual"
        stream.codec_context.options = options
        frames = container.decode(stream)
        while True:
            try:
                frame = next(frames, None)
            except (av.error.FFmpegError, OSError) as error:
                raise _bad(
                    path,
                    f"audio that cannot be decoded after {count / (rate or 1):.1f} s"
                    f" ({error.strerror})",
                    "audio that can be to its end",
                ) from error
            if frame is None:
                break
            if short_ogg:
                short_ogg = False
                continue
            found = frame.sample_rate, frame.layout.nb_channels
            if not count:
                rate, channels = found
                end = math.inf if stated is None else round(stated * rate)
            elif found != (rate, channels):
                raise _bad(
                    path,
                    f"{found[0]} Hz and {found[1]} channels after {count / rate:.1f} s",
                    f"{rate} Hz and {channels} channels as at the start",
                )
            samples = _frame_samples(frame)
            within = max(min(end - count, len(samples)), 0)
            count += len(samples)
            if within:
                yield samples[:within], rate
            if within < len(samples):
                late.append(samples[within:])
            if count - end > _DURATION_SLACK * rate:
                # Too much for padding: the statement is wrong.
                yield from ((samples, rate) for samples in late)
                late, end = [], math.inf
    if not count:
        raise _bad(path, "no samples", "audio")
    if stated is not None and count / rate < stated - _DURATION_SLACK:
        raise _bad(
            path,
            f"{count / rate:.1f} s of audio (truncated or damaged)",
            f"the {stated:.1f} s that its header promises",
        )


def _frame_samples(frame: Any) -> np.ndarray:
    """float32 `[samples, channels]` of a decoded frame; integers of any width scaled exactly."""
    data = frame.to_ndarray()
    data = data.T if frame.format.is_planar else data.reshape(-1, frame.layout.nb_channels)
    if data.dtype == np.uint8:
        return (data.astype(np.float32) - 128) / 128
    if data.dtype.kind == "i":
        return data.astype(np.float32) / np.float32(2 ** (8 * data.dtype.itemsize - 1))
    return np.ascontiguousarray(data, np.float32)
