"""The command `sccunet`: `sccunet separate ...` is `python -m experiments.separate ...`."""

import difflib
import runpy
import sys

from sccunet import __version__

# Group -> command -> what it does. A command is the program, or package, of that name beside this.
COMMANDS = {
    "Separate": {
        "separate": "recordings of any length into stems",
    },
    "Train": {
        "prepare": "MUSDB18, or compressed files, to the WAV files that train reads",
        "train": "a network on a folder of tracks",
        "evaluate": "scores of a model, or of another system, on a folder of tracks",
        "export": "a trained network as SavedModel and TFLite file",
        "configs": "lists the configurations that --config takes by name",
    },
    "Serve": {
        "client": "separates on a TensorFlow Serving server",
        "catalogue": "separates, scores or prepares thousands of files on Apache Beam",
    },
    "Compare": {
        "compare": "several systems on the same tracks, as a report",
        "measure": "speed and memory of one system, as compare takes them",
        "ablate": "loss weights and seeds in one table",
        "benchmark": "time and memory of reading, training and separation",
        "train_open_unmix": "Open-Unmix on the same crops for a given time",
    },
    "Other": {
        "convert": "weights from TensorFlow to PyTorch and back",
        "plot": "spectrograms of true and estimated stems",
        "demo": "the whole chain on built-in data",
    },
}


def overview() -> str:
    """All commands in their groups, as text for a terminal."""
    lines = ["Usage: sccunet COMMAND [--help] ..."]
    for group, commands in COMMANDS.items():
        lines += ["", f"{group}:"]
        lines += [f"  {name:<17} {what}" for name, what in commands.items()]
    return "\n".join(
        [
            *lines,
            "",
            "sccunet COMMAND --help shows its flags and examples; sccunet --version the version.",
            "Example: sccunet separate --model=RUN --output_dir=OUT song.mp3",
        ]
    )


def main() -> None:
    """Runs the command that the first argument names."""
    name, *arguments = sys.argv[1:] or ["--help"]
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
        hint = f"did you mean {near[0]}?" if near else "sccunet alone lists all"
        print(f"error: found the command {name!r}, expected another: {hint}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
