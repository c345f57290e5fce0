"""The scores of a model for its card."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments import scoring
from experiments.reports import tables
from sccunet.checks import counted
from sccunet.config import ConfigError
from sccunet.files import read_json, sha256_of
from sccunet.runs import weights_of

_NAMED = 12  # tracks at most, if their names are listed


def scores_section(scores_dir: str, workdir: str) -> str:
    """Returns tables of the scores in a folder, in Markdown.

    Args:
      scores_dir: folder that `evaluate` wrote.
      workdir: the model that must have been scored.

    Raises:
      ConfigError: if there are no scores, or those of another model.
    """
    folder = Path(scores_dir)
    if not (folder / scoring.SUMMARY).is_file():
        raise ConfigError(
            f"--scores: found no {scoring.SUMMARY} in {folder}, expected a folder that sccunet"
            " evaluate wrote"
        )
    settings = read_json(folder / scoring.SETTINGS, "system")
    if settings.get("model_sha256") != sha256_of(weights_of(workdir)):
        raise ConfigError(
            f"--scores: found scores of another model in {folder}, expected those of {workdir}"
        )
    summary = read_json(folder / scoring.SUMMARY, "stems", "tracks", "metric")
    stems = summary["stems"]
    rows = [
        [stem, *(_decibels(scores[metric]) for metric in scoring.METRICS)]
        for stem, scores in stems.items()
    ]
    lines = [_what_was_scored(summary, settings), "", f"{summary['metric']}:", ""]
    lines += tables.markdown(["stem", *scoring.METRICS], rows)
    for metric in scoring.metrics_in(summary):
        found = summary[metric.folder]
        rows = [[stem, _decibels(scores)] for stem, scores in found["stems"].items()]
        lines += ["", f"{found['metric']}:", "", *tables.markdown(["stem", metric.short], rows)]
    return "\n".join(lines)


def _what_was_scored(summary: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    names = [track.split("/", 1)[1] for track in summary["tracks"]]
    text = f"{counted(len(names), 'track')} of the split {summary['split']}"
    if excerpt := summary["excerpt_seconds"]:
        text += f", {excerpt:g} s from the middle of each"
    if len(names) <= _NAMED:
        text += f": {', '.join(names)}"
    how = settings.get("reconstruction", {"mask": "none"})
    flags = {"none": "", "soft": f" --mask_exponent={how.get('exponent')}"}
    flags["wiener"] = f" --wiener_iterations={how.get('iterations')}"
    return f"{text}. Separated with `--mask={how['mask']}{flags[how['mask']]}`."


def _decibels(spread: Mapping[str, float | None]) -> str:
    return tables.decibels(spread["median"])
