"""Decides which tracks train and which validate. This module does not import TensorFlow."""

import dataclasses
import itertools
import os
from collections.abc import Sequence
from importlib import metadata

from data_pipeline.cuts import cuts_of
from data_pipeline.errors import AudioError
from data_pipeline.folders import no_tracks, one_of, shown, track_folders
from data_pipeline.names import Directories, directories, listed
from data_pipeline.tracks import Segment, Track, lacking, load_track, load_tracks
from sccunet.checks import counted
from sccunet.config import Config, ConfigError

# Every seventh track validates if there are neither a valid/ folder nor musdb's own validation
# tracks: about the same share as musdb's 14 of 100.
_EVERY = 7

_Folder = tuple[str, str]  # split and track
_Split = tuple[list[Segment], list[Segment], str]


def training_split(data_dirs: Directories, config: Config, names: Sequence[str] = ()) -> _Split:
    """Decides which tracks train and which validate, and describes the choice in one sentence.

    The training tracks are those in train/, or exactly the named ones, without those that validate.
    The first rule that finds tracks to validate on applies, in each data directory by itself:

    1. the tracks in valid/ that are not named;
    2. those of musdb's own 14 validation tracks that are in train/ and not named;
    3. every 7th track in name order, if no names are given;
    4. the last tenth of each track of two or more patches, in whole patches and at least one.

    No sample is in both, and no track name is in both except, within a directory, under rule 4.

    Partial tracks, which have only some of the stems, train if `config.augment.mix_tracks` is over
    0. Only complete tracks validate. If the rules find none in any directory, they apply to partial
    tracks too, and rule 3 counts those of each set of stems by themselves.

    Args:
      data_dirs: a data directory, or several, as for `find_tracks`.
      config: a track must have its `model.patch_samples`; to train on, `cuts_of(config).samples`.
      names: tracks to train on, in any split folder, as for `find_tracks`; at least one in each
        directory.

    Returns:
      `(training, validation, sentence)`, both lists sorted by directory, split folder and name.

    Raises:
      AudioError: as `find_tracks`; if there is nothing to validate on, or too little of a track to
        train on; if a stem is in no training or validation track; or for partial tracks that cannot
        be used.
      ConfigError: if a directory is given twice, or `config.data_weights` do not fit the number of
        directories.
    """
    dirs = directories(data_dirs)
    _check_different(dirs)
    _check_weights(dirs, config)
    named = _named(dirs, names) if names else [[] for _ in dirs]
    found = [_DataDir(path, config, own) for path, own in zip(dirs, named, strict=True)]
    for complete in (True, False):
        parts = [each.split(complete) for each in found]
        if any(validation for _, validation, _ in parts):
            break
    training, validation = [], []
    for i, part in enumerate(parts):
        for segments, own in zip((training, validation), part[:2], strict=True):
            segments += [dataclasses.replace(segment, directory=i) for segment in own]
    training, left_out = _without_validation_tracks(training, validation)
    place = ", ".join(map(str, dirs))
    if not validation:
        raise AudioError(
            f"{place}: found no track to validate on, expected tracks in valid/ or one training"
            f" track of at least {2 * config.model.patch_samples} samples (two patches)"
        )
    _check_stems(place, training, validation, config)
    _check_long_enough(training, config)
    told = [how for *_, how in parts]
    if len(dirs) > 1:
        told = [f"{path}: {how}" for path, how in zip(dirs, told, strict=True)]
    return training, validation, "; ".join(told + left_out)


def _without_validation_tracks(
    training: Sequence[Segment], validation: Sequence[Segment]
) -> tuple[list[Segment], list[str]]:
    """Leaves out tracks whose name validates in another directory, as it may be the same song."""
    validating = {(segment.track.name, segment.directory) for segment in validation}
    names = {name for name, _ in validating}
    kept, left_out = [], []
    for segment in training:
        name = segment.track.name
        # The last tenth of a track may validate in its own directory.
        here = name not in names or (name, segment.directory) in validating
        (kept if here else left_out).append(segment)
    named = shown([segment.track.name for segment in left_out])
    told = f"not training on tracks that validate in another directory: {named}"
    return kept, [told] if left_out else []


def _check_different(dirs: Sequence[str | os.PathLike]) -> None:
    real = [os.path.realpath(path) for path in dirs]
    for path, where in zip(dirs, real, strict=True):
        if real.count(where) > 1:
            raise ConfigError(f"--data_dir: found {path} twice, expected different directories")


def _check_weights(dirs: Sequence[str | os.PathLike], config: Config) -> None:
    if (weights := config.data_weights) and len(weights) != len(dirs):
        raise ConfigError(
            f"config.data_weights: found {counted(len(weights), 'number')} {weights}, expected one"
            f" for each directory of --data_dir={','.join(map(str, dirs))}"
        )


def _named(dirs: Sequence[str | os.PathLike], names: Sequence[str]) -> list[list[str]]:
    """Returns the named tracks of each directory."""
    known = [{name for _, name in track_folders(path)} for path in dirs]
    every = set().union(*known)
    names = listed(names, every)
    for name in names:
        if name not in every:
            raise AudioError(
                f"{', '.join(map(str, dirs))}: found no track named {name!r}, expected"
                f" {one_of(sorted(every))}"
            )
    found = [[name for name in names if name in own] for own in known]
    for path, own in zip(dirs, found, strict=True):
        if not own:
            raise AudioError(f"{path}: found none of the named tracks, expected at least one")
    return found


def _check_stems(
    place: str, training: Sequence[Segment], validation: Sequence[Segment], config: Config
) -> None:
    """Checks that every stem can be trained and validated; `place` names the directories."""
    for what, segments in (("training", training), ("validation", validation)):
        there = [any(has) for has in zip(*(s.track.has(config) for s in segments), strict=True)]
        for stem, has in zip(config.model.stems, there, strict=True):
            if not has:
                files = ", ".join(f"{file}.wav" for file in config.files_of(stem))
                raise AudioError(
                    f"{place}: found no {what} track with the stem {stem!r}, expected {files} in at"
                    " least one"
                )
    mixed = config.augment.mix_tracks
    if mixed < 1 and not any(all(segment.track.has(config)) for segment in training):
        raise ConfigError(
            f"config.augment.mix_tracks: found {mixed}, expected 1, or a training track in {place}"
            " that has every stem, for the crops that are not mixed"
        )


def _check_long_enough(training: Sequence[Segment], config: Config) -> None:
    """Checks that crops can be made from each segment to train on."""
    least = cuts_of(config).samples
    for segment in training:
        if segment.frames < least:
            folder = os.path.dirname(next(iter(segment.track.files.values())).path)
            raise AudioError(
                f"{folder}: found {counted(segment.frames, 'sample')} to train on, expected at"
                f" least {least} with config.augment.speed"
            )


class _DataDir:
    """The tracks of one data directory.

    Args:
      data_dir, config: as for `training_split`.
      names: the tracks to train on, if they are named.
    """

    def __init__(self, data_dir: str | os.PathLike, config: Config, names: Sequence[str]):
        self.data_dir, self.config = data_dir, config
        folders = track_folders(data_dir)
        self.wanted = [f for f in folders if f[1] in names] if names else _in(folders, "train")
        if not self.wanted:
            raise no_tracks(data_dir, ("train",))
        _check_names_differ(data_dir, self.wanted)
        own = [folder for folder in _in(folders, "valid") if folder not in self.wanted]
        reserved = _musdb_validation() - set(names)
        of_musdb = [folder for folder in _in(folders, "train") if folder[1] in reserved]
        self.lacks = {
            folder: lacking(os.path.join(data_dir, *folder), config)
            for folder in dict.fromkeys(self.wanted + own + of_musdb)
        }
        self.partial = [folder for folder in self.wanted if self.lacks[folder]]
        alike: dict[tuple[str, ...], list[_Folder]] = {}
        for folder in () if names else self.wanted:
            alike.setdefault(self.lacks[folder], []).append(folder)
        every = sorted(
            itertools.chain.from_iterable(x[_EVERY - 1 :: _EVERY] for x in alike.values())
        )
        self.rules = [
            (own, "the tracks in valid/"),
            (of_musdb, "musdb's own validation tracks"),
            (every, f"every {_EVERY}th track of train/ in name order"),
        ]
        self.tracks: dict[_Folder, Track] = {}

    def split(self, complete: bool) -> _Split:
        """Splits the tracks; without any to validate on, all train.

        Args:
          complete: whether only complete tracks may validate.
        """
        for folders, rule in self.rules:
            chosen = [folder for folder in folders if not (complete and self.lacks[folder])]
            # By name: a song that was copied to valid/ may still be in train/.
            taken = {name for _, name in chosen}
            kept = [folder for folder in self.wanted if folder[1] not in taken]
            if chosen and kept and (complete or (self._has_all(chosen) and self._has_all(kept))):
                training, validation = (
                    [Segment(track, 0, track.frames) for track in self._load(part)]
                    for part in (kept, chosen)
                )
                what = f"validating on {counted(len(validation), 'track')}: {rule}"
                unused = [folder for folder in folders if folder not in chosen + kept]
                if unused:
                    names = shown([name for _, name in unused])
                    what += f", but for those with only some of the stems: {names}"
                return training, validation, self._told(kept, what)
        training, validation = self._last_tenths(complete)
        what = f"validating on the last tenth of {len(validation)} of them, which is not trained on"
        return training, validation, self._told(self.wanted, what if validation else "")

    def _has_all(self, folders: Sequence[_Folder]) -> bool:
        """Whether the tracks together have all stems that the tracks to train on have."""
        absent, least = (
            set.intersection(*(set(self.lacks[folder]) for folder in found))
            for found in (folders, self.wanted)
        )
        return absent <= least

    def _last_tenths(self, complete: bool) -> tuple[list[Segment], list[Segment]]:
        """Applies rule 4."""
        patch = self.config.model.patch_samples
        training, validation = [], []
        for folder, track in zip(self.wanted, self._load(self.wanted), strict=True):
            patches = track.frames // patch
            held_out = max(1, patches // 10) * patch if patches >= 2 else 0
            if complete and self.lacks[folder]:
                held_out = 0
            training.append(Segment(track, 0, track.frames - held_out))
            if held_out:
                validation.append(Segment(track, track.frames - held_out, held_out))
        return training, validation

    def _load(self, folders: Sequence[_Folder]) -> list[Track]:
        """Loads tracks, each once."""
        partial = [folder for folder in folders if self.lacks[folder]]
        if partial and not self.config.augment.mix_tracks:
            raise self._only_mixed(partial)
        left = [folder for folder in folders if folder not in self.tracks]
        patch = self.config.model.patch_samples
        loaded = load_tracks(self.data_dir, left, self.config, patch, partial=True)
        self.tracks |= zip(left, loaded, strict=True)
        return [self.tracks[folder] for folder in folders]

    def _only_mixed(self, partial: Sequence[_Folder]) -> AudioError:
        """Returns the error for partial tracks where nothing is mixed."""
        try:
            load_track(self.data_dir, *partial[0], self.config, 1)
        except AudioError as error:
            more = f" (and {counted(len(partial) - 1, 'more such track')})" if partial[1:] else ""
            return AudioError(
                f"{error}{more}, or config.augment.mix_tracks over 0: tracks with only some of the"
                " stems need mixed crops"
            )
        raise AssertionError(partial)

    def _told(self, kept: Sequence[_Folder], what: str) -> str:
        """Describes the tracks to train on, and then those to validate on."""
        told = ", ".join(filter(None, (f"training on {counted(len(kept), 'track')}", what)))
        if partial := [name for split, name in kept if (split, name) in self.partial]:
            told += f"; training tracks with only some of the stems: {shown(partial)}"
        return told


def _check_names_differ(data_dir: str | os.PathLike, folders: Sequence[_Folder]) -> None:
    for (split, name), (other, again) in itertools.combinations(folders, 2):
        if name == again:
            raise AudioError(f"{data_dir}: found {name!r} in {split}/ and {other}/, expected one")


def _in(folders: Sequence[_Folder], split: str) -> list[_Folder]:
    return [folder for folder in folders if folder[0] == split]


def _musdb_validation() -> set[str]:
    """Returns the names of the 14 tracks that musdb reserves; its import needs other packages."""
    import yaml

    path = metadata.distribution("musdb").locate_file("musdb/configs/mus.yaml")
    with open(path, encoding="utf-8") as file:
        return set(yaml.safe_load(file)["validation_tracks"])
