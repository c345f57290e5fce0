"""Reads and writes audio: WAV by a parser of its own, everything else through PyAV.

Audio is float32 `[samples, channels]`, full scale being [-1, 1); integer PCM of b bits is divided
by 2**(b - 1), exactly. Nothing here imports TensorFlow, and PyAV, soundfile and soxr are imported
where they are used, so that programs can show their flags at once.
"""

import contextlib
import dataclasses
import itertools
import math
import os
import shutil
import stat
import struct
import sys
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import numpy as np

from sccunet.config import UserError

# Files that `recordings_in` takes for audio.
# fmt: off
AUDIO_ENDINGS = frozenset((
    ".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".m4a", ".m4b", ".mp4", ".aac",
    ".wma", ".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".mka", ".mkv", ".webm",
    ".mov", ".avi", ".w64", ".rf64", ".ac3", ".eac3", ".dts", ".mp2", ".ape", ".wv", ".tta",
    ".amr", ".m4v", ".mpg", ".mpeg", ".3gp", ".wmv", ".flv",
))
# fmt: on

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
_STATES_DURATION = ("wav", "flac", "ogg", "mov,mp4,m4a,3gp,3g2,mj2", "aiff", "au")
# Seconds by which stated and decoded length differ in sound files: a coder pads the end, Opus
# counts what is skipped at the start.
_DURATION_SLACK = 0.1
# Seconds by which timestamps of sound files jump: Vorbis where its block size changes.
_TIME_SLACK = 0.05
# Frames in a row that noise doesn't decode to; now and then it does to one.
_NO_NOISE = 10


class AudioError(UserError):
    """A file that can't be used; one line that names the file, what was found and what expected."""


class DamagedError(AudioError):
    """A file of which only a part could be decoded; that part was given before."""


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
      about: what FFmpeg guesses where it doesn't, good enough for a progress bar; None in a pipe.
    """

    sample_rate: int
    channels: int
    streams: int
    seconds: float | None
    about: float | None


def wav_info(path: str | os.PathLike) -> WavInfo:
    """Reads a WAV file's header (RIFF or RF64) and checks that the file holds what it promises.

    Raises:
      AudioError: if the file is missing, unreadable, empty, no WAV, without samples, shorter than
        its header says, or in an encoding not in `WavInfo`.
    """
    path = os.fspath(path)
    size = _file_size(path, "a WAV file")
    with open(path, "rb") as file:
        info = _wav_header(path, file, size)
    _check_whole(info, size)
    return info


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
      AudioError: if the file is missing, unreadable, empty or holds no audio that starts well.
    """
    with recording(path) as (info, _):
        return info


@contextlib.contextmanager
def recording(
    path: str | os.PathLike, stream: int = 0, salvage: bool = False
) -> Iterator[tuple[AudioInfo, Iterator[np.ndarray]]]:
    """Opens a file once, for what it says of itself and for its audio, piece by piece.

    A context manager that gives `(info, blocks)`; `blocks` are float32 `[samples, channels]` at
    `info.sample_rate`, `samples` varies.

    Args:
      path: what FFmpeg's libraries read, or "-" for a WAV from standard input; one that is written
        into a pipe may not know its length, and `info.seconds` is None then.
      stream: which of the file's audio streams (a .stem.mp4 has five).
      salvage: give all that can be decoded of a damaged file, with zeros in place of what can't
        where the file's timestamps tell how much that is, and raise `DamagedError` then.

    Raises:
      AudioError: on entering, if the file is missing, unreadable, empty or holds no audio; there
        or from `blocks`, if the audio can't be decoded to its end.
      DamagedError: from `blocks` with `salvage`, after the last one, if that was not all.
    """
    path, wav = os.fspath(path), None
    with contextlib.ExitStack() as stack:
        if path == "-":
            if sys.stdin is None:
                raise _bad("standard input", "none", "a WAV file")
            file = sys.stdin.buffer
            wav = _wav_header("standard input", file)
        elif path.lower().endswith((".wav", ".rf64")):
            # FFmpeg's libraries take a WAV that was cut short for a shorter one.
            size = _file_size(path, "an audio file")
            file = stack.enter_context(open(path, "rb"))
            with contextlib.suppress(EncodingError):
                wav = _wav_header(path, file, size)
                if not salvage:
                    _check_whole(wav, size)
        if wav:
            if stream:
                raise _bad(wav.path, "1 audio streams", f"at least {stream + 1}")
            blocks = _wav_blocks(wav, file, salvage)
            streams, seconds = 1, wav.seconds or None
            about = seconds
        else:
            container = stack.enter_context(_opened(path))
            source = _audio_stream(path, container, stream)
            blocks = _decoded(path, container, source, salvage)
            streams, seconds = len(container.streams.audio), _stated_seconds(container, source)
            about = seconds or (container.duration or 0) / 1e6 or None
        stack.enter_context(contextlib.closing(blocks))
        first = next(blocks)  # what a decoder gives may differ from what the container says
        rate = wav.sample_rate if wav else source.codec_context.sample_rate
        info = AudioInfo(rate, first.shape[1], streams, seconds, about)
        yield info, itertools.chain([first], blocks)


def decode(path: str | os.PathLike, stream: int = 0) -> Iterator[np.ndarray]:
    """The audio of any file that FFmpeg's libraries read, piece by piece.

    Args:
      path: as for `recording`, like `stream`.

    Yields:
      float32 `[samples, channels]`, at the file's own rate; `samples` varies.

    Raises:
      AudioError: as `probe`, or if the audio can't be decoded to its end.
    """
    with recording(path, stream) as (_, blocks):
        yield from blocks


def read(path: str | os.PathLike, stream: int = 0) -> tuple[np.ndarray, int]:
    """A whole file through `decode`: float32 `[samples, channels]` and its rate in Hz."""
    with recording(path, stream) as (info, blocks):
        return np.concatenate(list(blocks)), info.sample_rate


def recordings_in(folder: str | os.PathLike) -> list[str]:
    """Paths of the audio files that lie in a folder itself, by `AUDIO_ENDINGS`, sorted by name.

    Hidden files are left out.

    Raises:
      AudioError: if there are none, or the folder can't be read.
    """
    folder = os.fspath(folder)
    try:
        with os.scandir(folder) as entries:
            names = sorted(
                entry.name
                for entry in entries
                if not entry.name.startswith(".")
                and os.path.splitext(entry.name)[1].lower() in AUDIO_ENDINGS
                and entry.is_file()
            )
    except FileNotFoundError as error:
        raise _bad(folder, "no such folder", "a folder of audio files") from error
    except OSError as error:
        raise AudioError(
            f"{folder}: cannot be read ({error.strerror}), expected a folder of audio files"
        ) from error
    if not names:
        raise _bad(folder, "no audio files", "files that end in .wav, .flac, .mp3 or the like")
    return [os.path.join(folder, name) for name in names]


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
    """`write_wav` in blocks: a context manager that gives a function of `[samples, channels]`.

    The file appears when the context ends without an error and all samples are in it. It is FLAC
    where the path ends in ".flac", else WAV.

    Args:
      path: as for `write_wav`, like `sample_rate` and `encoding`; FLAC holds no "float32".
      channels: of every block; FLAC holds up to 8.
      frames: how many samples are expected in all, if that is known. More than 4 GiB, which a WAV
        header cannot count, are written as RF64; for want of a number, room is left for that.

    Raises:
      AudioError: as `write_wav`, or if FLAC can't hold such samples.
    """
    import soundfile

    path = os.fspath(path)
    subtype, bits = {"pcm16": ("PCM_16", 16), "pcm24": ("PCM_24", 24), "float32": ("FLOAT", 32)}[
        encoding
    ]
    if path.lower().endswith(".flac"):
        kind = "FLAC"
        if encoding == "float32":
            raise _bad(path, "float32 samples for a FLAC file", "pcm16 or pcm24")
        if channels > 8:
            raise _bad(path, f"{channels} channels for a FLAC file", "at most 8")
    else:
        long = frames is None or frames * channels * bits // 8 >= 2**32 - 2**16
        kind = "RF64" if long else "WAV"
    folder, name = os.path.split(os.path.abspath(path))
    part = os.path.join(folder, f".{name}.{os.getpid()}.part")
    written = 0

    def write(audio: np.ndarray) -> None:
        nonlocal written
        if not np.isfinite(audio).all():
            raise _bad(path, "NaN or infinite samples to write", "finite ones")
        if encoding == "float32":
            data = np.asarray(audio, np.float32)
        else:
            full = 2 ** (bits - 1)
            data = np.clip(np.rint(audio * float(full)), -full, full - 1)
            # soundfile takes 24 bits as the upper ones of 32.
            data = data.astype(np.int16) if bits == 16 else data.astype(np.int32) << 8
        file.write(data)
        written += len(data)

    try:
        os.makedirs(folder, exist_ok=True)
        with soundfile.SoundFile(part, "w", sample_rate, channels, subtype, format=kind) as file:
            yield write
        # libsndfile says nothing if it can't write the end of a FLAC file.
        if written and soundfile.info(part).frames != written:
            raise OSError(f"not all of the {written} samples got into the file")
        if kind == "RF64" and written and os.path.getsize(part) < 2**32:
            _as_riff(part)
        os.replace(part, path)
    except (OSError, soundfile.LibsndfileError) as error:
        # libsndfile calls a full disk a system error.
        free = shutil.disk_usage(folder).free if os.path.isdir(folder) else math.inf
        reason = "no space left" if free < 2**20 else error
        raise AudioError(f"{path}: cannot be written ({reason})") from error
    finally:
        with contextlib.suppress(OSError):
            os.remove(part)


def _as_riff(path: str) -> None:
    """Turns an RF64 file of less than 4 GiB into the plain WAV that every program reads."""
    size = os.path.getsize(path)
    with open(path, "r+b") as file:
        info = _wav_header(path, file, size)
        file.seek(0)
        file.write(struct.pack("<4sI4s4s", b"RIFF", size - 8, b"WAVE", b"JUNK"))
        file.seek(info.data_offset - 4)
        file.write(struct.pack("<I", info.frames * info.frame_bytes))


def _bad(path: str, found: str, expected: str) -> AudioError:
    return AudioError(f"{path}: found {found}, expected {expected}")


def _unreadable(path: str, error: OSError) -> AudioError:
    return AudioError(f"{path}: cannot be read ({error.strerror}), expected a readable file")


def _file_size(path: str, expected: str) -> int:
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
    except FileNotFoundError as error:
        raise _bad(path, "no such file", expected) from error
    except OSError as error:
        raise _unreadable(path, error) from error
    if not stat.S_ISREG(status.st_mode):
        raise _bad(path, "a pipe or a device", f"{expected}, or - for a WAV on standard input")
    if status.st_size == 0:
        raise _bad(path, "an empty file (0 bytes)", expected)
    return status.st_size


def _wav_header(path: str, file: BinaryIO, size: int | None = None) -> WavInfo:
    """Reads up to the first sample of a WAV of `size` bytes, of which some may be missing.

    Without a size it is a pipe, whose header may not know the length: `frames` is 0 then.
    """
    try:
        head = file.read(12)
        if not head:
            raise _bad(path, "nothing (0 bytes)", "a WAV file")
        if head[:4] not in (b"RIFF", b"RF64") or head[8:] != b"WAVE":
            raise _bad(path, "no WAV header", "a WAV file")
        offset, layout, long_size = 12, None, None
        while len(chunk := file.read(8)) == 8:
            name, length = struct.unpack("<4sI", chunk)
            offset += 8
            if name == b"data":
                break
            body = file.read(length + length % 2)
            offset += len(body)
            if name == b"fmt " and length >= 16:
                layout = body
            elif name == b"ds64" and length >= 16:
                long_size = struct.unpack_from("<Q", body, 8)[0]
        else:
            raise _bad(path, "a WAV header without a data chunk", "a WAV file with samples")
    except OSError as error:
        raise _unreadable(path, error) from error
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
        length = long_size if long_size is not None else size - offset if size is not None else 0
    if size is None and (2**31 - 2**13 < length <= 2**31 or length == 2**64 - 1):
        length = 0  # SoX and arecord write the longest that they know of into a pipe
    frames = length // frame_bytes
    if frames == 0 and size is not None:
        raise _bad(path, "a WAV header without samples", "a WAV file with samples")
    return WavInfo(path, rate, channels, frames, encoding, offset)


def _check_whole(wav: WavInfo, size: int) -> None:
    held = max(size - wav.data_offset, 0) // wav.frame_bytes
    if held < wav.frames:
        raise _truncated(wav, held)


def _truncated(wav: WavInfo, held: int) -> AudioError:
    promised = f"the {wav.frames} samples that its header promises"
    return _bad(wav.path, f"{held} samples (truncated)", promised)


def _wav_blocks(wav: WavInfo, file: BinaryIO, salvage: bool) -> Iterator[np.ndarray]:
    """The samples that follow in a file read up to `wav.data_offset`."""
    count, wanted = 0, wav.frames or math.inf
    while count < wanted:
        frames = min(2**14, wanted - count)
        try:
            raw = file.read(frames * wav.frame_bytes)
        except OSError as error:
            raise _unreadable(wav.path, error) from error
        held = len(raw) // wav.frame_bytes
        if held:
            whole = np.frombuffer(raw, np.uint8, held * wav.frame_bytes)
            yield pcm_to_float(whole, wav.encoding).reshape(held, wav.channels)
        count += held
        if held < frames:
            break
    if not count and not wav.frames:
        raise _bad(wav.path, "a WAV header without samples", "a WAV file with samples")
    if count < wav.frames:
        if count and salvage:
            raise _damaged(wav.path, count / wav.sample_rate, wav.seconds)
        raise _truncated(wav, count)


@contextlib.contextmanager
def _opened(path: str):
    import av

    _file_size(path, "an audio file")
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


def _frames(container: Any, stream: Any) -> Iterator[Any]:
    """A stream's frames and, in place of those that can't be decoded, the errors."""
    import av

    failures = (av.error.FFmpegError, OSError)
    try:
        for packet in container.demux(stream):
            try:
                yield from packet.decode()
            except failures as error:
                yield error
    except failures as error:
        yield error


def _decoded(path: str, container: Any, stream: Any, salvage: bool) -> Iterator[np.ndarray]:
    """The blocks of `recording`."""
    stated = _stated_seconds(container, stream)
    limit = (container.duration or 0) / 1e6 if stated is None else stated
    flac = container.format.name == "flac"
    # FLAC has checksums: damage is told from noise if that is asked for.
    options = {"err_detect": "crccheck+explode"}
    # FFmpeg's libraries cut an Ogg file of one page, always a short one, at the wrong place.
    # Told not to cut, they also give a first frame from before the first sample.
    short_ogg = stated is not None and stated < 60 and stream.codec_context.name == "vorbis"
    if short_ogg:
        options["flags2"] = "+skip_manual"
    stream.codec_context.options = options

    count, rate, channels, end = 0, 0, 0, math.inf
    origin = None  # the timestamp of sample 0, in seconds
    late = []  # what lies behind the stated end: the coder's padding
    ready = []
    failure, changed = None, None  # the first error; how the format changes
    lost, first_lost = 0, None  # samples that zeros stand for; where the first damage is, in s
    good, bad, row = 0, 0, 0  # frames; errors; frames since the last error
    sure = not salvage
    for frame in _frames(container, stream):
        if isinstance(frame, Exception):
            failure = failure or frame
            first_lost = count / (rate or 1) if first_lost is None else first_lost
            bad, row = bad + 1, 0
            if not salvage:
                break
            continue
        if short_ogg:
            short_ogg = False
            continue
        found = frame.sample_rate, frame.layout.nb_channels
        if not rate:
            rate, channels = found
            end = math.inf if stated is None else round(stated * rate)
        elif found != (rate, channels):
            changed = (
                f"{path}: found {found[0]} Hz and {found[1]} channels after {count / rate:.1f} s,"
                f" expected {rate} Hz and {channels} channels as at the start"
            )
            break
        try:
            samples = _frame_samples(frame)
        except ValueError as error:  # PyAV has no such format in NumPy
            raise _bad(path, f"{frame.format.name} samples", "16-bit, float or the like") from error
        if salvage and frame.pts is not None and frame.time_base:
            time = float(frame.pts * frame.time_base)
            if origin is None:
                skipped = bad and stream.start_time is not None
                origin = float(stream.start_time * stream.time_base) if skipped else time
                if flac:
                    # The first time may be that of a later frame, if it is damaged.
                    time, origin = time if bad else 0.0, 0.0
            gap = round((time - origin) * rate) - count
            # Some containers' times are no count of samples: there only errors are damage.
            after_error = bad and not row
            known = flac or after_error or (stated is not None and gap > _TIME_SLACK * rate)
            if known and 0 < gap <= (limit + _DURATION_SLACK) * rate - count:
                first_lost = count / rate if first_lost is None else first_lost
                lost += gap
                count += gap
                while gap > 0:
                    ready.append(np.zeros((min(gap, 4096), channels), np.float32))
                    gap -= 4096
                    if sure:
                        yield ready.pop()
        good, row = good + 1, row + 1
        within = max(min(end - count, len(samples)), 0)
        count += len(samples)
        if within:
            ready.append(samples[:within])
        if within < len(samples):
            late.append(samples[within:])
        if count - end > _DURATION_SLACK * rate:
            # Too much for padding: the statement is wrong.
            ready += late
            late, end = [], math.inf
        sure = sure or row >= _NO_NOISE
        if sure:
            yield from ready
            ready = []
    if not sure and bad > good:
        count = 0  # noise
    if failure and not (salvage and count):
        raise _bad(
            path,
            f"audio that cannot be decoded after {count / (rate or 1):.1f} s ({failure.strerror})",
            "audio that can be to its end",
        ) from failure
    if not count:
        raise _bad(path, "no samples", "audio")
    yield from ready
    if changed:
        raise DamagedError(changed) if salvage else AudioError(changed)
    # FLAC's length is exact.
    slack = 0.5 / rate if flac else _DURATION_SLACK
    short = stated is not None and count / rate < stated - slack
    if short and not salvage:
        raise _bad(
            path,
            f"{count / rate:.1f} s of audio (truncated or damaged)",
            f"the {stated:.1f} s that its header promises",
        )
    if short or first_lost is not None:
        promised = stated if short else None
        raise _damaged(path, min(count, end) / rate, promised, lost / rate, first_lost)


def _damaged(
    path: str, found: float, promised: float | None, silent: float = 0, first: float | None = None
) -> DamagedError:
    """Says what was lost, all in seconds; without `promised`, nothing is missing at the end."""
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


def _frame_samples(frame: Any) -> np.ndarray:
    """float32 `[samples, channels]` of a decoded frame; integers of any width scaled exactly."""
    if frame.format.is_planar and frame.layout.nb_channels >= 8:
        import av

        # PyAV reads past the end of so many planes, up to a crash; this only interleaves them.
        kind = frame.format.packed.name
        resampler = av.AudioResampler(kind, frame.layout.name, frame.sample_rate)
        frame.pts = None
        (frame,) = resampler.resample(frame)
    data = frame.to_ndarray()
    data = data.T if frame.format.is_planar else data.reshape(-1, frame.layout.nb_channels)
    if data.dtype == np.uint8:
        return (data.astype(np.float32) - 128) / 128
    if data.dtype.kind == "i":
        return data.astype(np.float32) / np.float32(2 ** (8 * data.dtype.itemsize - 1))
    return np.ascontiguousarray(data, np.float32)
