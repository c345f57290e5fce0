"""The epochs of a training run: joins network, batches, checkpoints and logs."""

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from data_pipeline import dataset, places, readers
from data_pipeline.mmap_reader import MakeReader
from data_pipeline.tracks import Segment
from experiments.training import excerpt, records, stopping
from experiments.training.options import TrainOptions
from experiments.training.progress import Progress
from sccunet import checkpoints, distribution
from sccunet.checks import counted
from sccunet.config import Config, ConfigError
from sccunet.files import write_whole
from sccunet.finite import FiniteGuard, NotFiniteError
from sccunet.loop import Patience, callbacks_of, out_of_patience, run_epochs
from sccunet.runs import CONFIG
from sccunet.tensorboard import TensorBoard
from sccunet.training import Trainer, compile_trainer
from sccunet.unet import build_model


def fit(
    config: Config,
    options: TrainOptions,
    strategy: tf.distribute.Strategy,
    reader: MakeReader,
    training: Sequence[Segment],
    validation: Sequence[Segment],
    initial: Sequence[np.ndarray] | None = None,
) -> None:
    """Trains, starting from the newest checkpoint if there is one.

    Args:
      config: the run's config, with its loss weights.
      options: workdir, and how often a checkpoint is written.
      strategy: from `sccunet.distribution.make_strategy`.
      reader: reads both splits.
      training, validation: from `splits.training_split`.
      initial: the network's weights if there is no checkpoint; default: those of the seed.

    Raises:
      AudioError: for a file that becomes unreadable during the run.
      ConfigError: for checkpoints that do not load, replicas without work, or a loss or gradients
        that are not finite.
      PreemptedError: when SIGTERM or Ctrl-C has stopped the run and everything is saved.
    """
    keras.utils.set_random_seed(config.seed)
    batches = _batches(config, strategy, reader, training, validation)
    with strategy.scope():
        unet = build_model(config.model, config.precision, config.synchronized_norm)
        trainer = compile_trainer(unet, config, config.loss_weights, batches.steps_per_epoch)
    if initial is not None:
        unet.set_weights(initial)
    note = _load(trainer, batches, options.workdir, strategy)
    chief, workdir = distribution.is_chief(strategy), options.workdir
    if chief:
        write_whole(workdir / CONFIG, config.to_json())
    if ended := _nothing_left(trainer, config):
        print(f"nothing is left to train, {ended}: {workdir}")
        return
    checkpoint = checkpoints.Checkpoint(workdir, options.checkpoint_minutes, chief, config.best_by)
    if distribution.is_multiworker(strategy):
        checkpoint.agree = distribution.agree(strategy)
        checkpoint.agree_steps = config.check_steps
    stopping.on_signal(checkpoint.preempt)
    try:
        with readers.plain_errors():
            _run(trainer, strategy, batches, checkpoint, note)
    except NotFiniteError as error:
        line = (
            f"{workdir}: the {error.what} became NaN or infinite at step {error.step}"
            f" (epoch {error.step // batches.steps_per_epoch + 1})"
        )
        if chief and error.what != "validation loss":
            line += records.keep_bad_batch(workdir, training, config, error.step)
        raise ConfigError(line) from error
    early = int(trainer.epochs_done.numpy()) < config.epochs
    ended = f"ended early, {_nothing_left(trainer, config)}; " if early else ""
    print(f"{ended}best and last weights, config and TensorBoard logs: {workdir}")


def _nothing_left(trainer: Trainer, config: Config) -> str:
    """Returns why a run has ended; nothing if it has not."""
    done = int(trainer.epochs_done.numpy())
    if done >= config.epochs:
        return f"{counted(config.epochs, 'epoch')} done"
    if out_of_patience(trainer, config.patience):
        since = counted(config.patience, "epoch")
        return f"{counted(done, 'epoch')} done and no better validation in the last {since}"
    return ""


@dataclasses.dataclass(frozen=True)
class _Batches:
    """The data sets of a run.

    Attributes:
      config, reader, training, validation: as in `fit`.
      crops: validation crops, in whole batches.
      batch_size: batch size of the validation.
    """

    config: Config
    reader: MakeReader
    training: Sequence[Segment]
    validation: Sequence[Segment]
    crops: np.ndarray
    batch_size: int

    @property
    def steps_per_epoch(self) -> int:
        return places.steps_per_epoch(self.training, self.config)

    @property
    def seconds(self) -> float:
        """Length of a crop, in seconds."""
        return self.config.model.patch_samples / self.config.model.sample_rate

    def of_training(self, first_step: int, context=None) -> tf.data.Dataset:
        return dataset.training_dataset(
            self.training, self.config, first_step, self.reader, context=context
        )

    def of_validation(self, context=None) -> tf.data.Dataset:
        return dataset.fixed_dataset(
            self.validation, self.config, self.crops, self.batch_size, self.reader, context=context
        )


def _batches(config, strategy, reader, training, validation) -> _Batches:
    """Returns the data sets; raises ConfigError for fewer validation crops than replicas."""
    crops = places.fixed_crops(validation, config, config.validation_crops)
    replicas = strategy.num_replicas_in_sync
    # Only whole batches that the replicas can share: the compiled step has one shape.
    batch_size = min(config.batch_size, len(crops)) // replicas * replicas
    if not batch_size:
        raise ConfigError(
            f"--strategy: found {replicas} replicas, expected no more than"
            f" {counted(len(crops), 'validation crop')}"
        )
    crops = crops[: len(crops) // batch_size * batch_size]
    return _Batches(config, reader, training, validation, crops, batch_size)


def _load(
    trainer: Trainer, batches: _Batches, workdir: Path, strategy: tf.distribute.Strategy
) -> str:
    """Loads the newest checkpoint; returns a note if there is one, so that the run continues."""
    loaded = checkpoints.load_newest(trainer, workdir, lambda line: logging.warning("%s", line))
    step, epoch = trainer.steps_done, int(trainer.epochs_done.numpy())
    if distribution.is_multiworker(strategy) and not distribution.same_everywhere(
        strategy, (step, epoch)
    ):
        raise ConfigError(
            f"{workdir}: found step {step} here and another step on another worker, expected a"
            " folder that all workers share"
        )
    if not loaded:
        return ""
    note = f"continuing from epoch {epoch} of {batches.config.epochs}"
    if within := step - epoch * batches.steps_per_epoch:
        note += f" and {within} of {counted(batches.steps_per_epoch, 'step')}"
    print(f"{note} in {loaded}", flush=True)
    return note


def _run(
    trainer: Trainer,
    strategy: tf.distribute.Strategy,
    batches: _Batches,
    checkpoint: checkpoints.Checkpoint,
    note: str,
) -> None:
    """Trains from the trainer's current step to the last epoch."""
    epochs, steps = batches.config.epochs, batches.steps_per_epoch
    step, epoch = trainer.steps_done, int(trainer.epochs_done.numpy())
    chief = distribution.is_chief(strategy)
    if chief:
        shown = excerpt.liveliest(batches.validation, batches.config, batches.reader)
    crops = f"{counted(batches.config.batch_size, 'crop')} of {batches.seconds:.3g} s"
    whole = f"{counted(epochs, 'epoch')} of {counted(steps, 'step')}"
    print(f"training: {whole}, each with {crops}", flush=True)

    def callbacks(epoch: int, note: str = "") -> list[keras.callbacks.Callback]:
        guard = FiniteGuard(batches.config.check_steps)
        found = [guard, checkpoint, Patience(batches.config.patience)]
        if chief:
            logs = str(checkpoint.workdir / "tensorboard")
            found += [TensorBoard(logs, shown, epoch, note), progress]
        return found

    several = distribution.is_multiworker(strategy)
    progress = Progress(batches.config.model.stems, epochs, steps, step, batches.config.check_steps)
    with contextlib.closing(progress):
        if several or step > epoch * steps:
            distribute = strategy.distribute_datasets_from_function
            until = epochs if several else epoch + 1
            run_epochs(
                trainer,
                strategy,
                distribute(lambda context: batches.of_training(step, context)),
                distribute(batches.of_validation),
                steps,
                until,
                callbacks(epoch, note),
            )
            epoch, note = until, ""
        if epoch < epochs and not trainer.stop_training:
            trainer.fit(
                batches.of_training(epoch * steps),
                steps_per_epoch=steps,
                shuffle=False,  # the stream is shuffled already
                initial_epoch=epoch,
                epochs=epochs,
                validation_data=batches.of_validation(),
                callbacks=callbacks_of(trainer, callbacks(epoch, note), epochs, steps),
                verbose=0,
            )
