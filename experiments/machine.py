"""The machine that a measurement was made on, and what this process takes of it."""

import os
import platform
import resource
import sys
from pathlib import Path
from typing import Any

_VECTORS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


def machine() -> dict[str, Any]:
    """What this process runs on: "cpu", "cores" that it may use, "memory_gb" (10^9 bytes), "os"."""
    cpu = _cpuinfo().get("model name", platform.processor() or "unknown")
    # Processors of one name differ by a factor of three in what their vector units can do.
    if units := vector_units():
        cpu += f" ({', '.join(units)})"
    return {
        "cpu": cpu,
        "cores": _cores(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "os": f"{platform.system()} {platform.machine()}",
    }


def vector_units() -> list[str] | None:
    """Those of `_VECTORS` that this x86 processor has; None where that cannot be known."""
    flags = _cpuinfo().get("flags")
    return None if flags is None else [unit for unit in _VECTORS if unit in flags.split()]


def _cpuinfo() -> dict[str, str]:
    """What Linux says of one core."""
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
    """Threads of the library that this process has loaded; NumPy and SciPy transform in one."""
    if "torch" in sys.modules:
        return sys.modules["torch"].get_num_threads()
    if "tensorflow" in sys.modules:
        chosen = sys.modules["tensorflow"].config.threading.get_intra_op_parallelism_threads()
        return chosen or int(os.environ.get("TF_NUM_INTRAOP_THREADS", _cores()))
    return 1


def peak_memory() -> int:
    """The most bytes that this process has had in main memory."""
    status = Path("/proc/self/status")
    if status.exists():
        # Linux counts into ru_maxrss what the program that started this one had in memory then.
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
