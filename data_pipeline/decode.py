"""Decodes audio with FFmpeg's libraries, through PyAV, and salvages damaged files.

PyAV is imported only where it is used, so that programs show their flags at once.
"""

import contextlib
import math
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from data_pipeline.wav import AudioError, DamagedError, bad_file, damaged, file_size

# Containers that state the length of a stream; for others (mp3 above all) FFmpeg guesses.
_STATES_DURATION = ("wav", "flac", "ogg", "mov,mp4,m4a,3gp,3g2,mj2", "aiff", "au")
# Seconds by which stated and decoded length may differ in intact files: a coder pads the end, and
# Opus counts samples that are skipped at the start.
_DURATION_SLACK = 0.1
# Seconds by which timestamps may jump in intact files: in Vorbis, where the block size changes.
_TIME_SLACK = 0.05
# Noise may decode to a single frame, but not to this many in a row.
_NO_NOISE = 10


@contextlib.contextmanager
def opened(path: str):
    import av

    file_size(path, "an audio file")
    # Tags in an unknown encoding must not cause a failure; PyAV 19 ignores them by itself.
    kept = {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}
    try:
        # An absolute path is never mistaken for a URL.
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


def decoded(path: str, container: Any, stream: Any, salvage: bool) -> Iterator[np.ndarray]:
    """Yields the blocks of `audio.recording`: float32 `[samples, channels]`.

    Raises:
      AudioError: if the file has less audio than it states, or some can't be decoded.
      DamagedError: with `salvage`, the same after the last block, if any audio was decoded.
    """
    decoding = _Decoding(path, container, stream, salvage)
    held = []
    for block in decoding.blocks():
        held.append(block)
        if decoding.is_audio:
            yield from held
            held = []
    decoding.check_start()
    yield from held
    decoding.check_end()


class _Decoding:
    """A stream being decoded, and the damage found so far."""

    def __init__(self, path: str, container: Any, stream: Any, salvage: bool):
        self.path, self.container, self.stream, self.salvage = path, container, stream, salvage
        self.stated = stated_seconds(container, stream)
        self.limit = (container.duration or 0) / 1e6 if self.stated is None else self.stated
        self.flac = container.format.name == "flac"
        # Rate and channels of the first frame, and the stated end in samples.
        self.rate, self.channels, self.end = 0, 0, math.inf
        self.origin = None  # the timestamp of sample 0, in seconds
        self.count = 0  # samples so far, including silence and padding
        self.late = []  # samples after the stated end: the coder's padding
        self.failure, self.changed = None, None  # the first error; how the format changed
        # Number of samples replaced by zeros; time of the first damage, in seconds.
        self.lost, self.first_lost = 0, None
        self.good, self.bad, self.row = 0, 0, 0  # frames; errors; frames since the last error
        self.is_audio = not salvage  # noise may decode to single frames

    def blocks(self) -> Iterator[np.ndarray]:
        """Yields all that can be decoded; without `salvage`, up to the first error."""
        for frame in _frames(self.container, self.stream):
            if isinstance(frame, Exception):
                self._note(frame)
                if not self.salvage:
                    break
                continue
            if not self._fits(frame):
                break
            try:
                samples = _frame_samples(frame)
            except ValueError as error:  # PyAV cannot convert this format to NumPy
                expected = "16-bit, float or the like"
                raise bad_file(self.path, f"{frame.format.name} samples", expected) from error
            gap = self._gap_before(frame) if self.salvage else 0
            while gap > 0:
                yield np.zeros((min(gap, 4096), self.channels), np.float32)
                gap -= 4096
            self.good, self.row = self.good + 1, self.row + 1
            self.is_audio = self.is_audio or self.row >= _NO_NOISE
            yield from self._up_to_end(samples)

    def _note(self, error: Exception) -> None:
        self.failure = self.failure or error
        self._note_damage()
        self.bad, self.row = self.bad + 1, 0

    def _note_damage(self) -> None:
        if self.first_lost is None:
            self.first_lost = self.count / (self.rate or 1)

    def _fits(self, frame: Any) -> bool:
        """Whether a frame has the rate and the channels of the first one."""
        found = frame.sample_rate, frame.layout.nb_channels
        if not self.rate:
            self.rate, self.channels = found
            self.end = math.inf if self.stated is None else round(self.stated * self.rate)
        elif found != (self.rate, self.channels):
            self.changed = (
                f"{self.path}: found {found[0]} Hz and {found[1]} channels after"
                f" {self.count / self.rate:.1f} s, expected {self.rate} Hz and {self.channels}"
                " channels as at the start"
            )
        return not self.changed

    def _gap_before(self, frame: Any) -> int:
        """Number of samples missing before a frame, according to its timestamp."""
        if frame.pts is None or not frame.time_base:
            return 0
        time = float(frame.pts * frame.time_base)
        if self.origin is None:
            start = self.stream.start_time
            skipped = self.bad and start is not None
            self.origin = float(start * self.stream.time_base) if skipped else time
            if self.flac:
                # If the first frame is damaged, this is the time of a later one.
                time, self.origin = time if self.bad else 0.0, 0.0
        gap = round((time - self.origin) * self.rate) - self.count
        # In some containers timestamps do not count samples: only errors show damage there.
        after_error = self.bad and not self.row
        stated = self.stated is not None and gap > _TIME_SLACK * self.rate
        known = self.flac or after_error or stated
        if not known or not 0 < gap <= (self.limit + _DURATION_SLACK) * self.rate - self.count:
            return 0
        self._note_damage()
        self.lost += gap
        self.count += gap
        return gap

    def _up_to_end(self, samples: np.ndarray) -> Iterator[np.ndarray]:
        """Yields the part of a frame before the stated end, or all if the stated end is wrong."""
        within = max(min(self.end - self.count, len(samples)), 0)
        self.count += len(samples)
        if within:
            yield samples[:within]
        if within < len(samples):
            self.late.append(samples[within:])
        if self.count - self.end > _DURATION_SLACK * self.rate:  # too much for padding
            yield from self.late
            self.late, self.end = [], math.inf

    def check_start(self) -> None:
        """Raises AudioError if there is no audio or, without `salvage`, after an error."""
        if not self.is_audio and self.bad > self.good:
            self.count = 0  # noise
        if self.failure and not (self.salvage and self.count):
            raise bad_file(
                self.path,
                f"audio that cannot be decoded after {self.count / (self.rate or 1):.1f} s"
                f" ({self.failure.strerror})",
                "audio that decodes to its end",
            ) from self.failure
        if not self.count:
            raise bad_file(self.path, "no samples", "audio")

    def check_end(self) -> None:
        """Raises DamagedError, or AudioError without `salvage`, if audio was lost."""
        if self.changed:
            raise DamagedError(self.changed) if self.salvage else AudioError(self.changed)
        # FLAC's length is exact.
        slack = 0.5 / self.rate if self.flac else _DURATION_SLACK
        short = self.stated is not None and self.count / self.rate < self.stated - slack
        if short and not self.salvage:
            raise bad_file(
                self.path,
                f"{self.count / self.rate:.1f} s of audio (truncated or damaged)",
                f"the {self.stated:.1f} s that its header promises",
            )
        if short or self.first_lost is not None:
            raise damaged(
                self.path,
                min(self.count, self.end) / self.rate,
                self.stated if short else None,
                self.lost / self.rate,
                self.first_lost,
            )


def _frames(container: Any, stream: Any) -> Iterator[Any]:
    """Yields a stream's frames, and errors in place of those that can't be decoded."""
    import av

    # FLAC has checksums, which reveal damage if this option is set.
    options = {"err_detect": "crccheck+explode"}
    # FFmpeg's libraries cut an Ogg file of a single page, which is always short, at the wrong
    # place. With this flag they do not cut, but also return a frame from before the first sample.
    stated = stated_seconds(container, stream)
    short_ogg = stated is not None and stated < 60 and stream.codec_context.name == "vorbis"
    if short_ogg:
        options["flags2"] = "+skip_manual"
    stream.codec_context.options = options

    failures = (av.error.FFmpegError, OSError)
    too_early = short_ogg
    try:
        for packet in container.demux(stream):
            try:
                for frame in packet.decode():
                    if not too_early:
                        yield frame
                    too_early = False
            except failures as error:
                yield error
    except failures as error:
        yield error


def _frame_samples(frame: Any) -> np.ndarray:
    """Converts a decoded frame to float32 `[samples, channels]`; integers are scaled exactly."""
    if frame.format.is_planar and frame.layout.nb_channels >= 8:
        import av

        # PyAV reads past the end of 8 or more planes and may crash; this only interleaves them.
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
