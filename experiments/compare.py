r"""Scores and measures several systems on the same tracks, and writes a report.

Examples:
  sccunet compare --report_dir=REPORT --name="Rendered songs" --data_dir=DATA \
      --model=RUN --systems=model,mixture,scaled,openunmix=umxhq,irm --note="Sung speech."
  sccunet compare --report_dir=REPORT --name=MUSDB18 --data_dir=DATA --config=paper_4stems \
      --systems=ours:model=RUN,theirs:folder=ESTIMATES
  sccunet compare --report_dir=REPORT

A system is [label:]system[=weights], with system and weights as in `sccunet evaluate`. Weights of
the system "model" are a training workdir other than --model. Each system runs in its own processes.
Run again, the program does only what is missing, and adds new systems under the same --name to the
report. The last example only renders the report, from the JSON in REPORT.

The program writes into REPORT: README.md, two pictures and the scores of each data set, all without
paths of this machine. It ends with a table of the SDRs. Unfinished scores and audio stay in
--work_dir.
"""

import dataclasses
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from experiments import cli, configs, scoring
from experiments.baselines import folders
from experiments.baselines.systems import SYSTEMS
from experiments.reports import example, report, results
from experiments.reports.summary import comparison
from sccunet.config import Config, ConfigError
from sccunet.files import read_json, write_whole
from sccunet.runs import CONFIG, load_config

_ROUNDS = 3  # measurements of each system, in turns
_MEASURED_SECONDS = 30.0  # length of the measured part where whole tracks are scored


@dataclasses.dataclass(frozen=True)
class Choice:
    """A system of a comparison: its label in the report, its name and its weights."""

    label: str
    system: str
    weights: str | None


def parse_systems(values: Sequence[str]) -> list[Choice]:
    """Parses each "[label:]system[=weights]"; the default label is the system's name.

    Raises:
      ConfigError: for an unknown system, missing or superfluous weights, or a label that is used
        twice or cannot be the name of a folder.
    """
    entries: list[Choice] = []
    for value in values:
        head, _, weights = value.partition("=")
        label, _, system = head.rpartition(":")
        label = label or system
        where = f"--systems: {value}:"
        if system not in SYSTEMS:
            raise ConfigError(f"{where} found {system!r}, expected one of {', '.join(SYSTEMS)}")
        if SYSTEMS[system].weights and not weights:
            raise ConfigError(f"{where} found no weights, expected {system}=WEIGHTS")
        if weights and not SYSTEMS[system].weights and system != "model":
            raise ConfigError(f"{where} found weights, expected none")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 _.+-]*", label):
            raise ConfigError(
                f"{where} found the label {label!r}, expected letters, digits, spaces and _ . + -"
            )
        if label in [entry.label for entry in entries]:
            raise ConfigError(
                f"{where} found the label {label!r} twice, expected [label:]system[=weights]"
            )
        entries.append(Choice(label, system, weights or None))
    return entries


@dataclasses.dataclass(frozen=True)
class Options:
    """What is compared.

    Attributes:
      report_dir: folder of the report.
      name: name of the data set in the report.
      systems: what to compare.
      data_dir: tracks in the MUSDB18-HQ layout.
      work_dir: folder for audio and unfinished scores.
      model: training workdir or exported SavedModel; the system "model" without weights.
      config: defines the scored stems if there is no model.
      config_name: name of the config in the report's command.
      overrides: flags that changed the config, for the report's command.
      split: split of the tracks, if none are named.
      tracks: score these tracks instead, from any split.
      excerpt: separate and score this many seconds from the middle of each track; None: all.
      note: description of the data, a sentence or two.
    """

    report_dir: str | os.PathLike
    name: str
    systems: Sequence[Choice]
    data_dir: str | os.PathLike
    work_dir: str | os.PathLike
    model: str | os.PathLike | None = None
    config: Config | None = None
    config_name: str | None = None
    overrides: Sequence[str] = ()
    split: str = "test"
    tracks: Sequence[str] = ()
    excerpt: float | None = None
    note: str = ""


def compare(options: Options) -> list[str]:
    """Scores and measures systems, and puts the results into a report's folder.

    Returns:
      The labels of systems that failed; their errors are on standard error.

    Raises:
      ConfigError: for a model that cannot be read, or a report of another comparison.
      AudioError: for tracks that cannot be found or read.
    """
    from data_pipeline.tracks import find_tracks

    if not (options.model or options.config):
        raise ConfigError("--model: not given, expected a training workdir, or a --config")
    config = load_config(options.model) if options.model else options.config
    slug = results.slug(options.name)
    if not slug:
        raise ConfigError(f"--name: found {options.name!r}, expected letters or digits")
    for choice in options.systems:
        _check_model(choice, options.model, config)
    found = find_tracks(options.data_dir, config, split=options.split, names=options.tracks)
    if options.tracks:  # the report needs no file that lists them
        options = dataclasses.replace(options, tracks=[track.name for track in found])
    report_dir, work = Path(options.report_dir), Path(options.work_dir) / slug
    path = report_dir / slug / results.DATA_SET
    info = results.merged(path, _info(options), _named(options.systems))
    results.check_tracks(path.parent, [choice.label for choice in options.systems], found)

    write_whole(work / "_config" / CONFIG, config.to_json())
    scored = [choice for choice in options.systems if _score(choice, options, work)]
    part = _measured_part(found[0], config, options.excerpt)
    start = part[0] / config.model.sample_rate
    done = _measure(scored, options, work, f"{found[0].split}/{found[0].name}", start)
    for choice in done:
        if not SYSTEMS[choice.system].computes:
            _keep_estimates(choice, found[0], config, part, work / choice.label / "estimates")
        results.publish(work / choice.label, report_dir / slug / choice.label)
    write_whole(path, results.to_json(info))
    labels = [entry.label for entry in results.read_data_set(path.parent).entries]
    png = report_dir / f"{slug}_spectrograms.png"
    if drawn := example.draw(found[0], config, labels, work, part, png):
        write_whole(path, results.to_json({**info, "example": drawn}))
    report.write_report(report_dir)
    return [choice.label for choice in options.systems if choice not in done]


def _info(options: Options) -> dict[str, Any]:
    """Returns the content of dataset.json, without the systems."""
    config = None if options.model else options.config_name
    if config and Path(config).is_absolute():
        config = Path(config).name
    return {
        "name": options.name,
        "note": options.note,
        "split": options.split,
        "tracks": list(options.tracks),
        "excerpt": options.excerpt,
        "config": config,
        "overrides": list(options.overrides),
    }


def _named(systems: Sequence[Choice]) -> dict[str, Any]:
    return {
        choice.label: {
            "system": choice.system,
            # Paths of this machine are not published.
            "weights": Path(choice.weights).name if choice.weights else None,
        }
        for choice in systems
    }


def _check_model(choice: Choice, model: str | os.PathLike | None, config: Config) -> None:
    """Raises ConfigError if the system is a model that is missing or has other stems."""
    if choice.system != "model":
        return
    if not (choice.weights or model):
        raise ConfigError("--model: not given, expected a training workdir for the system model")
    own = load_config(choice.weights or model)

    def scored(config: Config):
        stems = {stem: config.files_of(stem) for stem in config.model.stems}
        return list(stems.items()), config.model.sample_rate

    if scored(own) != scored(config):
        raise ConfigError(
            f"{choice.weights or model}: found a model of {', '.join(own.model.stems)} at"
            f" {own.model.sample_rate} Hz, expected the stems {', '.join(config.model.stems)} of"
            f" the same files at {config.model.sample_rate} Hz; compare it under another --name"
        )


def _score(choice: Choice, options: Options, work: Path) -> bool:
    """Runs evaluate for a system; returns whether it succeeded."""
    arguments = list(_arguments(choice, options, work))
    if options.excerpt:
        arguments.append(f"--excerpt={options.excerpt}")
    scores = work / choice.label / "scores"
    return not cli.run_program("evaluate", *arguments, f"--output_dir={scores}")


def _measured_part(track: Any, config: Config, excerpt: float | None) -> tuple[int, int]:
    """Returns first sample and length of what is measured: the excerpt or the liveliest part."""
    from data_pipeline.tracks import middle

    part = middle(track, excerpt or _MEASURED_SECONDS, config)
    return part if excerpt else example.liveliest(track, config, (0, track.frames), part[1])


def _measure(
    systems: Sequence[Choice], options: Options, work: Path, track: str, start: float
) -> list[Choice]:
    """Runs measure for the systems in turns; returns those of `systems` that did not fail.

    References and systems that do not compute are skipped. The first turn keeps the estimates; an
    oracle has only that turn.

    Args:
      systems: systems to measure.
      options: options of the comparison.
      work: folder for the measurements.
      track: "<split>/<track>" of the separated track.
      start: start of the excerpt, in seconds.
    """
    done = list(systems)
    excerpt = options.excerpt or _MEASURED_SECONDS
    for turn in range(_ROUNDS):
        for choice in list(done):
            kind = SYSTEMS[choice.system]
            if kind.group == "reference" or not kind.computes or (turn and kind.given_truth):
                continue
            folder = work / choice.label
            output = folder / f"measure_{turn}.json"
            if _is_measured(output, folder / "scores", track, start):
                continue
            arguments = [*_arguments(choice, options, work), "--repeats=1", f"--output={output}"]
            arguments += [f"--excerpt={excerpt}", f"--start={start}"]
            if not turn:
                arguments.append(f"--estimates_dir={folder / 'estimates'}")
            if cli.run_program("measure", *arguments):
                done.remove(choice)
    return done


def _is_measured(output: Path, scores: Path, track: str, start: float) -> bool:
    """Whether a measurement of this part of this track exists and is not older than the scores."""
    if not output.exists():
        return False
    found = read_json(output, "track", "start_seconds")
    newer = output.stat().st_mtime_ns >= (scores / scoring.SETTINGS).stat().st_mtime_ns
    return newer and (found["track"], found["start_seconds"]) == (track, start)


def _arguments(choice: Choice, options: Options, work: Path) -> Iterator[str]:
    """Yields the flags of evaluate and measure for the system and the tracks."""
    if choice.system == "model":
        yield f"--model={choice.weights or options.model}"
    else:
        yield f"--system={choice.system}"
        yield f"--model={options.model or work / '_config'}"
        if choice.weights:
            yield f"--weights={choice.weights}"
    yield f"--data_dir={options.data_dir}"
    if options.tracks:
        yield from (f"--tracks={name}" for name in options.tracks)
    else:
        yield f"--split={options.split}"


def _keep_estimates(
    choice: Choice, track: Any, config: Config, part: tuple[int, int], folder: Path
) -> None:
    """Keeps that part of a folder's estimates that the other systems are measured with."""
    estimates = folders.read_estimates(choice.weights, f"{track.split}/{track.name}", config)
    start, frames = part
    if estimates.shape[1] == track.frames:
        estimates = estimates[:, start : start + frames]
    folders.write_estimates(folder, estimates, config)


def _print_scores(path: Path, data_sets: Sequence[results.DataSet]) -> None:
    print(f"\n{path}")
    for data_set in data_sets:
        if data_set.scored:
            print(f"\n{comparison(data_set)}")


def main(_: Sequence[str]) -> None:
    """Compares as the flags say; without a data directory, only renders the report."""
    path = Path(_REPORT_DIR.value) / report.README
    if not _DATA_DIR.value:
        for holder in (_NAME, _SYSTEMS):
            if holder.value:
                raise ConfigError(f"--data_dir: not given, expected tracks for --{holder.name}")
        others = ("note", "model", "config", "split", "tracks", "excerpt", "work_dir")
        cli.refuse_idle(others, True, "without --data_dir")
        report.write_report(_REPORT_DIR.value)
        _print_scores(path, results.read(_REPORT_DIR.value))
        return
    for holder in (_NAME, _SYSTEMS):
        if not holder.value:
            raise ConfigError(f"--{holder.name}: not given, expected a value with --data_dir")
    cli.refuse_idle(["config"], _MODEL.value, "beside --model, whose config defines the stems")
    cli.refuse_idle_overrides(cli.FIELDS_OF_STEMS)
    cli.refuse_idle(["split"], _TRACKS.value, "beside --tracks, which are from any split")
    config_file = flags.FLAGS["config"].config_filename if _CONFIG.value else None
    options = Options(
        _REPORT_DIR.value,
        _NAME.value,
        parse_systems(_SYSTEMS.value),
        _DATA_DIR.value,
        _WORK_DIR.value,
        model=_MODEL.value,
        config=Config.from_dict(_CONFIG.value) if _CONFIG.value else None,
        config_name=config_file and configs.name_of(config_file),
        overrides=cli.config_overrides() if _CONFIG.value else [],
        split=_SPLIT.value,
        tracks=_TRACKS.value,
        excerpt=_EXCERPT.value,
        note=_NOTE.value,
    )
    failed = compare(options)
    _print_scores(path, [results.read_data_set(path.parent / results.slug(options.name))])
    if failed:
        raise ConfigError(
            f"--systems: {', '.join(failed)} failed (see above); the report has all other scores"
            " and measurements. To score a system again, remove its folder in"
            f" {_WORK_DIR.value}"
        )


if __name__ == "__main__":
    _REPORT_DIR = flags.DEFINE_string("report_dir", None, "Folder of the report.", required=True)
    _NAME = flags.DEFINE_string("name", None, "Name of the data set in the report.")
    _NOTE = flags.DEFINE_string(
        "note", "", "Description of the data for the report, a sentence or two."
    )
    _SYSTEMS = cli.define_list(
        "systems",
        [],
        "Systems to compare, each [label:]system[=weights]: " + ", ".join(SYSTEMS) + ".",
    )
    _MODEL = flags.DEFINE_string("model", None, "Training workdir or exported SavedModel.")
    _CONFIG = cli.define_config("Defines the stems if there is no --model.")
    _DATA_DIR = flags.DEFINE_string("data_dir", None, "Tracks in the MUSDB18-HQ layout.")
    _SPLIT = flags.DEFINE_string("split", "test", "Split to score.")
    _TRACKS = cli.define_tracks("Score these tracks instead, from any split.")
    _EXCERPT = flags.DEFINE_float(
        "excerpt",
        None,
        "Separate and score this many seconds from the middle of each track. Default: all of it.",
        lower_bound=1,
    )
    _WORK_DIR = flags.DEFINE_string(
        "work_dir", "compare_work", "Folder for audio and unfinished scores; do not commit it."
    )
    cli.run(main)
