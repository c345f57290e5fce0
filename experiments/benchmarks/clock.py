"""Timing of the contenders, and the device that they compute on."""

import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPEATS = 3  # timed repetitions

_WARM_UP, _LONG_ENOUGH = 1.0, 2.0  # seconds of warm-up and of a repetition
_STEPS_ON_GPU = 10  # per repetition; a single step would be too short to time
_STARTED = time.monotonic()

# The result of a contender, as in JSON; `worker.measure` lists its fields.
Result = dict[str, Any]


def age() -> float:
    """Returns the seconds since this process was started, before any import."""
    try:
        started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError):  # not Linux
        return time.monotonic() - _STARTED


def seconds_of(call: Callable[[], Any]) -> float:
    """Returns the seconds that a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def repeated(call: Callable[[int], Any], work: float, at_a_time: int = 1) -> Result:
    """Times `call(n)`, which does `work` `n` times; chooses `n` for repetitions of good length."""
    first = seconds_of(lambda: call(1))
    done, elapsed = 0, 0.0
    while not done or elapsed < _WARM_UP:
        elapsed += seconds_of(lambda: call(at_a_time))
        done += at_a_time
    n = at_a_time * math.ceil(_LONG_ENOUGH / (elapsed / done * at_a_time))
    seconds = [seconds_of(lambda: call(n)) for _ in range(REPEATS)]
    return {"seconds": seconds, "work": n * work, "first_call_seconds": first}


def device() -> tuple[str, int | None]:
    """Returns the name of the device, and the peak of its own memory in bytes."""
    torch, jax, tf = (sys.modules.get(name) for name in ("torch", "jax", "tensorflow"))
    if torch and torch.cuda.is_available():
        return torch.cuda.get_device_name(), torch.cuda.max_memory_allocated()
    if jax and jax.default_backend() != "cpu":
        first = jax.devices()[0]
        return first.device_kind, (first.memory_stats() or {}).get("peak_bytes_in_use")
    if tf and (found := tf.config.list_physical_devices("GPU")):
        details = tf.config.experimental.get_device_details(found[0])
        used = tf.config.experimental.get_memory_info("GPU:0")["peak"]
        return details.get("device_name", "GPU"), used
    return "cpu", None


def on_gpu() -> bool:
    """Returns whether the loaded framework computes on something else than the CPU."""
    return device()[0] != "cpu"


def torch_device() -> str:
    """Returns PyTorch's name of the device that its contenders compute on."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def steps_at_a_time() -> int:
    """Returns the number of training steps in a repetition."""
    return _STEPS_ON_GPU if on_gpu() else 1
