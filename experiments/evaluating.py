"""Scores a system on tracks, several at a time, and continues an interrupted run."""

import concurrent.futures
import dataclasses
import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from tqdm import tqdm

from experiments import cli, quiet, scoring
from experiments.baselines.system import System
from experiments.baselines.systems import SYSTEMS, load_system
from experiments.score_files import score_file
from sccunet.config import Config, ConfigError, UserError
from sccunet.files import read_json, sha256_of, write_whole
from sccunet.reconstruction import Reconstruction
from sccunet.runs import MODELS, load_config, weights_of

# Measured peak memory of a scoring process per sample of each channel of each stem. museval's FFT
# pads the samples to a power of two.
_MUSEVAL_BYTES = 45

# BLAS reads these when it is loaded: one thread per process, so that N processes use N cores.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


@dataclasses.dataclass(frozen=True)
class Options:
    """What is scored.

    Attributes:
      data_dir: tracks in the MUSDB18-HQ layout.
      output_dir: folder for the scores of this system on this split only.
      model: folder of a model, as for `Separator.load`; only "model" needs one.
      config: defines the scored stems if there is no model.
      system: one of `SYSTEMS`.
      weights: as in `load_system`.
      reconstruction: how the model's estimates become stems; by default as in the paper.
      running: how the model's network runs: keyword arguments of `Separator.load`.
      split: split of the tracks, if none are named.
      names: score these tracks instead, from any split.
      excerpt: separate and score this many seconds from the middle of each track; None: all.
      jobs: number of scoring processes; None: as many as cores and memory allow.
      quiet_db: as in `scoring.summarise`.
    """

    data_dir: str | os.PathLike
    output_dir: str | os.PathLike
    model: str | os.PathLike | None = None
    config: Config | None = None
    system: str = "model"
    weights: str | os.PathLike | None = None
    reconstruction: Reconstruction = dataclasses.field(default_factory=Reconstruction)
    running: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    split: str = "test"
    names: Sequence[str] = ()
    excerpt: float | None = None
    jobs: int | None = None
    quiet_db: float | None = None


def evaluate(options: Options) -> dict[str, Any]:
    """Scores a system on tracks, several at a time; tracks with scores in `output_dir` are skipped.

    Scoring runs in spawned processes, so a program that calls this needs the usual
    `if __name__ == "__main__"`.

    Returns:
      The summary of the tracks that have scores, from `scoring.summarise`. If there are others, it
      has "failed": "<split>/<track>" -> why this track has none.

    Raises:
      ConfigError: for an unknown system, a model that cannot be read, or an `output_dir` with other
        scores, or with scores without levels for `quiet_db`.
      AudioError: for tracks that cannot be found, or whose headers are bad.
      UserError: if all tracks fail.
    """
    from data_pipeline.tracks import find_tracks, first_few

    config = scored_config(options.system, options.model, options.config)
    output_dir, excerpt = Path(options.output_dir), options.excerpt
    tracks = find_tracks(options.data_dir, config, split=options.split, names=options.names)
    settings = settings_of(options, config)
    check_settings(output_dir, settings)
    keys = {f"{track.split}/{track.name}": track for track in tracks}
    missing = [track for key, track in keys.items() if not score_file(output_dir, key).exists()]
    failed: dict[str, str] = {}
    if options.quiet_db is not None:
        quiet.check_levels(output_dir, [key for key, track in keys.items() if track not in missing])
    if missing:
        system = system_of(options, config)
        write_whole(output_dir / scoring.SETTINGS, scoring.to_json(settings))
        jobs = options.jobs or default_jobs(missing, config, excerpt)
        progress = tqdm(
            total=len(keys),
            initial=len(keys) - len(missing),
            desc="scoring",
            unit="track",
            disable=None,
        )
        with progress:
            failed = _score(
                missing, lambda track: estimate(system, track, config, excerpt), config, output_dir,
                jobs, progress,
            )  # fmt: skip
    if len(failed) == len(keys):
        raise UserError(first_few(list(failed.values())))
    for reason in failed.values():
        cli.report(reason)
    scored = [key for key in keys if key not in failed]
    summary = scoring.summarise(output_dir, scored, options.quiet_db)
    if failed:
        summary["failed"] = failed
    write_whole(output_dir / scoring.SUMMARY, scoring.to_json(summary))
    return summary


def scored_config(system: str, model: str | os.PathLike | None, config: Config | None) -> Config:
    """Returns the config that defines the stems: the model's, or `config` if there is no model.

    Raises:
      ConfigError: for an unknown system, or if both are missing.
    """
    if system not in SYSTEMS:
        raise ConfigError(f"system: found {system!r}, expected one of {', '.join(SYSTEMS)}")
    if model:
        return load_config(model)
    if system == "model" or config is None:
        raise ConfigError(f"model: missing, expected {MODELS}")
    return config


def system_of(options: Options, config: Config) -> System:
    """Loads the system; raises as `load_system`."""
    return load_system(
        options.system,
        config,
        options.model,
        options.weights,
        options.reconstruction,
        options.running,
    )


def settings_of(options: Options, config: Config) -> dict[str, Any]:
    """Returns what determines the scores: runs with equal settings may share an `output_dir`."""
    system, weights = options.system, options.weights
    settings = {
        "system": system,
        "split": options.split,
        "data_dir": str(Path(options.data_dir).resolve()),
        "stems": {stem: list(config.files_of(stem)) for stem in config.model.stems},
        "sample_rate": config.model.sample_rate,
        "frame_length": config.model.frame_length,
        "hop_length": config.model.hop_length,
    }
    if system == "model":
        settings["model_sha256"] = sha256_of(weights_of(options.model))
    if weights:
        found = Path(weights).exists()
        settings["weights"] = str(Path(weights).resolve() if found else weights)
        if found:
            settings["weights_sha256"] = _weights_hash(system, Path(weights))
    if options.excerpt:
        settings["excerpt_seconds"] = options.excerpt
    if system == "model" and options.reconstruction.mask != "none":
        settings["reconstruction"] = dataclasses.asdict(options.reconstruction)
    return settings


def _weights_hash(system: str, weights: Path) -> str:
    """Returns a SHA-256 that changes with another system's weights, or a folder's estimates."""
    if not SYSTEMS[system].computes:  # may be gigabytes: compare sizes and times
        stats = ((path, path.stat()) for path in sorted(weights.glob("**/*")))
        known = [
            (path.relative_to(weights).as_posix(), stat.st_size, stat.st_mtime_ns)
            for path, stat in stats
            if path.is_file()
        ]
        return hashlib.sha256(json.dumps(known).encode()).hexdigest()
    endings = (".json", ".pth", ".yaml", ".safetensors")
    return sha256_of(path for path in sorted(weights.glob("*")) if path.suffix in endings)


def check_settings(output_dir: Path, settings: Mapping[str, Any]) -> None:
    """Raises ConfigError if `output_dir` holds other scores."""
    if output_dir.exists() and not output_dir.is_dir():
        raise ConfigError(f"output_dir {output_dir}: found a file, expected a folder")
    found = next(output_dir.glob("*/*.json"), None)
    if not found:
        return
    path = output_dir / scoring.SETTINGS
    if not path.exists():
        raise ConfigError(
            f"{found}: found scores without {scoring.SETTINGS}, which describes them; choose"
            " another output_dir"
        )
    before = read_json(path, "system")
    for field in {**settings, **before}:
        if before.get(field) != settings.get(field):
            raise ConfigError(
                f"{path}: found scores for {field} = {before.get(field)!r}, expected"
                f" {settings.get(field)!r}; choose another output_dir"
            )


def default_jobs(tracks: Sequence[Any], config: Config, excerpt: float | None) -> int:
    """Returns the number of processes that cores and memory, for the longest track, allow."""
    from data_pipeline.tracks import middle

    samples = max(
        (1 << middle(track, excerpt, config)[1].bit_length()) * track.channels for track in tracks
    )
    needed = samples * len(config.model.stems) * _MUSEVAL_BYTES
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(os.cpu_count() or 1, int(0.7 * memory) // needed))


@dataclasses.dataclass(frozen=True)
class Estimates:
    """A track's stems, true and estimated.

    Attributes:
      key: "<split>/<track>".
      references: float32 [stems, samples, channels].
      estimates: shaped as the references.
    """

    key: str
    references: np.ndarray
    estimates: np.ndarray


def estimate(system: System, track: Any, config: Config, excerpt: float | None = None) -> Estimates:
    """Separates a track with a system.

    Args:
      system: the system.
      track: a `data_pipeline.tracks.Track`.
      config: names the stems.
      excerpt: seconds from the middle of the track; None: all.

    Raises:
      AudioError: for NaN or infinity in the track's files.
      ConfigError: for estimates of another shape, or with NaN or infinity.
    """
    from data_pipeline.tracks import check_finite, middle, read_mixture, read_stems

    check_finite([track])
    key = f"{track.split}/{track.name}"
    start, frames = middle(track, excerpt, config)
    references = read_stems(track, config, start, frames)
    estimates = system.separate(read_mixture(track, config, start, frames), references, key)
    if estimates.shape[1] == track.frames:  # a folder has estimates of the whole track
        estimates = estimates[:, start : start + frames]
    if estimates.shape != references.shape:
        raise ConfigError(
            f"track {track.name}: found estimates of shape {estimates.shape}, expected"
            f" {references.shape} (stems, samples, channels)"
        )
    if not np.isfinite(estimates).all():
        raise ConfigError(
            f"track {track.name}: found estimates that are NaN or infinite, expected numbers; the"
            " model is broken"
        )
    return Estimates(key, references, estimates)


def _score(
    tracks: Iterable[Any],
    estimate_track: Callable[[Any], Estimates],
    config: Config,
    output_dir: Path,
    jobs: int,
    progress: tqdm,
) -> dict[str, str]:
    """Scores in processes, while this one estimates the next track; returns failures by track."""
    pool = concurrent.futures.ProcessPoolExecutor(
        jobs, multiprocessing.get_context("spawn"), initializer=cli.start_worker
    )
    waiting: dict[concurrent.futures.Future, str] = {}
    failed: dict[str, str] = {}

    def collect(until: int) -> None:
        while len(waiting) > until:
            done, _ = concurrent.futures.wait(
                waiting, return_when=concurrent.futures.FIRST_COMPLETED
            )
            for future in done:
                key = waiting.pop(future)
                try:
                    future.result()
                except BrokenProcessPool:
                    raise
                except Exception as error:
                    failed[key] = cli.failure(key, error)
                progress.update()

    try:
        for track in tracks:
            try:
                found = estimate_track(track)
            except Exception as error:  # the others are scored
                key = f"{track.split}/{track.name}"
                failed[key] = cli.failure(key, error)
                progress.update()
                continue
            with mock.patch.dict(os.environ, ONE_THREAD):  # the new processes inherit it
                future = pool.submit(
                    scoring.score_track,
                    found.references,
                    found.estimates,
                    config.model.stems,
                    config.model.sample_rate,
                    output_dir,
                    found.key,
                )
            waiting[future] = found.key
            collect(until=jobs)  # at most one track waits: bounded memory
        collect(until=0)
    except BrokenProcessPool as error:
        raise ConfigError(
            f"jobs: found {jobs}, and a scoring process that was killed (out of memory?), expected"
            " fewer; finished scores are kept"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
    return failed
