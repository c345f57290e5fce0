"""The report of ablations, only from these files:

<name>/ablation.json           settings of the runs
<name>/<variant>/<seed>/...    scores of `sccunet evaluate`; also <name>/scaled/...
<name>/reading.md              interpretation, written by hand; shown above the tables
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments import scoring
from experiments.reports import pictures, tables
from experiments.reports.results import slug
from experiments.track_metrics import TrackMetric
from sccunet.checks import counted
from sccunet.config import ConfigError
from sccunet.files import read_json, write_whole

SETTINGS = "ablation.json"
# fmt: off
_FIELDS = (
    "name", "note", "stems", "variants", "seeds", "config", "minutes", "levels_db",
    "excerpt_seconds", "machine",
)
# fmt: on
SCALED = "scaled"  # the baseline of the runs

_READING = "reading.md"


def write_report(report_dir: str | Path) -> str:
    """Writes README.md and the pictures of a report, only from the files in its folder.

    Returns:
      A table of the SDRs of each ablation, for a terminal.

    Raises:
      ConfigError: if the folder has no ablation.
    """
    report_dir = Path(report_dir)
    settings = sorted(report_dir.glob(f"*/{SETTINGS}"))
    if not settings:
        raise ConfigError(f"report_dir {report_dir}: found no */{SETTINGS}, expected an ablation")
    lines = [
        "# Ablations",
        "",
        "Made by `sccunet ablate` from the JSON files in this folder, which hold"
        " every track's scores; do not edit.",
    ]
    shown = []
    for path in settings:
        section, table = _section(path.parent)
        lines += section
        shown += table
    write_whole(report_dir / "README.md", "\n".join(lines) + "\n")
    return "\n".join(shown[1:])


def _section(folder: Path) -> tuple[list[str], list[str]]:
    """Returns the lines of an ablation for README.md, and those for a terminal."""
    settings = read_json(folder / SETTINGS, *_FIELDS)
    runs = {
        name: [scoring.summarise(folder / slug(name) / str(seed)) for seed in settings["seeds"]]
        for name in settings["variants"]
    }
    scaled = scoring.summarise(folder / SCALED)
    lines = ["", f"## {settings['name']}", "", settings["note"], ""]
    if (folder / _READING).exists():
        lines += [(folder / _READING).read_text().strip(), ""]
    if settings["levels_db"]:
        levels = ", ".join(f"{stem} {gain:g} dB" for stem, gain in settings["levels_db"].items())
        lines += [f"Changed levels of the stems, in training and test: {levels}.", ""]
    lines += [_what_was_run(settings, scaled), ""]
    lines += [*tables.markdown(*_differences(settings["variants"])), ""]
    lines += [f"![{settings['name']}]({folder.name}.png)", ""]
    table = _table(settings, runs, scaled, _museval, scoring.METRIC_PAIRS[0])
    lines += [f"{scaled['metric']}:", "", *tables.markdown(*table), ""]
    for metric in scoring.metrics_in(scaled):
        table = _table(settings, runs, scaled, _of_tracks(metric), (metric.short,))
        lines += [f"{metric.what}:", "", *tables.markdown(*table), ""]
    if silence := _silence(settings, runs, scaled):
        lines += [silence, ""]
    _draw(settings, runs, scaled, folder.with_suffix(".png"))
    shown = tables.columns(*_table(settings, runs, scaled, _museval, scoring.METRICS[:1]))
    return lines[:-1], ["", settings["name"], *tables.wrapped(scaled["metric"]), *shown]


def _what_was_run(settings, scaled) -> str:
    hardware = settings["machine"]
    seconds = scaled["stems"][settings["stems"][0]]["frames"]
    return (
        f"{' '.join(settings['config'])}; {_length(settings)},"
        f" {counted(len(settings['seeds']), 'seed')}, on"
        f" {hardware['cpu']}, {counted(hardware['cores'], 'core')};"
        f" {counted(len(scaled['tracks']), 'test track')},"
        f" {seconds} s"
        + (" (the middle of each track)" if settings["excerpt_seconds"] else "")
        + ". Cells: mean ± standard deviation over the seeds, dB. `scaled`: the mixture times the"
        " best constant for each stem of a track, the baseline."
    )


def _length(settings) -> str:
    """Returns how long a run is."""
    if settings["minutes"]:
        return f"training steps for {settings['minutes']:g} minutes"
    lengths = {(each["epochs"], each["steps_per_epoch"]) for each in settings["variants"].values()}
    if len(lengths) > 1:
        return "training steps as listed"
    ((epochs, steps),) = lengths
    return f"{counted(epochs, 'epoch')} of {counted(steps, 'step') if steps else 'all crops'}"


def _differences(variants: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Returns head and rows of a table: in what the variants differ, and the time of their steps.

    Columns with the same for all variants, or without a value, are left out.
    """

    def steps(each):
        epochs, steps = each["epochs"], each["steps_per_epoch"]
        return str(epochs * steps) if steps else f"{counted(epochs, 'epoch')} of all crops"

    columns = {
        "loss weights": [
            ", ".join(f"{alpha:.3g}" for alpha in each["loss_weights"])
            for each in variants.values()
        ],
        "steps": [steps(each) for each in variants.values()],
    }
    columns = {title: cells for title, cells in columns.items() if len(set(cells)) > 1}
    seconds = [each["step_seconds"] for each in variants.values()]
    if None not in seconds:
        columns["seconds per step"] = [f"{each:#.3g}" for each in seconds]
    changes = (", ".join(f"`{one}`" for one in each["changes"]) for each in variants.values())
    rows = zip(variants, changes, *columns.values(), strict=True)
    return ["variant", "changes", *columns], [list(row) for row in rows]


def _silence(settings, runs, scaled) -> str:
    """Returns a note on runs with scores for fewer seconds than the baseline; "" if none."""
    stem = settings["stems"][0]
    scored, frames = (scaled["stems"][stem][field] for field in ("frames_scored", "frames"))
    silent = []
    for name, summaries in runs.items():
        counts = [summary["stems"][stem]["frames_scored"] for summary in summaries]
        if min(counts) < scored:
            silent.append(f"{name}: {min(counts)} to {max(counts)} of {frames} s")
    if not silent:
        return ""
    return (
        f"{scoring.SILENCE} Scored with {'; '.join(sorted(silent))}; the others {scored} of"
        f" {frames} s."
    )


def _museval(summary: Mapping[str, Any], stem: str, metric: str) -> float | None:
    return summary["stems"][stem][metric]["median"]


def _of_tracks(metric: TrackMetric) -> Callable[..., float | None]:
    """Returns a function like `_museval` for one of `TRACK_METRICS`; older scores may lack it."""

    def value(summary, stem, _=None):
        found = summary.get(metric.folder)
        return found and found["stems"][stem]["median"]

    return value


def _table(settings, runs, scaled, value, metrics) -> tuple[list[str], list[list[str]]]:
    """Returns head and rows, one for each variant.

    Columns: metrics of each stem, and the mean of the first metric over the stems.
    """
    stems = settings["stems"]
    columns = [(stem, metric) for stem in stems for metric in metrics]
    head = ["variant", *(f"{stem} {metric}" for stem, metric in columns)]
    head.append(f"mean {metrics[0]}")
    rows = []

    def cells(summaries):
        for stem, metric in columns:
            yield tables.over_runs([value(summary, stem, metric) for summary in summaries])
        means = [[value(summary, stem, metrics[0]) for stem in stems] for summary in summaries]
        yield tables.over_runs([None if None in row else float(np.mean(row)) for row in means])

    rows += [[name, *cells(summaries)] for name, summaries in runs.items()]
    rows.append([SCALED, *cells([scaled])])
    return head, rows


def _draw(settings, runs, scaled, path: Path) -> None:
    """Draws the first of `TRACK_METRICS`: a panel per stem and for the mean, a dot per seed."""
    metric = scoring.metrics_in(scaled)[0]
    value = _of_tracks(metric)
    pyplot = pictures.load_pyplot()
    stems = settings["stems"]
    width = max(2.6, 0.45 * len(runs))  # so that the names of the variants do not overlap
    figure, axes = pyplot.subplots(
        1, len(stems) + 1, figsize=(width * (len(stems) + 1), 3), layout="constrained"
    )

    def values(summary):
        scores = [value(summary, stem) for stem in stems]
        return [*scores, float(np.mean(scores))]

    for i, (axis, title) in enumerate(zip(axes, [*stems, "mean of the stems"], strict=True)):
        for x, summaries in enumerate(runs.values()):
            axis.plot([x] * len(summaries), [values(s)[i] for s in summaries], "o", alpha=0.7)
        axis.axhline(values(scaled)[i], color="0.4", linestyle="--", label=SCALED)
        axis.set_xticks(range(len(runs)), runs, rotation=30, ha="right")
        axis.set_xlim(-0.5, len(runs) - 0.5)
        axis.set_title(title)
        axis.grid(axis="y", alpha=0.3)
    axes[0].set_ylabel(f"{metric.title}, dB\n(median over tracks)")
    axes[0].legend()
    pictures.save(figure, path)
