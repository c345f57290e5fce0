r"""Trains a network on a data directory.

Examples:
  python -m experiments.train --config=experiments/configs/paper_4stems.py \
      --data_dir=DATA --workdir=RUN
  python -m experiments.train --config=experiments/configs/small_2stems.py \
      --data_dir=DATA --workdir=RUN --config.batch_size=2 --tracks=one,two
  python -m experiments.train --config=experiments/configs/paper_4stems.py \
      --data_dir=MY_STEMS --workdir=TUNED --init_from=RUN

Run again with the same flags, it continues from the last checkpoint in the workdir.
"""

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from data_pipeline.files import write_whole
from experiments import cli
from sccunet.config import Config, ConfigError, load_config


def train(
    config: Config,
    data_dir: str,
    workdir: str,
    names: Sequence[str] = (),
    init_from: str | None = None,
) -> None:
    """Trains until `config.epochs` epochs are done, continuing where the workdir has a checkpoint.

    Raises:
      AudioError: for data that cannot be trained on, before training starts.
      ConfigError: for a workdir of another run, or weights that do not fit.
    """
    from data_pipeline import tracks

    if len(config.model.stems) < 2:
        raise ConfigError(
            f"config.model.stems: found {config.model.stems}, expected at least two to train on:"
            " the mixture is their sum"
        )
    workdir = Path(workdir)
    training, validation, how = tracks.training_split(data_dir, config, names)
    print(how)
    tracks.check_finite([segment.track for segment in training + validation])
    config = _resolve(config, workdir, data_dir, training, validation, how)
    if not config.loss_weights:
        from data_pipeline.volumes import training_volumes
        from sccunet.losses import balancing_weights

        weights = balancing_weights(training_volumes(training, config, data_dir))
        config = dataclasses.replace(config, loss_weights=tuple(weights.tolist()))
    weights = zip(config.model.stems, config.loss_weights, strict=True)
    print("loss weights:", ", ".join(f"{stem} {alpha:.3f}" for stem, alpha in weights))
    _fit(config, workdir, training, validation, init_from)


def _fit(config, workdir, training, validation, init_from) -> None:
    import keras
    import numpy as np

    from data_pipeline import dataset
    from sccunet.training import (
        BEST,
        CHECKPOINT,
        Checkpoint,
        TensorBoard,
        compile_trainer,
        load_weights,
    )
    from sccunet.unet import build_model

    keras.utils.set_random_seed(config.seed)
    steps = dataset.steps_per_epoch(training, config)
    unet = build_model(config.model, dtype=config.precision)
    trainer = compile_trainer(unet, config, config.loss_weights, steps)
    epoch = 0
    if (workdir / CHECKPOINT).exists():
        load_weights(trainer, workdir / CHECKPOINT)
        epoch = int(trainer.optimizer.iterations) // steps
        print(f"continuing from epoch {epoch} of {config.epochs} in {workdir}")
    elif init_from:
        path = Path(init_from)
        load_weights(unet, path / BEST if path.is_dir() else path)
    write_whole(workdir / "config.json", config.to_json())
    if epoch >= config.epochs:
        print(f"all {config.epochs} epochs are done: {workdir}")
        return

    crops = dataset.fixed_crops(validation, config, config.validation_crops)
    # Whole batches alone: the compiled step knows one shape.
    batch_size = min(config.batch_size, len(crops))
    crops = crops[: len(crops) // batch_size * batch_size]
    validation_data = dataset.fixed_dataset(validation, config, crops, batch_size)
    shown = [crops[i] for i in np.unique(np.linspace(0, len(crops) - 1, 3).round().astype(int))]
    shown = next(iter(dataset.fixed_dataset(validation, config, shown, len(shown)))).numpy()
    trainer.fit(
        dataset.training_dataset(training, config, first_step=epoch * steps),
        steps_per_epoch=steps,
        shuffle=False,  # the stream has its order
        initial_epoch=epoch,
        epochs=config.epochs,
        validation_data=validation_data,
        callbacks=[
            keras.callbacks.TerminateOnNaN(),
            Checkpoint(workdir),
            TensorBoard(str(workdir / "tensorboard"), shown, initial_epoch=epoch),
        ],
        verbose=1 if sys.stdout.isatty() else 2,
    )
    if trainer.stop_training:
        raise ConfigError(
            f"{workdir}: the loss became NaN; a lower config.learning_rate, in another --workdir,"
            " may help"
        )
    print(f"best and last weights, config and TensorBoard logs: {workdir}")


def _resolve(config: Config, workdir: Path, data_dir, training, validation, how) -> Config:
    """The config of the run in `workdir`, if there is one and it is the same run."""
    data = {
        "data_dir": str(Path(data_dir).resolve()),
        "split": how,
        "training": [[s.track.split, s.track.name, s.start, s.frames] for s in training],
        "validation": [[s.track.split, s.track.name, s.start, s.frames] for s in validation],
    }
    config_path, data_path = workdir / "config.json", workdir / "data.json"
    if config_path.exists():
        before = load_config(workdir)
        given = config.to_dict()
        for field, was in before.to_dict().items():
            same = given[field] == was or (field == "loss_weights" and not config.loss_weights)
            if not same and field != "epochs":
                raise ConfigError(
                    f"{config_path}: the run there has {field} = {was}, found {given[field]};"
                    " expected the same, or another --workdir"
                )
        was = json.loads(data_path.read_text())
        if (was["training"], was["validation"]) != (data["training"], data["validation"]):
            raise ConfigError(
                f"{data_path}: the run there has other training or validation tracks;"
                " expected the same, or another --workdir"
            )
        return dataclasses.replace(before, epochs=config.epochs)
    write_whole(data_path, json.dumps(data, indent=1) + "\n")
    return config


def main(_: Sequence[str]) -> None:
    """Checks the flags and trains."""
    if _CONFIG.value is None:
        raise ConfigError(
            "--config: missing, expected a file such as experiments/configs/small_4stems.py"
        )
    train(
        Config.from_dict(_CONFIG.value),
        _DATA_DIR.value,
        _WORKDIR.value,
        _TRACKS.value,
        _INIT_FROM.value,
    )


if __name__ == "__main__":
    _CONFIG = config_flags.DEFINE_config_file("config", None, "What to train: a file of configs/.")
    _DATA_DIR = flags.DEFINE_string(
        "data_dir", None, "Tracks in the MUSDB18-HQ layout: train/<track>/<stem>.wav", required=True
    )
    _WORKDIR = flags.DEFINE_string(
        "workdir", None, "Where config, weights and TensorBoard logs are written.", required=True
    )
    _TRACKS = flags.DEFINE_list("tracks", [], "Train on these tracks alone, wherever they lie.")
    _INIT_FROM = flags.DEFINE_string(
        "init_from", None, "Start from the weights of a workdir or of a .weights.h5 file."
    )
    cli.run(main)
