"""The training step, from waveforms to the loss on the device, and the optimizer."""

import math
from collections.abc import Sequence

import keras
from keras import ops

from sccunet import spectral
from sccunet.config import Config, ModelConfig
from sccunet.losses import make_loss


class Trainer(keras.Model):
    """Trains a U-Net on waveforms; spectrograms are computed inside the training step.

    The input is float32 [batch, stems, channels, patch_samples], the stems whose sum is the
    mixture. It is float32 under every precision, which concerns only the U-Net's layers.

    Args:
      unet: from `sccunet.build_model`.
      model: the U-Net's configuration.
    """

    def __init__(self, unet: keras.Model, model: ModelConfig):
        super().__init__(name="trainer", dtype="float32")
        self.unet = unet
        self.config = model
        self.stem_losses = [keras.metrics.Mean(name=f"{stem}_loss") for stem in model.stems]
        # Saved with the weights: a resumed run needs the best loss so far, and must know whether
        # the last epoch has been validated.
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
        """States of the dropout layers, which Keras leaves out of saved weights."""
        return [
            layer.seed_generator.state
            for layer in self.unet.layers
            if hasattr(layer, "seed_generator")
        ]

    def save_own_variables(self, store):
        """Saves what a resumed run needs besides weights and optimizer."""
        store["best_loss"] = self.best_loss.numpy()
        store["epochs_done"] = self.epochs_done.numpy()
        for i, state in enumerate(self._random_states):
            store[f"random_state_{i}"] = state.numpy()

    def load_own_variables(self, store):
        """Loads what `save_own_variables` saved."""
        self.best_loss.assign(store["best_loss"])
        self.epochs_done.assign(store["epochs_done"])
        for i, state in enumerate(self._random_states):
            state.assign(store[f"random_state_{i}"])

    def call(self, waveforms, training=False):
        """Returns estimates [batch, bins, frames, stems * channels], and the `TrainingSpectra`."""
        spectra = spectral.training_spectra(waveforms, self.config)
        return self.unet(spectra.mixture, training=training), spectra

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True, **kwargs
    ):
        """Returns the loss, and updates each stem's metric with its distance."""
        estimates, spectra = y_pred
        truth = self.loss.truth(spectra)
        distances = self.loss.distances(truth, estimates)  # [batch, stems]
        for i, metric in enumerate(self.stem_losses):
            metric.update_state(distances[:, i])
        return self.loss(truth, estimates)


def compile_trainer(
    unet: keras.Model, config: Config, loss_weights: Sequence[float], steps_per_epoch: int
) -> Trainer:
    """Returns the trainer of a run, ready for `fit`.

    Args:
      unet: from `sccunet.build_model(config, dtype=config.precision)`.
      config: the run's config.
      loss_weights: alpha of each stem.
      steps_per_epoch: training steps per epoch, for the learning rate's schedule.
    """
    trainer = Trainer(unet, config.model)
    trainer.compile(
        optimizer=_Adam(
            learning_rate_schedule(config, steps_per_epoch),
            weight_decay=config.weight_decay or None,
        ),
        loss=make_loss(config, loss_weights),
        jit_compile=config.jit_compile,
    )
    # Built here, so that a checkpoint can be loaded.
    model = config.model
    trainer.build((None, len(model.stems), model.channels, model.patch_samples))
    trainer.optimizer.build(trainer.trainable_variables)
    return trainer


def learning_rate_schedule(config: Config, steps_per_epoch: int):
    """Returns the learning rate's schedule over steps; see `Config.decay`."""
    if config.decay == "cosine":
        return keras.optimizers.schedules.CosineDecay(
            config.learning_rate, config.epochs * steps_per_epoch
        )
    # A boundary is the last step with the rate before it.
    return keras.optimizers.schedules.PiecewiseConstantDecay(
        [math.ceil(config.epochs / 2) * steps_per_epoch - 1],
        [config.learning_rate, config.learning_rate / 10],
    )


class _Adam(keras.optimizers.Adam):
    """Keras's Adam that also counts gradients that are not finite; TensorFlow backend only."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, name="adam", **kwargs)
        self.bad_gradients = keras.metrics.Sum(name="bad_gradients")

    def apply_gradients(self, grads_and_vars):
        grads_and_vars = list(grads_and_vars)
        good = [ops.all(ops.isfinite(gradient)) for gradient, _ in grads_and_vars]
        self.bad_gradients.update_state(ops.cast(ops.logical_not(ops.stack(good)), "float32"))
        return super().apply_gradients(grads_and_vars)
