r"""Trains one network with several loss weights and seeds, scores all runs, and writes a report.

Examples:
  sccunet ablate --config=small_2stems --data_dir=DATA --seeds=0,1,2 \
      --losses="alpha 1=1:0,alpha 0=0:1,alpha 0.5=0.5:0.5,balanced" \
      --work_dir=WORK --report_dir=REPORT --name="Two stems"
  sccunet ablate --report_dir=REPORT

A loss is a name with the weights alpha in the order of the stems. Without weights, alpha balances
the stems' volumes. Overrides such as --config.epochs=6 are passed to the training. WORK keeps the
runs; finished work there is not repeated. The report is rendered only from the JSON files in its
folder; without --data_dir the program does nothing else.

The program writes into REPORT:
  README.md, <name>.png       tables and pictures of all ablations
  <name>/ablation.json        settings of the runs
  <name>/<loss>/<seed>/...    scores of `sccunet evaluate`; also <name>/scaled/...
It shows above the tables, if it is there:
  <name>/reading.md           interpretation of the figures, written by hand
"""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from experiments import cli, configs, scoring
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
      config: config of the runs, except for loss weights and seed.
      config_file: the file of the config.
      overrides: flags that changed the config.
      data_dir: tracks in the MUSDB18-HQ layout.
      work_dir: folder for runs and scores.
      report_dir: folder of the report.
      name: name of this ablation.
      losses: name -> alpha of each stem; empty for the balancing weights.
      seeds: seeds of initial weights, crops and augmentation.
      levels: stem -> gain in dB, applied in a copy of the data that is used instead.
      excerpt: score this many seconds from the middle of each test track; None: all.
      note: description of the data.
    """

    config: Config
    config_file: str
    overrides: Sequence[str]
    data_dir: str
    work_dir: str
    report_dir: str
    name: str
    losses: Mapping[str, Sequence[float]]
    seeds: Sequence[int]
    levels: Mapping[str, float]
    excerpt: float | None
    note: str


def run_all(options: Options) -> None:
    """Trains and scores every loss with every seed, and publishes the scores in `report_dir`.

    Raises:
      ConfigError: for invalid losses, seeds or levels.
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
    used = {}
    for seed in options.seeds:
        for loss, weights in options.losses.items():
            run, scores = (work / kind / slug(loss) / str(seed) for kind in ("runs", "scores"))
            alphas = "".join(f"{alpha}," for alpha in weights)
            config = [f"--config={options.config_file}", *options.overrides]
            config += [f"--config.seed={seed}", f"--config.loss_weights=({alphas})"]
            _run("train", *config, f"--data_dir={data_dir}", f"--workdir={run}")
            _run("evaluate", f"--model={run}", f"--output_dir={scores}", *score)
            scoring.publish(scores, published / slug(loss) / str(seed))
            used[loss] = load_config(run).loss_weights
    scores = work / "scores" / ablation.SCALED
    _run("evaluate", f"--model={run}", f"--output_dir={scores}", "--system=scaled", *score)
    scoring.publish(scores, published / ablation.SCALED)
    write_whole(published / ablation.SETTINGS, scoring.to_json(_settings(options, used)))


def _check(options: Options) -> None:
    stems, losses, seeds = options.config.model.stems, options.losses, options.seeds
    names = [slug(loss) for loss in losses]
    if not names or len({*names, ablation.SCALED, ""}) < len(names) + 2:
        raise ConfigError(
            f"losses: found {', '.join(losses) or 'none'}, expected names that make different"
            f" folders, and not {ablation.SCALED}"
        )
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"seeds: found {list(seeds)}, expected different ones")
    for loss, weights in losses.items():
        if weights and len(weights) != len(stems):
            raise ConfigError(
                f"losses: found {len(weights)} weights for {loss}, expected one for each of"
                f" {', '.join(stems)}"
            )


def _settings(options: Options, weights: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Returns the settings of the runs for the report, with the `weights` that were used."""
    return {
        "name": options.name,
        "note": options.note,
        "stems": options.config.model.stems,
        "weights": weights,
        "seeds": options.seeds,
        "config": [Path(configs.name_of(options.config_file)).name, *options.overrides],
        "epochs": options.config.epochs,
        "steps_per_epoch": options.config.steps_per_epoch,
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
    from data_pipeline import audio
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
            audio.write_wav(copy, gain * read_wav(info), info.sample_rate)


def weights_of(losses: Sequence[str]) -> dict[str, list[float]]:
    """Parses --losses: name -> alpha of each stem."""
    return {
        loss: [_number("losses", alpha) for alpha in weights.split(":") if weights]
        for loss, weights in _pairs("losses", losses).items()
    }


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
        for field, flag in (("seed", "seeds"), ("loss_weights", "losses")):
            if field in flags.FLAGS["config"].override_values:
                raise ConfigError(f"--config.{field}: given, expected none: --{flag} has them")
        options = Options(
            Config.from_dict(_CONFIG.value),
            flags.FLAGS["config"].config_filename,
            cli.config_overrides(),
            _DATA_DIR.value,
            _WORK_DIR.value,
            _REPORT_DIR.value,
            _NAME.value,
            weights_of(_LOSSES.value),
            seeds_of(_SEEDS.value),
            levels_of(_LEVELS.value),
            _EXCERPT.value,
            _NOTE.value,
        )
        run_all(options)
    else:
        others = ("config", "work_dir", "name", "note", "losses", "seeds", "levels", "excerpt")
        cli.refuse_idle(others, True, "without --data_dir")
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
    _LOSSES = cli.define_list(
        "losses",
        ["balanced"],
        "Each name=alpha:alpha:..., or just a name for weights that balance the volumes.",
    )
    _SEEDS = cli.define_list("seeds", ["0", "1", "2"], "Every loss is run with every seed.")
    _LEVELS = cli.define_list(
        "levels", [], "stem=dB, ...: use a copy of the data with these stems quieter."
    )
    _EXCERPT = flags.DEFINE_float(
        "excerpt",
        None,
        "Score this many seconds from the middle of each test track.",
        lower_bound=1,
    )
    cli.run(main)
