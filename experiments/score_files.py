"""Names of the JSON files with the scores of tracks: <folder>/<split>/<track>.json."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sccunet.files import name_that_fits, read_json

_ENDING = ".json"
# Field with the track's name in museval's file, if the file's name is shortened.
_TRACK = "track"


def score_file(folder: str | os.PathLike, key: str) -> Path:
    """Returns the path of a track's file in a folder; a name that is too long is shortened.

    Args:
      folder: folder of one metric, or of museval's scores.
      key: "<split>/<track>".
    """
    split, track = key.split("/")
    return Path(folder) / split / name_that_fits(track, _ENDING)


def note_of_track(key: str) -> Mapping[str, Any]:
    """Returns what museval's file of a track must hold besides the scores."""
    track = key.split("/")[1]
    return {} if score_file("", key).name == track + _ENDING else {_TRACK: track}


def scored_tracks(output_dir: str | os.PathLike) -> list[str]:
    """Returns the "<split>/<track>" of each track with museval's scores in a folder, sorted."""
    keys = []
    for path in Path(output_dir).glob(f"*/*{_ENDING}"):
        track = path.name.removesuffix(_ENDING)
        if "~" in track:  # as in shortened names
            track = read_json(path).get(_TRACK, track)
        keys.append(f"{path.parent.name}/{track}")
    return sorted(keys)
