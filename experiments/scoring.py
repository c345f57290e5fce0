"""Scores a track's estimates, and summarises scores from their JSON files only."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import quiet
from experiments.museval_scores import museval_scores
from experiments.references import as_16_bit, empty_band
from experiments.score_files import note_of_track, score_file, scored_tracks
from experiments.track_metrics import TRACK_METRICS, TrackMetric
from sccunet.files import read_json, write_whole

# museval's metrics in the order of tables; two share a cell. Ablations show the first pair.
METRIC_PAIRS = (("SDR", "SIR"), ("SAR", "ISR"))
METRICS = tuple(metric for pair in METRIC_PAIRS for metric in pair)
MUSEVAL = "museval v4 (BSSEval v4), 1 s frames; median over tracks of the median over frames, dB"
SILENCE = (
    "museval gives no stem a score for a second in which any stem is silent, as reference or as"
    " estimate."
)
SETTINGS = "evaluation.json"
SUMMARY = "summary.json"

_EMPTY_BANDS_DIR = "empty_bands"
_QUARTILES_OF = 4  # tracks at least


def score_track(
    references: np.ndarray,
    estimates: np.ndarray,
    stems: Sequence[str],
    sample_rate: int,
    output_dir: str | os.PathLike,
    key: str,
) -> None:
    """Scores one track and writes its JSON files, museval's last: if it exists, all do.

    Args:
      references: float32 [stems, samples, channels]; rounded to 16 bits here.
      estimates: float32 [stems, samples, channels].
      stems: names of the stems.
      sample_rate: in Hz.
      output_dir: folder for the files.
      key: "<split>/<track>".
    """
    from data_pipeline import sigsep

    output_dir = Path(output_dir)
    references = as_16_bit(references)
    empty = {
        stem: band
        for stem, reference in zip(stems, references, strict=True)
        if (band := empty_band(reference, sample_rate)) is not None
    }
    levels = {
        stem: quiet.levels_dbfs(reference, sample_rate)
        for stem, reference in zip(stems, references, strict=True)
    }
    scores = museval_scores(references, estimates, sample_rate)
    store = sigsep.load("museval").TrackStore(win=1.0, hop=1.0, track_name=Path(key).name)
    store.scores.update(note_of_track(key))
    for i, stem in enumerate(stems):
        store.add_target(stem, {metric: scores[metric][i].tolist() for metric in METRICS})
    write_whole(score_file(output_dir / _EMPTY_BANDS_DIR, key), to_json(empty))
    write_whole(score_file(output_dir / quiet.LEVELS_DIR, key), to_json(levels))
    for metric in TRACK_METRICS:
        values = metric.compute(references, estimates)
        values = [float(value) if np.isfinite(value) else None for value in values]
        path = score_file(output_dir / metric.folder, key)
        write_whole(path, to_json(dict(zip(stems, values, strict=True))))
    write_whole(score_file(output_dir, key), store.json)


def summarise(
    output_dir: str | os.PathLike,
    tracks: Iterable[str] | None = None,
    quiet_db: float | None = None,
) -> dict[str, Any]:
    """Summarises scores, only from the JSON files in `output_dir`.

    Args:
      output_dir: folder that `evaluate` wrote.
      tracks: "<split>/<track>" of each track; None: all tracks.
      quiet_db: also summarise museval's scores without the seconds in which a reference is below
        this level, in dBFS.

    Returns:
      JSON values; None means no score.
        "stems": stem -> {"SDR"|"SIR"|"SAR"|"ISR": {"median", "p25", "p75"} in dB over the tracks'
          medians over frames, the quartiles only of 4 tracks or more; "tracks": number of tracks
          with a scored second; "frames_scored"; "frames"}.
        the folder of each of `TRACK_METRICS` that all tracks have: {"metric", "stems": stem ->
          {"median", "p25", "p75", "mean"}}.
        "never_scored": track -> its stems without a scored second.
        "empty_bands": track -> stem -> result of `empty_band`.
        "quiet": result of `quiet.count`, by default for -60 dBFS; None for scores without levels.
        "without_quiet", only with `quiet_db`: {"below_dbfs", "stems": as above}.
        "metric", "system", "split", "tracks", "excerpt_seconds": what was scored.

    Raises:
      ConfigError: for `quiet_db`, if "quiet" is None.
    """
    output_dir = Path(output_dir)
    tracks = scored_tracks(output_dir) if tracks is None else list(tracks)
    settings = read_json(output_dir / SETTINGS, "system", "stems")
    stems, excerpt = list(settings["stems"]), settings.get("excerpt_seconds")
    frames = {track: frame_scores(output_dir, track) for track in tracks}
    empty = {track: read_json(score_file(output_dir / _EMPTY_BANDS_DIR, track)) for track in tracks}
    return {
        "metric": MUSEVAL,
        "system": settings["system"],
        "split": ", ".join(sorted({track.split("/")[0] for track in tracks})),
        "tracks": tracks,
        "excerpt_seconds": excerpt,
        "stems": _over_tracks(frames),
        **{
            metric.folder: {
                "metric": metric.of(excerpt).what,
                "stems": _per_track(output_dir / metric.folder, stems, tracks),
            }
            for metric in _metrics_of(output_dir, tracks)
        },
        "never_scored": _never_scored(frames),
        "empty_bands": {track: bands for track, bands in empty.items() if bands},
        **_quiet(output_dir, frames, quiet_db),
    }


def _quiet(output_dir: Path, frames: quiet.Frames, quiet_db: float | None) -> dict[str, Any]:
    """Returns "quiet" and "without_quiet" of a summary."""
    if quiet_db is not None:
        quiet.check_levels(output_dir, list(frames))
    levels = quiet.read_levels(output_dir, list(frames))
    if levels is None:
        return {"quiet": None}
    below = quiet.QUIET_DBFS if quiet_db is None else quiet_db
    found = {"quiet": quiet.count(frames, levels, below)}
    if quiet_db is not None:
        stems = _over_tracks(quiet.left_out(frames, levels, below))
        found["without_quiet"] = {"below_dbfs": below, "stems": stems}
    return found


def _over_tracks(frames: quiet.Frames) -> dict[str, dict[str, Any]]:
    """Summarises museval's scores for each stem."""
    found = {}
    for stem in next(iter(frames.values())):
        medians = np.array([nanmedian(scores[stem]) for scores in frames.values()])
        scored = [int(_is_scored(scores[stem]).sum()) for scores in frames.values()]
        found[stem] = {
            **{metric: _spread(medians[:, i]) for i, metric in enumerate(METRICS)},
            "tracks": sum(count > 0 for count in scored),
            "frames_scored": sum(scored),
            "frames": sum(len(scores[stem]) for scores in frames.values()),
        }
    return found


def _never_scored(frames: quiet.Frames) -> dict[str, list[str]]:
    """Returns track -> its stems without a scored second."""
    never = {
        track: [stem for stem, values in scores.items() if not _is_scored(values).any()]
        for track, scores in frames.items()
    }
    return {track: stems for track, stems in never.items() if stems}


def _is_scored(scores: np.ndarray) -> np.ndarray:
    """Returns bool [frames] for museval's scores of a stem [frames, metrics]."""
    return np.isfinite(scores).any(axis=1)


def _metrics_of(output_dir: Path, tracks: Sequence[str]) -> list[TrackMetric]:
    """Returns those of `TRACK_METRICS` that all tracks have; older scores lack newer metrics."""
    return [
        metric
        for metric in TRACK_METRICS
        if all(score_file(output_dir / metric.folder, track).exists() for track in tracks)
    ]


def _per_track(
    folder: Path, stems: Sequence[str], tracks: Sequence[str]
) -> dict[str, dict[str, float | None]]:
    """Returns stem -> spread and mean over tracks of the metric in a folder."""
    scores = [read_json(score_file(folder, track), *stems) for track in tracks]
    found = {}
    for stem in stems:
        values = np.array([score[stem] for score in scores], float)  # None becomes NaN
        scored = values[np.isfinite(values)]
        found[stem] = _spread(values) | {"mean": float(scored.mean()) if scored.size else None}
    return found


def frame_scores(output_dir: str | os.PathLike, track: str) -> dict[str, np.ndarray]:
    """Reads museval's scores of a track: stem -> [seconds, metrics], dB, ordered as `METRICS`.

    Args:
      output_dir: folder that `evaluate` wrote.
      track: "<split>/<track>".
    """
    scores = read_json(score_file(output_dir, track), "targets")
    return {
        target["name"]: np.array(
            [[frame["metrics"][metric] for metric in METRICS] for frame in target["frames"]], float
        )
        for target in scores["targets"]
    }


def metrics_in(*summaries: Mapping[str, Any]) -> list[TrackMetric]:
    """Returns those of `TRACK_METRICS` that are in the summaries, each once for each wording."""
    found = [
        metric.of(summary["excerpt_seconds"])
        for metric in TRACK_METRICS
        for summary in summaries
        if metric.folder in summary
    ]
    return list(dict.fromkeys(found))


def nanmedian(values: np.ndarray) -> np.ndarray:
    """Returns the median over the first axis without NaN; NaN where all values are NaN."""
    columns = [column[np.isfinite(column)] for column in values.T]
    return np.array([np.median(column) if column.size else np.nan for column in columns])


def _spread(values: np.ndarray) -> dict[str, float | None]:
    """Returns median and quartiles of the finite values [tracks]; few have no quartiles."""
    values = values[np.isfinite(values)]
    if not values.size:
        return {"median": None, "p25": None, "p75": None}
    p25, median, p75 = np.percentile(values, (25, 50, 75)).tolist()
    if len(values) < _QUARTILES_OF:
        p25 = p75 = None
    return {"median": median, "p25": p25, "p75": p75}


def to_json(value: Any) -> str:
    """Returns `value` as JSON text; NaN is an error."""
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def publish(scores_dir: str | os.PathLike, output_dir: str | os.PathLike) -> None:
    """Copies scores for publication: without white space, and without paths of this machine.

    Args:
      scores_dir: folder that `evaluate` wrote.
      output_dir: folder for the JSON files of the tracks in the summary, which museval and
        `summarise` can read. Other JSON files in it are removed.
    """
    scores_dir, output_dir = Path(scores_dir), Path(output_dir)
    tracks = read_json(scores_dir / SUMMARY, "tracks")["tracks"]
    folders = ["", _EMPTY_BANDS_DIR, *(metric.folder for metric in _metrics_of(scores_dir, tracks))]
    if quiet.read_levels(scores_dir, tracks):
        folders.append(quiet.LEVELS_DIR)
    names = [score_file(folder, track) for track in tracks for folder in folders]
    copies = {name: read_json(scores_dir / name) for name in names}
    settings = read_json(scores_dir / SETTINGS, "system")
    settings.pop("data_dir", None)
    if "weights" in settings:
        settings["weights"] = Path(settings["weights"]).name
    copies[Path(SETTINGS)] = settings
    for path in output_dir.glob("**/*.json"):
        if path.relative_to(output_dir) not in copies:
            path.unlink()
    for name, values in copies.items():
        write_whole(output_dir / name, json.dumps(values, separators=(",", ":")) + "\n")
