"""Exports a trained network as a portable model, a SavedModel, or a TFLite file.

Examples:
  sccunet export --workdir=RUN --portable=MODEL --licence="CC BY-NC-SA 4.0" --scores=SCORES
  sccunet export --workdir=RUN --export_dir=EXPORT --licence="CC BY-NC-SA 4.0"
  sccunet export --workdir=RUN --tflite=network.tflite

MODEL is a new folder, with which programs separate without TensorFlow; its README.md is a model
card. --notes=NOTES.md adds sections to it: what the model is for, its sources, how to train it.
EXPORT is for TensorFlow Serving: the SavedModel goes to EXPORT/1/, or to the next number if there
are versions, which are never changed. network.tflite is the network alone. One command can export
all three.

Everything appears only after it has given the same results as the network in memory; a SavedModel
gives them with all of its signatures in a new process.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from experiments import cli
from experiments.reports.card_scores import scores_section
from sccunet.config import Config, ConfigError
from sccunet.files import read_json, write_whole
from sccunet.model_card import About
from sccunet.portable import check_new, write_portable
from sccunet.provenance import NOT_STATED
from sccunet.runs import NETWORK, load_config, load_unet, new_version


def training_data(workdir: str) -> str:
    """Describes the training tracks, as the workdir's `data.json` lists them."""
    path = Path(workdir) / "data.json"
    if not path.exists():  # as in a workdir of converted weights
        return NOT_STATED
    data = read_json(path, "split", "training")
    names = sorted({name for _, name, *_ in data["training"]})
    return f"{data['split']}: {', '.join(names)}"


def check_flags() -> None:
    """Checks what is to be written, before anything is.

    Raises:
      ConfigError: if nothing is, if it exists, or if a flag would have no effect.
    """
    if not (_EXPORT_DIR.value or _PORTABLE.value or _TFLITE.value):
        raise ConfigError("--portable, --export_dir, --tflite: found none, expected one or more")
    described = _EXPORT_DIR.value or _PORTABLE.value
    for names, used, without in (
        (["model_version"], _EXPORT_DIR.value, "--export_dir"),
        (["training_data", "licence"], described, "--portable or --export_dir"),
        (["scores", "notes"], _PORTABLE.value, "--portable"),
        (["half"], _PORTABLE.value or _TFLITE.value, "--portable or --tflite"),
    ):
        cli.refuse_idle(names, not used, f"without {without}")
    if _EXPORT_DIR.value:
        new_version(_EXPORT_DIR.value, _MODEL_VERSION.value)
    if _PORTABLE.value:
        check_new(_PORTABLE.value)
    if _TFLITE.value and os.path.exists(_TFLITE.value):
        raise ConfigError(f"{_TFLITE.value}: found an existing file, expected a new one")


def main(_: Sequence[str]) -> None:
    """Exports the workdir's best weights."""
    config = load_config(_WORKDIR.value, workdir=True)
    check_flags()
    scores = scores_section(_SCORES.value, _WORKDIR.value) if _SCORES.value else ""
    data = _TRAINING_DATA.value or training_data(_WORKDIR.value)
    notes = "\n".join(Path(file).read_text("utf-8", "replace") for file in _NOTES.value)
    about = About(data, _LICENCE.value, scores, notes)

    import tensorflow as tf

    # The check is of the file's arithmetic, not of a GPU's.
    tf.config.set_visible_devices([], "GPU")

    unet = load_unet(_WORKDIR.value, config)
    if _PORTABLE.value:
        found = write_portable(unet, config, _PORTABLE.value, _HALF.value, about)
        checked = f"its stems of noise differ by {found:.0f} dB from those of the model in memory"
        print(f"portable model: {_PORTABLE.value}; {checked}")
    if _EXPORT_DIR.value:
        _export_saved_model(unet, config, data)
    if _TFLITE.value:
        if _PORTABLE.value:  # which contains the same file
            write_whole(_TFLITE.value, Path(_PORTABLE.value, NETWORK).read_bytes())
        else:
            from sccunet.tflite import export_tflite

            export_tflite(unet, config, _TFLITE.value, _HALF.value)
        print(f"TFLite file, checked against the model in memory: {_TFLITE.value}")


def _export_saved_model(unet, config: Config, data: str) -> None:
    from sccunet.export import export_saved_model

    print("writing, then running every signature in a new process", flush=True)
    export = export_saved_model(
        unet,
        config,
        _EXPORT_DIR.value,
        version=_MODEL_VERSION.value,
        training_data=data,
        licence=_LICENCE.value,
    )
    print(f"SavedModel, checked against the model in memory: {export}")


if __name__ == "__main__":
    _WORKDIR = flags.DEFINE_string("workdir", None, "A training workdir.", required=True)
    _PORTABLE = flags.DEFINE_string("portable", None, "Folder for a portable model, a new one.")
    _EXPORT_DIR = flags.DEFINE_string(
        "export_dir",
        None,
        "Folder for the exports; the SavedModel is written into a numbered folder in it.",
    )
    _TFLITE = flags.DEFINE_string(
        "tflite", None, "TFLite (LiteRT) file for the network alone, without STFTs; a new file."
    )
    _HALF = flags.DEFINE_bool(
        "half",
        False,
        "Write the weights of --portable and --tflite as float16, in half of the space. Runtimes"
        " compute in float32.",
    )
    _MODEL_VERSION = flags.DEFINE_integer(
        "model_version",
        None,
        "Number of the new version in --export_dir. Default: one more than the newest.",
        lower_bound=1,
    )
    _TRAINING_DATA = flags.DEFINE_string(
        "training_data",
        None,
        "Description of the training data, for the model's card or metadata. Default: the names of"
        " the training tracks.",
    )
    _LICENCE = flags.DEFINE_string(
        "licence", NOT_STATED, "Licence of the weights, for the model's card or metadata."
    )
    _SCORES = flags.DEFINE_string(
        "scores", None, "Folder that sccunet evaluate wrote for RUN, for the model's card."
    )
    _NOTES = cli.define_list(
        "notes",
        [],
        "Markdown files for the model's card, with headings '## ...': intended use, sources with"
        " their licences, recipe, known failures.",
    )
    cli.run(main, needs=["tensorflow"])
