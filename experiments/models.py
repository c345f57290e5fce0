"""Lists the models that ship with sccunet, which --model and --init_from accept by name.

Examples:
  sccunet models
  sccunet separate --model=NAME song.mp3

The first is the one that programs take if no model is given. "Weights to train on" says whether
train --init_from takes it. The card of each says what it is for, how it was made, and its scores.
"""

from collections.abc import Sequence

from experiments import cli
from experiments.playing.models import described
from sccunet import runs


def main(_: Sequence[str]) -> None:
    """Prints what is known of each model."""
    for path in runs.shipped_models():
        print(f"{path.name}{' (default)' if path.name == runs.DEFAULT else ''}")
        rows = {
            **described(path)["rows"],
            "Size": f"{(path / runs.NETWORK).stat().st_size / 1e6:.1f} MB",
            "Weights to train on": "yes" if (path / runs.BEST).is_file() else "no",
            "Card": path / runs.CARD,
        }
        print(*(f"  {name}: {value}" for name, value in rows.items()), sep="\n", end="\n\n")
    print("To separate with one: sccunet separate --model=NAME song.mp3")


if __name__ == "__main__":
    cli.run(main)
