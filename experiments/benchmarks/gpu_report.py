"""Renders the section "gpu" of benchmark.json as tables."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments.benchmarks.arithmetic import bfloat16_rate, forward_flops, training_flops
from experiments.reports import tables
from sccunet.checks import counted
from sccunet.config import Config
from sccunet.patching import Patching

_NOTES = {
    "train": "The same step for all, including spectrograms, on random waveforms that the host"
    " sends in each step; pipeline: on crops of files. The twin is our network in PyTorch,"
    " channels-last, with PyTorch's fused Adam; its bfloat16 is autocast, compiled means"
    " torch.compile. Under float32, a GPU may round the factors of convolutions (TF32), as is the"
    " frameworks' default. TFLOP/s: the operations of the convolutions, counted by their"
    " definition, over the time of the whole step. First call: the first repetition, compilation"
    " included. Device memory: the peak, with that of the search for fast algorithms.",
    "separate": "From a waveform in memory to all stems in memory, after a warm-up with the same"
    " waveform. The twin separates one patch after the other. All weights are random.",
    "input": "Batches of 8 crops, read from the page cache.",
}
_TITLES = {
    "train": "Training step: milliseconds",
    "separate": "Separation: seconds",
    "input": "Input: crops per second",
}


class _Row:
    """A measurement with what the tables show of it.

    Args:
      one: a measurement that has results, as in benchmark.json.
      result: the section.
    """

    def __init__(self, one: Mapping[str, Any], result: Mapping[str, Any]):
        [measured] = one["rounds"]
        config = Config.from_dict(result["config"])
        model = config.model
        self.one, self.label = one, _label(one)
        self.section, self.name = one["section"], one["name"]
        self.batch_size = one["case"].get("batch_size")
        self.measured, self.device = measured, measured["device"]
        per_unit = [each / measured["work"] for each in measured["seconds"]]
        if self.section == "train":
            self.values = [1000 * each for each in per_unit]
            self.crops_per_second = self.batch_size / statistics.median(per_unit)
            self._flops = training_flops(model) * self.batch_size / statistics.median(per_unit)
        elif self.section == "separate":
            self.values = measured["seconds"]
            samples = round(measured["work"] * model.sample_rate)
            patches = 2 // model.channels * Patching.of(model).count(samples)
            self._flops = patches * forward_flops(model) / self.median
        else:  # the work is in seconds of stems' files
            files = sum(len(config.files_of(stem)) for stem in model.stems)
            crop = files * one["case"]["crop_seconds"]
            self.values = [1 / each / crop for each in per_unit]
            self.crops_per_second = self.median

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def is_twin(self) -> bool:
        return self.name.startswith("twin")

    @property
    def precision(self) -> str:
        return "bfloat16" if "bfloat16" in self.name else "float32"

    @property
    def teraflops(self) -> float:
        return self._flops / 1e12

    def is_compared_with(self, other: "_Row") -> bool:
        """Whether both do the same work in the same precision on the same device."""
        return self.work == other.work and self.device == other.device

    @property
    def work(self) -> tuple[str, int, str]:
        return self.section, self.batch_size or 0, self.precision


def render(result: Mapping[str, Any]) -> list[str]:
    """Returns the lines of the section, as Markdown."""
    measurements, on = result["measurements"], result["machine"]
    ran = [one for one in measurements if one["rounds"]]
    rows = [_Row(one, result) for one in ran]
    versions = sorted({pair for row in rows for pair in row.measured["versions"].items()})
    device = next((row.device for row in rows if row.device != "cpu"), "cpu")
    lines = [
        f"Device: {device}. {on['cpu']}, {counted(on['cores'], 'core')}, {on['memory_gb']} GB,"
        f" {on['os']}.",
        "",
        f"Versions: {', '.join(' '.join(pair) for pair in versions) or 'not run'}.",
        "",
        *("```", result["command"], "```", ""),
    ]
    rate = result["peak_tflops"], "given by --peak_tflops"
    rate = rate if rate[0] else bfloat16_rate(device)
    if rate:
        lines += [f"The device's highest rate in bfloat16: {rate[0]:g} TFLOP/s ({rate[1]}).", ""]
    on_device = [row for row in rows if row.section == "input" or row.device == device]
    lines += [*_summary(on_device, result), ""]
    for section, title in _TITLES.items():
        of_section = [one for one in measurements if one["section"] == section]
        lines += [f"### {title}", "", _NOTES[section], ""] if of_section else []
        for size in sorted({one["case"].get("batch_size", 0) for one in of_section}):
            chosen = [one for one in of_section if one["case"].get("batch_size", 0) == size]
            lines += [f"**batch {size}**", ""] if size else []
            lines += [*_table(section, chosen, rows, device, rate and rate[0]), ""]
    return lines


def _label(one: Mapping[str, Any]) -> str:
    patches = one["case"].get("patches")
    return f"{one['label']}, patches in a call: {patches}" if patches else one["label"]


def _best(rows: Sequence[_Row], twin: bool) -> _Row | None:
    found = [row for row in rows if row.is_twin == twin and "pipeline" not in row.name]
    return min(found, key=lambda row: row.median, default=None)


def _summary(rows: Sequence[_Row], result: Mapping[str, Any]) -> list[str]:
    """Returns the best of ours beside the best of the twin's, and the input beside the step."""
    lines = []
    works = {row.work: row for row in rows}
    for section, size, precision in sorted(works, key=lambda work: (work[0] != "train", *work)):
        same = [row for row in rows if row.is_compared_with(works[section, size, precision])]
        ours, twin = _best(same, twin=False), _best(same, twin=True)
        if ours and twin:
            work = f"training step, batch {size}, {precision}, ms"
            if section == "separate":
                work = f"{result['seconds']:g} s of stereo, {precision}, s"
            cells = [f"{tables.number(row.median)} ({row.label})" for row in (ours, twin)]
            lines.append([work, *cells, f"{ours.median / twin.median:.2f}"])
    header = ["work", "best of ours", "best of the twin", "ratio"]
    text = tables.markdown(header, lines) if lines else []
    inputs, steps = ([row for row in rows if row.section == name] for name in ("input", "train"))
    if inputs and steps:
        loader, step = (max(each, key=lambda row: row.crops_per_second) for each in (inputs, steps))
        delivered, taken = loader.crops_per_second, step.crops_per_second
        text += [
            "",
            f"The fastest step ({step.label}, batch {step.batch_size}) takes"
            f" {tables.number(taken)} crops per second. The input delivers"
            f" {tables.number(delivered)} ({loader.label}), {delivered / taken:.2f} times as many.",
        ]
    return text


def _table(
    section: str,
    measurements: Sequence[Mapping[str, Any]],
    rows: Sequence[_Row],
    device: str,
    rate: float | None,
) -> list[str]:
    """Returns the table of measurements that do the same work; `rate` of `device` in TFLOP/s."""
    known = {id(row.one): row for row in rows}

    def against_twin(row: _Row) -> str:
        best = _best([other for other in rows if other.is_compared_with(row)], True)
        return f"{row.median / best.median:.2f}" if best else "—"

    def share(row: _Row) -> str:
        known_rate = rate and row.device == device and row.precision == "bfloat16"
        return f"{row.teraflops / rate:.2f}" if known_rate else "—"

    def device_memory(row: _Row) -> str:
        found = row.measured["device_memory_bytes"]
        return "—" if found is None else tables.gigabytes(found)

    columns: dict[str, Callable[[_Row], str]] = {
        "median": lambda row: tables.number(row.median),
        "range": lambda row: (
            f"{tables.number(min(row.values))} to {tables.number(max(row.values))}"
        ),
    }
    if section != "input":
        columns["ratio to the best twin"] = against_twin
    if section == "train":
        columns["crops per second"] = lambda row: tables.number(row.crops_per_second)
    if section != "input":
        columns["TFLOP/s"] = lambda row: tables.number(row.teraflops)
        columns["share of the device's"] = share
        columns["device memory"] = device_memory
        columns["first call"] = lambda row: tables.seconds(row.measured["first_call_seconds"])
    lines = []
    for one in sorted(measurements, key=lambda one: (one["name"], one["case"].get("patches", 0))):
        row = known.get(id(one))
        if row:
            cells = [show(row) for show in columns.values()]
        else:
            reason = one["not_run"].replace("|", "/")
            cells = [f"not run: {reason}", *["—"] * (len(columns) - 1)]
        elsewhere = row and section != "input" and row.device != device
        lines.append([f"{_label(one)}, on {row.device}" if elsewhere else _label(one), *cells])
    return tables.markdown(["contender", *columns], lines)
