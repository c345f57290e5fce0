r"""Trains variants of a config with several seeds, scores all runs, and writes a report.

Examples:
  sccunet ablate --config=small_4stems --data_dir=DATA --seeds=0,1,2 \
      --variants=all --variants="magnitude:model.output=magnitude" \
      --variants="neither:model.output=magnitude,model.channels=1" \
      --work_dir=WORK --report_dir=REPORT --name="Masks and stereo"
  sccunet ablate --config=paper_2stems --data_dir=DATA --minutes=10 \
      --variants="alpha 1:loss_weights=(1,0)" --variants="equal:loss_balance=equal" \
      --work_dir=WORK --report_dir=REPORT --name="Loss weights"
  sccunet ablate --report_dir=REPORT

A variant is a name with the fields of the config that it changes. Overrides such as
--config.epochs=6 are for all variants. First the training step of each is timed on this machine,
where nothing else should run then. With --minutes, each variant gets as many steps per epoch as
take that time in all epochs, validation not counted; otherwise the config says how many.
WORK keeps times, runs and scores; finished work there is not repeated. The report is rendered only
from the JSON files in its folder; without --data_dir the program does nothing else.

The program writes into REPORT:
  README.md, <name>.png          tables and pictures of all ablations
  <name>/ablation.json           settings of the runs
  <name>/<variant>/<seed>/...    scores of `sccunet evaluate`; also <name>/scaled/...
It shows above the tables, if it is there:
  <name>/reading.md              interpretation of the figures, written by hand
"""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from experiments import arguments, cli, configs, scoring
from experiments.ablating.step_times import step_seconds
from experiments.ablating.variants import Variant, variants_of
from experiments.machine import machine
from experiments.reports import ablation
from experiments.reports.results import slug
from sccunet.config import Config, ConfigError
from sccunet.files import read_json, write_whole
from sccunet.runs import load_config


@dataclasses.dataclass(frozen=True)
class Options:
    """What is trained and scored.

    Attributes:
      config_file: config of the runs, but for what follows.
      overrides: field of the config -> value, for all variants.
      data_dir: tracks in the MUSDB18-HQ layout.
      work_dir: folder for step times, runs and scores.
      report_dir: folder of the report.
      name: name of this ablation.
      variants: what is compared.
      seeds: seeds of initial weights, crops and augmentation.
      minutes: time of each run's training steps; None: the config has the number of steps.
      levels: stem -> gain in dB, applied in a copy of the data that is used instead.
      excerpt: score this many seconds from the middle of each test track; None: all.
      note: description of the data.
    """

    config_file: str
    overrides: Mapping[str, Any]
    data_dir: str
    work_dir: str
    report_dir: str
    name: str
    variants: Sequence[Variant]
    seeds: Sequence[int]
    minutes: float | None
    levels: Mapping[str, float]
    excerpt: float | None
    note: str


def run_all(options: Options) -> None:
    """Trains and scores every variant with every seed, and publishes scores in `report_dir`.

    Raises:
      ConfigError: for invalid seeds or levels, fields that are set in two ways, or a config that
        cannot be trained on the data.
    """
    _check(options)
    work, published = Path(options.work_dir), Path(options.report_dir) / slug(options.name)
    data_dir = options.data_dir
    if options.levels:
        set_levels(data_dir, work / "data", options.levels)
        data_dir = str(work / "data")
    score = [f"--data_dir={data_dir}"]
    if options.excerpt:
        score.append(f"--excerpt={options.excerpt}")
    planned = {variant.name: variant.config for variant in options.variants}
    times = step_seconds(planned, data_dir, work / "step_times")
    if options.minutes:
        planned = {
            name: _lasting(60 * options.minutes, times[name], config)
            for name, config in planned.items()
        }
    print("", *(f"{name}: {each:.3g} s per step" for name, each in times.items()), sep="\n")
    ran: dict[str, Config] = {}
    for seed in options.seeds:
        for variant in options.variants:
            name, fields = variant.name, {**variant.overrides, "seed": seed}
            if options.minutes:
                fields["steps_per_epoch"] = planned[name].steps_per_epoch
            run, scores = (work / kind / slug(name) / str(seed) for kind in ("runs", "scores"))
            config = [f"--config={options.config_file}", *arguments.override_flags(fields)]
            _run("train", *config, f"--data_dir={data_dir}", f"--workdir={run}")
            _run("evaluate", f"--model={run}", f"--output_dir={scores}", *score)
            scoring.publish(scores, published / slug(name) / str(seed))
            ran[name] = load_config(run)
    scores = work / "scores" / ablation.SCALED
    _run("evaluate", f"--model={run}", f"--output_dir={scores}", "--system=scaled", *score)
    scoring.publish(scores, published / ablation.SCALED)
    write_whole(published / ablation.SETTINGS, scoring.to_json(_settings(options, ran, times)))


def _check(options: Options) -> None:
    if not options.seeds or len(set(options.seeds)) < len(options.seeds):
        raise ConfigError(f"seeds: found {list(options.seeds)}, expected different ones")
    elsewhere = {"seed": "seeds"} | ({"steps_per_epoch": "minutes"} if options.minutes else {})
    for variant in options.variants:
        for field, flag in elsewhere.items():
            if field in variant.overrides:
                where = f"variants: {variant.name}" if field in variant.changes else "config"
                raise ConfigError(f"--{where}: found {field}, expected none: --{flag} sets it")


def _lasting(seconds: float, step_seconds: float, config: Config) -> Config:
    """Returns the config with as many steps as take this time, at least one per epoch."""
    steps = max(1, round(seconds / step_seconds / config.epochs))
    return dataclasses.replace(config, steps_per_epoch=steps)


def _settings(
    options: Options, ran: Mapping[str, Config], times: Mapping[str, float]
) -> dict[str, Any]:
    """Returns the settings of the runs for the report.

    Args:
      options: what was asked for.
      ran: variant -> config of its last run, with the loss weights that were used.
      times: variant -> seconds per step.
    """
    config = Path(configs.name_of(options.config_file)).name
    return {
        "name": options.name,
        "note": options.note,
        "stems": options.variants[0].config.model.stems,
        "variants": {
            variant.name: {
                "changes": [f"{field}={value}" for field, value in variant.changes.items()],
                "loss_weights": ran[variant.name].loss_weights,
                "epochs": ran[variant.name].epochs,
                "steps_per_epoch": ran[variant.name].steps_per_epoch,
                "step_seconds": times[variant.name],
            }
            for variant in options.variants
        },
        "seeds": options.seeds,
        "config": [config, *arguments.override_flags(options.overrides)],
        "minutes": options.minutes,
        "machine": machine(),
        "levels_db": options.levels,
        "excerpt_seconds": options.excerpt,
    }


def _run(program: str, *arguments: str) -> None:
    if code := cli.run_program(program, *arguments):
        sys.exit(abs(code))


def set_levels(data_dir: str | Path, output_dir: Path, levels: Mapping[str, float]) -> None:
    """Copies stems as 16-bit WAVs, some of them quieter; existing copies are kept.

    Args:
      data_dir: tracks in the MUSDB18-HQ layout.
      output_dir: folder for the copies, in the same layout, without the mixtures, which would be
        wrong.
      levels: stem -> gain in dB, 0 or less.

    Raises:
      ConfigError: for invalid levels, or a folder with other copies.
    """
    from data_pipeline.audio_writer import write_wav
    from data_pipeline.wav import read_wav, wav_info

    paths = sorted(Path(data_dir).glob("*/*/*.wav"))
    for stem, gain in levels.items():
        if gain > 0 or stem not in {path.stem for path in paths}:
            raise ConfigError(
                f"levels: found {stem}={gain:g}, expected a stem in {data_dir} and 0 dB or less:"
                " 16-bit samples cannot be louder"
            )
    made = {"data_dir": str(Path(data_dir).resolve()), "levels_db": levels}
    made_path = output_dir / "levels.json"
    if made_path.exists() and (before := read_json(made_path)) != made:
        raise ConfigError(
            f"{made_path}: found {before}, expected {made}; choose another --work_dir"
        )
    write_whole(made_path, scoring.to_json(made))
    for path in paths:
        copy = output_dir / path.relative_to(data_dir)
        if path.stem != "mixture" and not copy.exists():
            info = wav_info(path)
            gain = 10 ** (levels.get(path.stem, 0.0) / 20)
            write_wav(copy, gain * read_wav(info), info.sample_rate)


def seeds_of(seeds: Sequence[str]) -> list[int]:
    """Parses --seeds."""
    return [_number("seeds", seed, int) for seed in seeds]


def levels_of(levels: Sequence[str]) -> dict[str, float]:
    """Parses --levels: stem -> gain in dB."""
    return {stem: _number("levels", gain) for stem, gain in _pairs("levels", levels).items()}


def _pairs(flag: str, values: Sequence[str]) -> dict[str, str]:
    """Splits ["a=1", "b"] into {"a": "1", "b": ""}."""
    pairs = dict(value.partition("=")[::2] for value in values)
    if len(pairs) < len(values):
        raise ConfigError(f"--{flag}: found a name twice in {','.join(values)}, expected it once")
    return pairs


def _number(flag: str, text: str, kind: type = float) -> Any:
    try:
        return kind(text)
    except ValueError as error:
        raise ConfigError(f"--{flag}: found {text!r}, expected a number") from error


def main(_: Sequence[str]) -> None:
    """Runs the ablation if there is a data directory, and renders the report."""
    if _DATA_DIR.value:
        for flag in (_CONFIG, _WORK_DIR, _NAME):
            if not flag.value:
                raise ConfigError(f"--{flag.name}: not given, expected a value with --data_dir")
        given = flags.FLAGS["config"]
        file, overrides = given.config_filename, given.override_values
        options = Options(
            config_file=file,
            overrides=overrides,
            data_dir=_DATA_DIR.value,
            work_dir=_WORK_DIR.value,
            report_dir=_REPORT_DIR.value,
            name=_NAME.value,
            variants=variants_of(_VARIANTS.value, file, overrides),
            seeds=seeds_of(_SEEDS.value),
            minutes=_MINUTES.value,
            levels=levels_of(_LEVELS.value),
            excerpt=_EXCERPT.value,
            note=_NOTE.value,
        )
        run_all(options)
    else:
        others = ("config", "work_dir", "name", "note", "variants", "seeds", "minutes", "levels")
        cli.refuse_idle((*others, "excerpt"), True, "without --data_dir")
    shown = ablation.write_report(_REPORT_DIR.value)
    print(Path(_REPORT_DIR.value) / "README.md", shown, sep="\n\n")


if __name__ == "__main__":
    _CONFIG = cli.define_config("What to train.")
    _DATA_DIR = flags.DEFINE_string("data_dir", None, "Tracks in the MUSDB18-HQ layout.")
    _WORK_DIR = flags.DEFINE_string("work_dir", None, "Folder for the runs and their scores.")
    _REPORT_DIR = flags.DEFINE_string(
        "report_dir", None, "Folder for the report and its JSON files.", required=True
    )
    _NAME = flags.DEFINE_string("name", None, "Heading of this ablation in the report.")
    _NOTE = flags.DEFINE_string("note", "", "Description of the data for the report.")
    _VARIANTS = flags.DEFINE_multi_string(
        "variants",
        [],
        "What to compare, given once for each: NAME:FIELD=VALUE,FIELD=VALUE with fields of the"
        " config, or just a NAME for the config as it is. Values that have commas are in brackets.",
    )
    _SEEDS = cli.define_list("seeds", ["0", "1", "2"], "Every variant is run with every seed.")
    _MINUTES = flags.DEFINE_float(
        "minutes",
        None,
        "Train every variant for as many steps as take this time on this machine. Default: for the"
        " config's epochs and steps.",
        lower_bound=0.1,
    )
    _LEVELS = cli.define_list(
        "levels", [], "stem=dB, ...: use a copy of the data with these stems quieter."
    )
    _EXCERPT = flags.DEFINE_float(
        "excerpt",
        None,
        "Score this many seconds from the middle of each test track.",
        lower_bound=1,
    )
    cli.run(main, needs=["matplotlib"])
