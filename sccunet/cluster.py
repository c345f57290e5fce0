"""The workers of a run on several machines, which the environment's TF_CONFIG names.

This module does not import TensorFlow.
"""

import json
import os

from sccunet.config import ConfigError


def workers() -> int:
    """Number of workers in TF_CONFIG; 0 without TF_CONFIG.

    Raises:
      ConfigError: if TF_CONFIG is invalid.
    """
    return _read()[0]


def spans(strategy: str) -> bool:
    """Whether `strategy`, one of `config.STRATEGIES`, uses the workers of TF_CONFIG."""
    return bool(workers()) and (strategy == "multiworker" or (strategy == "auto" and workers() > 1))


def later_worker() -> str:
    """This process's name among the workers, such as "worker1"; "" for the first, the chief."""
    _, first, mine = _read()
    return "" if mine == first else mine


def _read() -> tuple[int, str, str]:
    """Returns the number of workers, the name of the first one, and that of this process."""
    text = os.environ.get("TF_CONFIG", "")
    if not text:
        return 0, "", ""
    try:
        found = json.loads(text)
        chiefs = len(found["cluster"].get("chief", ()))
        mine = f"{found['task']['type']}{found['task']['index']}"
        return len(found["cluster"]["worker"]) + chiefs, "chief0" if chiefs else "worker0", mine
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"TF_CONFIG: found {text[:200]!r}, expected JSON with cluster.worker and task"
        ) from error
