"""Scores for a terminal: the tables that `evaluate` and `compare` print, and warnings."""

from collections.abc import Iterable, Mapping
from typing import Any

from data_pipeline.tracks import first_few
from experiments import scoring
from experiments.reports import tables
from experiments.reports.results import DataSet, Entry
from sccunet.checks import counted

SEEDS = "±: mean and standard deviation over the runs of a system, such as seeds of its training."
_PERCENTILES = "25th to 75th percentile over tracks"


def table(summary: Mapping[str, Any]) -> str:
    """Formats a summary for a terminal of 80 columns: tables with a row per stem, and notes."""
    stems, without = summary["stems"], summary.get("without_quiet")
    columns = {metric: _column(stems, metric) for metric in scoring.METRICS}
    if without:
        columns |= {f"{metric}*": _column(without["stems"], metric) for metric in scoring.METRICS}
    lines = [*_what_was_scored(summary), "", *tables.wrapped(summary["metric"])]
    lines += _rows(stems, {name: map(_median, spreads) for name, spreads in columns.items()})
    if without:
        scored = next(iter(without["stems"].values()))["frames_scored"]
        below = f"a reference is below {without['below_dbfs']:g} dBFS"
        lines += tables.wrapped(f"*: without the seconds in which {below}: {scored} s")
    if _has_quartiles(spreads for spreads in columns.values()):
        quartiles = {metric: map(_quartiles, columns[metric]) for metric in scoring.METRICS}
        lines += ["", _PERCENTILES, *_rows(stems, quartiles)]
    for metric in scoring.metrics_in(summary):
        spreads = list(summary[metric.folder]["stems"].values())
        cells = {metric.short: map(_median, spreads)}
        if _has_quartiles([spreads]):
            cells[_PERCENTILES] = map(_quartiles, spreads)
        lines += ["", *tables.wrapped(summary[metric.folder]["metric"]), *_rows(stems, cells)]
    return "\n".join([*lines, "", *tables.wrapped(scoring.SILENCE), *_notes(summary)])


def comparison(data_set: DataSet) -> str:
    """Formats the SDRs of a comparison that has scores: a row per system, a column per stem."""
    header = ["system", *data_set.stems, "scored"]
    rows = []
    for entry in data_set.entries:
        cells = ["not run"] * (len(header) - 1)
        if entry.runs:
            cells = [
                over_runs(entry, stem, "SDR", none="none", over=">") for stem in data_set.stems
            ]
            cells.append(f"{seconds_scored(entry)} s")
        rows.append([entry.label, *cells])
    lines = [data_set.info["name"], *tables.wrapped(f"SDR, {scoring.MUSEVAL}")]
    lines += tables.columns(header, rows)
    if data_set.has_seeds:
        lines += tables.wrapped(SEEDS)
    if told := [entry.label for entry in data_set.entries if entry.kind.given_truth]:
        lines += tables.wrapped(
            f"With the true stems, a bound and no competitor: {', '.join(told)}"
        )
    return "\n".join(lines)


def over_runs(entry: Entry, stem: str, metric: str, **texts: str) -> str:
    """Formats the median of a museval metric, over several runs as mean ± deviation.

    Args:
      entry: a system that has scores.
      stem: the stem.
      metric: one of `METRICS`.
      **texts: as in `tables.over_runs`.
    """
    medians = [run.summary["stems"][stem][metric]["median"] for run in entry.runs]
    return tables.over_runs(medians, **texts)


def seconds_scored(entry: Entry) -> str:
    """Returns the number of scored seconds, of several runs the range, and the number in all."""
    first = [next(iter(run.summary["stems"].values())) for run in entry.runs]
    counts = sorted({scores["frames_scored"] for scores in first})
    scored = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
    return f"{scored} of {first[0]['frames']}"


def warnings(summary: Mapping[str, Any]) -> list[str]:
    """Returns a line for each track without a score or with scores that cannot be trusted."""
    never = [
        f"Never scored: {track} ({', '.join(names)})"
        for track, names in summary["never_scored"].items()
    ]
    quiet = summary["quiet"] or {"tracks": {}}
    low = [
        f"Warning: {track}: in {found['seconds']} of"
        f" {counted(found['scored'], 'scored second')} a reference is below"
        f" {quiet['below_dbfs']:g} dBFS ("
        + ", ".join(f"{stem} in {seconds}" for stem, seconds in found["stems"].items())
        + "), where its scores mean little."
        for track, found in quiet["tracks"].items()
    ]
    empty = [
        f"Warning: {track}: the reference {stem} is nearly empty from {band['from_hz']:.0f} to"
        f" {band['to_hz']:.0f} Hz ({band['db']:.0f} dB), which lowers SIR, ISR and SAR: trust only"
        " this track's SDR."
        for track, bands in summary["empty_bands"].items()
        for stem, band in bands.items()
    ]
    return never + low + empty


def _what_was_scored(summary: Mapping[str, Any]) -> list[str]:
    scores, tracks = next(iter(summary["stems"].values())), len(summary["tracks"])
    line = f"system: {summary['system']}; split: {summary['split']}; tracks: {tracks}"
    if excerpt := summary["excerpt_seconds"]:
        line += f", {excerpt:g} s from the middle of each"
    scored = (
        f"scored: {scores['tracks']} of {counted(tracks, 'track')},"
        f" {scores['frames_scored']} of {scores['frames']} s"
    )
    if summary["quiet"]:
        low = sum(found["seconds"] for found in summary["quiet"]["tracks"].values())
        scored += f"; in {low} s of these a reference is below"
        scored += f" {summary['quiet']['below_dbfs']:g} dBFS"
    return [*tables.wrapped(line), *tables.wrapped(scored)]


def _notes(summary: Mapping[str, Any]) -> list[str]:
    lines = warnings(summary)
    hint = summary["quiet"] and summary["quiet"]["tracks"] and "without_quiet" not in summary
    if hint:
        lines.append(f"--quiet_db={summary['quiet']['below_dbfs']:g} leaves such seconds out.")
    return [part for line in first_few(lines).splitlines() for part in tables.wrapped(line)]


def _column(stems: Mapping[str, Any], metric: str) -> list[Mapping[str, float | None]]:
    return [scores[metric] for scores in stems.values()]


def _median(spread: Mapping[str, float | None]) -> str:
    return tables.decibels(spread["median"], none="none", over=">")


def _quartiles(spread: Mapping[str, float | None]) -> str:
    return "none" if spread["p25"] is None else f"{spread['p25']:z.1f} to {spread['p75']:z.1f}"


def _has_quartiles(columns: Iterable[Iterable[Mapping[str, float | None]]]) -> bool:
    return any(spread["p25"] is not None for spreads in columns for spread in spreads)


def _rows(stems: Iterable[str], cells: Mapping[str, Iterable[str]]) -> list[str]:
    """Returns a table with a row for each stem and a column for each of the cells."""
    return tables.columns(["stem", *cells], list(zip(stems, *cells.values(), strict=True)))
