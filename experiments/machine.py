"""The machine of a measurement, and this process's threads and memory."""

import os
import platform
import sys
from pathlib import Path
from typing import Any

from sccunet.runtime import threads_of_environment

_VECTORS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


def machine() -> dict[str, Any]:
    """Returns "cpu", "cores" that this process may use, "memory_gb" (10^9 bytes) and "os"."""
    cpu = _cpuinfo().get("model name", platform.processor() or "unknown")
    # Processors with the same name differ in their vector units, up to threefold in speed.
    if units := vector_units():
        cpu += f" ({', '.join(units)})"
    return {
        "cpu": cpu,
        "cores": _cores(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "os": f"{platform.system()} {platform.machine()}",
    }


def vector_units() -> list[str] | None:
    """Returns those of `_VECTORS` that this x86 processor has; None if that is unknown."""
    flags = _cpuinfo().get("flags")
    return None if flags is None else [unit for unit in _VECTORS if unit in flags.split()]


def _cpuinfo() -> dict[str, str]:
    """Returns what Linux reports about one core."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    lines = [line.partition(":") for line in path.read_text().splitlines()]
    return {name.strip(): value.strip() for name, _, value in reversed(lines)}


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def library_threads() -> int:
    """Returns the threads of the loaded library; NumPy and SciPy use one for transforms."""
    if "torch" in sys.modules:
        return sys.modules["torch"].get_num_threads()
    if "openvino" in sys.modules:
        return threads_of_environment() or _cores()
    if "tensorflow" in sys.modules:
        chosen = sys.modules["tensorflow"].config.threading.get_intra_op_parallelism_threads()
        return chosen or int(os.environ.get("TF_NUM_INTRAOP_THREADS", _cores()))
    return 1


def peak_memory() -> int:
    """Returns the peak main memory of this process, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        # On Linux, ru_maxrss includes the memory of the program that started this one.
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
