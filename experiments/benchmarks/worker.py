r"""Measures one contender in a new process.

Internal: `sccunet benchmark` starts it. By hand, with settings as JSON, where an empty "config" is
the paper's:
  python -m experiments.benchmarks.worker input ours \
      '{"config": {}, "data_dir": "DATA", "crop_seconds": 2}'
  python -m experiments.benchmarks.worker train twin \
      '{"config": {}, "data_dir": "DATA", "batch_size": 2}'
  python -m experiments.benchmarks.worker separate ours \
      '{"config": {}, "data_dir": "DATA", "models": "MODELS", "seconds": 10}'
This makes the folder MODELS:
  python -m experiments.benchmarks.worker separate prepare \
      '{"config": {}, "models": "MODELS", "names": ["ours", "saved_model", "twin"]}'
The last line of standard output is JSON: the result of `measure`, or {"not_run": reason}.
"""

import contextlib
import importlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from experiments.benchmarks.clock import Result, age, device, on_gpu
from experiments.benchmarks.contender import OPENVINO, TORCH, Contender, find
from experiments.benchmarks.models import prepare
from experiments.machine import machine, peak_memory, vector_units
from sccunet.config import ConfigError

_PACKAGES = (
    "numpy",
    "tensorflow",
    "tensorflow_io",
    "keras",
    "jax",
    "soundfile",
    "openvino",
    "torch",
    "torchaudio",
    "musdb",
    "demucs",
    "openunmix",
)


def measure(contender: Contender, settings: Mapping[str, Any]) -> Result:
    """Measures one contender in this process, which must be new.

    Returns:
      "seconds" of each repetition, and the "work" in each: stem-seconds, steps or seconds of audio;
      "start_up_seconds" from the start of the process until everything is imported and built;
      "first_call_seconds" of the warm-up; "import_memory_bytes", the memory of the process after
      importing its framework; "peak_memory_bytes"; "threads", "versions", "device";
      "device_memory_bytes" if the device has its own memory.
    """
    framework = _import(contender.framework)
    import_memory = _resident_memory()
    if contender.framework == TORCH:  # its default leaves out cores of hyper-threading
        framework.set_num_threads(machine()["cores"])
    if contender.backend == TORCH:
        # All shapes stay the same: on a GPU, the fastest algorithm for each is worth the search.
        importlib.import_module(TORCH).backends.cudnn.benchmark = True
    if settings.get("gpu") and not on_gpu():
        raise ConfigError("found only the CPU, expected a GPU that the framework can use")
    if contender.is_bfloat16 and not on_gpu() and _lacks_bfloat16():
        # Emulated bfloat16 is several times slower than float32: hours for nothing.
        raise ConfigError("this CPU has no units for bfloat16")
    start_up: list[float] = []
    result = contender.run({**settings, **contender.options}, lambda: start_up.append(age()))
    if contender.framework in (TORCH, OPENVINO) and "tensorflow" in sys.modules:
        raise ConfigError("found TensorFlow imported, expected none: its memory would count")
    device_name, device_memory = device()
    return {
        "start_up_seconds": start_up[0] if start_up else None,
        "first_call_seconds": None,
        "import_memory_bytes": import_memory,
        "peak_memory_bytes": peak_memory(),
        "device_memory_bytes": device_memory,
        "threads": _threads(),
        "device": device_name,
        **result,
        "versions": _imported_versions() | result.get("versions", {}),
    }


def _import(framework: str) -> ModuleType:
    """Imports a framework, OpenVINO as separation does: without its converter of models."""
    if framework == OPENVINO:
        from sccunet.runtime import import_openvino

        return import_openvino()
    return importlib.import_module(framework)


def _imported_versions() -> dict[str, str]:
    found = {"python": sys.version.split()[0]}
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            if package in sys.modules:
                found[package] = metadata.version(package)
    return found


def _resident_memory() -> int:
    """Returns the current main memory of this process, in bytes."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return peak_memory()
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _threads() -> int:
    if "torch" in sys.modules:
        return sys.modules["torch"].get_num_threads()
    return int(os.environ.get("TF_NUM_INTRAOP_THREADS") or machine()["cores"])


def _lacks_bfloat16() -> bool:
    """Whether this CPU is known to lack bfloat16 units; False if that is unknown."""
    units = vector_units()
    return units is not None and not any(unit.endswith("bf16") for unit in units)


def main(arguments: Sequence[str]) -> None:
    """Measures a contender and prints the result, or why there is none, as JSON."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    section, name, text = arguments
    settings = json.loads(text)
    if name == "prepare":
        prepare(settings)
        return
    contender = find(section, name)
    if contender.backend:
        os.environ["KERAS_BACKEND"] = contender.backend
    try:
        result = measure(contender, settings)
    except Exception as error:  # other people's code may fail with anything
        reason = (str(error).splitlines() or [""])[0][:300]
        kind = "" if isinstance(error, (ValueError, ImportError)) else f"{type(error).__name__}: "
        result = {"not_run": f"{kind}{reason}" or type(error).__name__}
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1:])
