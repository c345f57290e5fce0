r"""Scores and measures several systems on the same tracks, and writes a report.

Examples:
  sccunet compare --report_dir=REPORT --name="Rendered songs" --data_dir=DATA \
      --model=RUN --systems=model,mixture,scaled,openunmix=umxhq,irm --note="Sung speech."
  sccunet compare --report_dir=REPORT --name=MUSDB18 --data_dir=DATA --config=paper_4stems \
      --systems=ours:model=RUN,theirs:folder=ESTIMATES
  sccunet compare --report_dir=REPORT --name=Seeds --data_dir=DATA --model=RUN0 \
      --systems=ours:model=RUN0,ours:model=RUN1,umx:openunmix=UMX0,umx:openunmix=UMX1
  sccunet compare --report_dir=REPORT

A system is [label:]system[=weights], with system and weights as in `sccunet evaluate`. Weights of
the system "model" are a model other than --model. A label with several weights, as in
the third example, is a system with several runs, such as the seeds of a training: the tables show
mean and standard deviation over the runs. Speed and memory are those of the first.

Each system runs in its own processes. Run again, the program does only what is missing, and adds
new systems under the same --name to the report, and new runs if they are given after all earlier
ones. The last example only renders the report, from the JSON in REPORT.

The program writes into REPORT: README.md, two pictures and the scores of each data set, all without
paths of this machine. It ends with a table of the SDRs. Unfinished scores and audio stay in
--work_dir.
"""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from experiments import cli, configs, model_flag, scoring
from experiments.baselines import folders
from experiments.baselines.systems import SYSTEMS
from experiments.choices import Choice, parse_systems
from experiments.reports import example, report, results
from experiments.reports.summary import comparison
from sccunet.config import Config, ConfigError
from sccunet.files import read_json, write_whole
from sccunet.runs import CONFIG, MODELS, load_config, model_path

_ROUNDS = 3  # measurements of each system, in turns
_ESTIMATES = "estimates"  # folder of a run in the work folder
_MEASURED_SECONDS = 30.0  # length of the measured part where whole tracks are scored


@dataclasses.dataclass(frozen=True)
class Options:
    """What is compared.

    Attributes:
      report_dir: folder of the report.
      name: name of the data set in the report.
      systems: what to compare.
      data_dir: tracks in the MUSDB18-HQ layout.
      work_dir: folder for audio and unfinished scores.
      model: folder of a model, as for `Separator.load`; the system "model" without weights.
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
        raise ConfigError(f"--model: not given, expected {MODELS}, or a --config")
    config = load_config(options.model) if options.model else options.config
    slug = results.slug(options.name)
    if not slug:
        raise ConfigError(f"--name: found {options.name!r}, expected letters or digits")
    for choice in options.systems:
        for weights in choice.weights if choice.system == "model" else ():
            _check_model(weights or options.model, config)
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
        runs = choice.runs(work)
        if not SYSTEMS[choice.system].computes:
            _keep_estimates(*runs[0], found[0], config, part)
        for (_, run), (_, published) in zip(runs, choice.runs(path.parent), strict=True):
            results.publish(run, published)
    write_whole(path, results.to_json(info))
    estimates = {
        entry.label: results.run_folders(work / entry.label, len(entry.weights))[0] / _ESTIMATES
        for entry in results.read_data_set(path.parent).entries
    }
    png = report_dir / f"{slug}_spectrograms.png"
    if drawn := example.draw(found[0], config, estimates, part, png):
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
    named = {}
    for choice in systems:
        # Paths of this machine are not published.
        names = [weights and Path(weights).name for weights in choice.weights]
        weights = names if len(names) > 1 else names[0]
        named[choice.label] = {"system": choice.system, "weights": weights}
    return named


def _check_model(model: str | os.PathLike | None, config: Config) -> None:
    """Raises ConfigError if a model is missing or has other stems."""
    if not model:
        raise ConfigError(f"--model: not given, expected {MODELS} for the system model")
    own = load_config(model_path(model))

    def scored(config: Config):
        stems = {stem: config.files_of(stem) for stem in config.model.stems}
        return list(stems.items()), config.model.sample_rate

    if scored(own) != scored(config):
        raise ConfigError(
            f"{model}: found a model of {', '.join(own.model.stems)} at"
            f" {own.model.sample_rate} Hz, expected the stems {', '.join(config.model.stems)} of"
            f" the same files at {config.model.sample_rate} Hz; compare it under another --name"
        )


def _score(choice: Choice, options: Options, work: Path) -> bool:
    """Runs evaluate for each run of a system; returns whether all succeeded."""
    failures = 0
    for weights, folder in choice.runs(work):
        arguments = list(_arguments(choice.system, weights, options, work))
        if options.excerpt:
            arguments.append(f"--excerpt={options.excerpt}")
        output_dir = f"--output_dir={folder / 'scores'}"
        failures += cli.run_program("evaluate", *arguments, output_dir) != 0
    return not failures


def _measured_part(track: Any, config: Config, excerpt: float | None) -> tuple[int, int]:
    """Returns first sample and length of what is measured: the excerpt or the liveliest part."""
    from data_pipeline.tracks import middle

    part = middle(track, excerpt or _MEASURED_SECONDS, config)
    return part if excerpt else example.liveliest(track, config, (0, track.frames), part[1])


def _measure(
    systems: Sequence[Choice], options: Options, work: Path, track: str, start: float
) -> list[Choice]:
    """Runs measure for the systems in turns; returns those of `systems` that did not fail.

    Of several runs the first is measured. References and systems that do not compute are skipped.
    The first turn keeps the estimates; an
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
            weights, folder = choice.runs(work)[0]
            output = folder / f"measure_{turn}.json"
            if _is_measured(output, folder / "scores", track, start):
                continue
            arguments = [*_arguments(choice.system, weights, options, work), "--repeats=1"]
            arguments += [f"--output={output}", f"--excerpt={excerpt}", f"--start={start}"]
            if not turn:
                arguments.append(f"--estimates_dir={folder / _ESTIMATES}")
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


def _arguments(system: str, weights: str | None, options: Options, work: Path) -> Iterator[str]:
    """Yields the flags of evaluate and measure for a run of a system and the tracks."""
    if system == "model":
        yield f"--model={weights or options.model}"
    else:
        yield f"--system={system}"
        yield f"--model={options.model or work / '_config'}"
        if weights:
            yield f"--weights={weights}"
    yield f"--data_dir={options.data_dir}"
    if options.tracks:
        yield from (f"--tracks={name}" for name in options.tracks)
    else:
        yield f"--split={options.split}"


def _keep_estimates(
    estimates_dir: str, run: Path, track: Any, config: Config, part: tuple[int, int]
) -> None:
    """Keeps that part of a folder's estimates that the other systems are measured with."""
    estimates = folders.read_estimates(estimates_dir, f"{track.split}/{track.name}", config)
    start, frames = part
    if estimates.shape[1] == track.frames:
        estimates = estimates[:, start : start + frames]
    folders.write_estimates(run / _ESTIMATES, estimates, config)


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
    cli.refuse_idle_overrides(cli.FIELDS_OF_STEMS)
    cli.refuse_idle(["split"], _TRACKS.value, "beside --tracks, which are from any split")
    config_file = flags.FLAGS["config"].config_filename if _CONFIG.value else None
    options = Options(
        _REPORT_DIR.value,
        _NAME.value,
        parse_systems(_SYSTEMS.value),
        _DATA_DIR.value,
        _WORK_DIR.value,
        model=model_flag.value_without_config(),
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
    model_flag.define("; its config defines the stems")
    _CONFIG = cli.define_config("Defines the stems in place of a model.")
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
    cli.run(main, needs=["matplotlib"])
