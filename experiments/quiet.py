"""Seconds in which a true stem is nearly silent: museval scores them, but not usefully.

To museval, silence is exact zeros. What is estimated of a stem at -80 dBFS is far above it, so that
its SDR in such a second is far below zero, however good the estimate sounds.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.score_files import score_file
from sccunet.config import ConfigError
from sccunet.files import read_json

QUIET_DBFS = -60.0
LEVELS_DIR = "reference_levels"

# Track -> stem -> museval's scores [seconds, metrics], dB, NaN where there are none.
Frames = Mapping[str, Mapping[str, np.ndarray]]
# Stem -> results of `levels_dbfs`.
Levels = Mapping[str, Sequence[float | None]]


def levels_dbfs(reference: np.ndarray, sample_rate: int) -> list[float | None]:
    """Returns the level of each second that museval scores.

    Args:
      reference: [samples, channels].
      sample_rate: in Hz.

    Returns:
      The root mean square over the second's samples and channels in dBFS (0 is that of samples of
      full scale), to two decimals; None for zeros.
    """
    seconds = max(1, len(reference) // sample_rate)
    blocks = np.split(reference, [sample_rate * i for i in range(1, seconds + 1)])[:seconds]
    powers = [np.mean(np.square(block), dtype=np.float64) for block in blocks]
    return [round(float(10 * np.log10(power)), 2) if power else None for power in powers]


def read_levels(output_dir: Path, tracks: Sequence[str]) -> dict[str, Levels] | None:
    """Reads track -> levels of its stems; None if a track has none, as in older scores."""
    paths = {track: score_file(output_dir / LEVELS_DIR, track) for track in tracks}
    if not all(path.exists() for path in paths.values()):
        return None
    return {track: read_json(path) for track, path in paths.items()}


def check_levels(output_dir: Path, tracks: Sequence[str]) -> None:
    """Raises ConfigError if one of the tracks has older scores, without levels."""
    if read_levels(output_dir, tracks) is None:
        raise ConfigError(
            f"--quiet_db: found scores without {LEVELS_DIR} in {output_dir}, expected those of this"
            " version; choose another output_dir"
        )


def quiet_seconds(levels: Levels, below_dbfs: float) -> np.ndarray:
    """Returns bool [stems, seconds]: where a stem is below a level."""
    values = np.array(list(levels.values()), float)  # None becomes NaN
    return ~(values >= below_dbfs)


def count(frames: Frames, levels: Mapping[str, Levels], below_dbfs: float) -> dict[str, Any]:
    """Counts the scored seconds in which a reference is below a level.

    Returns:
      {"below_dbfs", "tracks": track -> {"scored": number of scored seconds, "seconds": those with a
      quiet reference, "stems": stem -> those in which its reference is quiet}}, without the tracks
      and stems that have none.
    """
    tracks = {}
    for track, of_track in levels.items():
        scores = np.concatenate(list(frames[track].values()), axis=1)  # [seconds, stems * metrics]
        scored = np.isfinite(scores).any(axis=1)
        quiet = quiet_seconds(of_track, below_dbfs) & scored
        if quiet.any():
            counts = dict(zip(of_track, quiet.sum(axis=1).tolist(), strict=True))
            tracks[track] = {
                "scored": int(scored.sum()),
                "seconds": int(quiet.any(axis=0).sum()),
                "stems": {stem: number for stem, number in counts.items() if number},
            }
    return {"below_dbfs": below_dbfs, "tracks": tracks}


def left_out(
    frames: Frames, levels: Mapping[str, Levels], below_dbfs: float
) -> dict[str, dict[str, np.ndarray]]:
    """Returns the scores with NaN in the seconds in which a reference is below a level."""
    left = {track: quiet_seconds(levels[track], below_dbfs).any(axis=0) for track in frames}
    return {
        track: {
            stem: np.where(left[track][:, None], np.nan, values) for stem, values in scores.items()
        }
        for track, scores in frames.items()
    }
