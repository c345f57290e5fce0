"""The formats of audio files that can be written, and what they can hold."""

import bisect
import dataclasses
import os
from collections.abc import Sequence

from data_pipeline.errors import bad_file
from sccunet.checks import counted


@dataclasses.dataclass(frozen=True)
class Format:
    """A format of audio files.

    Attributes:
      channels: how many a file can have.
      encodings: of samples, the default first; none in lossy formats.
      bitrates: least and most that can be asked for, in kbit/s; lossy formats only.
      bitrate: default for each channel, in kbit/s.
      rates: sample rates in Hz, ascending; any if empty. Other audio is resampled.
      mp4: whether it is written with FFmpeg's libraries; otherwise with libsndfile.
      stems: whether a file holds a mixture and its stems as audio streams.
    """

    channels: int
    encodings: tuple[str, ...] = ()
    bitrates: tuple[int, int] = (0, 0)
    bitrate: int = 0
    rates: Sequence[int] = ()
    mp4: bool = False
    stems: bool = False

    def rate(self, sample_rate: int) -> int:
        """Returns the sample rate of a file for audio of `sample_rate`: the next that exists."""
        if not self.rates or sample_rate in self.rates:
            return sample_rate
        if sample_rate < self.rates[-1]:
            return self.rates[bisect.bisect_left(self.rates, sample_rate)]
        # 88.2 kHz become 44.1, not 48.
        parts = (rate for rate in reversed(self.rates) if sample_rate % rate == 0)
        part = next(parts, 0)
        return part if part >= 44_100 else self.rates[-1]


# Of MP3. AAC knows more, but few players do.
_MPEG_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
_AAC = Format(2, bitrates=(32, 512), bitrate=128, rates=_MPEG_RATES, mp4=True)
# Ending -> format.
WRITABLE = {
    ".wav": Format(1_024, ("float32", "pcm24", "pcm16")),  # the number is libsndfile's
    ".flac": Format(8, ("pcm24", "pcm16")),
    # Below, LAME has no room for its tag, which tells decoders the number of samples.
    ".mp3": Format(2, bitrates=(64, 320), bitrate=160, rates=_MPEG_RATES),
    # libvorbis knows no higher rates.
    ".ogg": Format(2, bitrates=(32, 500), bitrate=96, rates=range(1_000, 200_001)),
    ".m4a": _AAC,
    ".stem.mp4": dataclasses.replace(_AAC, stems=True),
}


def ending_of(path: str | os.PathLike) -> str:
    """Returns which ending of `WRITABLE` a path has; ".wav" if none."""
    name = os.fspath(path).lower()
    return next((ending for ending in WRITABLE if name.endswith(ending)), ".wav")


def named(ending: str) -> str:
    """Returns a file of a format in words: "a FLAC file", "an MP3 file"."""
    return f"{'an' if ending[1] in 'mo' else 'a'} {ending.removeprefix('.').upper()} file"


def check_format(
    path: str | os.PathLike, sample_rate: int, channels: int, encoding: str | None = None
) -> None:
    """Checks that a file can be written.

    Args:
      path: the file; its ending determines the format.
      sample_rate: in Hz.
      channels: number of channels.
      encoding: of the samples; lossy formats ignore it.

    Raises:
      AudioError: if the format cannot hold such samples.
    """
    path = os.fspath(path)
    ending = ending_of(path)
    kind, name = WRITABLE[ending], named(ending)
    if kind.encodings and encoding not in kind.encodings:
        expected = " or ".join(sorted(kind.encodings))
        raise bad_file(path, f"{encoding} samples for {name}", expected)
    if channels > kind.channels:
        more = "" if kind.encodings else " (more in FLAC and WAV)"
        expected = f"at most {kind.channels}{more}"
        raise bad_file(path, f"{counted(channels, 'channel')} for {name}", expected)
    tens = sample_rate <= 655_350 and sample_rate % 10 == 0  # as FLAC counts higher rates
    if ending == ".flac" and sample_rate > 65_535 and not tens:
        raise bad_file(
            path,
            f"{sample_rate} Hz for {name}",
            "at most 65535 Hz, or a multiple of 10 Hz up to 655350 Hz",
        )
