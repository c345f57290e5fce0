"""Section "gpu": training steps, their input and separation on one GPU, within a time limit.

It needs no TensorFlow. A contender that lacks its package, runs out of memory or takes too long
gets a row that says so.
"""

import os
import statistics
import sys
import time
import wave
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.benchmarks.contender import Contender, find
from experiments.benchmarks.processes import run_worker
from experiments.benchmarks.report import Measurement
from sccunet.config import Config, ModelConfig

# Section, contender and case, measured in a process of its own.
Cell = tuple[str, Contender, dict[str, Any]]

BATCH_SIZES = (32, 8, 64)  # the most important first

_PATCHES = (8, 32, 1)  # of ours in a call, in separation; the twin takes one

_LIMIT = 120.0  # seconds of a process, compilation included
_LEAST = 15.0  # seconds that must be left to start one

_TRACKS, _SECONDS = {"train": 4, "valid": 1, "test": 1}, 20  # of noise

_BFLOAT16 = ("ours_jax_bfloat16", "twin_bfloat16_compiled", "twin_bfloat16", "ours_torch_bfloat16")
_FLOAT32 = ("ours_jax", "twin_compiled", "twin", "ours_torch")
_ON_PYTORCH = ("ours_torch_bfloat16", "ours_torch")
_ON_TENSORFLOW = ("ours_tensorflow_bfloat16", "ours_tensorflow")


def plan(batch_sizes: Sequence[int], model: ModelConfig) -> list[Cell]:
    """Returns what is measured, in the order of importance.

    Args:
      batch_sizes: of training, in the order of importance.
      model: gives the length of the crops that are read.
    """
    first, *others = sizes = [{"batch_size": size} for size in batch_sizes]
    patches, *other_patches = [{"patches": count} for count in _PATCHES]
    crops = [{"crop_seconds": model.patch_samples / model.sample_rate}]
    order = (
        ("train", _BFLOAT16, [first]),
        ("separate", ("ours_jax_bfloat16",), [patches]),
        ("separate", ("twin_bfloat16",), [{}]),
        ("separate", ("ours_jax",), [patches]),
        ("separate", ("twin",), [{}]),
        ("input", ("ours_numpy",), crops),
        ("train", _BFLOAT16[:3], others),  # without the last: Keras on PyTorch
        ("train", ("ours_jax_bfloat16_pipeline",), [first]),
        ("train", _FLOAT32, [first]),
        ("train", _FLOAT32[:3], others),
        ("separate", ("ours_jax_bfloat16",), other_patches),
        ("separate", ("twin_bfloat16_compiled", "twin_compiled"), [{}]),
        ("separate", _ON_PYTORCH, [patches]),
        ("train", _ON_PYTORCH, others),
        ("input", ("ours",), crops),
        ("train", _ON_TENSORFLOW, sizes),
        ("separate", _ON_TENSORFLOW, [patches]),
    )
    return [
        (section, find(section, name), case)
        for section, names, cases in order
        for case in cases
        for name in names
    ]


def noise_set(work_dir: str | os.PathLike, config: Config) -> Path:
    """Writes tracks of noise, which take as long to read as music; returns their folder.

    The files are 16-bit stereo WAVs in the layout of MUSDB18-HQ, written without other packages.
    """
    import numpy as np

    model, rng = config.model, np.random.default_rng(0)
    names = ("mixture", *(name for stem in model.stems for name in config.files_of(stem)))
    data_dir = Path(work_dir, f"noise_{model.sample_rate}_{'_'.join(sorted(set(names)))}")
    for split, tracks in _TRACKS.items():
        for track in range(tracks):
            folder = data_dir / split / f"{split} {track}"
            folder.mkdir(parents=True, exist_ok=True)
            for name in names:
                samples = rng.integers(-3000, 3000, (_SECONDS * model.sample_rate, 2), np.int16)
                with wave.open(str(folder / f"{name}.wav"), "wb") as file:
                    file.setparams((2, 2, model.sample_rate, 0, "NONE", "not compressed"))
                    file.writeframes(samples.astype("<i2").tobytes())
    return data_dir


def measure(
    cells: Iterable[Cell],
    settings: Mapping[str, Any],
    ends: float,
    earlier: Sequence[Measurement],
    save: Callable[[list[Measurement]], None],
) -> None:
    """Measures one cell after the other until the time is over; tells of each.

    Args:
      cells: from `plan`.
      settings: for the contenders.
      ends: when the time is over, of `time.monotonic`.
      earlier: measurements of this machine; those that have results are not repeated.
      save: called with all measurements after each.
    """
    known = {_key(one): one for one in earlier if one["rounds"]}
    found = list(known.values())
    for section, contender, case in cells:
        one: Measurement = {
            "section": section,
            "name": contender.name,
            "label": contender.label,
            "case": case,
            "rounds": [],
            "not_run": None,
        }
        if _key(one) in known:
            continue
        left = ends - time.monotonic()
        if left < _LEAST:
            result = {"not_run": "no time was left"}
        else:
            own = {**settings, **case}
            if section == "input":
                own["gpu"] = False  # the processor reads
            result = run_worker(section, contender.name, own, min(left, _LIMIT))
        if "not_run" in result:
            one["not_run"] = result["not_run"]
        else:
            one["rounds"].append(result)
        _tell(one, left)
        found.append(one)
        save(found)


def _key(one: Measurement) -> tuple:
    return one["section"], one["name"], *one["case"].items()


_UNITS = {"train": "step", "separate": "second of audio", "input": "second of a stem"}


def _tell(one: Measurement, left: float) -> None:
    """Prints a measurement as one line; if the program is stopped, that much is known."""
    if one["rounds"]:
        [result] = one["rounds"]
        seconds = statistics.median(result["seconds"]) / result["work"]
        what = f"{seconds:.4g} s per {_UNITS[one['section']]}"
    else:
        what = f"not run: {one['not_run']}"
    words = [one["section"], one["name"], *map("{:g}".format, one["case"].values())]
    print(f"{left:4.0f} s left: {' '.join(words)}: {what}", file=sys.stderr, flush=True)
