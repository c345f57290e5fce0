"""Exports a trained network as a SavedModel: waveforms in, one waveform per stem out.

Example:
  python -m experiments.export --workdir=RUN --export_dir=EXPORT
"""

from collections.abc import Sequence

from absl import flags

from experiments import cli
from sccunet.config import load_config


def main(_: Sequence[str]) -> None:
    """Exports the workdir's best weights."""
    config = load_config(_WORKDIR.value)

    from sccunet.export import export_saved_model
    from sccunet.separation import load_unet

    export_saved_model(load_unet(_WORKDIR.value, config), config, _EXPORT_DIR.value)
    print(f"SavedModel, checked against the model in memory: {_EXPORT_DIR.value}")


if __name__ == "__main__":
    _WORKDIR = flags.DEFINE_string("workdir", None, "A training workdir.", required=True)
    _EXPORT_DIR = flags.DEFINE_string(
        "export_dir", None, "Where the SavedModel is written; must not exist yet.", required=True
    )
    cli.run(main)
