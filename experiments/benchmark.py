r"""Measures the speed of this project and of its alternatives, and writes a report.

Examples:
  sccunet benchmark --output_dir=REPORT
  sccunet benchmark input separate --data_dir=DATA --rounds=3
  sccunet benchmark --report_only --output_dir=REPORT
  sccunet benchmark gpu --output_dir=REPORT

Sections (default: all):
  input     stem-seconds per second of training data, read from the page cache
  train     seconds per training step
  separate  seconds for a stereo file; whole programs in new processes
  gpu       only alone: training steps, their input and separation on one GPU, with Keras on JAX
            and PyTorch beside PyTorch alone, within --minutes; docs/performance.md has more

Contenders take turns (A B C A B C ...), each time in a new process, so that only its own work and
memory are measured. Run nothing else at the same time. A contender that is not installed or fails
gets a row "not run"; `make comparison` installs the other systems. On a machine with a GPU, train
and separate run on the GPU, too. KERAS_BACKEND selects the Keras backend of contenders that do not
name theirs.

The program writes into --output_dir: benchmark.json with every repetition, and from it README.md
and a picture of each section. New results of a section replace its earlier ones; results of other
sections are kept. The section gpu begins with what matters most, and measures only what
--output_dir does not have from the same machine: started again, it goes on.

Portable models run in the Python of --light_python, for which an environment with only
`pip install sccunet` shows what TensorFlow, if it were installed, might hide.
"""

import hashlib
import importlib
import json
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from experiments import cli, configs
from experiments.benchmarks import gpu
from experiments.benchmarks.contender import (
    CONTENDERS,
    CROP_SECONDS,
    Contender,
    find,
)
from experiments.benchmarks.processes import WORKER, run_worker
from experiments.benchmarks.programs import show_help
from experiments.benchmarks.report import (
    GPU,
    NOT_RUN,
    README,
    RESULTS,
    Measurement,
    read_results,
    write_report,
)
from experiments.command import COMMANDS
from experiments.machine import machine
from sccunet.config import Config, ConfigError
from sccunet.files import write_whole

_DEFAULT_CONFIG = configs.path_of("paper_4stems")
_PROGRAMS = [name for commands in COMMANDS.values() for name in commands]
_SYNTHETIC = {"train": 8, "valid": 1, "test": 1}
_SYNTHETIC_SECONDS = 60.0
_BATCHES = (2, 8)
_ONLY_FOR_GPU = ("minutes", "on_cpu", "peak_tflops")


def plan(
    section: str, names: Sequence[str], batch_sizes: Sequence[int], rounds: int
) -> list[tuple[Contender, dict[str, Any]]]:
    """Returns contenders and cases in the order of measuring, each once per round."""
    chosen = [one for one in CONTENDERS[section] if one.name in names]
    turn: list[tuple[Contender, dict[str, Any]]] = []
    if section == "input":
        for crop in CROP_SECONDS:
            turn += [(one, {"crop_seconds": crop}) for one in chosen if crop in one.crops]
    elif section == "train":
        turn = [(one, {"batch_size": size}) for size in batch_sizes for one in chosen]
    else:
        for one in chosen:
            cases = [{"program": name} for name in _PROGRAMS] if one.name == "help" else [{}]
            turn += [(one, case) for case in cases]
    return turn * rounds


def measure(
    section: str,
    turns: Sequence[tuple[Contender, Mapping[str, Any]]],
    settings: Mapping[str, Any],
) -> list[Measurement]:
    """Measures in the order of a plan."""
    from tqdm import tqdm

    found: dict[tuple, Measurement] = {}
    bar = tqdm(turns, section, disable=None)
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
                tqdm.write(f"{section} {contender.name}: {NOT_RUN}: {one['not_run']}", sys.stderr)
            else:
                one["rounds"].append(result)
    return list(found.values())


# The program.


def _command(sections: Sequence[str]) -> str:
    """Returns the command line, without the folders of this machine."""
    config = flags.FLAGS["config"].config_filename
    parts = ["sccunet", "benchmark", *sections]
    if config != _DEFAULT_CONFIG:
        name = configs.name_of(config)
        parts.append(f"--config={Path(name).name if Path(name).is_absolute() else name}")
    parts += cli.config_overrides()
    if _DATA_DIR.value:
        parts.append("--data_dir=DATA")
    if _LIGHT_PYTHON.value:
        parts.append("--light_python=PYTHON")
    for holder in (_ROUNDS, _SECONDS, _MINUTES, _PEAK_TFLOPS):
        if holder.value != holder.default:
            parts.append(f"--{holder.name}={holder.value:g}")
    for holder in (_BATCH_SIZES, _ONLY):
        if holder.value != holder.default:
            parts.append(f"--{holder.name}={','.join(holder.value)}")
    if _ON_CPU.value:
        parts.append("--on_cpu")
    return shlex.join(parts)


def _models(work_dir: Path, config: Config) -> Path:
    """Returns the folder of a config's models; a change of config or code gives another folder."""
    import sccunet

    digest = hashlib.sha256(config.to_json().encode())
    for path in sorted(Path(sccunet.__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return work_dir / f"models_{digest.hexdigest()[:12]}"


def _prepared(config: Config, work_dir: Path, sections: Mapping[str, Sequence[str]]) -> dict:
    """Makes missing data and models; returns the settings for all contenders."""
    data_dir = _DATA_DIR.value
    if not data_dir:
        from data_pipeline.synthetic import make_set

        data_dir = work_dir / "synthetic"
        make_set(data_dir, _SYNTHETIC, _SYNTHETIC_SECONDS)
    small = importlib.import_module("experiments.configs.small_4stems").get_config()
    networks = {"models": config, "small_models": Config.from_dict(small)}
    settings = {
        "config": config.to_dict(),
        "data_dir": str(data_dir),
        "seconds": _SECONDS.value,
        "light_python": _LIGHT_PYTHON.value or sys.executable,
        **{field: str(_models(work_dir, each)) for field, each in networks.items()},
    }
    needs: dict[str, list[str]] = {}  # folder of models -> contenders
    for name in sections.get("separate", ()):
        contender = find("separate", name)
        if contender.run != show_help:
            needs.setdefault(contender.options.get("network", "models"), []).append(name)
    for field, names in needs.items():
        _prepare(networks[field], settings[field], names)
    return settings


def _prepare(config: Config, models: str, names: Sequence[str]) -> None:
    print("making a network with random weights", file=sys.stderr, flush=True)
    text = json.dumps({"config": config.to_dict(), "models": models, "names": list(names)})
    command = [sys.executable, *WORKER, "separate", "prepare", text]
    subprocess.run(command, check=False)  # contenders report what is missing


def _chosen(words: Sequence[str]) -> dict[str, list[str]]:
    """Returns the chosen sections and the names of their contenders.

    Raises:
      ConfigError: for an unknown section or contender.
    """
    for word in words:
        if word not in (*CONTENDERS, "all"):
            raise ConfigError(
                f"found {word!r}, expected {', '.join(CONTENDERS)} or all, or {GPU} alone"
            )
    sections = [s for s in CONTENDERS if not words or s in words or "all" in words]
    only = _ONLY.value
    _check_only(one.name for s in sections for one in CONTENDERS[s])
    chosen = {
        s: [one.name for one in CONTENDERS[s] if (one.name in only if only else one.by_default)]
        for s in sections
    }
    return {section: names for section, names in chosen.items() if names}


def _check_only(names: Iterable[str]) -> None:
    every = sorted(set(names))
    for name in _ONLY.value:
        if name not in every:
            raise ConfigError(f"--only: found {name!r}, expected some of {', '.join(every)}")


def _refuse_idle(words: Sequence[str], sections: Collection[str]) -> None:
    """Raises ConfigError for flags and words that have no effect beside the others."""
    if _REPORT_ONLY.value:
        if words:
            raise ConfigError(f"found {words[0]!r}, expected no section with --report_only")
        others = ("data_dir", "work_dir", "config", "rounds", "batch_sizes", "seconds", "only")
        others += ("light_python", *_ONLY_FOR_GPU)
        cli.refuse_idle(others, True, "with --report_only")
    on_gpu = words == [GPU]
    cli.refuse_idle(_ONLY_FOR_GPU, not on_gpu, f"without the section {GPU}")
    cli.refuse_idle(["rounds", "light_python"], on_gpu, f"with the section {GPU}")
    if not on_gpu:
        cli.refuse_idle(["batch_sizes"], "train" not in sections, "without the section train")
        cli.refuse_idle(["seconds"], "separate" not in sections, "without the section separate")


def _about(words: Sequence[str]) -> dict[str, Any]:
    """Returns what a section's results say of how they were measured."""
    return {"command": _command(words), "machine": machine(), "seconds": _SECONDS.value}


def _measure_gpu(folder: Path) -> None:
    """Measures the section gpu within --minutes; each result is saved at once."""
    config = Config.from_dict(_CONFIG.value)
    ends = time.monotonic() + 60 * _MINUTES.value
    cells = gpu.plan(_batch_sizes() or gpu.BATCH_SIZES, config.model)
    _check_only(contender.name for _, contender, _ in cells)
    cells = [cell for cell in cells if not _ONLY.value or cell[1].name in _ONLY.value]
    data_dir = _DATA_DIR.value or str(gpu.noise_set(_WORK_DIR.value, config))
    settings = {"config": config.to_dict(), "data_dir": data_dir, "seconds": _SECONDS.value}
    settings["gpu"] = not _ON_CPU.value
    about = {**_about([GPU]), "peak_tflops": _PEAK_TFLOPS.value}
    about["config"] = json.loads(config.to_json())
    earlier = read_results(folder)
    known, same = earlier.get(GPU, {}), ("machine", "seconds", "config")
    repeated = known and all(known[field] == about[field] for field in same)

    def save(measurements: list[Measurement]) -> None:
        result = {**about, "measurements": measurements}
        write_whole(folder / RESULTS, json.dumps(earlier | {GPU: result}, indent=1) + "\n")

    gpu.measure(cells, settings, ends, known["measurements"] if repeated else [], save)


def _measure(words: Sequence[str], sections: Mapping[str, Sequence[str]], folder: Path) -> None:
    """Measures sections of contenders that take turns."""
    sizes = _batch_sizes() or _BATCHES
    settings = _prepared(Config.from_dict(_CONFIG.value), Path(_WORK_DIR.value), sections)
    about = {
        **_about(words),
        "rounds": _ROUNDS.value,
        "audio": "of --data_dir" if _DATA_DIR.value else "synthetic",
    }
    for section, names in sections.items():
        turns = plan(section, names, sizes, _ROUNDS.value)
        result = {**about, "measurements": measure(section, turns, settings)}
        before = read_results(folder)
        # If nothing could be measured, earlier results are worth more.
        if section not in before or any(one["rounds"] for one in result["measurements"]):
            write_whole(folder / RESULTS, json.dumps(before | {section: result}, indent=1) + "\n")


def _batch_sizes() -> list[int]:
    sizes = _BATCH_SIZES.value
    if not all(size.isdecimal() and int(size) for size in sizes):
        raise ConfigError(
            f"--batch_sizes: found {','.join(sizes)!r}, expected positive whole numbers"
        )
    return list(map(int, sizes))


def main(words: Sequence[str]) -> None:
    """Measures as the flags say, and writes the report."""
    on_gpu = words == [GPU]
    sections = {} if on_gpu else _chosen(words)
    _refuse_idle(words, sections)
    _batch_sizes()  # refuses wrong ones at once
    if (light := _LIGHT_PYTHON.value) and not shutil.which(light):
        raise ConfigError(f"--light_python: found {light!r}, expected the path of a Python")
    folder = Path(_OUTPUT_DIR.value)
    if on_gpu:
        _measure_gpu(folder)
    elif not _REPORT_ONLY.value:
        _measure(words, sections, folder)
    write_report(folder)
    print((folder / README).read_text())


if __name__ == "__main__":
    _DATA_DIR = flags.DEFINE_string(
        "data_dir",
        None,
        "Tracks in the MUSDB18-HQ layout. Default: a synthetic set in --work_dir; with the section"
        " gpu, tracks of noise.",
    )
    _WORK_DIR = flags.DEFINE_string(
        "work_dir",
        "benchmark_work",
        "Folder for the synthetic set and the models; do not commit it.",
    )
    _OUTPUT_DIR = flags.DEFINE_string("output_dir", "benchmark_report", "Folder for the report.")
    _CONFIG = cli.define_config("The network.", _DEFAULT_CONFIG)
    _ROUNDS = flags.DEFINE_integer("rounds", 5, "Number of turns of each contender.", lower_bound=1)
    _BATCH_SIZES = cli.define_list(
        "batch_sizes",
        [],
        f"Batch sizes to train with. Default: {','.join(map(str, _BATCHES))}, and on a GPU"
        f" {','.join(map(str, gpu.BATCH_SIZES))}, the most important first.",
    )
    _SECONDS = flags.DEFINE_float(
        "seconds", 180.0, "Length of the stereo file to separate, in seconds.", lower_bound=1
    )
    _ONLY = cli.define_list(
        "only",
        [],
        "Measure only these contenders, named as in experiments/benchmarks/contender.py. Earlier"
        " results of the others in the same section are dropped.",
    )
    _LIGHT_PYTHON = flags.DEFINE_string(
        "light_python",
        None,
        "Python that runs portable models, such as VENV/bin/python. Default: the current one.",
    )
    _MINUTES = flags.DEFINE_float(
        "minutes", 6.0, "With the section gpu: the most time for all of it.", lower_bound=0.1
    )
    _PEAK_TFLOPS = flags.DEFINE_float(
        "peak_tflops",
        None,
        "With the section gpu: the device's highest rate in bfloat16. Default: that of"
        " experiments/benchmarks/arithmetic.py, where its name is known.",
        lower_bound=0,
    )
    _ON_CPU = flags.DEFINE_boolean(
        "on_cpu", False, "With the section gpu: try it without a GPU, which is refused otherwise."
    )
    _REPORT_ONLY = flags.DEFINE_boolean(
        "report_only", False, "Only render the report, from the JSON in --output_dir."
    )
    cli.run(main, takes_files=True, any_backend=True, needs=["matplotlib"])
