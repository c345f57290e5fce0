"""Training loop that can start at any step, and what ends a run before its last epoch."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras

from sccunet.training import Trainer


class Callbacks(keras.callbacks.CallbackList):
    """Callbacks of a run, with the logs of a batch as they are on the device.

    Keras's list turns them into floats first, and so waits for the device after every step.
    """

    def on_train_batch_end(self, batch, logs=None):
        for callback in self.callbacks:
            callback.on_train_batch_end(batch, logs)

    def on_test_batch_end(self, batch, logs=None):
        for callback in self.callbacks:
            callback.on_test_batch_end(batch, logs)


def callbacks_of(
    trainer: Trainer, callbacks: Sequence[keras.callbacks.Callback], epochs: int, steps: int
) -> Callbacks:
    """Joins the callbacks of a run of so many epochs and steps per epoch, for `fit` too."""
    return Callbacks(list(callbacks), add_history=True, model=trainer, epochs=epochs, steps=steps)


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


def continue_epoch(
    trainer: Trainer, batches, validation, steps: int, epoch: int, callbacks: Callbacks
) -> None:
    """Ends an interrupted epoch: with its other steps and the validation, on any backend.

    Args:
      trainer: compiled.
      batches: data for `fit`, from the trainer's current step on.
      validation: data for `fit`.
      steps: number of steps that are left; 0 if only the validation is.
      epoch: number of the epoch, from 0.
      callbacks: of the run.
    """
    if steps:
        trainer.fit(
            batches,
            steps_per_epoch=steps,
            shuffle=False,  # the stream is shuffled already
            initial_epoch=epoch,
            epochs=epoch + 1,
            validation_data=validation,
            callbacks=callbacks,
            verbose=0,
        )
        return
    trainer.stop_training = False
    callbacks.on_train_begin()
    callbacks.on_epoch_begin(epoch)
    logs = trainer.evaluate(validation, callbacks=callbacks, return_dict=True, verbose=0)
    callbacks.on_epoch_end(epoch, {f"val_{name}": value for name, value in logs.items()})
    callbacks.on_train_end()


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
    callbacks = callbacks_of(trainer, callbacks, epochs, steps_per_epoch)
    train_steps, test_steps = (
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
        while done < steps_per_epoch:
            callbacks.on_train_batch_begin(done)
            steps = min(trainer.steps_per_execution, steps_per_epoch - done)
            logs = train_steps(iterator, steps)
            done += steps
            callbacks.on_train_batch_end(done - 1, logs)
        done = 0
        trainer.reset_metrics()
        _validate(test_steps, validation, callbacks)
        # Over all replicas: the mean of their logs is not the SDR of all.
        validated = trainer.get_metrics_result()
        logs |= {f"val_{name}": float(value) for name, value in validated.items()}
        callbacks.on_epoch_end(epoch, logs)
        if trainer.stop_training:
            break
    callbacks.on_train_end()


def _compiled(
    step: Callable[[Any], Mapping[str, Any]], strategy, jit_compile: bool
) -> Callable[[Iterator, int], dict[str, Any]]:
    """Returns a function that makes steps on batches of a distributed iterator.

    Its arguments are the iterator and the number of steps. It returns the last step's logs,
    averaged over replicas, without waiting for them.
    """
    import tensorflow as tf

    @tf.function(jit_compile=jit_compile)
    def on_batch(batch):
        logs = strategy.run(step, args=(batch,))
        return {name: strategy.reduce("MEAN", x, axis=None) for name, x in logs.items()}

    @tf.function
    def on_batches(iterator, steps):  # a trace for each number of steps, of which there are few
        for _ in tf.range(steps - 1):
            on_batch(next(iterator))
        return on_batch(next(iterator))

    return lambda iterator, steps: (
        on_batch(next(iterator)) if steps == 1 else on_batches(iterator, steps)
    )


def _validate(test_steps, validation, callbacks) -> None:
    """Runs all validation batches."""
    logs = {}
    callbacks.on_test_begin()
    for i, batch in enumerate(validation):
        callbacks.on_test_batch_begin(i)
        logs = test_steps(iter([batch]), 1)
        callbacks.on_test_batch_end(i, logs)
    callbacks.on_test_end(logs)
