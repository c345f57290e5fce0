"""Finds the tracks of a data directory, checks them, and reads them.

A data directory has the layout of MUSDB18-HQ: `DATA/<split>/<track>/<file>.wav` with the splits
train, valid and test. This module does not import TensorFlow.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence

import numpy as np

from data_pipeline.errors import AudioError
from data_pipeline.folders import chosen_folders, run_prepare
from data_pipeline.wav import read_wav, wav_info
from data_pipeline.wav_header import WavInfo
from sccunet.checks import counted
from sccunet.config import Config

_SHOWN = 10
_BLOCK = 2**20  # samples read at once


@dataclasses.dataclass(frozen=True)
class Track:
    """One song whose files have been checked.

    Attributes:
      name: name of the track's folder.
      split: "train", "valid" or "test", the folder that contains it.
      files: files of the stems, and "mixture" if it exists, by file name without ending. All have
        the same length, number of channels and sample rate. A partial track has only the files of
        some stems, and no mixture.
    """

    name: str
    split: str
    files: Mapping[str, WavInfo]

    @property
    def frames(self) -> int:
        """Length, in samples per channel."""
        return next(iter(self.files.values())).frames

    @property
    def channels(self) -> int:
        """Channels of each file."""
        return next(iter(self.files.values())).channels

    def has(self, config: Config) -> tuple[bool, ...]:
        """Tells for each of the config's stems whether the track has it."""
        stems = config.model.stems
        return tuple(all(file in self.files for file in config.files_of(stem)) for stem in stems)


@dataclasses.dataclass(frozen=True)
class Segment:
    """Samples `start` to `start + frames` of a track.

    Attributes:
      track, start, frames: as above.
      directory: index of the track's data directory, in the order of --data_dir.
      silent: for each stem, the numbers of the segment's consecutive patches in which it is silent;
        None where `volumes.with_silence` has not looked.
    """

    track: Track
    start: int
    frames: int
    directory: int = 0
    silent: tuple[frozenset[int], ...] | None = None


def find_tracks(
    data_dir: str | os.PathLike,
    config: Config,
    split: str | None = None,
    names: Sequence[str] = (),
    *,
    min_frames: int = 1,
) -> list[Track]:
    """Finds the tracks of a data directory, sorted by split folder and name.

    Args:
      data_dir: folder with `<split>/<track>/<file>.wav`.
      config: gives the files that a track must have, and their sample rate.
      split: "train", "valid" or "test"; None takes all three.
      names: take only these tracks, from any split folder; `split` is ignored then. Each is a
        name, several with commas between them, or the path of a file with a name on each line.
      min_frames: the least length of a track, in samples.

    Raises:
      AudioError: if there are no tracks, a name is unknown, or a track's files are missing, broken,
        too short, or don't match each other or the config: one line per bad track, at most 10.
    """
    return load_tracks(data_dir, chosen_folders(data_dir, split, names), config, min_frames)


def middle(track: Track, seconds: float | None, config: Config) -> tuple[int, int]:
    """First sample and length of a track's middle `seconds`, or of the whole track if shorter.

    Args:
      track: the track.
      seconds: None takes all.
      config: gives the sample rate.
    """
    wanted = round(seconds * config.model.sample_rate) if seconds else track.frames
    frames = min(track.frames, wanted)
    return (track.frames - frames) // 2, frames


def read_stems(
    track: Track, config: Config, start: int = 0, frames: int | None = None
) -> np.ndarray:
    """Reads a track's stems, float32 `[stems, samples, channels]` in the order of the config.

    Args:
      track: the track.
      config: names the stems.
      start: first sample.
      frames: number of samples, at most as many as there are; None takes all from `start`.
    """
    frames = track.frames - start if frames is None else frames
    stems = np.zeros((len(config.model.stems), frames, track.channels), np.float32)
    for stem, out in zip(config.model.stems, stems, strict=True):
        for name in config.files_of(stem):
            out += read_wav(track.files[name], start, frames)
    return stems


def read_mixture(
    track: Track, config: Config, start: int = 0, frames: int | None = None
) -> np.ndarray:
    """Reads a track's mixture, or the sum of its stems: float32 `[samples, channels]`.

    The arguments are those of `read_stems`.
    """
    if "mixture" in track.files:
        return read_wav(track.files["mixture"], start, frames)
    return read_stems(track, config, start, frames).sum(axis=0)


def check_finite(tracks: Sequence[Track]) -> None:
    """Checks the tracks' float files for NaN and infinity; integer files cannot hold them.

    Raises:
      AudioError: for the first file that has one, with its place.
    """
    for track in tracks:
        for info in track.files.values():
            if not info.encoding.startswith("float"):
                continue
            for start in range(0, info.frames, _BLOCK):
                block = read_wav(info, start, _BLOCK)
                if not np.isfinite(block).all():
                    first = start + int(np.argmin(np.isfinite(block).all(axis=1)))
                    raise AudioError(
                        f"{info.path}: found NaN or infinity at sample {first}"
                        f" ({first / info.sample_rate:.2f} s), expected finite samples"
                    )


def first_few(lines: Sequence[str]) -> str:
    """Joins the first few lines of an error message."""
    more = [f"... and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    return "\n".join([*lines[:_SHOWN], *more])


def load_tracks(
    data_dir: str | os.PathLike,
    folders: Sequence[tuple[str, str]],
    config: Config,
    min_frames: int,
    partial: bool = False,
) -> list[Track]:
    """Loads several tracks; the arguments and errors are those of `load_track`, a line for each."""
    found, bad = [], []
    for split, name in folders:
        try:
            found.append(load_track(data_dir, split, name, config, min_frames, partial))
        except AudioError as error:
            bad.append(str(error))
    if bad:
        raise AudioError(first_few(bad))
    return found


def load_track(
    data_dir: str | os.PathLike,
    split: str,
    name: str,
    config: Config,
    min_frames: int,
    partial: bool = False,
) -> Track:
    """Loads a track from the headers of its files.

    Args:
      data_dir, split, name: the folder of the files.
      config, min_frames: as for `find_tracks`.
      partial: whether the track may lack stems, but not all; see `lacking`.

    Raises:
      AudioError: if a file is missing, cannot be read, or does not match the others or the config.
    """
    folder = os.path.join(data_dir, split, name)
    present = _entries(folder)
    absent = lacking(folder, config) if partial else ()
    files = {}
    for stem in config.model.stems:
        for file in () if stem in absent else config.files_of(stem):
            if f"{file}.wav" not in present:
                other = [entry for entry in present if os.path.splitext(entry)[0] == file]
                if other:
                    raise AudioError(f"{folder}: found {other[0]}, {run_prepare(data_dir)}")
                raise AudioError(
                    f"{folder}: found {', '.join(present) or 'no files'},"
                    f" expected {file}.wav for the stem {stem!r}"
                )
            files[file] = wav_info(os.path.join(folder, f"{file}.wav"))
    if "mixture.wav" in present and not absent:
        files["mixture"] = wav_info(os.path.join(folder, "mixture.wav"))
    first = next(iter(files.values()))
    for info in files.values():
        if info.sample_rate != config.model.sample_rate:
            raise AudioError(
                f"{info.path}: found {info.sample_rate} Hz, expected {config.model.sample_rate} Hz"
                " (sccunet prepare converts)"
            )
        for found, expected, unit in (
            (info.frames, first.frames, "sample"),
            (info.channels, first.channels, "channel"),
        ):
            if found != expected:
                trims = unit == "sample" and abs(found - expected) <= info.sample_rate // 10
                raise AudioError(
                    f"{info.path}: found {counted(found, unit)}, expected {expected} as in"
                    f" {os.path.basename(first.path)}"
                    + " (sccunet prepare --trim cuts to the shortest)"
                    * trims
                )
    if first.frames < min_frames:
        raise AudioError(
            f"{folder}: found {counted(first.frames, 'sample')}, expected at least {min_frames}"
        )
    return Track(name, split, files)


def lacking(folder: str | os.PathLike, config: Config) -> tuple[str, ...]:
    """Returns the stems that a track lacks, by the names of its files; none if it lacks all.

    A track that has some of a stem's files does not lack the stem, but is broken. So is one with
    files that `prepare` would convert, or whose names differ only in capitals.
    """
    names = {os.path.splitext(entry)[0].lower() for entry in _entries(folder)}
    stems = config.model.stems
    absent = tuple(
        stem for stem in stems if not names & {file.lower() for file in config.files_of(stem)}
    )
    return absent if len(absent) < len(stems) else ()


def _entries(folder: str | os.PathLike) -> list[str]:
    return sorted(entry for entry in os.listdir(folder) if not entry.startswith("."))
