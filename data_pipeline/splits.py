"""Decides which tracks train and which validate. This module does not import TensorFlow."""

import itertools
import os
from collections.abc import Sequence

from data_pipeline import sigsep
from data_pipeline.cuts import cuts_of
from data_pipeline.errors import AudioError
from data_pipeline.folders import named, no_tracks, track_folders
from data_pipeline.tracks import Segment, Track, load_tracks
from sccunet.checks import counted
from sccunet.config import Config

# Every seventh track validates if there are neither a valid/ folder nor musdb's own validation
# tracks: about the same share as musdb's 14 of 100.
_EVERY = 7


def training_split(
    data_dir: str | os.PathLike, config: Config, names: Sequence[str] = ()
) -> tuple[list[Segment], list[Segment], str]:
    """Decides which tracks train and which validate, and describes the choice in one sentence.

    The training tracks are those in train/, or exactly the named ones, without those that validate.
    The first rule that finds tracks to validate on applies:

    1. the tracks in valid/ that are not named;
    2. those of musdb's own 14 validation tracks that are in train/ and not named;
    3. every 7th track in name order, if no names are given;
    4. the last tenth of each track of two or more patches, in whole patches and at least one.

    No sample is in both, and no track name is in both except under rule 4.

    Args:
      data_dir: as for `find_tracks`.
      config: a track must have its `model.patch_samples`; to train on, `cuts_of(config).samples`.
      names: tracks to train on, in any split folder, as for `find_tracks`.

    Returns:
      `(training, validation, sentence)`, both lists sorted by split folder and name.

    Raises:
      AudioError: as `find_tracks`, if there is nothing to validate on, or too little of a track to
        train on.
    """
    patch = config.model.patch_samples
    folders = track_folders(data_dir)
    wanted = named(data_dir, folders, names) if names else _in(folders, "train")
    if not wanted:
        raise no_tracks(data_dir, ("train",))
    _check_names_differ(data_dir, wanted)
    names = [name for _, name in wanted] if names else []
    for chosen, rule in _validation_rules(folders, wanted, names):
        # By name: a song that was copied to valid/ may still be in train/.
        taken = {name for _, name in chosen}
        kept = [folder for folder in wanted if folder[1] not in taken]
        if chosen and kept:
            training = load_tracks(data_dir, kept, config, patch)
            validation = load_tracks(data_dir, chosen, config, patch)
            return (
                _long_enough([Segment(track, 0, track.frames) for track in training], config),
                [Segment(track, 0, track.frames) for track in validation],
                f"training on {counted(len(training), 'track')}, validating on"
                f" {counted(len(validation), 'track')}: {rule}",
            )

    training, validation = _last_tenths(load_tracks(data_dir, wanted, config, patch), patch)
    if not validation:
        raise AudioError(
            f"{data_dir}: found no track to validate on, expected tracks in valid/ or one training"
            f" track of at least {2 * patch} samples (two patches)"
        )
    return (
        _long_enough(training, config),
        validation,
        f"training on {counted(len(training), 'track')}, validating on the last tenth of"
        f" {len(validation)} of them, which is not trained on",
    )


def _long_enough(training: Sequence[Segment], config: Config) -> Sequence[Segment]:
    """Returns segments to train on; raises AudioError for one from which no crop can be made."""
    least = cuts_of(config).samples
    for segment in training:
        if segment.frames < least:
            folder = os.path.dirname(next(iter(segment.track.files.values())).path)
            raise AudioError(
                f"{folder}: found {counted(segment.frames, 'sample')} to train on, expected at"
                f" least {least} with config.augment.speed"
            )
    return training


def _check_names_differ(data_dir: str | os.PathLike, folders: Sequence[tuple[str, str]]) -> None:
    for (split, name), (other, again) in itertools.combinations(folders, 2):
        if name == again:
            raise AudioError(f"{data_dir}: found {name!r} in {split}/ and {other}/, expected one")


def _in(folders: Sequence[tuple[str, str]], split: str) -> list[tuple[str, str]]:
    return [folder for folder in folders if folder[0] == split]


def _validation_rules(
    folders: Sequence[tuple[str, str]], wanted: Sequence[tuple[str, str]], names: Sequence[str]
) -> list[tuple[list[tuple[str, str]], str]]:
    """Returns, for rules 1 to 3, the folders to validate on (perhaps none) and a description.

    Args:
      folders: all track folders, each `(split, track)`.
      wanted: folders to train on.
      names: names of the tracks to train on, if they were given.
    """
    own = [folder for folder in _in(folders, "valid") if folder not in wanted]
    reserved = _musdb_validation() - set(names)
    of_musdb = [folder for folder in _in(folders, "train") if folder[1] in reserved]
    every = [] if names else wanted[_EVERY - 1 :: _EVERY]
    return [
        (own, "the tracks in valid/"),
        (of_musdb, "musdb's own validation tracks"),
        (every, f"every {_EVERY}th track of train/ in name order"),
    ]


def _last_tenths(tracks: Sequence[Track], patch: int) -> tuple[list[Segment], list[Segment]]:
    """Applies rule 4: returns segments for training and validation; `patch` in samples."""
    training, validation = [], []
    for track in tracks:
        patches = track.frames // patch
        held_out = max(1, patches // 10) * patch if patches >= 2 else 0
        training.append(Segment(track, 0, track.frames - held_out))
        if held_out:
            validation.append(Segment(track, track.frames - held_out, held_out))
    return training, validation


def _musdb_validation() -> set[str]:
    """Returns the names of the 14 tracks that musdb reserves for validation."""
    import yaml

    package = os.path.dirname(sigsep.load("musdb").__file__)
    with open(os.path.join(package, "configs", "mus.yaml"), encoding="utf-8") as file:
        return set(yaml.safe_load(file)["validation_tracks"])
