"""Training loop that can start at any step, and what ends a run before its last epoch."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from sccunet.training import Trainer


class NotFiniteError(Exception):
    """The loss or a gradient of a step became NaN or infinite.

    Attributes:
      step: index of the step in the run, from 0.
      what: "loss", "gradients", or "validation loss" for the validation after the step.
    """

    def __init__(self, step: int, what: str):
        super().__init__(f"{what} of step {step}")
        self.step, self.what = step, what


class FiniteGuard(keras.callbacks.Callback):
    """Raises `NotFiniteError` as soon as a loss or a gradient is not finite."""

    def on_test_batch_end(self, batch, logs=None):
        if not math.isfinite(logs["loss"]):
            raise NotFiniteError(self.model.steps_done - 1, "validation loss")

    def on_train_batch_end(self, batch, logs=None):
        what = (
            "loss"
            if not math.isfinite(logs["loss"])
            else "gradients"
            if float(self.model.optimizer.bad_gradients.result())
            else None
        )
        if what:
            raise NotFiniteError(self.model.steps_done - 1, what)


class Patience(keras.callbacks.Callback):
    """Ends a run without a better validation; comes after `Checkpoint`, which knows the best.

    Unlike Keras's EarlyStopping, it counts on in a resumed run.

    Args:
      epochs: see `Config.patience`.
    """

    def __init__(self, epochs: int):
        super().__init__()
        self._epochs = epochs

    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = out_of_patience(self.model, self._epochs)


def out_of_patience(trainer: Trainer, epochs: int) -> bool:
    """Whether a run has ended by `Config.patience`, which is `epochs`."""
    return 0 < epochs <= trainer.epochs_since_best


def run_epochs(
    trainer: Trainer,
    strategy,
    batches,
    validation,
    steps_per_epoch: int,
    epochs: int,
    callbacks: Sequence[keras.callbacks.Callback],
) -> None:
    """Trains like `trainer.fit`, but from the trainer's current step, even within an epoch.

    It serves interrupted epochs, which `fit` would begin again, and `MultiWorkerMirroredStrategy`,
    under which Keras 3's `fit` fails (keras issue 20585).

    Args:
      trainer: compiled under `strategy`.
      strategy: a `tf.distribute.Strategy`.
      batches: distributed data set of the strategy, starting at the trainer's current step.
      validation: distributed data set of the strategy.
      steps_per_epoch: the number that the trainer was compiled with.
      epochs: number of epochs after which to stop.
      callbacks: Keras callbacks for training and test batches, epochs and the whole run.
    """
    callbacks = keras.callbacks.CallbackList(
        list(callbacks),
        add_history=True,
        model=trainer,
        epochs=epochs,
        steps=steps_per_epoch,
    )
    train_step, test_step = (
        _compiled(step, strategy, trainer.jit_compile)
        for step in (trainer.train_step, trainer.test_step)
    )
    iterator = iter(batches)
    first_epoch = int(trainer.epochs_done.numpy())
    done = trainer.steps_done - first_epoch * steps_per_epoch
    trainer.stop_training = False
    callbacks.on_train_begin()
    for epoch in range(first_epoch, epochs):
        trainer.reset_metrics()
        callbacks.on_epoch_begin(epoch)
        logs = {}  # remains empty if the validation was interrupted
        for step in range(done, steps_per_epoch):
            callbacks.on_train_batch_begin(step)
            logs = train_step(next(iterator))
            callbacks.on_train_batch_end(step, logs)
        done = 0
        trainer.reset_metrics()
        _validate(test_step, validation, callbacks)
        # Over all replicas: the mean of their logs is not the SDR of all.
        validated = trainer.get_metrics_result()
        logs |= {f"val_{name}": float(value) for name, value in validated.items()}
        callbacks.on_epoch_end(epoch, logs)
        if trainer.stop_training:
            break
    callbacks.on_train_end()


def _compiled(
    step: Callable[[Any], Mapping[str, Any]], strategy, jit_compile: bool
) -> Callable[[Any], dict[str, float]]:
    """Returns a function from a distributed batch to the step's logs, averaged over replicas."""
    import tensorflow as tf

    @tf.function(jit_compile=jit_compile)
    def run(batch):
        logs = strategy.run(step, args=(batch,))
        return {name: strategy.reduce("MEAN", x, axis=None) for name, x in logs.items()}

    return lambda batch: {name: float(value) for name, value in run(batch).items()}


def _validate(test_step, validation, callbacks) -> None:
    """Runs all validation batches."""
    logs = {}
    callbacks.on_test_begin()
    for i, batch in enumerate(validation):
        callbacks.on_test_batch_begin(i)
        logs = test_step(batch)
        callbacks.on_test_batch_end(i, logs)
    callbacks.on_test_end(logs)
