r"""Trains one network with several loss weights and seeds, scores every run, and reports.

Examples:
  python -m experiments.ablate --config=experiments/configs/small_2stems.py --data_dir=DATA \
      --losses="alpha 1=1:0,alpha 0=0:1,alpha 0.5=0.5:0.5,balanced" --seeds=0,1,2 \
      --work_dir=WORK --report_dir=results/ablation --name="Two stems"
  python -m experiments.ablate --report_dir=results/ablation

A loss is a name and the weights alpha in the order of the stems; without weights they balance the
stems' volumes. Overrides such as --config.epochs=6 go to the training. WORK keeps the runs, and
what is done there is not done again. The report is made from the JSON files of its folder alone:
without --data_dir the program only makes it again.

Written into REPORT:
  README.md, <name>.png       tables and pictures of every name
  <name>/ablation.json        what was run
  <name>/<loss>/<seed>/...    the scores that experiments.evaluate wrote; <name>/scaled/... too
  <name>/reading.md           what the figures say, written by hand: it stands above the tables
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from ml_collections import config_flags

from experiments import cli, scoring
from experiments.machine import machine
from experiments.reports import pictures
from experiments.reports.report import slug
from sccunet.config import Config, ConfigError
from sccunet.files import write_whole
from sccunet.runs import load_config

_SETTINGS = "ablation.json"
_READING = "reading.md"
_SCALED = "scaled"  # the zero line beside the runs
_SHOWN = ("SDR", "SIR")


def run_all(
    config: Config,
    config_flags: Sequence[str],
    data_dir: str,
    work_dir: str,
    report_dir: str,
    name: str,
    losses: Mapping[str, Sequence[float]],
    seeds: Sequence[int],
    levels: Mapping[str, float],
    excerpt: float | None,
    note: str,
) -> None:
    """Trains and scores every loss with every seed, and publishes the scores in `report_dir`.

    Args:
      config: of the runs, but for weights and seed.
      config_flags: the same config for `experiments.train`, its file first.
      data_dir: tracks in the MUSDB18-HQ layout.
      work_dir: for runs and scores.
      report_dir: for what is published.
      name: of this ablation.
      losses: name -> alpha of each stem, none for the balancing ones.
      seeds: of initial weights, crops and augmentation.
      levels: stem -> gain in dB, in a copy of the data that is used in its place.
      excerpt: score so many seconds from the middle of each test track; None takes all.
      note: what the data is.

    Raises:
      ConfigError: for losses, seeds or levels that cannot be.
    """
    stems = config.model.stems
    folders = [slug(loss) for loss in losses]
    if not folders or len({*folders, _SCALED, ""}) < len(folders) + 2:
        raise ConfigError(
            f"losses: found {', '.join(losses) or 'none'}, expected names that make folders of"
            f" their own, not {_SCALED}"
        )
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"seeds: found {list(seeds)}, expected different ones")
    for loss, weights in losses.items():
        if weights and len(weights) != len(stems):
            raise ConfigError(
                f"losses: found {len(weights)} weights for {loss}, expected one for each of"
                f" {', '.join(stems)}"
            )
    work, published = Path(work_dir), Path(report_dir) / slug(name)
    if levels:
        set_levels(data_dir, work / "data", levels)
        data_dir = str(work / "data")
    score = [f"--data_dir={data_dir}", *([f"--excerpt={excerpt}"] if excerpt else [])]
    used = {}
    for seed in seeds:
        for loss, weights in losses.items():
            run, scores = (work / kind / slug(loss) / str(seed) for kind in ("runs", "scores"))
            alphas = "".join(f"{alpha}," for alpha in weights)
            arguments = [f"--config.seed={seed}", f"--config.loss_weights=({alphas})"]
            arguments += [f"--data_dir={data_dir}", f"--workdir={run}"]
            _run("train", *config_flags, *arguments)
            _run("evaluate", f"--model={run}", f"--output_dir={scores}", *score)
            scoring.publish(scores, published / slug(loss) / str(seed))
            used[loss] = load_config(run)
    scores = work / "scores" / _SCALED
    _run("evaluate", f"--model={run}", f"--output_dir={scores}", "--system=scaled", *score)
    scoring.publish(scores, published / _SCALED)
    settings = {
        "name": name,
        "note": note,
        "stems": stems,
        "weights": {loss: used[loss].loss_weights for loss in losses},
        "seeds": seeds,
        "config": [Path(config_flags[0].split("=", 1)[1]).name, *config_flags[1:]],
        "epochs": config.epochs,
        "steps_per_epoch": config.steps_per_epoch,
        "machine": machine(),
        "levels_db": levels,
        "excerpt_seconds": excerpt,
    }
    write_whole(published / _SETTINGS, scoring.to_json(settings))


def _run(program: str, *arguments: str) -> None:
    if code := cli.run_program(program, *arguments):
        sys.exit(abs(code))


def set_levels(data_dir: str | Path, output_dir: Path, levels: Mapping[str, float]) -> None:
    """Copies stems as 16-bit WAVs, some of them quieter; what is there is kept.

    Args:
      data_dir: tracks in the MUSDB18-HQ layout.
      output_dir: for the copies, in the same layout without mixtures, which no longer fit.
      levels: stem -> gain in dB, 0 or less.

    Raises:
      ConfigError: for levels that cannot be, or a folder with other copies.
    """
    from data_pipeline import audio
    from data_pipeline.wav import read_wav, wav_info

    paths = sorted(Path(data_dir).glob("*/*/*.wav"))
    for stem, gain in levels.items():
        if gain > 0 or stem not in {path.stem for path in paths}:
            raise ConfigError(
                f"levels: found {stem}={gain:g}, expected the name of a file in {data_dir} and 0 dB"
                " or less: 16 bits hold no more"
            )
    made = {"data_dir": str(Path(data_dir).resolve()), "levels_db": levels}
    made_path = output_dir / "levels.json"
    if made_path.exists() and (before := json.loads(made_path.read_text())) != made:
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


def report(report_dir: str | Path) -> None:
    """Writes README.md and the pictures of a report, from the JSON files in it and nothing else.

    Raises:
      ConfigError: if there is no ablation in it.
    """
    report_dir = Path(report_dir)
    settings = sorted(report_dir.glob(f"*/{_SETTINGS}"))
    if not settings:
        raise ConfigError(f"report_dir {report_dir}: found no */{_SETTINGS}, expected an ablation")
    lines = [
        "# Loss weights: an ablation",
        "",
        "Made by `python -m experiments.ablate` from the JSON files beside it, which hold"
        " every track's scores; do not edit.",
    ]
    for path in settings:
        lines += _section(path.parent)
    write_whole(report_dir / "README.md", "\n".join(lines) + "\n")


def _section(folder: Path) -> list[str]:
    settings = json.loads((folder / _SETTINGS).read_text())
    stems, seeds = settings["stems"], settings["seeds"]
    runs = {
        loss: [scoring.summarise(folder / slug(loss) / str(seed)) for seed in seeds]
        for loss in settings["weights"]
    }
    scaled = scoring.summarise(folder / _SCALED)
    scored = scaled["stems"][stems[0]]
    lines = ["", f"## {settings['name']}", "", settings["note"], ""]
    if (folder / _READING).exists():
        lines += [(folder / _READING).read_text().strip(), ""]
    hardware = settings["machine"]
    steps = settings["steps_per_epoch"]
    if settings["levels_db"]:
        levels = ", ".join(f"{stem} {gain:g} dB" for stem, gain in settings["levels_db"].items())
        lines += [f"Levels of the stems changed, in training and test: {levels}.", ""]
    lines += [
        f"{' '.join(settings['config'])}; {settings['epochs']} epochs of"
        f" {f'{steps} steps' if steps else 'all crops'}, {len(seeds)} seeds, on {hardware['cpu']},"
        f" {hardware['cores']} cores; {len(scaled['tracks'])} test tracks, {scored['frames']} s"
        + (" (the middle of each track)" if settings["excerpt_seconds"] else "")
        + ". Cells: mean over the seeds ± their standard deviation, dB. `scaled`: the mixture times"
        " the constant that suits the stem of the track best, the zero line.",
        "",
        f"![{settings['name']}]({folder.name}.png)",
        "",
        f"{scaled['metric']}:",
        "",
        *_table(settings, runs, scaled, _museval, _SHOWN),
        "",
        f"{scaled['whole_track_sdr']['metric']}:",
        "",
        *_table(settings, runs, scaled, _whole_track, ("SDR",)),
        "",
    ]
    silent = {
        f"{loss}: {min(counts)} to {max(counts)} of {scored['frames']} s"
        for loss, summaries in runs.items()
        if min(counts := [summary["stems"][stems[0]]["frames_scored"] for summary in summaries])
        < scored["frames_scored"]
    }
    if silent:
        lines += [
            "museval gives no stem a score for a second in which any stem is silent, as reference"
            f" or as estimate. Scored with {'; '.join(sorted(silent))}; the others"
            f" {scored['frames_scored']} of {scored['frames']} s.",
            "",
        ]
    _draw(settings, runs, scaled, folder.with_suffix(".png"))
    return lines[:-1]


def _museval(summary: Mapping[str, Any], stem: str, metric: str) -> float | None:
    return summary["stems"][stem][metric]["median"]


def _whole_track(summary: Mapping[str, Any], stem: str, metric: str) -> float | None:
    return summary["whole_track_sdr"]["stems"][stem]["median"]


def _table(settings, runs, scaled, value, metrics) -> list[str]:
    """Rows: losses. Columns: the weights, each stem's metrics, and the mean of the stems' SDR."""
    stems = settings["stems"]
    columns = [(stem, metric) for stem in stems for metric in metrics]
    head = ["loss", "weights", *(f"{stem} {metric}" for stem, metric in columns), "mean SDR"]
    rows = [head, ["---"] * len(head)]

    def cells(summaries):
        for stem, metric in columns:
            yield _cell([value(summary, stem, metric) for summary in summaries])
        means = [[value(summary, stem, "SDR") for stem in stems] for summary in summaries]
        yield _cell([None if None in row else float(np.mean(row)) for row in means])

    for loss, summaries in runs.items():
        weights = ", ".join(f"{alpha:.3g}" for alpha in settings["weights"][loss])
        rows.append([loss, weights, *cells(summaries)])
    rows.append(["`scaled`", "", *cells([scaled])])
    return [f"| {' | '.join(row)} |" for row in rows]


def _cell(values: Sequence[float | None]) -> str:
    if None in values:
        return "no score"
    mean = f"{np.mean(values):.2f}"
    return mean if len(values) == 1 else f"{mean} ± {np.std(values, ddof=1):.2f}"


def _draw(settings, runs, scaled, path: Path) -> None:
    """Whole-track SDR of every run: a panel for each stem and their mean, a dot for each seed."""
    pyplot = pictures.load_pyplot()
    stems = settings["stems"]
    figure, axes = pyplot.subplots(
        1, len(stems) + 1, figsize=(2.6 * (len(stems) + 1), 3), layout="constrained"
    )

    def values(summary):
        scores = [_whole_track(summary, stem, "SDR") for stem in stems]
        return [*scores, float(np.mean(scores))]

    for i, (axis, title) in enumerate(zip(axes, [*stems, "mean of the stems"], strict=True)):
        for x, summaries in enumerate(runs.values()):
            axis.plot([x] * len(summaries), [values(s)[i] for s in summaries], "o", alpha=0.7)
        axis.axhline(values(scaled)[i], color="0.4", linestyle="--", label=_SCALED)
        axis.set_xticks(range(len(runs)), runs, rotation=30, ha="right")
        axis.set_xlim(-0.5, len(runs) - 0.5)
        axis.set_title(title)
        axis.grid(axis="y", alpha=0.3)
    axes[0].set_ylabel("whole-track SDR, dB\n(median over tracks)")
    axes[0].legend()
    pictures.save(figure, path)


def _pairs(flag: str, values: Sequence[str]) -> dict[str, str]:
    """["a=1", "b"] -> {"a": "1", "b": ""}."""
    pairs = dict(value.partition("=")[::2] for value in values)
    if len(pairs) < len(values):
        raise ConfigError(f"--{flag}: found a name twice in {','.join(values)}")
    return pairs


def _number(flag: str, text: str, kind: type = float) -> Any:
    try:
        return kind(text)
    except ValueError as error:
        raise ConfigError(f"--{flag}: found {text!r}, expected a number") from error


def main(_: Sequence[str]) -> None:
    """Runs what the flags say, if they say something, and makes the report."""
    if _DATA_DIR.value:
        for flag in (_CONFIG, _WORK_DIR, _NAME):
            if not flag.value:
                raise ConfigError(f"--{flag.name}: missing, expected with --data_dir")
        run_all(
            Config.from_dict(_CONFIG.value),
            [f"--config={flags.FLAGS['config'].config_filename}", *cli.config_overrides()],
            _DATA_DIR.value,
            _WORK_DIR.value,
            _REPORT_DIR.value,
            _NAME.value,
            {
                loss: [_number("losses", alpha) for alpha in weights.split(":") if weights]
                for loss, weights in _pairs("losses", _LOSSES.value).items()
            },
            [_number("seeds", seed, int) for seed in _SEEDS.value],
            {
                stem: _number("levels", gain)
                for stem, gain in _pairs("levels", _LEVELS.value).items()
            },
            _EXCERPT.value,
            _NOTE.value,
        )
    report(_REPORT_DIR.value)
    print(Path(_REPORT_DIR.value) / "README.md")


if __name__ == "__main__":
    _CONFIG = config_flags.DEFINE_config_file("config", None, "What to train: a file of configs/.")
    _DATA_DIR = flags.DEFINE_string("data_dir", None, "Tracks in the MUSDB18-HQ layout.")
    _WORK_DIR = flags.DEFINE_string("work_dir", None, "Where the runs and their scores are kept.")
    _REPORT_DIR = flags.DEFINE_string(
        "report_dir", None, "Where the report and its JSON are written.", required=True
    )
    _NAME = flags.DEFINE_string("name", None, "Heading of this ablation in the report.")
    _NOTE = flags.DEFINE_string("note", "", "What the data is, for the report.")
    _LOSSES = flags.DEFINE_list("losses", ["balanced"], "name=alpha:alpha:..., or a name alone.")
    _SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Each loss is run with each.")
    _LEVELS = flags.DEFINE_list(
        "levels", [], "stem=dB, ...: on a copy of the data with these stems quieter."
    )
    _EXCERPT = flags.DEFINE_float(
        "excerpt", None, "Score so many seconds from the middle of each test track.", lower_bound=1
    )
    cli.run(main)
