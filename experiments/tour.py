"""Runs the whole chain on built-in data in a few minutes, with the programs that a user would run.

The tour makes a synthetic training set and prepares the real 6-second MUSDB18 excerpt that comes
with the stempeg package. It trains a small network, scores the network and reference systems on
unseen tracks, exports the network, and separates the real excerpt with the exported SavedModel.

Example:
  sccunet tour
"""

import json
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from experiments import cli
from experiments.reports import tables
from sccunet.checks import counted
from sccunet.files import read_json, write_whole

_SYSTEMS = ("mixture", "scaled", "model", "irm")
_CONFIG = "small_4stems"
# Folders in the tour's folder.
_DATA, _EXCERPT, _RUN, _MODEL, _SCORES = "synthetic", "excerpt", "run", "saved_model", "scores"


def tour(
    root: Path, train_tracks: int, test_tracks: int, seconds: float, epochs: int, steps: int
) -> None:
    """Runs the chain in the folder `root` and prints the results.

    Args:
      root: folder of the tour, made if it does not exist.
      train_tracks: number of synthetic tracks to train on.
      test_tracks: number of synthetic tracks to score.
      seconds: length of each track.
      epochs: number of training epochs.
      steps: training steps per epoch.
    """
    began = time.monotonic()
    name = make_data(root, {"train": train_tracks, "valid": 2, "test": test_tracks}, seconds)
    train_and_score(root, epochs, steps)
    mixtures = {
        "unseen synthetic track": root / _DATA / "test" / "synthetic test 00" / "mixture.wav",
        "real excerpt": root / _EXCERPT / "test" / name / "mixture.wav",
    }
    plots = separate_and_plot(root, mixtures)
    summaries = {system: read_json(root / _SCORES / system / "summary.json") for system in _SYSTEMS}
    result = {
        "stems": _medians(summaries),
        "saved_model": str(root / _MODEL / "1"),
        "stems_dir": str(_stems_dir(root, "real excerpt")),
        "input": str(mixtures["real excerpt"]),
        "seconds": round(time.monotonic() - began, 1),
    }
    write_whole(root / "summary.json", json.dumps(result, indent=2) + "\n")
    print(report(result, summaries["model"]))
    print(f"stems of the real excerpt:  {result['stems_dir']}")
    for what, png in plots.items():
        print(f"plot of the {what}: {png}")
    print(f"SavedModel: {result['saved_model']}")
    print(f"figures: {root / 'summary.json'} ({result['seconds']:.0f} s in all)")


def make_data(root: Path, tracks: dict[str, int], seconds: float) -> str:
    """Makes the synthetic set and prepares stempeg's excerpt; returns the excerpt's name."""
    from data_pipeline import sigsep
    from data_pipeline.synthetic import make_set

    print(f"Synthetic tracks: {root / _DATA}", flush=True)
    make_set(root / _DATA, tracks, seconds=seconds)
    source = Path(sigsep.load("stempeg").example_stem_path())
    musdb = root / "musdb18"
    (musdb / "test").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, musdb / "test" / source.name)
    run("prepare", f"--input_dir={musdb}", f"--data_dir={root / _EXCERPT}")
    return source.name.removesuffix(".stem.mp4")


def train_and_score(root: Path, epochs: int, steps: int) -> None:
    """Trains on the synthetic set; scores the network and the other systems."""
    data = f"--data_dir={root / _DATA}"
    run(
        "train",
        f"--config={_CONFIG}",
        data,
        f"--workdir={root / _RUN}",
        f"--config.epochs={epochs}",
        f"--config.steps_per_epoch={steps}",
        "--config.validation_crops=8",
    )
    for system in _SYSTEMS:
        output_dir = root / _SCORES / system
        run(
            "evaluate",
            f"--model={root / _RUN}",
            data,
            "--split=test",
            f"--output_dir={output_dir}",
            f"--system={system}",
        )


def separate_and_plot(root: Path, mixtures: dict[str, Path]) -> dict[str, Path]:
    """Exports the network, separates recordings with the export, and plots truth and estimates.

    Args:
      root: folder of the tour.
      mixtures: name of a recording -> its file, in the same folder as its true stems.

    Returns:
      Name of a recording -> its picture.
    """
    shutil.rmtree(root / _MODEL, ignore_errors=True)
    run("export", f"--workdir={root / _RUN}", f"--export_dir={root / _MODEL}")
    plots = {}
    for what, mixture in mixtures.items():
        stems = _stems_dir(root, what)
        plots[what] = root / f"{what.replace(' ', '_')}.png"
        run(
            "separate",
            f"--model={root / _MODEL}",
            f"--output_dir={stems.parent}",
            "--overwrite",
            str(mixture),
        )
        run(
            "plot",
            f"--truth_dir={mixture.parent}",
            f"--estimates_dir={stems}",
            f"--output={plots[what]}",
        )
    return plots


def run(program: str, *arguments: str) -> None:
    """Runs one of the programs as a user would; exits if it fails."""
    code = cli.run_program(program, *arguments)
    if code:
        sys.exit(abs(code))


def _stems_dir(root: Path, what: str) -> Path:
    return root / "stems" / what.replace(" ", "_") / "mixture"


def _medians(summaries: dict[str, dict]) -> dict[str, dict[str, dict[str, float]]]:
    """Returns stem -> system -> median SDR and SIR over the tracks, from the systems' summaries."""
    return {
        stem: {
            system: {
                metric.lower(): summary["stems"][stem][metric]["median"]
                for metric in ("SDR", "SIR")
            }
            for system, summary in summaries.items()
        }
        for stem in summaries["model"]["stems"]
    }


def report(result: dict, summary: dict) -> str:
    """Returns the figures as a table, and what they mean."""
    tracks = counted(len(summary["tracks"]), "unseen synthetic track")
    lines = [
        "",
        *tables.wrapped(f"{tracks}; {summary['metric']}"),
        "stem".ljust(10) + "".join(f"{system:^16}" for system in _SYSTEMS),
        " " * 10 + "     SDR     SIR" * len(_SYSTEMS),
    ]
    for stem, scores in result["stems"].items():
        cells = [scores[system][metric] for system in _SYSTEMS for metric in ("sdr", "sir")]
        row = (f"{tables.decibels(cell, none='none', over='>'):>8}" for cell in cells)
        lines.append(stem.ljust(10) + "".join(row))
    lines += [
        *tables.wrapped(
            "mixture: the mixture as every stem; scaled: the mixture times the best constant for"
            " each stem of each track; irm: the ideal ratio mask, an oracle."
        ),
        *tables.wrapped(
            "The model was trained only on synthetic audio, for a few minutes. Its stems of real"
            " music show that the chain works, not how well the method separates."
        ),
        "",
    ]
    return "\n".join(lines)


def main(_: Sequence[str]) -> None:
    """Runs the chain as the flags say."""
    tour(
        Path(_TOUR_DIR.value),
        _TRAIN_TRACKS.value,
        _TEST_TRACKS.value,
        _SECONDS.value,
        _EPOCHS.value,
        _STEPS.value,
    )


if __name__ == "__main__":
    _TOUR_DIR = flags.DEFINE_string("tour_dir", "tour", "Folder for everything that is written.")
    _TRAIN_TRACKS = flags.DEFINE_integer("train_tracks", 20, "Number of synthetic training tracks.")
    _TEST_TRACKS = flags.DEFINE_integer("test_tracks", 3, "Number of synthetic test tracks.")
    _SECONDS = flags.DEFINE_float("seconds", 20.0, "Length of a synthetic track, in seconds.")
    _EPOCHS = flags.DEFINE_integer("epochs", 8, "Number of training epochs.")
    _STEPS = flags.DEFINE_integer("steps_per_epoch", 100, "Training steps per epoch.")
    cli.run(main, needs=["tensorflow"])
