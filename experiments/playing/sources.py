"""What is played: a recording that is separated, or a folder of stems. Memory is bounded."""

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from data_pipeline import audio, listing
from data_pipeline.errors import AudioError
from experiments.separating.output import MIXTURE
from experiments.separating.recording import Mixture
from sccunet.checks import counted

_MOST_STEMS = 15  # an AudioBuffer has at most 32 channels, and each track two
_BLOCK = 1 << 15


@dataclasses.dataclass
class Source:
    """The tracks of a song, in blocks.

    Attributes:
      names: the mixture's name, then those of the stems.
      sample_rate: in Hz.
      channels: of each track.
      frames: number of samples, as far as it is known.
      blocks: a block [samples, channels] for each track, again and again.
      mixtures: the files that are read; their `damage` is known after the last block.
      note: what the user should know of the file; "" if nothing.
    """

    names: list[str]
    sample_rate: int
    channels: int
    frames: int | None
    blocks: Iterator[Sequence[np.ndarray]]
    mixtures: Sequence[Mixture]
    note: str = ""


@contextlib.contextmanager
def separated(path: str | os.PathLike, separator) -> Iterator[Source]:
    """Context manager that yields a recording and the stems that a `sccunet.Separator` finds.

    The stems have the samples that `sccunet separate` writes.

    Raises:
      AudioError: as `audio.recording`, also from `blocks`.
    """
    with audio.recording(path, salvage=True) as (info, blocks):
        mixture = Mixture(path, blocks, info.channels, keep=True)
        stems = separator.config.model.stems

        def found() -> Iterator[list[np.ndarray]]:
            for block in separator.stream(mixture, info.sample_rate):
                samples = len(block[stems[0]])
                yield [mixture.take(samples), *(block[stem] for stem in stems)]

        frames = round(info.about * info.sample_rate) if info.about else None
        with contextlib.closing(found()) as tracks:
            yield Source(
                [MIXTURE, *stems],
                info.sample_rate,
                info.channels,
                frames,
                tracks,
                [mixture],
                f"{info.choice}." if info.choice else "",
            )


@contextlib.contextmanager
def folder_of_stems(folder: str | os.PathLike) -> Iterator[Source]:
    """Context manager that yields the audio files of a folder, as the stems of a song.

    A file named mixture is the mixture; without one it is the sum of the stems. Files that end
    earlier than others are silent from there on.

    Raises:
      AudioError: if there are no stems or too many, or if they differ in rate or channels.
    """
    paths = {Path(path).stem: path for path in listing.recordings_in(folder)}
    given = paths.pop(MIXTURE, None)
    if not 1 <= len(paths) <= _MOST_STEMS:
        raise AudioError(
            f"{folder}: found {counted(len(paths), 'stem')}, expected 1 to {_MOST_STEMS}"
        )
    with contextlib.ExitStack() as stack:
        files = [*([given] if given else []), *paths.values()]
        opened = [stack.enter_context(audio.recording(file, salvage=True)) for file in files]
        first = opened[0][0]
        for file, (info, _) in zip(files, opened, strict=True):
            found, expected = (
                f"{each.sample_rate} Hz and {counted(each.channels, 'channel')}"
                for each in (info, first)
            )
            if found != expected:
                raise AudioError(f"{file}: found {found}, expected {expected} as in {files[0]}")
        mixtures = [
            Mixture(file, blocks, info.channels, keep=False)
            for file, (info, blocks) in zip(files, opened, strict=True)
        ]
        tracks = _in_step(mixtures, first.channels)
        if not given:
            tracks = ([np.sum(stems, axis=0), *stems] for stems in tracks)
        lengths = [info.about for info, _ in opened]
        frames = round(max(lengths) * first.sample_rate) if all(lengths) else None
        names = [MIXTURE, *paths]
        yield Source(names, first.sample_rate, first.channels, frames, tracks, mixtures)


def _in_step(recordings: Sequence[Mixture], channels: int) -> Iterator[list[np.ndarray]]:
    """Yields blocks of one length of several recordings; shorter ones end in zeros."""
    sources = [iter(blocks) for blocks in recordings]
    waiting = [np.zeros((0, channels), np.float32) for _ in sources]
    while True:
        for i, blocks in enumerate(sources):
            while len(waiting[i]) < _BLOCK and (block := next(blocks, None)) is not None:
                waiting[i] = np.concatenate([waiting[i], block])
        samples = min(_BLOCK, max(map(len, waiting)))
        if not samples:
            return
        yield [np.pad(x[:samples], ((0, max(samples - len(x), 0)), (0, 0))) for x in waiting]
        waiting = [x[samples:] for x in waiting]
