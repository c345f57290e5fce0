"""The epochs of a training run: joins network, batches, checkpoints and logs."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import keras
import numpy as np
from absl import logging

from data_pipeline import loader, readers
from data_pipeline.mmap_reader import MakeReader
from data_pipeline.tracks import Segment
from experiments.training import excerpt, records, stopping
from experiments.training.batches import Batches, make_batches
from experiments.training.options import TrainOptions
from experiments.training.progress import Progress
from sccunet import checkpoints, distribution
from sccunet.checks import counted
from sccunet.config import Config, ConfigError
from sccunet.files import write_whole
from sccunet.finite import FiniteGuard, NotFiniteError
from sccunet.loop import Patience, callbacks_of, continue_epoch, out_of_patience, run_epochs
from sccunet.runs import CONFIG
from sccunet.tensorboard import TensorBoard
from sccunet.training import Trainer, compile_trainer
from sccunet.unet import build_model

if TYPE_CHECKING:
    import tensorflow as tf

    from sccunet.jax_devices import JaxDevices


def fit(
    config: Config,
    options: TrainOptions,
    strategy: "tf.distribute.Strategy | JaxDevices",
    reader: MakeReader | None,
    training: Sequence[Segment],
    validation: Sequence[Segment],
    initial: Sequence[np.ndarray] | None = None,
) -> None:
    """Trains, starting from the newest checkpoint if there is one.

    Args:
      config: the run's config, with its loss weights.
      options: workdir, and how often a checkpoint is written.
      strategy: from `run.devices`.
      reader: reads both splits; None where TensorFlow is not installed.
      training, validation: from `splits.training_split`.
      initial: the network's weights if there is no checkpoint; default: those of the seed.

    Raises:
      AudioError: for a file that becomes unreadable during the run.
      ConfigError: for checkpoints that do not load, replicas without work, or a loss or gradients
        that are not finite.
      PreemptedError: when SIGTERM or Ctrl-C has stopped the run and everything is saved.
    """
    keras.utils.set_random_seed(config.seed)
    batches = make_batches(config, strategy.num_replicas_in_sync, reader, training, validation)
    # JAX's devices compute the statistics of the whole batch in any case.
    synchronized = config.synchronized_norm and keras.backend.backend() == "tensorflow"
    with strategy.scope():
        unet = build_model(config.model, config.precision, synchronized)
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
    print(f"{ended}best and last weights, config{' and logs' * loader.has_tensorflow()}: {workdir}")


def _nothing_left(trainer: Trainer, config: Config) -> str:
    """Returns why a run has ended; nothing if it has not."""
    done = int(trainer.epochs_done.numpy())
    if done >= config.epochs:
        return f"{counted(config.epochs, 'epoch')} done"
    if out_of_patience(trainer, config.patience):
        since = counted(config.patience, "epoch")
        return f"{counted(done, 'epoch')} done and no better validation in the last {since}"
    return ""


def _load(
    trainer: Trainer,
    batches: Batches,
    workdir: Path,
    strategy: "tf.distribute.Strategy | JaxDevices",
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
    strategy: "tf.distribute.Strategy | JaxDevices",
    batches: Batches,
    checkpoint: checkpoints.Checkpoint,
    note: str,
) -> None:
    """Trains from the trainer's current step to the last epoch."""
    config, steps = batches.config, batches.steps_per_epoch
    epochs, step, epoch = config.epochs, trainer.steps_done, int(trainer.epochs_done.numpy())
    chief = distribution.is_chief(strategy)
    logged = chief and loader.has_tensorflow()
    if logged:
        shown = excerpt.liveliest(batches.validation, config)
    elif chief:
        print("no TensorBoard logs: TensorFlow, which writes them, is not installed")
    crops = f"{counted(config.batch_size, 'crop')} of {batches.seconds:.3g} s"
    whole = f"{counted(epochs, 'epoch')} of {counted(steps, 'step')}"
    print(f"training: {whole}, each with {crops}", flush=True)

    def callbacks(epoch: int, note: str = "") -> list[keras.callbacks.Callback]:
        found = [FiniteGuard(config.check_steps), checkpoint, Patience(config.patience)]
        if logged:
            logs = str(checkpoint.workdir / "tensorboard")
            found.append(TensorBoard(logs, shown, epoch, note))
        return found + [progress] * chief

    several = distribution.is_multiworker(strategy)
    within = step - epoch * steps
    progress = Progress(config.model.stems, epochs, steps, step, config.check_steps)
    with contextlib.closing(progress):
        if within and keras.backend.backend() == "jax":
            own = callbacks_of(trainer, callbacks(epoch, note), epochs, steps)
            stream, validation = batches.of_training(step), batches.of_validation()
            continue_epoch(trainer, stream, validation, steps - within, epoch, own)
            epoch, note = epoch + 1, ""
        elif several or within:
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
