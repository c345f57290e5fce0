"""Exports a trained network as a SavedModel from waveforms to one waveform per stem.

Examples:
  sccunet export --workdir=RUN --export_dir=EXPORT --licence="CC BY-NC-SA 4.0"
  sccunet export --workdir=RUN --export_dir=EXPORT --tflite=network.tflite

Writes EXPORT/1/, or the next number if there are versions, as TensorFlow Serving expects. Existing
versions are never changed. The new version appears only after all of its signatures, loaded in a
new process, have given the same results as the network in memory.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from experiments import cli
from sccunet.config import ConfigError
from sccunet.files import read_json
from sccunet.runs import load_config, load_unet, new_version


def training_data(workdir: str) -> str:
    """Describes the training tracks, as the workdir's `data.json` lists them."""
    path = Path(workdir) / "data.json"
    if not path.exists():  # as in a workdir of converted weights
        return "not stated"
    data = read_json(path, "split", "training")
    names = sorted({name for _, name, *_ in data["training"]})
    return f"{data['split']}: {', '.join(names)}"


def main(_: Sequence[str]) -> None:
    """Exports the workdir's best weights."""
    config = load_config(_WORKDIR.value, workdir=True)
    new_version(_EXPORT_DIR.value, _MODEL_VERSION.value)
    if _TFLITE.value and os.path.exists(_TFLITE.value):
        raise ConfigError(f"{_TFLITE.value}: found an existing file, expected a new one")

    import tensorflow as tf

    # The check is of the file's arithmetic, not of a GPU's.
    tf.config.set_visible_devices([], "GPU")

    from sccunet.export import export_saved_model
    from sccunet.tflite import export_tflite

    unet = load_unet(_WORKDIR.value, config)
    print("writing, then running every signature in a new process", flush=True)
    export = export_saved_model(
        unet,
        config,
        _EXPORT_DIR.value,
        version=_MODEL_VERSION.value,
        training_data=_TRAINING_DATA.value or training_data(_WORKDIR.value),
        licence=_LICENCE.value,
    )
    print(f"SavedModel, checked against the model in memory: {export}")
    if _TFLITE.value:
        export_tflite(unet, config, _TFLITE.value)
        print(f"TFLite file, checked against the model in memory: {_TFLITE.value}")


if __name__ == "__main__":
    _WORKDIR = flags.DEFINE_string("workdir", None, "A training workdir.", required=True)
    _EXPORT_DIR = flags.DEFINE_string(
        "export_dir",
        None,
        "Folder for the exports; the SavedModel is written into a numbered folder in it.",
        required=True,
    )
    _MODEL_VERSION = flags.DEFINE_integer(
        "model_version",
        None,
        "Number of the new version. Default: one more than the newest.",
        lower_bound=1,
    )
    _TRAINING_DATA = flags.DEFINE_string(
        "training_data",
        None,
        "Description of the training data, for the model's metadata. Default: the names of the"
        " training tracks.",
    )
    _LICENCE = flags.DEFINE_string(
        "licence", "not stated", "Licence of the weights, for the model's metadata."
    )
    _TFLITE = flags.DEFINE_string(
        "tflite", None, "Also write the network, without STFTs, to this TFLite (LiteRT) file."
    )
    cli.run(main, needs=["tensorflow"])
