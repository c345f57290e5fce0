"""Opens audio files with FFmpeg's libraries, through PyAV.

PyAV is imported only where it is used, so that programs show their flags at once.
"""

import contextlib
import os
from typing import Any

from data_pipeline.errors import AudioError, bad_file
from data_pipeline.wav_header import states_length
from sccunet.checks import counted

# Containers that state the length of a stream; for others (mp3 above all) FFmpeg guesses.
_STATES_DURATION = ("wav", "flac", "ogg", "mov,mp4,m4a,3gp,3g2,mj2", "aiff", "au")
# FFmpeg's libraries look for the last page of an Ogg file, which tells the length, in this many
# bytes at its end. If there is none, they guess.
_OGG_END = 1 << 16
# Sample rates in Hz, and channels, of files that are read: beyond all that is recorded.
_RATES, _MOST_CHANNELS = (1_000, 10_000_000), 128


@contextlib.contextmanager
def opened(path: str):
    import av

    # Tags in an unknown encoding must not cause a failure; PyAV 19 ignores them by itself.
    kept = {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}
    with contextlib.ExitStack() as stack:
        # An absolute path is never mistaken for a URL.
        source = os.path.abspath(path)
        if source != source.encode(errors="replace").decode():  # PyAV takes names in UTF-8 only
            source = stack.enter_context(open(path, "rb"))
        try:
            container = stack.enter_context(av.open(source, **kept))
        except (av.error.FFmpegError, OSError) as error:
            found = f"no readable audio ({error.strerror})"
            raise bad_file(path, found, "an audio file") from error
        yield container


def audio_stream(path: str, container: Any, index: int | None) -> tuple[int, Any]:
    """Returns an audio stream and its index; with None, the one marked default, else the first."""
    from av.stream import Disposition

    streams = container.streams.audio
    if index is None:
        marked = [i for i, each in enumerate(streams) if each.disposition & Disposition.default]
        index = marked[0] if marked else 0
    if len(streams) <= index:
        raise too_few_streams(path, len(streams), index)
    context = streams[index].codec_context
    if context is None or not context.sample_rate or not context.layout.nb_channels:
        raise bad_file(
            path, "an audio stream of unknown coding", "one that FFmpeg's libraries decode"
        )
    return index, streams[index]


def too_few_streams(path: str, found: int, index: int) -> AudioError:
    """The error for a stream that is not there."""
    return bad_file(path, counted(found, "audio stream"), f"at least {index + 1}")


def stated_seconds(container: Any, stream: Any) -> float | None:
    name = container.format.name
    if name not in _STATES_DURATION or not stream.duration or not stream.time_base:
        return None
    if name == "ogg":
        with open(container.name, "rb") as file:
            file.seek(max(os.path.getsize(container.name) - _OGG_END, 0))
            if b"OggS" not in file.read():
                return None
    if name == "wav" and not states_length(container.name):
        return None
    return float(stream.duration * stream.time_base)


def check_plausible(path: str, sample_rate: int, channels: int) -> None:
    """Refuses what only a damaged header says, and would take hours and all memory to separate."""
    low, high = _RATES
    if not low <= sample_rate <= high:
        raise bad_file(path, f"a sample rate of {sample_rate} Hz", f"{low} to {high} Hz")
    if channels > _MOST_CHANNELS:
        raise bad_file(path, counted(channels, "channel"), f"at most {_MOST_CHANNELS}")
