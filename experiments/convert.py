"""Converts a trained network to a PyTorch checkpoint, or such a checkpoint to a workdir.

Examples:
  sccunet convert --workdir=RUN --output=twin.pt
  sccunet convert --checkpoint=twin.pt --workdir=NEW

The checkpoint holds RUN's best weights, as `state_dict` of the network in experiments/twin.py, and
its config as JSON: `torch.load("twin.pt", weights_only=True)`. All programs accept NEW as a
workdir. Training cannot be continued in it, only started from it (`sccunet train --init_from=NEW`).
Existing files are never changed. The program needs PyTorch (pip install torch).
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from experiments import cli
from sccunet.config import ConfigError
from sccunet.files import folder_written_whole
from sccunet.runs import CONFIG, load_config


def to_checkpoint(workdir: str, path: str) -> None:
    """Writes a workdir's config and best weights into a PyTorch checkpoint.

    Raises:
      ConfigError: if the file exists, or the workdir has no weights that fit.
    """
    from experiments import twin

    if Path(path).exists():
        raise ConfigError(f"{path}: found an existing file, expected a new one")
    config = load_config(workdir, workdir=True)

    from sccunet.runs import load_unet

    twin.write_checkpoint(path, twin.to_torch(load_unet(workdir, config), config), config)


def to_workdir(path: str, workdir: str) -> None:
    """Makes a workdir from a PyTorch checkpoint.

    Raises:
      ConfigError: if the workdir exists, or the file is not a checkpoint of this network.
    """
    from experiments import twin

    if Path(workdir).exists():
        raise ConfigError(f"{workdir}: found an existing folder, expected a new one")
    state_dict, config = twin.read_checkpoint(path)

    from sccunet.checkpoints import BEST
    from sccunet.unet import build_model

    unet = build_model(config)
    twin.to_keras(state_dict, unet)
    with folder_written_whole(workdir, new=True) as folder:
        (folder / CONFIG).write_text(config.to_json())
        unet.save_weights(folder / BEST)


def main(_: Sequence[str]) -> None:
    """Converts in the direction given by the flags."""
    if bool(_OUTPUT.value) == bool(_CHECKPOINT.value):
        found = "both" if _OUTPUT.value else "neither"
        raise ConfigError(f"--output, --checkpoint: found {found}, expected one of them")
    if _OUTPUT.value:
        to_checkpoint(_WORKDIR.value, _OUTPUT.value)
        print(f"PyTorch checkpoint: {_OUTPUT.value}")
    else:
        to_workdir(_CHECKPOINT.value, _WORKDIR.value)
        print(f"config and weights: {_WORKDIR.value}")


if __name__ == "__main__":
    _WORKDIR = flags.DEFINE_string(
        "workdir",
        None,
        "A training workdir; with --checkpoint, a new folder.",
        required=True,
    )
    _OUTPUT = flags.DEFINE_string("output", None, "The PyTorch checkpoint to write, a new file.")
    _CHECKPOINT = flags.DEFINE_string("checkpoint", None, "The PyTorch checkpoint to read.")
    cli.run(main, needs=["tensorflow"])
