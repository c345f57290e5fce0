"""The whole chain on built-in data in a few minutes, by the programs that a user would run.

Makes a synthetic training set, prepares the real 6-second MUSDB18 excerpt that the stempeg package
ships, trains a small network, scores it on unheard tracks beside reference systems, exports it,
and separates the real excerpt with the exported SavedModel.

Example:
  python -m experiments.demo
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from experiments import cli

_SYSTEMS = ("mixture", "scaled", "model", "irm")
_CONFIG = "experiments/configs/small_4stems.py"


def run(program: str, *arguments: str) -> None:
    """Runs one of the programs as a user would; its failure ends the demo."""
    code = cli.run_program(program, *arguments)
    if code:
        sys.exit(abs(code))


def excerpt(musdb_dir: Path) -> str:
    """Puts the excerpt that stempeg ships where MUSDB18's test tracks are; returns its name."""
    from data_pipeline import sigsep

    source = Path(sigsep.load("stempeg").example_stem_path())
    (musdb_dir / "test").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, musdb_dir / "test" / source.name)
    return source.name.removesuffix(".stem.mp4")


def main(_: Sequence[str]) -> None:
    """Runs the chain and prints what came out."""
    from data_pipeline.synthetic import make_set

    began = time.monotonic()
    root = Path(_DEMO_DIR.value)
    data, musdb, real = root / "synthetic", root / "musdb18", root / "excerpt"
    workdir, exported, stems_dir = root / "run", root / "saved_model", root / "stems"

    print(f"Synthetic tracks: {data}", flush=True)
    counts = {"train": _TRAIN_TRACKS.value, "valid": 2, "test": _TEST_TRACKS.value}
    make_set(data, counts, seconds=_SECONDS.value)
    name = excerpt(musdb)
    run("prepare", f"--musdb_dir={musdb}", f"--data_dir={real}")
    overrides = (
        f"--config.epochs={_EPOCHS.value}",
        f"--config.steps_per_epoch={_STEPS.value}",
        "--config.validation_crops=8",
    )
    run("train", f"--config={_CONFIG}", f"--data_dir={data}", f"--workdir={workdir}", *overrides)
    for system in _SYSTEMS:
        run(
            "evaluate",
            f"--model={workdir}",
            f"--data_dir={data}",
            "--split=test",
            f"--output_dir={root / 'scores' / system}",
            f"--system={system}",
        )
    shutil.rmtree(exported, ignore_errors=True)
    run("export", f"--workdir={workdir}", f"--export_dir={exported}")
    mixture = real / "test" / name / "mixture.wav"
    run("separate", f"--model={exported}", f"--output_dir={stems_dir}", "--overwrite", str(mixture))
    heard = data / "test" / "synthetic test 00"
    run(
        "separate",
        f"--model={exported}",
        f"--output_dir={root / 'test_stems'}",
        "--overwrite",
        str(heard / "mixture.wav"),
    )
    plots = {
        "unheard synthetic track": (heard, root / "test_stems" / "mixture", "synthetic.png"),
        "real excerpt": (mixture.parent, stems_dir / "mixture", "excerpt.png"),
    }
    for truth, estimates, png in plots.values():
        run(
            "plot",
            f"--truth_dir={truth}",
            f"--estimates_dir={estimates}",
            f"--output={root / png}",
        )

    summaries = {
        system: json.loads((root / "scores" / system / "summary.json").read_text())
        for system in _SYSTEMS
    }
    result = {
        "stems": {
            stem: {
                system: {
                    metric.lower(): summaries[system]["stems"][stem][metric]["median"]
                    for metric in ("SDR", "SIR")
                }
                for system in _SYSTEMS
            }
            for stem in summaries["model"]["stems"]
        },
        "saved_model": str(exported / "1"),
        "stems_dir": str(stems_dir / "mixture"),
        "input": str(mixture),
        "seconds": round(time.monotonic() - began, 1),
    }
    (root / "summary.json").write_text(json.dumps(result, indent=2) + "\n")
    print(report(result, summaries["model"]))
    print(f"stems of the real excerpt:  {result['stems_dir']}")
    for what, (*_, png) in plots.items():
        print(f"plot of the {what}: {root / png}")
    print(f"SavedModel: {result['saved_model']}")
    print(f"figures: {root / 'summary.json'} ({result['seconds']:.0f} s in all)")


def report(result: dict, summary: dict) -> str:
    """The figures as a table, and what they are worth."""
    lines = [
        "",
        f"{len(summary['tracks'])} unheard synthetic tracks; {summary['metric']}",
        "stem".ljust(10) + "".join(f"{system:^16}" for system in _SYSTEMS),
        " " * 10 + "     SDR     SIR" * len(_SYSTEMS),
    ]
    for stem, scores in result["stems"].items():
        cells = [scores[system][metric] for system in _SYSTEMS for metric in ("sdr", "sir")]
        row = ("    none" if cell is None else f"{cell:8.2f}" for cell in cells)
        lines.append(stem.ljust(10) + "".join(row))
    lines += [
        "mixture: the mixture as every stem; scaled: the mixture times the one constant that suits",
        "each stem of each track best; irm: the ideal ratio mask, an oracle.",
        "The model was trained on synthetic audio alone, for a few minutes: what it makes of real",
        "music shows that the chain works, not how well the method separates.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    os.chdir(Path(__file__).parent.parent)  # the programs are run as the README has them
    _DEMO_DIR = flags.DEFINE_string("demo_dir", "demo", "Where everything is written.")
    _TRAIN_TRACKS = flags.DEFINE_integer("train_tracks", 20, "Synthetic tracks to train on.")
    _TEST_TRACKS = flags.DEFINE_integer("test_tracks", 3, "Synthetic tracks to score.")
    _SECONDS = flags.DEFINE_float("seconds", 20.0, "Length of the synthetic tracks.")
    _EPOCHS = flags.DEFINE_integer("epochs", 8, "Of training.")
    _STEPS = flags.DEFINE_integer("steps_per_epoch", 100, "Of training.")
    cli.run(main)
