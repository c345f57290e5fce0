"""The report of a comparison, only from the JSON files in its folder."""

import os
import shlex
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import scoring
from experiments.baselines.systems import GROUPS
from experiments.reports import pictures, tables
from experiments.reports.results import DataSet, published, read, weights_of
from experiments.reports.summary import SEEDS, over_runs, seconds_scored, warnings
from experiments.track_metrics import TrackMetric
from sccunet.checks import counted
from sccunet.files import write_whole

README = "README.md"

_BOXES_OF_TRACKS = 10  # boxes show tracks if there are at least this many, otherwise frames
_NOT_RUN, _MEANINGLESS = "not run", "—"


def write_report(report_dir: str | os.PathLike) -> None:
    """Writes README.md and `<data set>_scores.png` from the JSON files in `report_dir`.

    Raises:
      ConfigError: as `read`.
    """
    report_dir = Path(report_dir)
    for data_set in read(report_dir):
        if data_set.scored:
            _draw_scores(data_set, report_dir / f"{data_set.slug}_scores.png")
    write_whole(report_dir / README, render(report_dir))


def render(report_dir: str | os.PathLike) -> str:
    """Returns the text of README.md, as Markdown.

    Raises:
      ConfigError: as `read`.
    """
    data_sets = read(report_dir)
    lines = [
        "# Comparison of separation systems",
        "",
        "Made from the JSON files in this folder by `sccunet compare --report_dir=REPORT`; do not"
        " edit.",
        "DATA, RUN and REPORT stand for folders.",
    ]
    for data_set in sorted(data_sets, key=lambda data_set: not data_set.scored):
        lines += ["", *_section(data_set)]
    has_seeds = any(data_set.has_seeds for data_set in data_sets)
    lines += ["", *_how_to_read(_metrics(*data_sets), has_seeds)]
    return "\n".join(lines) + "\n"


def _metrics(*data_sets: DataSet) -> list[TrackMetric]:
    entries = (entry for data_set in data_sets for entry in data_set.scored)
    return scoring.metrics_in(*(run.summary for entry in entries for run in entry.runs))


def _how_to_read(metrics: Sequence[TrackMetric], has_seeds: bool) -> list[str]:
    of_seeds = f"- {SEEDS} Box plots pool the runs; spectrograms and costs are of the first."
    return [
        "## How to read this",
        "",
        f"- SDR, SIR, SAR, ISR: {scoring.MUSEVAL}. More is better.",
        *(
            f"- {metric.what}. Another metric; do not compare it with museval's."
            for metric in metrics
        ),
        f"- {scoring.SILENCE}",
        *([of_seeds] if has_seeds else []),
        "- †: the system uses the true stems; it is a bound, not a competitor.",
        "- Real-time factor: computing time per second of audio; below 1 is faster than real time."
        " Each system was timed in its own processes, after one separation as a warm-up; in"
        " brackets: the fastest and the slowest.",
        "- Peak memory: the largest memory use of such a process. Start-up: time for imports and"
        " for loading the system.",
    ]


def _section(data_set: DataSet) -> list[str]:
    info = data_set.info
    name = info["name"] if data_set.scored else f"{info['name']}: {_NOT_RUN}"
    lines = [f"## {name}", ""]
    if info["note"]:
        lines += [info["note"], ""]
    if not data_set.scored:
        return [*lines, "```", _command(info), "```"]
    lines += [_what_was_scored(data_set), "", "```", _command(info), "```", ""]
    lines += [*_legend(data_set), ""]
    for metrics in scoring.METRIC_PAIRS:
        lines += [f"**{' / '.join(metrics)}** in dB, museval v4", ""]
        lines += [*_scores_table(data_set, metrics), ""]
    for metric in _metrics(data_set):
        lines += [f"**{metric.title}** in dB, another metric", ""]
        lines += [*_track_table(data_set, metric), ""]
    if found := _warnings(data_set):
        lines += [*(f"- {warning}" for warning in found), ""]
    lines += [f"![Box plots of the scores]({data_set.slug}_scores.png)", ""]
    if example := info.get("example"):
        first = example["start_seconds"]
        lines += [
            f"![Spectrograms of the estimates]({data_set.slug}_spectrograms.png)",
            "",
            f"Spectrograms: {example['track']}, from {first:.1f} to"
            f" {first + example['seconds']:.1f} s, mean of the channels.",
            "",
        ]
    return [*lines, *_costs(data_set)]


def _command(info: Mapping[str, Any]) -> str:
    systems = [
        (f"{label}:" if label != what["system"] else "")
        + what["system"]
        + (f"={weights}" if weights else "")
        for label, what in info["systems"].items()
        for weights in weights_of(what)
    ]
    arguments = [
        "--report_dir=REPORT",
        f"--name={info['name']}",
        "--data_dir=DATA",
        *([] if info["tracks"] else [f"--split={info['split']}"]),
        "--model=RUN" if info["config"] is None else f"--config={info['config']}",
        f"--systems={','.join(systems)}",
    ]
    arguments += [f"--tracks={name}" for name in info["tracks"]]
    if info["excerpt"]:
        arguments.append(f"--excerpt={info['excerpt']:g}")
    arguments += info["overrides"]
    quoted = (
        f"{flag}={shlex.quote(value)}"
        for flag, value in (argument.split("=", 1) for argument in arguments)
    )
    return " ".join(["sccunet compare", *quoted])


def _what_was_scored(data_set: DataSet) -> str:
    first = data_set.first
    tracks = len(first.summary["tracks"])
    seconds = next(iter(first.summary["stems"].values()))["frames"]
    excerpt = first.settings.get("excerpt_seconds")
    return (
        f"{counted(tracks, 'track')} of `{first.summary['split']}`,"
        f" {f'{excerpt:g} s from the middle of each' if excerpt else 'whole'}: {seconds} s in all."
    )


def _legend(data_set: DataSet) -> list[str]:
    lines = []
    for entry in data_set.entries:
        what = entry.kind.what
        settings = [run.settings for run in entry.runs]
        if len(entry.weights) > 1:
            what += f", {_of_all(len(settings), len(entry.weights))} runs"
        names = [f"`{name}`" for name in entry.weights if name and entry.system != "model"]
        hashes = [each["model_sha256"][:12] for each in settings if "model_sha256" in each]
        if hashes:
            hashes[0] = f"SHA-256 {hashes[0]}"
        what = ", ".join([what, *names, *hashes])
        if entry.kind.group == "oracle" and settings:
            what += f", frames of {settings[0]['frame_length']} samples"
        lines.append(f"- {entry.title}: {what}")
    return lines


def _of_all(count: int, of: int) -> str:
    return str(of) if count == of else f"{count} of {of}"


def _scores_table(data_set: DataSet, metrics: Sequence[str]) -> list[str]:
    """Returns a table with medians of two metrics in each cell, and published SDRs, if any."""
    stems = data_set.stems
    quoted = _quoted(stems) if data_set.is_musdb18 and "SDR" in metrics else {}
    header = ["system", *stems, "seconds scored", *(["source"] if quoted else [])]
    rows = []
    for group in GROUPS:
        for entry in (entry for entry in data_set.entries if entry.kind.group == group):
            row = [entry.title, *[_NOT_RUN] * (len(stems) + 1)]
            if entry.runs:
                cells = (
                    " / ".join(over_runs(entry, stem, metric) for metric in metrics)
                    for stem in stems
                )
                row = [entry.title, *cells, seconds_scored(entry)]
            rows.append(row + (["scored here"] if quoted else []))
        rows += quoted.get(group, [])
    return tables.markdown(header, rows)


def _track_table(data_set: DataSet, metric: TrackMetric) -> list[str]:
    rows = []
    for entry in data_set.entries:
        cells = [_NOT_RUN] * len(data_set.stems)
        found = [run.summary.get(metric.folder) for run in entry.runs]
        if any(found):
            cells = [
                tables.over_runs([scores and scores["stems"][stem]["median"] for scores in found])
                for stem in data_set.stems
            ]
        rows.append([entry.title, *cells])
    return tables.markdown(["system", *data_set.stems], rows)


def _quoted(stems: Sequence[str]) -> dict[str, list[list[str]]]:
    """Returns group -> rows of published scores with at least one of these stems."""
    groups = {"oracle": "oracle", "yes": "other", "no": "other", None: "reference"}
    training = {"yes": "; extra training data", "no": "; no extra training data"}
    rows: dict[str, list[list[str]]] = {}
    for row in published()["rows"]:
        if not any(stem in row["sdr"] for stem in stems):
            continue
        extra = row["extra_data"]
        cells = [
            f"{row['sdr'][stem]:.2f} / {_MEANINGLESS}" if stem in row["sdr"] else _MEANINGLESS
            for stem in stems
        ]
        title = f"{row['system']}{' †' * (extra == 'oracle')} (quoted)"
        source = row["source"] + training.get(extra, "")
        rows.setdefault(groups[extra], []).append([title, *cells, _MEANINGLESS, source])
    return rows


def _warnings(data_set: DataSet) -> list[str]:
    """Returns each warning once, with its systems unless it concerns all."""
    found: dict[str, list[str]] = {}
    for entry in data_set.scored:
        of_runs = (warning for run in entry.runs for warning in warnings(run.summary))
        for warning in dict.fromkeys(of_runs):
            found.setdefault(warning, []).append(entry.label)
    return [
        warning if len(labels) == len(data_set.scored) else f"{', '.join(labels)}: {warning}"
        for warning, labels in found.items()
    ]


def _costs(data_set: DataSet) -> list[str]:
    header = ["system", "real-time factor", "peak memory", "start-up", "parameters", "versions"]
    rows, machines, heard = [], {}, set()
    for entry in data_set.entries:
        cells = [_MEANINGLESS] * 5
        if entry.has_costs:
            cells = _cost_cells(entry.measurements) if entry.measurements else [_NOT_RUN] * 5
            for run in entry.measurements:
                labels = machines.setdefault(_machine(run), [])
                if entry.label not in labels:
                    labels.append(entry.label)
                heard.add(f"{run['seconds_audio']:g} s of {run['track']}")
        rows.append([entry.title, *cells])
    lines = ["**Costs**", "", *tables.markdown(header, rows)]
    if machines:
        lines += ["", f"Separated: {', '.join(sorted(heard))}. Measured on:", ""]
        lines += [f"- {', '.join(labels)}: {text}" for text, labels in machines.items()]
    return lines


def _cost_cells(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    factors = [
        seconds / run["seconds_audio"] for run in runs for seconds in run["separation_seconds"]
    ]
    parameters = runs[0]["parameters"]
    return [
        f"{statistics.median(factors):.2f} ({min(factors):.2f} to {max(factors):.2f})",
        f"{max(run['peak_memory_bytes'] for run in runs) / 1e9:.2f} GB",
        f"{statistics.median(run['start_up_seconds'] for run in runs):.1f} s",
        _MEANINGLESS if parameters is None else f"{parameters:,}",
        ", ".join(f"{name} {version}" for name, version in runs[0]["versions"].items()),
    ]


def _machine(run: Mapping[str, Any]) -> str:
    machine, threads = run["machine"], run["threads"]
    return (
        f"{machine['cpu']}, {counted(machine['cores'], 'core')},"
        f" {machine['memory_gb']} GB, {machine['os']}; {counted(threads, 'thread')}"
    )


def _draw_scores(data_set: DataSet, path: Path) -> None:
    entries = data_set.scored
    tracks = data_set.first.summary["tracks"]
    of_tracks = len(tracks) >= _BOXES_OF_TRACKS
    reduce: Callable = (lambda frames: scoring.nanmedian(frames)[None]) if of_tracks else np.asarray
    values = {}
    for entry in entries:
        folders = [run.folder for run in entry.runs]
        frames = [scoring.frame_scores(folder, track) for folder in folders for track in tracks]
        values[entry.title] = {
            stem: np.concatenate([reduce(scores[stem]) for scores in frames])
            for stem in data_set.stems
        }
    what = "tracks' medians over frames" if of_tracks else "frames of 1 s"
    pictures.boxes(
        values,
        scoring.METRICS,
        pictures.colours([entry.kind.group for entry in entries]),
        f"{data_set.info['name']}: {what}, {counted(len(tracks), 'track')};"
        " boxes: 25th to 75th percentile, whiskers: 5th to 95th; over 60 dB not drawn",
        path,
    )
