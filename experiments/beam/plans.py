"""Plans of the catalogue: what is left to separate, score or prepare, and how."""

import dataclasses
import functools
import os
import pickle
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from data_pipeline import audio, tracks
from data_pipeline.errors import AudioError
from data_pipeline.folders import chosen_folders
from data_pipeline.names import lines_of
from experiments import cli, evaluating, evaluation_flags, model_flag, quiet, scoring
from experiments.baselines.system import System
from experiments.beam.pipeline import Plan
from experiments.preparing import inputs, preparation_flags
from experiments.preparing.track import check_finished, prepare_track, remove_leftovers
from experiments.reports.summary import table
from experiments.score_files import score_file
from experiments.separating import separation_flags, stem_folders
from experiments.separating.output import Output
from experiments.separating.recording import separate_file
from sccunet.config import Config, ConfigError
from sccunet.files import write_whole
from sccunet.reconstruction import Reconstruction

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
        written=output.written,
        recursive=given.recursive,
    )
    stem_folders.warn_of_left_out(planned)
    separation_flags.warn_of_tags(planned.todo.values())
    damaged = sorted(path for folder in planned.finished if (path := folder / _DAMAGED).exists())
    return Plan(
        Path(output_dir),
        {file: (file, str(folder)) for folder, file in planned.todo.items()},
        functools.partial(
            _separate,
            output=output,
            stream=given.audio_stream,
            part=separation_flags.part_of_flags(),
        ),
        functools.partial(
            _separator,
            os.path.abspath(model_flag.value()),
            cli.reconstruction_of_flags(),
            given.precision,
            **model_flag.runtime(),
        ),
        skipped=len(planned.finished) - len(damaged),
        failed=[os.fsdecode(path.read_bytes()).strip() for path in damaged],
    )


@functools.lru_cache(1)
def _separator(model: str, reconstruction: Reconstruction, precision: str, **running):
    from sccunet.separation import Separator

    return Separator.load(model, reconstruction, precision, **running)


def _separate(
    separator, file: str, folder: str, output: Output, stream: int | None, part: audio.Part
) -> list[str] | None:
    written = output.written(os.path.basename(folder))
    if all(os.path.exists(os.path.join(folder, name)) for name in written):
        return None
    separate_file(separator, file, folder, output, _DAMAGED, stream, part)
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
    options, config = _scoring()
    output_dir = Path(options.output_dir)
    settings = evaluating.settings_of(options, config)
    evaluating.check_settings(output_dir, settings)
    units, failed, scored = {}, [], []
    for split, name in chosen_folders(options.data_dir, options.split, options.names):
        key = f"{split}/{name}"
        if score_file(output_dir, key).exists():
            scored.append(key)
            continue
        try:
            units[key] = (tracks.load_track(options.data_dir, split, name, config, 1),)
        except Exception as error:  # may be the system's own
            failed.append(cli.failure(key, error))
    if options.quiet_db is not None:
        quiet.check_levels(output_dir, scored)
    plan = Plan(
        output_dir,
        units,
        _score,
        functools.partial(_system, pickle.dumps(options)),
        len(scored),
        failed,
    )
    if units:
        write_whole(output_dir / scoring.SETTINGS, scoring.to_json(settings))
        todo = [track for (track,) in units.values()]
        plan.workers = evaluating.default_jobs(todo, config, options.excerpt)
    return plan


def _scoring() -> tuple[evaluating.Options, Config]:
    """Returns what the flags say is scored, with absolute paths, and the config of the stems."""
    options = evaluation_flags.options_of_flags()
    paths = {
        name: os.path.abspath(value)
        for name in ("data_dir", "output_dir", "model", "weights")
        if (value := getattr(options, name))
        if name != "weights" or os.path.exists(value)  # else the name of a download
    }
    options = dataclasses.replace(options, **paths)
    return options, evaluating.scored_config(options.system, options.model, options.config)


@functools.lru_cache(1)
def _system(pickled: bytes) -> tuple[System, evaluating.Options, Config]:
    """Loads the system of pickled options, which cannot be hashed themselves."""
    options: evaluating.Options = pickle.loads(pickled)
    config = evaluating.scored_config(options.system, options.model, options.config)
    return evaluating.system_of(options, config), options, config


def _score(
    loaded: tuple[System, evaluating.Options, Config], track: tracks.Track
) -> list[str] | None:
    system, options, config = loaded
    if score_file(options.output_dir, f"{track.split}/{track.name}").exists():
        return None
    found = evaluating.estimate(system, track, config, options.excerpt)
    stems, rate = config.model.stems, config.model.sample_rate
    scoring.score_track(
        found.references, found.estimates, stems, rate, options.output_dir, found.key
    )
    return []


def summarise_scores() -> None:
    """Writes and prints the summary of all scored tracks, if there are any."""
    options, _ = _scoring()
    output_dir = Path(options.output_dir)
    folders = chosen_folders(options.data_dir, options.split, options.names)
    keys = [f"{split}/{name}" for split, name in folders]
    scored = [key for key in keys if score_file(output_dir, key).exists()]
    if scored:
        summary = scoring.summarise(output_dir, scored, options.quiet_db)
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
    units, failed, finished = {}, [], []
    for (split, name), path in inputs.find_inputs(input_dir).items():
        target = os.path.join(data_dir, split, name)
        try:
            sources = inputs.sources_of(path)
            if os.path.lexists(target):
                check_finished(target, sources, given.sample_rate)
                finished.append(target)
            else:
                units[path] = (target, sources)
        except Exception as error:  # may be a library's own
            failed.append(cli.failure(path, error))
    work = functools.partial(_prepare, sample_rate=given.sample_rate, trim=given.trim)
    remove_leftovers(finished)
    return Plan(Path(data_dir), units, work, skipped=len(finished), failed=failed)


def _prepare(
    _, target: str, sources: inputs.Sources, sample_rate: int, trim: int
) -> list[str] | None:
    if not os.path.lexists(target):
        inputs.check_sources(sources, trim / sample_rate)
    warnings = prepare_track(target, sources, sample_rate, trim)
    return None if warnings is None else inputs.misnamed(sources) + warnings
