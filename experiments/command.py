"""The command `sccunet`: `sccunet separate ...` runs `python -m experiments.separate ...`."""

import difflib
import runpy
import sys

from experiments import streams
from sccunet import __version__

# Group -> command -> what it does. Each command is a program or package in this folder.
COMMANDS = {
    "Separate": {
        "separate": "separates recordings of any length into stems",
        "demo": "separates a real song that comes with sccunet",
        "player": "separates songs and plays their stems in the browser",
        "models": "lists the models that ship with sccunet, with their licences and cards",
    },
    "Train": {
        "prepare": "decodes MUSDB18 or other compressed stems to WAV files for training",
        "train": "trains a network on a folder of tracks",
        "calibrate": "sets the level of a network's masks on songs that it has not heard",
        "evaluate": "scores a model or another system on a folder of tracks",
        "export": "exports a trained network as a portable model, a SavedModel or a TFLite file",
        "configs": "lists the configurations that --config accepts by name",
        "free_music": "builds a training set that anybody may use, from free sources",
    },
    "Serve": {
        "client": "separates recordings on a TensorFlow Serving server",
        "catalogue": "separates, scores or prepares thousands of files with Apache Beam",
    },
    "Compare": {
        "compare": "scores and measures several systems on the same tracks, with a report",
        "measure": "measures speed and memory of one system, as compare does",
        "ablate": "trains variants of a config with several seeds, with a report",
        "benchmark": "measures time and memory of reading, training and separation",
        "train_open_unmix": "trains Open-Unmix on the same crops for a given time",
    },
    "Other": {
        "convert": "converts weights from TensorFlow to PyTorch and back",
        "plot": "draws spectrograms of true and estimated stems",
        "tour": "runs the whole chain on built-in data",
    },
}


def overview() -> str:
    """Returns the list of all commands in their groups, as text for a terminal."""
    lines = ["Usage: sccunet COMMAND [--help] ..."]
    for group, commands in COMMANDS.items():
        lines += ["", f"{group}:"]
        lines += [f"  {name:<17} {what}" for name, what in commands.items()]
    return "\n".join(
        [
            *lines,
            "",
            "sccunet COMMAND --help shows flags and examples; sccunet --version shows the version.",
            "Example: sccunet separate --model=RUN --output_dir=OUT song.mp3",
        ]
    )


def main() -> None:
    """Runs the command that the first argument names."""
    streams.protect()
    name, *arguments = sys.argv[1:] or ["--help"]
    name = name if name.startswith("-") else name.replace("-", "_")
    known = [name for commands in COMMANDS.values() for name in commands]
    if name in ("--help", "-h", "help"):
        print(overview())
    elif name == "--version":
        print(f"sccunet {__version__}")
    elif name in known:
        sys.argv = [sys.argv[0], *arguments]
        runpy.run_module(f"experiments.{name}", run_name="__main__", alter_sys=True)
    else:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]}?" if near else "run sccunet for a list"
        print(f"error: found the unknown command {name!r}: {hint}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
