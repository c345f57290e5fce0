"""Waveforms to loss on the device, the optimizer, the loop over steps, and TensorBoard's logs."""

import contextlib
import errno
import math
from collections.abc import Iterator, Sequence

import keras
import numpy as np
from keras import ops

from sccunet import spectral
from sccunet.config import Config, ModelConfig
from sccunet.losses import VolumeBalancedL1


class Trainer(keras.Model):
    """Trains a U-Net on waveforms: spectrograms are computed here, inside the training step.

    Its input is float32 [batch, stems, patch_samples], the stems whose sum is the mixture. It stays
    float32 under every precision; only the U-Net's layers have another.

    Args:
      unet: from `sccunet.build_model`.
      model: the U-Net's configuration.
    """

    def __init__(self, unet: keras.Model, model: ModelConfig):
        super().__init__(name="trainer", dtype="float32")
        self.unet = unet
        self.config = model
        self.stem_losses = [keras.metrics.Mean(name=f"{stem}_loss") for stem in model.stems]
        # Kept with the weights so that a continued run knows what it has to beat, and whether the
        # epoch whose steps are done has been validated.
        self.best_loss = self.add_weight(
            name="best_loss",
            shape=(),
            initializer=keras.initializers.Constant(math.inf),
            trainable=False,
        )
        self.epochs_done = self.add_weight(
            name="epochs_done", shape=(), initializer="zeros", dtype="int32", trainable=False
        )

    @property
    def _random_states(self) -> list:
        """Of the dropout layers; Keras leaves them out of saved weights."""
        return [
            layer.seed_generator.state
            for layer in self.unet.layers
            if hasattr(layer, "seed_generator")
        ]

    def save_own_variables(self, store):
        """What a continued run needs besides weights and optimizer."""
        store["best_loss"] = self.best_loss.numpy()
        store["epochs_done"] = self.epochs_done.numpy()
        for i, state in enumerate(self._random_states):
            store[f"random_state_{i}"] = state.numpy()

    def load_own_variables(self, store):
        """The inverse of `save_own_variables`."""
        self.best_loss.assign(store["best_loss"])
        self.epochs_done.assign(store["epochs_done"])
        for i, state in enumerate(self._random_states):
            state.assign(store[f"random_state_{i}"])

    def call(self, waveforms, training=False):
        """Estimates and targets, each [batch, bins, frames, stems]."""
        mixture, targets = spectral.training_magnitudes(waveforms, self.config)
        estimates = self.unet(mixture, training=training)
        return estimates, targets

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True, **kwargs
    ):
        """The compiled loss; the mean |Y_i - Yhat_i| of each stem goes into its metric."""
        estimates, targets = y_pred
        for i, metric in enumerate(self.stem_losses):
            metric.update_state(ops.mean(ops.abs(targets[..., i] - estimates[..., i])))
        return self.loss(targets, estimates)


def compile_trainer(
    unet: keras.Model, config: Config, loss_weights: Sequence[float], steps_per_epoch: int
) -> Trainer:
    """The trainer of a run, ready for `fit`.

    Args:
      unet: from `sccunet.build_model(config, dtype=config.precision)`.
      config: the run's.
      loss_weights: alpha of each stem.
      steps_per_epoch: what the learning rate's schedule is measured in.
    """
    trainer = Trainer(unet, config.model)
    trainer.compile(
        optimizer=_Adam(
            learning_rate_schedule(config, steps_per_epoch),
            weight_decay=config.weight_decay or None,
        ),
        loss=VolumeBalancedL1(loss_weights),
        jit_compile=config.jit_compile,
    )
    # Built here, so that a checkpoint has somewhere to be loaded into.
    trainer.build((None, len(config.model.stems), config.model.patch_samples))
    trainer.optimizer.build(trainer.trainable_variables)
    return trainer


def learning_rate_schedule(config: Config, steps_per_epoch: int):
    """Learning rate by step; see `Config.decay`."""
    if config.decay == "cosine":
        return keras.optimizers.schedules.CosineDecay(
            config.learning_rate, config.epochs * steps_per_epoch
        )
    # A boundary is the last step of its rate.
    return keras.optimizers.schedules.PiecewiseConstantDecay(
        [math.ceil(config.epochs / 2) * steps_per_epoch - 1],
        [config.learning_rate, config.learning_rate / 10],
    )


class NotFiniteError(Exception):
    """The loss or a gradient of a step became NaN or infinite.

    Attributes:
      step: number of the step's batch in the run, from 0.
      what: "loss", "gradients", or "validation loss" after the step.
    """

    def __init__(self, step: int, what: str):
        super().__init__(f"{what} of step {step}")
        self.step, self.what = step, what


class FiniteGuard(keras.callbacks.Callback):
    """Raises `NotFiniteError` as soon as a loss or a gradient is not finite."""

    def on_test_batch_end(self, batch, logs=None):
        if not math.isfinite(logs["loss"]):
            step = int(self.model.optimizer.iterations.numpy()) - 1
            raise NotFiniteError(step, "validation loss")

    def on_train_batch_end(self, batch, logs=None):
        optimizer = self.model.optimizer
        what = (
            "loss"
            if not math.isfinite(logs["loss"])
            else "gradients"
            if float(optimizer.bad_gradients.result())
            else None
        )
        if what:
            raise NotFiniteError(int(optimizer.iterations.numpy()) - 1, what)


class _Adam(keras.optimizers.Adam):
    """Keras's, counting the gradients that are no finite numbers; TensorFlow's backend alone."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, name="adam", **kwargs)
        self.bad_gradients = keras.metrics.Sum(name="bad_gradients")

    def apply_gradients(self, grads_and_vars):
        grads_and_vars = list(grads_and_vars)
        good = [ops.all(ops.isfinite(gradient)) for gradient, _ in grads_and_vars]
        self.bad_gradients.update_state(ops.cast(ops.logical_not(ops.stack(good)), "float32"))
        return super().apply_gradients(grads_and_vars)


def run_epochs(
    trainer: Trainer,
    strategy,
    batches,
    validation,
    steps_per_epoch: int,
    epochs: int,
    callbacks: Sequence[keras.callbacks.Callback],
    verbose: int,
) -> None:
    """What `trainer.fit` does, from wherever the trainer is: in the middle of an epoch, too.

    For an epoch that was interrupted, which `fit` would begin anew, and for
    `MultiWorkerMirroredStrategy`, under which Keras 3's `fit` fails (keras issue 20585).

    Args:
      trainer: compiled under `strategy`.
      strategy: a `tf.distribute.Strategy`.
      batches: a distributed data set of it, from the step on that the trainer is at.
      validation: a distributed data set.
      steps_per_epoch: as the trainer was compiled with.
      epochs: the number at which to stop.
      callbacks: Keras's; those of training and of test batches, epochs, and the whole.
      verbose: as `fit` has it.
    """
    import tensorflow as tf

    callbacks = keras.callbacks.CallbackList(
        list(callbacks),
        add_history=True,
        add_progbar=verbose != 0,
        model=trainer,
        verbose=verbose,
        epochs=epochs,
        steps=steps_per_epoch,
    )

    def compiled(step):
        def run(batch):
            logs = strategy.run(step, args=(batch,))
            return {name: strategy.reduce("MEAN", x, axis=None) for name, x in logs.items()}

        return tf.function(run, jit_compile=trainer.jit_compile)

    train_step, test_step = compiled(trainer.train_step), compiled(trainer.test_step)
    iterator = iter(batches)
    first_epoch = int(trainer.epochs_done.numpy())
    done = int(trainer.optimizer.iterations.numpy()) - first_epoch * steps_per_epoch
    callbacks.on_train_begin()
    for epoch in range(first_epoch, epochs):
        trainer.reset_metrics()
        callbacks.on_epoch_begin(epoch)
        logs = {}  # stays so where the validation was interrupted
        for step in range(done, steps_per_epoch):
            callbacks.on_train_batch_begin(step)
            logs = _numbers(train_step(next(iterator)))
            callbacks.on_train_batch_end(step, logs)
        done = 0
        trainer.reset_metrics()
        validated = {}
        callbacks.on_test_begin()
        for i, batch in enumerate(validation):
            callbacks.on_test_batch_begin(i)
            validated = _numbers(test_step(batch))
            callbacks.on_test_batch_end(i, validated)
        callbacks.on_test_end(validated)
        logs |= {f"val_{name}": value for name, value in validated.items()}
        callbacks.on_epoch_end(epoch, logs)
    callbacks.on_train_end()


def _numbers(logs) -> dict[str, float]:
    return {name: float(value) for name, value in logs.items()}


class TensorBoard(keras.callbacks.TensorBoard):
    """Keras's scalars, and what the model makes of fixed validation crops: pictures and sound.

    Args:
      log_dir: of the events.
      crops: waveforms of the stems, float32 [crops, stems, patch_samples].
      epoch: in which the run goes on.
      note: text for the log, of a run that was continued.
    """

    def __init__(self, log_dir: str, crops: np.ndarray, epoch: int = 0, note: str = ""):
        super().__init__(log_dir, write_graph=False)
        self._crops = crops
        self._epoch = epoch
        self._note = note

    def on_train_begin(self, logs=None):
        """Raises OSError if the log cannot be written."""
        import tensorflow as tf

        with self._explained():
            super().on_train_begin(logs)
            with self._val_writer.as_default():
                if self._note:
                    tf.summary.text("run", self._note, self._epoch)
                self._look("truth", self._crops, self._epoch)

    def on_epoch_end(self, epoch, logs=None):
        """Raises OSError if the log cannot be written."""
        mixtures = ops.convert_to_tensor(self._crops.sum(axis=1))
        estimates = ops.convert_to_numpy(
            spectral.separate_patches(mixtures, self.model.unet, self.model.config)
        )
        with self._explained():
            super().on_epoch_end(epoch, logs)
            with self._val_writer.as_default():
                self._look("estimate", estimates, epoch + 1)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """OSError in place of TensorFlow's."""
        import tensorflow as tf

        try:
            yield
        except tf.errors.OpError as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise OSError(errno.EIO, reason, self._log_write_dir) from error

    def _look(self, what: str, waveforms: np.ndarray, step: int) -> None:
        """Spectrograms in dB, low frequencies at the bottom, and audio; one entry per stem."""
        import tensorflow as tf

        model = self.model.config
        magnitudes = ops.convert_to_numpy(
            spectral.magnitude(*spectral.stft(ops.convert_to_tensor(waveforms), model))
        )  # [crops, stems, frames, bins]
        level = 20 * np.log10(np.maximum(magnitudes, 1e-5))
        # 80 dB below the strongest possible tone of this window is black.
        shade = np.clip(1 + (level - 20 * np.log10(model.frame_length / 4)) / 80, 0, 1)
        for i, stem in enumerate(model.stems):
            image = shade[:, i].transpose(0, 2, 1)[:, ::-1, :, None]  # [crops, bins, frames, 1]
            # TensorBoard shows one kind of data per name.
            tf.summary.image(f"{what}/{stem}/spectrogram", image, step, max_outputs=len(image))
            tf.summary.audio(
                f"{what}/{stem}/audio",
                waveforms[:, i, :, None],
                model.sample_rate,
                step,
                max_outputs=len(waveforms),
            )
