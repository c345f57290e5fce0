"""Seconds per training step of several configs, measured on this machine in turns."""

import contextlib
import json
import statistics
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from experiments.benchmarks.processes import run_worker
from experiments.reports.results import slug
from sccunet.config import Config, ConfigError
from sccunet.files import lock_folder, read_json, write_whole

_TURNS = 3
_STEPS = 5  # of a repetition; a turn has three of them after its warm-up
# Fields of a config that do not change a step, but may change from one call to the next.
_WITHOUT_EFFECT = ("seed", "epochs", "steps_per_epoch")


def step_seconds(configs: Mapping[str, Config], data_dir: str, folder: Path) -> dict[str, float]:
    """Times real training steps of each config, in turns and in new processes.

    Reading and augmentation count, validation does not. What the folder has is not measured again.
    A second program that does the same waits for the first.

    Args:
      configs: name -> config.
      data_dir: tracks to train on.
      folder: where the times are kept.

    Returns:
      Name -> seconds per step, the median over the repetitions of all turns.

    Raises:
      ConfigError: if a config cannot be trained on this data.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[float]] = {name: [] for name in configs}
    with _alone(folder):
        for turn in range(_TURNS):
            for name, config in configs.items():
                path = folder / f"{slug(name)}_{turn}.json"
                result = _measured(name, config, data_dir, path)
                found[name] += [seconds / result["work"] for seconds in result["seconds"]]
    return {name: statistics.median(seconds) for name, seconds in found.items()}


def _measured(name: str, config: Config, data_dir: str, path: Path) -> dict[str, Any]:
    """Returns the result of `worker.measure`: from a file of the same config, or written there."""
    values = json.loads(config.to_json())
    timed = {field: value for field, value in values.items() if field not in _WITHOUT_EFFECT}
    if path.exists():
        result = read_json(path, "config", "seconds", "work")
        if result["config"] == timed:
            return result
    print(f"\ntiming the training step of {name}", flush=True)
    settings = {
        "config": values,
        "data_dir": data_dir,
        "batch_size": config.batch_size,
        "precision": config.precision,
        "steps": _STEPS,
    }
    result = run_worker("train", "ours_pipeline", settings)
    if "not_run" in result:
        raise ConfigError(f"{name}: its step cannot be timed: {result['not_run']}")
    write_whole(path, json.dumps({**result, "config": timed}, indent=2) + "\n")
    return result


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Context manager that waits for the folder's lock, if there can be one."""
    while True:
        with lock_folder(folder) as ours:
            if ours is not False:
                yield
                return
        time.sleep(1)
