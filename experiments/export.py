"""Exports a trained network as a SavedModel: waveforms in, one waveform per stem out.

Examples:
  sccunet export --workdir=RUN --export_dir=EXPORT --licence="CC BY-NC-SA 4.0"
  sccunet export --workdir=RUN --export_dir=EXPORT --tflite=network.tflite

Writes EXPORT/1/, or the next number where there are versions, as TensorFlow Serving expects; a
version that is there is never touched. It is there only after all of its signatures, loaded in a
fresh process, gave what the network in memory gives.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from experiments import cli
from sccunet.config import ConfigError
from sccunet.runs import load_config, load_unet, new_version


def training_data(workdir: str) -> str:
    """What the workdir's `data.json` says of the tracks, in words."""
    try:
        data = json.loads((Path(workdir) / "data.json").read_text())
        names = sorted({name for _, name, *_ in data["training"]})
        return f"{data['split']}: {', '.join(names)}"
    except (OSError, ValueError, KeyError, TypeError):
        return "not stated"


def main(_: Sequence[str]) -> None:
    """Exports the workdir's best weights."""
    config = load_config(_WORKDIR.value)
    new_version(_EXPORT_DIR.value, _MODEL_VERSION.value)
    if _TFLITE.value and os.path.exists(_TFLITE.value):
        raise ConfigError(f"{_TFLITE.value}: found already there, expected a new file")

    import tensorflow as tf

    # What is checked is the arithmetic of the file, not that of a GPU.
    tf.config.set_visible_devices([], "GPU")

    from sccunet.export import export_saved_model
    from sccunet.tflite import export_tflite

    unet = load_unet(_WORKDIR.value, config)
    print("writing, then running every signature in a fresh process", flush=True)
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
        "export_dir", None, "The SavedModel is written into a numbered folder in it.", required=True
    )
    _MODEL_VERSION = flags.DEFINE_integer(
        "model_version",
        None,
        "Its number, a new one. Default: one more than the newest.",
        lower_bound=1,
    )
    _TRAINING_DATA = flags.DEFINE_string(
        "training_data",
        None,
        "What the weights were trained on, for the model's metadata. Default: the training tracks'"
        " names.",
    )
    _LICENCE = flags.DEFINE_string(
        "licence", "not stated", "Licence of the weights, for the model's metadata."
    )
    _TFLITE = flags.DEFINE_string(
        "tflite", None, "Also write the network alone as a TFLite (LiteRT) file."
    )
    cli.run(main)
