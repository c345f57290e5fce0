"""Separates a recording into files of its stems, block by block; for separate and catalogue."""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from data_pipeline import audio
from data_pipeline.errors import AudioError, DamagedError
from data_pipeline.formats import check_format
from data_pipeline.tags import read_tags, write_tags
from experiments.separating.output import MIXTURE, RESIDUAL, Output
from experiments.separating.stem_writer import Blocks, rescale, stem_writer
from sccunet.files import folder_written_whole

_BAR = "{l_bar}{bar}| {n:.0f}/{total:.0f} s [{elapsed}<{remaining}]"


def separate_file(
    separator,
    path: str | os.PathLike,
    folder: str | os.PathLike,
    output: Output,
    damage_note: str | None = None,
    stream: int | None = None,
    part: audio.Part = audio.WHOLE,
) -> None:
    """Decodes, separates and writes a recording; memory does not depend on its length.

    Args:
      separator: a `sccunet.Separator`.
      path: a file that FFmpeg's libraries can read, or "-" for a WAV on standard input.
      folder: the stems' folder, written whole or not at all. If it exists, its stems are replaced
        one by one. Its name is the recording's in names and tags of files.
      output: what is written.
      damage_note: name of a file in `folder` that says what is missing of a damaged recording.
      stream: index of the audio stream, as for `audio.recording`.
      part: the part of the recording that is separated, as if there were no other.

    Raises:
      DamagedError: if a part of the file is missing or damaged; the stems of the rest are written.
      AudioError: if nothing can be decoded, or a stem cannot be written; then nothing is written.
    """
    rescaled, track = output.clip_mode == "rescale", Path(folder).name
    with (
        folder_written_whole(folder) as partial,
        audio.recording(path, stream, salvage=True, part=part) as opened,
    ):
        info, _ = opened
        for file in output.written(track):  # before the work
            check_format(partial / file, info.sample_rate, info.channels, output.encoding)
        settings = info.sample_rate, info.channels, _most_samples(info)
        if rescaled:  # by the peak, which is known only at the end: first write unscaled stems
            unscaled = partial / "unscaled"
            floats = Output(dict.fromkeys(output.names, ()))
            with stem_writer(unscaled, track, floats, *settings) as write:
                peak, damage = _separate(separator, path, opened, output, write, track)
            with _progress(f"{track}, files", info) as bar:
                rescale(unscaled, floats, partial, track, output, max(peak, 1.0), bar.update)
            shutil.rmtree(unscaled)
        else:
            with stem_writer(partial, track, output, *settings) as write:
                peak, damage = _separate(separator, path, opened, output, write, track)
        _copy_tags(path, partial, track, output)
        if damage and damage_note:
            (partial / damage_note).write_bytes(os.fsencode(f"{damage}\n"))
    if rescaled and peak > 1:
        print(f"{path}: stems turned down by {20 * np.log10(peak):.1f} dB (--clip_mode=rescale)")
    rate = output.format.rate(info.sample_rate)
    if rate != info.sample_rate:
        ending = output.ending.removeprefix(".")
        print(f"{path}: stems at {rate} Hz: {ending} has no {info.sample_rate} Hz")
    if damage:
        raise damage


def _copy_tags(path: str | os.PathLike, folder: Path, track: str, output: Output) -> None:
    """Copies the tags of a recording to its files, if it has any and mutagen is installed."""
    found = None if path == "-" else read_tags(path)
    if found:
        for file, name in {file: name for name, file in output.files(track).items()}.items():
            write_tags(folder / file, found, None if output.format.stems else name)


def _most_samples(info: audio.AudioInfo) -> int | None:
    """Returns how many samples a recording has at most, or None if nothing is known."""
    frames = _about(info)
    # An estimated length may be wrong: then leave room for more.
    return frames if info.seconds else frames and 2 * frames


def _about(info: audio.AudioInfo) -> int | None:
    return round(info.about * info.sample_rate) if info.about else None


def _separate(
    separator,
    path: str | os.PathLike,
    opened: tuple[audio.AudioInfo, Iterator[np.ndarray]],
    output: Output,
    write: Callable[[Blocks], None],
    title: str,
) -> tuple[float, DamagedError | None]:
    """Separates and writes; returns the peak of all that is written, and the damage, if any."""
    peak, (info, blocks) = 0.0, opened
    rate, channels = info.sample_rate, info.channels
    keeps = output.residual or output.format.stems
    mixture = Mixture(path, blocks, channels, keeps)
    with _progress(title, info) as bar:
        for stems in separator.stream(mixture, rate):
            written = {
                name: sum((stems[stem] for stem in parts[1:]), stems[parts[0]])
                for name, parts in output.sums.items()
            }
            samples = len(next(iter(stems.values())))
            mixed = mixture.take(samples) if keeps else None
            if output.residual:
                written[RESIDUAL] = mixed - sum(stems.values())
            if output.format.stems:
                written[MIXTURE] = mixed
            if output.clip_mode == "clamp":
                written = {name: np.clip(block, -1, 1) for name, block in written.items()}
            for name in output.names:
                peak = max(peak, float(np.abs(written[name]).max(initial=0)))
            write(written)
            if bar.total:  # may be a guess, and the bar's format needs one
                bar.total = max(bar.total, bar.n + samples)
            bar.update(samples)
    return peak, mixture.damage


class Mixture:
    """Iterates over a recording's blocks [samples, channels]; a damaged recording ends early.

    Args:
      path: path for error messages.
      blocks: from `audio.recording`.
      channels: number of channels of each block.
      keep: whether samples are kept for `take`.

    Attributes:
      damage: the error of a damaged recording, set after the last block.

    Raises:
      AudioError: during iteration, if a sample is NaN or infinite.
    """

    def __init__(
        self, path: str | os.PathLike, blocks: Iterable[np.ndarray], channels: int, keep: bool
    ):
        self.damage: DamagedError | None = None
        self._path, self._blocks, self._keep = path, blocks, keep
        self._waiting = [np.zeros((0, channels), np.float32)]

    def __iter__(self) -> Iterator[np.ndarray]:
        samples = 0
        try:
            for block in self._blocks:
                if not np.isfinite(block).all():
                    raise AudioError(
                        f"{self._path}: found NaN or infinity after sample {samples}, expected"
                        " finite samples"
                    )
                samples += len(block)
                if self._keep:
                    self._waiting.append(block)
                yield block
        except DamagedError as error:
            self.damage = error

    def take(self, samples: int) -> np.ndarray:
        """Returns the next samples that were iterated over, [samples, channels]."""
        waiting = np.concatenate(self._waiting)
        self._waiting = [waiting[samples:]]
        return waiting[:samples]


def _progress(title: str, info: audio.AudioInfo):
    from tqdm import tqdm

    frames = _about(info)
    return tqdm(
        total=frames,
        desc=title,
        unit="s",
        unit_scale=1 / info.sample_rate,
        disable=None,
        bar_format=_BAR if frames else None,
    )
