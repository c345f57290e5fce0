"""Decodes what FFmpeg's libraries read, through PyAV, and saves what can be of damaged files.

PyAV is imported where it is used, so that programs can show their flags at once.
"""

import contextlib
import math
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from data_pipeline.wav import AudioError, DamagedError, bad_file, damaged, file_size

# Containers that state how long a stream is; others (mp3 above all) let FFmpeg guess.
_STATES_DURATION = ("wav", "flac", "ogg", "mov,mp4,m4a,3gp,3g2,mj2", "aiff", "au")
# Seconds by which stated and decoded length differ in sound files: a coder pads the end, Opus
# counts what is skipped at the start.
_DURATION_SLACK = 0.1
# Seconds by which timestamps of sound files jump: Vorbis where its block size changes.
_TIME_SLACK = 0.05
# Frames in a row that noise doesn't decode to; now and then it does to one.
_NO_NOISE = 10


@contextlib.contextmanager
def opened(path: str):
    import av

    file_size(path, "an audio file")
    # Tags in an unknown code page are no reason to fail; PyAV 19 no longer has to be told.
    kept = {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}
    try:
        # An absolute path is never taken for a URL.
        container = av.open(os.path.abspath(path), **kept)
    except (av.error.FFmpegError, OSError) as error:
        raise bad_file(path, f"no readable audio ({error.strerror})", "an audio file") from error
    with container:
        yield container


def audio_stream(path: str, container: Any, index: int) -> Any:
    streams = container.streams.audio
    if len(streams) <= index:
        raise bad_file(path, f"{len(streams)} audio streams", f"at least {index + 1}")
    context = streams[index].codec_context
    if context is None or not context.sample_rate or not context.layout.nb_channels:
        raise bad_file(
            path, "an audio stream of unknown coding", "one that FFmpeg's libraries decode"
        )
    return streams[index]


def stated_seconds(container: Any, stream: Any) -> float | None:
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


def decoded(path: str, container: Any, stream: Any, salvage: bool) -> Iterator[np.ndarray]:
    """The blocks of `recording`."""
    stated = stated_seconds(container, stream)
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
            raise bad_file(
                path, f"{frame.format.name} samples", "16-bit, float or the like"
            ) from error
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
        raise bad_file(
            path,
            f"audio that cannot be decoded after {count / (rate or 1):.1f} s ({failure.strerror})",
            "audio that can be to its end",
        ) from failure
    if not count:
        raise bad_file(path, "no samples", "audio")
    yield from ready
    if changed:
        raise DamagedError(changed) if salvage else AudioError(changed)
    # FLAC's length is exact.
    slack = 0.5 / rate if flac else _DURATION_SLACK
    short = stated is not None and count / rate < stated - slack
    if short and not salvage:
        raise bad_file(
            path,
            f"{count / rate:.1f} s of audio (truncated or damaged)",
            f"the {stated:.1f} s that its header promises",
        )
    if short or first_lost is not None:
        promised = stated if short else None
        raise damaged(path, min(count, end) / rate, promised, lost / rate, first_lost)


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
