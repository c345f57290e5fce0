r"""Measures time and memory of one system for separating an excerpt, and prints JSON.

Examples:
  sccunet measure --model=RUN --data_dir=DATA
  sccunet measure --system=openunmix --weights=umxhq --data_dir=DATA \
      --config=paper_4stems --output=UMX.json --estimates_dir=STEMS

The excerpt is the middle of the first track of the split, or of --tracks. Run nothing else at the
same time. Each run measures one system, because memory used by another one would count.
"""

import dataclasses
import functools
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from absl import flags

from experiments import cli, model_flag
from experiments.baselines import folders
from experiments.baselines.system import versions
from experiments.baselines.systems import SYSTEMS, load_system
from experiments.evaluating import scored_config
from experiments.machine import library_threads, machine, peak_memory
from sccunet.config import Config, ConfigError
from sccunet.files import write_whole

EXCERPT = 30.0  # seconds
MEASURED = [name for name, kind in SYSTEMS.items() if kind.computes]


@dataclasses.dataclass(frozen=True)
class Options:
    """What is measured.

    Attributes:
      data_dir: tracks in the MUSDB18-HQ layout.
      system: one of `MEASURED`.
      model: folder of a model, as for `Separator.load`; only "model" needs one.
      config: defines the stems if there is no model.
      weights: as in `load_system`.
      split: its first track is separated, if none is named.
      names: the first of these tracks, by split and name, is separated instead, from any split.
      excerpt: length of the excerpt, in seconds.
      start: start of the excerpt, in seconds; None: the middle of the track.
      repeats: number of timed separations.
      estimates_dir: folder for the estimates of the excerpt, <stem>.wav.
    """

    data_dir: str | os.PathLike
    system: str = "model"
    model: str | os.PathLike | None = None
    config: Config | None = None
    weights: str | os.PathLike | None = None
    split: str = "test"
    names: Sequence[str] = ()
    excerpt: float = EXCERPT
    start: float | None = None
    repeats: int = 3
    estimates_dir: str | os.PathLike | None = None


def measure(options: Options) -> dict[str, Any]:
    """Loads a system, separates once as a warm-up and then `repeats` times with a clock.

    Returns:
      JSON values:
        "system", "track": "<split>/<track>", "start_seconds": start of the excerpt,
          "seconds_audio": its length, "sample_rate", "channels".
        "start_up_seconds": time for loading the system, imports included.
        "separation_seconds": wall-clock time of each separation.
        "peak_memory_bytes": peak main memory of this process.
        "parameters": number of trained parameters, or None.
        "versions": versions of Python, NumPy and the packages that the system needs.
        "threads": number of threads of the system's library.
        "machine": from `machine.machine`.

    Raises:
      ConfigError: if the system cannot be loaded or cannot be measured.
      AudioError: for tracks that cannot be found or read.
    """
    began = time.perf_counter()
    if options.system not in MEASURED:
        raise ConfigError(
            f"system: found {options.system!r}, expected one of {', '.join(MEASURED)}"
        )
    config = scored_config(options.system, options.model, options.config)
    rate = config.model.sample_rate
    system = load_system(options.system, config, options.model, options.weights)
    start_up = time.perf_counter() - began

    key, first, mixture, references = _read(options, config)
    separate = functools.partial(system.separate, mixture, references, key)
    seconds, estimates = _time(separate, options.repeats)
    memory = peak_memory()
    if options.estimates_dir:
        folders.write_estimates(options.estimates_dir, estimates, config)
    return {
        "system": options.system,
        "track": key,
        "start_seconds": first / rate,
        "seconds_audio": len(mixture) / rate,
        "sample_rate": rate,
        "channels": mixture.shape[1],
        "start_up_seconds": start_up,
        "separation_seconds": seconds,
        "peak_memory_bytes": memory,
        "parameters": system.count_parameters and system.count_parameters(),
        "versions": {"python": platform.python_version(), **versions("numpy"), **system.versions},
        "threads": library_threads(),
        "machine": machine(),
    }


def _read(options: Options, config: Config) -> tuple[str, int, np.ndarray, np.ndarray]:
    """ "<split>/<track>", first sample of the excerpt, mixture, references."""
    from data_pipeline.tracks import find_tracks, middle, read_mixture, read_stems

    track = find_tracks(options.data_dir, config, split=options.split, names=options.names)[0]
    first, frames = middle(track, options.excerpt, config)
    if options.start is not None:
        first = min(round(options.start * config.model.sample_rate), track.frames - frames)
    mixture = read_mixture(track, config, first, frames)
    if SYSTEMS[options.system].given_truth:
        references = read_stems(track, config, first, frames)
    else:  # zeros that are never read use no memory
        references = np.zeros((len(config.model.stems), *mixture.shape), np.float32)
    return f"{track.split}/{track.name}", first, mixture, references


def _time(separate: Callable[[], np.ndarray], repeats: int) -> tuple[list[float], np.ndarray]:
    """Returns the seconds of each repetition after a warm-up, and the last result."""
    seconds = []
    for _ in range(1 + repeats):
        began = time.perf_counter()
        estimates = separate()
        seconds.append(time.perf_counter() - began)
    return seconds[1:], estimates


def main(_: Sequence[str]) -> None:
    """Measures as the flags say; prints or writes the result."""
    cli.refuse_idle_overrides(cli.FIELDS_OF_STEMS)
    cli.refuse_idle(["split"], _TRACKS.value, "beside --tracks, which are from any split")
    options = Options(
        _DATA_DIR.value,
        system=_SYSTEM.value,
        model=model_flag.value_without_config(),
        config=Config.from_dict(_CONFIG.value) if _CONFIG.value else None,
        weights=_WEIGHTS.value,
        split=_SPLIT.value,
        names=_TRACKS.value,
        excerpt=_EXCERPT.value,
        start=_START.value,
        repeats=_REPEATS.value,
        estimates_dir=_ESTIMATES_DIR.value,
    )
    result = measure(options)
    text = json.dumps(result, indent=2) + "\n"
    if _OUTPUT.value:
        write_whole(_OUTPUT.value, text)
    else:
        print(text, end="")


if __name__ == "__main__":
    _SYSTEM = flags.DEFINE_enum(
        "system",
        "model",
        MEASURED,
        "System to measure; sccunet evaluate --help describes each.",
    )
    model_flag.define("; its config defines the stems")
    _CONFIG = cli.define_config("Defines the stems in place of a model.")
    _WEIGHTS = flags.DEFINE_string("weights", None, "Weights of the system, as in evaluate.")
    _DATA_DIR = flags.DEFINE_string(
        "data_dir", None, "Tracks in the MUSDB18-HQ layout.", required=True
    )
    _SPLIT = flags.DEFINE_string("split", "test", "Split whose first track is separated.")
    _TRACKS = cli.define_tracks("Separate the first of these tracks instead, from any split.")
    _EXCERPT = flags.DEFINE_float(
        "excerpt", EXCERPT, "Length of the excerpt, in seconds.", lower_bound=1
    )
    _START = flags.DEFINE_float(
        "start",
        None,
        "Start of the excerpt, in seconds. Default: the excerpt is the middle of the track.",
        lower_bound=0,
    )
    _REPEATS = flags.DEFINE_integer("repeats", 3, "Number of timed separations.", lower_bound=1)
    _OUTPUT = flags.DEFINE_string("output", None, "JSON file to write. Default: standard output.")
    _ESTIMATES_DIR = flags.DEFINE_string(
        "estimates_dir", None, "Folder for the estimates of the excerpt, as <stem>.wav."
    )
    cli.run(main)
