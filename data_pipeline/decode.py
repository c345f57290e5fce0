"""Puts the decoded frames of a file together, and salvages damaged files."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from data_pipeline.containers import stated_seconds
from data_pipeline.errors import AudioError, DamagedError, bad_file, damaged
from data_pipeline.frames import (
    BARE,
    Failure,
    Frame,
    counted_by_encoder,
    flac_time,
    frame_samples,
    frames,
)
from sccunet.checks import counted

# Seconds by which stated and decoded length may differ in intact files: a coder pads the end, and
# Opus counts samples that are skipped at the start.
_DURATION_SLACK = 0.1
# Seconds by which timestamps may jump in intact files: in Vorbis, where the block size changes.
_TIME_SLACK = 0.05
# Timestamps may be damaged, too: with the silence for gaps, a file has at most so many times the
# samples that its size suggests, or so many seconds.
_MOST_GROWTH, _LONGEST_SILENCE = 4, 60
# Noise may decode to a single frame, but not to this many in a row.
_NO_NOISE = 10
# The first MP3 frames may be skipped as a whole, since the coder starts with a delay.
_MP3_SKIPPED = 2
# Bytes at a frame's start that are the same in all frames of a file.
_SYNC = 2


def decoded(path: str, container: Any, stream: Any, salvage: bool) -> Iterator[np.ndarray]:
    """Yields the blocks of `audio.recording`: float32 `[samples, channels]`.

    Bytes behind the last frame that are no audio, such as tags and padding, are no damage.

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
        self.kind = container.format.name
        self.stated = stated_seconds(container, stream)
        self.counts = self.stated is not None  # whether timestamps count samples
        self.limit = (container.duration or 0) / 1e6 if self.stated is None else self.stated
        # Rate, channels and samples of the first frame, and the stated end in samples.
        self.rate, self.channels, self.block, self.end = 0, 0, 0, math.inf
        self.origin = None  # the timestamp of sample 0, in seconds
        self.time = None  # that of the latest frame
        self.count = 0  # samples so far, including silence and padding
        self.bytes = 0  # of the packets that gave samples
        self.late = []  # samples after the stated end: the coder's padding
        self.head, self.promised = b"", 0  # how frames begin; their number, if an MP3 states it
        # The first failure since the last frame: damage, or the end of the audio.
        self.pending: Failure | None = None
        self.reason, self.changed = None, None  # of the first damage; how the format changed
        # Number of samples replaced by zeros; time of the first damage, in seconds.
        self.lost, self.first_lost = 0, None
        self.good, self.bad, self.row = 0, 0, 0  # frames; failures; frames since the last failure
        self.is_audio = False  # noise may decode to single frames

    def blocks(self) -> Iterator[np.ndarray]:
        """Yields all that can be decoded; without `salvage`, up to the first damage."""
        for found in frames(self.container, self.stream):
            if isinstance(found, Failure):
                self.bad, self.row = self.bad + 1, 0
                self.pending = self.pending or found
                continue
            if self.pending and not self.salvage:
                self._note_pending()
                break
            if not self._fits(found.frame):
                break
            try:
                samples = frame_samples(found.frame)[: found.samples]
            except ValueError as error:  # PyAV cannot convert this format to NumPy
                expected = "16-bit, float or the like"
                name = found.frame.format.name
                raise bad_file(self.path, f"{name} samples", expected) from error
            if self._starts_again(found):
                yield from self.late
                self.late = []
            gap = self._gap_before()
            if gap and not self.salvage:
                self.reason = f"{gap / self.rate:.2f} s are missing"
                break
            while gap > 0:
                yield np.zeros((min(gap, 4096), self.channels), np.float32)
                gap -= 4096
            self._note_pending()
            if not self.good:
                self._note_first(found)
            self.good, self.row, self.bytes = self.good + 1, self.row + 1, self.bytes + found.size
            # The second condition limits the memory that is held meanwhile.
            audio = self.row >= _NO_NOISE or self.good >= self.bad + _NO_NOISE
            self.is_audio = self.is_audio or audio
            yield from self._up_to_end(samples)
        if self.pending and self._lost_at_end(self.pending):
            self._note_pending()

    def _note_first(self, found: Frame) -> None:
        self.head = found.head
        if self.kind == "mp3" and found.position:
            counted = counted_by_encoder(self.path, found.position, self.rate)
            self.promised, self.end = counted or (0, math.inf)

    def _lost_at_end(self, failure: Failure) -> bool:
        """Whether the bytes behind the last frame are, or replace, audio."""
        if not self.good:
            return True
        if self.kind == "wav":
            # Less than a block of the coder is padding: GSM is padded to an even number of bytes.
            return self.stated is not None and self.count + self.block < self.stated * self.rate
        if failure.head is None:
            return True
        if failure.head and self.head.startswith(failure.head[:_SYNC]):  # a frame that was cut
            return True
        if self.kind == "mp3":
            return self.good < self.promised - _MP3_SKIPPED
        # Of these containers FFmpeg's libraries do not know the length.
        guessed = self.kind in (*BARE, "ogg")
        return not guessed and self.count / self.rate < self.limit - _DURATION_SLACK

    def _note_pending(self) -> None:
        if self.pending:
            self.reason = self.reason or self.pending.reason
            self._note_damage()
            self.pending = None

    def _note_damage(self) -> None:
        if self.first_lost is None:
            self.first_lost = self.count / (self.rate or 1)

    def _fits(self, frame: Any) -> bool:
        """Whether a frame has the rate and the channels of the first one."""
        found = frame.sample_rate, frame.layout.nb_channels
        if not self.rate:
            self.rate, self.channels, self.block = *found, frame.samples
            if self.stated is not None and self.stream.codec_context.name != "flac":  # never padded
                self.end = round(self.stated * self.rate)
        elif found != (self.rate, self.channels):
            self.changed = (
                f"{self.path}: found {found[0]} Hz and {counted(found[1], 'channel')} after"
                f" {self.count / self.rate:.1f} s, expected {self.rate} Hz and"
                f" {counted(self.channels, 'channel')} as at the start"
            )
        return not self.changed

    def _starts_again(self, found: Frame) -> bool:
        """Whether timestamps start again, as in chained and joined files.

        The next frames have their place behind the last one, and the stated end is wrong.
        """
        before, self.time = self.time, self._time_of(found)
        goes_back = before is not None and self.time is not None and self.time <= before
        if not found.chained and not (goes_back and self.kind == "flac"):
            return False
        self.block = found.frame.samples
        time = self._time_of(found)
        self.origin = None if time is None else time - self.count / self.rate
        self.limit += self.count / self.rate
        self.stated, self.end = None, math.inf
        return True

    def _time_of(self, found: Frame) -> float | None:
        if self.kind == "flac":
            return flac_time(found.head, self.block, self.rate)
        return found.time

    def _start(self) -> float:
        """The timestamp of sample 0, in seconds; `self.time` is that of the first frame."""
        if not self.pending:
            return self.time
        if self.kind == "flac":
            # The file may be cut from a longer one, whose frames its numbers count. If there are
            # other bytes in front of the first frame, the frames there are lost.
            return flac_time(self.pending.head, self.block, self.rate) or 0.0
        start = self.stream.start_time
        return self.time if start is None else float(start * self.stream.time_base)

    def _gap_before(self) -> int:
        """Number of samples missing before a frame, according to its timestamp, `self.time`."""
        if self.time is None:
            return 0
        if self.origin is None:
            self.origin = self._start()
        gap = round((self.time - self.origin) * self.rate) - self.count
        # In some containers timestamps do not count samples: only errors show damage there.
        after_error = self.pending is not None
        jump = self.counts and gap > _TIME_SLACK * self.rate
        known = self.kind == "flac" or after_error or jump
        if not known or not 0 < gap <= self._room():
            return 0
        if self.salvage:
            self._note_damage()
            self.lost += gap
            self.count += gap
        return gap

    def _room(self) -> float:
        """Number of samples that may be missing here at most."""
        decoded = self.count - self.lost
        suggested = decoded / max(self.bytes, 1) * self.container.size
        most = max(_MOST_GROWTH * suggested, _LONGEST_SILENCE * self.rate)
        return min((self.limit + _DURATION_SLACK) * self.rate, most) - self.count

    def _up_to_end(self, samples: np.ndarray) -> Iterator[np.ndarray]:
        """Yields the part of a frame before the stated end, or all if the stated end is wrong."""
        within = max(min(self.end - self.count, len(samples)), 0)
        self.count += len(samples)
        if within:
            yield samples[:within]
        if within < len(samples) and self.kind != "au":  # whose header counts bytes
            self.late.append(samples[within:])
        # A block's padding may be longer, at a low rate.
        slack = max(_DURATION_SLACK * self.rate, self.block)
        if self.late and self.count - self.end > slack:  # no padding
            yield from self.late
            self.late, self.end = [], math.inf

    def check_start(self) -> None:
        """Raises AudioError if there is no audio or, without `salvage`, after an error."""
        if not self.is_audio and self.bad > self.good:
            self._note_pending()
            self.count = 0  # noise
        if self.reason and not (self.salvage and self.count):
            raise bad_file(
                self.path,
                f"audio that cannot be decoded after {self.count / (self.rate or 1):.1f} s"
                f" ({self.reason})",
                "audio that decodes to its end",
            )
        if not self.count:
            raise bad_file(self.path, "no samples", "audio")

    def check_end(self) -> None:
        """Raises DamagedError, or AudioError without `salvage`, if audio was lost."""
        if self.changed:
            raise DamagedError(self.changed) if self.salvage else AudioError(self.changed)
        short = self.stated is not None and self.count / self.rate < self.stated - self._slack()
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

    def _slack(self) -> float:
        """Seconds by which the audio may be shorter than stated."""
        if self.kind != "flac":
            return _DURATION_SLACK
        # FLAC's length is exact, unless whole frames were cut off.
        return math.inf if self.row else 0.5 / self.rate
