"""Plans of the catalogue: what is left to separate, score or prepare, and how."""

import dataclasses
import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from data_pipeline import audio, tracks
from data_pipeline.names import lines_of
from data_pipeline.wav import AudioError
from experiments import cli, evaluating, scoring
from experiments.beam.pipeline import Plan
from experiments.preparing import inputs, preparation_flags
from experiments.preparing.track import check_finished, prepare_track
from experiments.reports.summary import table
from experiments.score_files import score_file
from experiments.separating import separation_flags, stem_folders
from experiments.separating.recording import Output, separate_file
from sccunet.config import Config, ConfigError
from sccunet.files import write_whole
from sccunet.reconstruction import Reconstruction
from sccunet.runs import load_config

# A file beside a damaged recording's stems that says what is missing.
_DAMAGED = "damaged.txt"


def plan_separation(files: Sequence[str]) -> Plan:
    """Plans which recordings are separated, as the flags say.

    Args:
      files: recordings, and folders of recordings.

    Raises:
      ConfigError: if the flags contradict each other, or as `stem_folders.plan`.
      AudioError: for a folder without audio files.
    """
    given = flags.FLAGS
    if given.list:
        files = [*files, *lines_of(given.list)]
    if not files:
        raise ConfigError("FILE: found none, expected recordings, folders of them, or --list")
    if "-" in files:
        raise ConfigError("FILE: found -, expected files: workers have no standard input")
    output = separation_flags.output_of_flags()
    # The workers of other runners have another current folder.
    inputs = [os.path.abspath(file) for file in files]
    output_dir = os.path.abspath(given.output_dir) if given.output_dir else ""
    planned = stem_folders.plan(
        inputs,
        output_dir,
        overwrite=False,
        skip_existing=True,
        written=output.files,
        recursive=given.recursive,
    )
    stem_folders.warn_of_left_out(planned)
    damaged = sorted(path for folder in planned.finished if (path := folder / _DAMAGED).exists())
    return Plan(
        Path(output_dir),
        {file: (file, str(folder)) for folder, file in planned.todo.items()},
        functools.partial(_separate, output=output, stream=given.audio_stream),
        functools.partial(
            _separator, os.path.abspath(given.model), cli.reconstruction_of_flags(), given.precision
        ),
        skipped=len(planned.finished) - len(damaged),
        failed=[os.fsdecode(path.read_bytes()).strip() for path in damaged],
    )


@functools.lru_cache(1)
def _separator(model: str, reconstruction: Reconstruction, precision: str):
    from sccunet.separation import Separator

    return Separator.load(model, reconstruction, precision)


def _separate(
    separator, file: str, folder: str, output: Output, stream: int | None
) -> list[str] | None:
    if all(os.path.exists(os.path.join(folder, name)) for name in output.files):
        return None
    separate_file(separator, file, folder, output, _DAMAGED, stream)
    with audio.recording(file, stream, salvage=True) as (info, _):
        return separation_flags.choice(file, info)


def plan_scoring(files: Sequence[str]) -> Plan:
    """Plans which tracks are scored, as the flags say.

    Args:
      files: must be empty.

    Raises:
      ConfigError: for a model that cannot be read, or a folder that holds other scores.
      AudioError: if there are no tracks.
    """
    given = flags.FLAGS
    model, data_dir = os.path.abspath(given.model), os.path.abspath(given.data_dir)
    output_dir = Path(os.path.abspath(given.output_dir))
    config, reconstruction = load_config(model), cli.reconstruction_of_flags()
    keys = _track_keys(data_dir, given.split)
    settings = evaluating.settings_of(
        model, config, str(Path(data_dir).resolve()), given.split, "model", None
    )
    if reconstruction.mask != "none":
        settings["reconstruction"] = dataclasses.asdict(reconstruction)
    evaluating.check_settings(output_dir, settings)
    units, failed, skipped = {}, [], 0
    for key in keys:
        if score_file(output_dir, key).exists():
            skipped += 1
            continue
        try:
            units[key] = (tracks.load_track(data_dir, *key.split("/"), config, 1),)
        except AudioError as error:
            failed.append(str(error))
    plan = Plan(
        output_dir,
        units,
        functools.partial(_score, output_dir=str(output_dir)),
        functools.partial(_system, model, reconstruction),
        skipped,
        failed,
    )
    if units:
        write_whole(output_dir / scoring.SETTINGS, scoring.to_json(settings))
        plan.workers = evaluating.default_jobs([track for (track,) in units.values()], config, None)
    return plan


def _track_keys(data_dir: str, split: str) -> list[str]:
    keys = [f"{of}/{name}" for of, name in tracks.track_folders(data_dir) if of == split]
    if not keys:
        raise tracks.no_tracks(data_dir, (split,))
    return keys


@functools.lru_cache(1)
def _system(model: str, reconstruction: Reconstruction) -> tuple[Any, Config]:
    from experiments.baselines.systems import load_system

    config = load_config(model)
    return load_system("model", config, model, reconstruction=reconstruction), config


def _score(loaded: tuple[Any, Config], track: tracks.Track, output_dir: str) -> list[str] | None:
    system, config = loaded
    key = f"{track.split}/{track.name}"
    if score_file(output_dir, key).exists():
        return None
    tracks.check_finite([track])
    references = tracks.read_stems(track, config)
    estimates = system.separate(tracks.read_mixture(track, config), references, key)
    if not np.isfinite(estimates).all():
        raise ConfigError(
            f"track {track.name}: found estimates that are NaN or infinite, expected numbers; the"
            " model is broken"
        )
    stems, rate = config.model.stems, config.model.sample_rate
    scoring.score_track(references, estimates, stems, rate, output_dir, key)
    return []


def summarise_scores() -> None:
    """Writes and prints the summary of all scored tracks, if there are any."""
    given = flags.FLAGS
    output_dir = Path(given.output_dir)
    keys = _track_keys(given.data_dir, given.split)
    scored = [key for key in keys if score_file(output_dir, key).exists()]
    if scored:
        summary = scoring.summarise(output_dir, scored)
        write_whole(output_dir / scoring.SUMMARY, scoring.to_json(summary))
        print(table(summary), end="\n\n")


def plan_preparation(files: Sequence[str]) -> Plan:
    """Plans which tracks are decoded, as the flags say.

    Args:
      files: must be empty.

    Raises:
      AudioError: if there are no tracks.
    """
    given = flags.FLAGS
    input_dir = os.path.abspath(preparation_flags.input_dir_of_flags())
    data_dir = os.path.abspath(given.data_dir)
    if os.path.realpath(input_dir) == os.path.realpath(data_dir):
        raise AudioError(f"--data_dir={data_dir}: found the input folder, expected another")
    units, failed, skipped = {}, [], 0
    for (split, name), path in inputs.find_inputs(input_dir).items():
        target = os.path.join(data_dir, split, name)
        try:
            sources = inputs.sources_of(path)
            if os.path.lexists(target):
                check_finished(target, sources, given.sample_rate)
                skipped += 1
            else:
                units[path] = (target, sources)
        except AudioError as error:
            failed.append(str(error))
    work = functools.partial(_prepare, sample_rate=given.sample_rate, trim=given.trim)
    return Plan(Path(data_dir), units, work, skipped=skipped, failed=failed)


def _prepare(
    _, target: str, sources: inputs.Sources, sample_rate: int, trim: int
) -> list[str] | None:
    if not os.path.lexists(target):
        inputs.check_sources(sources, trim / sample_rate)
    warnings = prepare_track(target, sources, sample_rate, trim)
    return None if warnings is None else inputs.misnamed(sources) + warnings
