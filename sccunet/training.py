"""The training step, from waveforms to the loss on the device."""

import itertools
import math
from collections.abc import Sequence

import keras
from keras import ops

from sccunet import spectral
from sccunet.config import Config, ModelConfig
from sccunet.finite import KINDS, NONE, NotFiniteError, first_bad
from sccunet.losses import make_loss
from sccunet.metrics import SDR
from sccunet.optimizer import make_optimizer, sum_of_replicas
from sccunet.patching import Patching


class Trainer(keras.Model):
    """Trains a U-Net on waveforms; spectrograms are computed inside the training step.

    The input is float32 [batch, stems, channels, patch_samples], the stems whose sum is the
    mixture. It is float32 under every precision, which concerns only the U-Net's layers.

    Args:
      unet: from `sccunet.build_model`.
      model: the U-Net's configuration.
      ema_momentum: see `Config`.

    Attributes:
      averaged: U-Net with the moving average of `unet`'s weights, statistics of batch normalisation
        included; None if `ema_momentum` is 0.
    """

    def __init__(self, unet: keras.Model, model: ModelConfig, ema_momentum: float = 0.0):
        super().__init__(name="trainer", dtype="float32")
        self.unet = unet
        self.config = model
        self.ema_momentum = ema_momentum
        # A network of its own, where Keras's `use_ema` would swap weights in and out, with rounding
        # that a resumed run cannot repeat. It also leaves out the statistics: with those of the raw
        # weights, a small network's SDR was up to 0.5 dB lower until the learning rate fell.
        self.averaged = keras.models.clone_model(unet) if ema_momentum else None
        if self.averaged:
            self.averaged.trainable = False
        self.stem_losses = [keras.metrics.Mean(name=f"{stem}_loss") for stem in model.stems]
        self.sdr = SDR(model.stems)
        # Saved with the weights: a resumed run needs the best loss so far (or the best SDR, with a
        # minus) and its epoch, and must know whether the last epoch has been validated.
        self.best_loss = self.add_weight(
            name="best_loss",
            shape=(),
            initializer=keras.initializers.Constant(math.inf),
            trainable=False,
        )
        self.epochs_done = self.add_weight(
            name="epochs_done", shape=(), initializer="zeros", dtype="int32", trainable=False
        )
        self.best_epoch = self.add_weight(
            name="best_epoch", shape=(), initializer="zeros", dtype="int32", trainable=False
        )
        # Not saved: a checkpoint is of finite steps. Keras's "int" is one that GPUs compute with.
        self._first_bad = self.add_weight(
            name="first_bad",
            shape=(2,),
            initializer=keras.initializers.Constant(NONE),
            dtype="int",
            trainable=False,
        )

    @property
    def validated(self) -> keras.Model:
        """The U-Net that is validated, shown and saved as the best."""
        return self.averaged or self.unet

    @property
    def steps_done(self) -> int:
        """Steps of the run, each a batch; `optimizer.iterations` counts updates of the weights."""
        self._sync()
        return int(self.optimizer.variables[0].numpy())

    @property
    def epochs_since_best(self) -> int:
        """Epochs since the best validation, or since the start."""
        return int(self.epochs_done.numpy()) - int(self.best_epoch.numpy())

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
        store["best_epoch"] = self.best_epoch.numpy()
        for i, state in enumerate(self._random_states):
            store[f"random_state_{i}"] = state.numpy()

    def load_own_variables(self, store):
        """Loads what `save_own_variables` saved."""
        self.best_loss.assign(store["best_loss"])
        self.epochs_done.assign(store["epochs_done"])
        if "best_epoch" in store:  # not in those of before `Config.patience`
            self.best_epoch.assign(store["best_epoch"])
        for i, state in enumerate(self._random_states):
            state.assign(store[f"random_state_{i}"])

    def call(self, waveforms, training=False):
        """Returns estimates [batch, bins, frames, stems * channels], and the `TrainingSpectra`."""
        spectra = spectral.training_spectra(waveforms, self.config)
        unet = self.unet if training else self.validated
        return unet(spectra.mixture, training=training), spectra

    def train_step(self, *args):
        """Keras's training step, and what follows it: the moving average of the weights, say."""
        if keras.backend.backend() != "jax":
            return self._after_step(super().train_step(*args))
        # JAX's step has no side effects: it takes the values of all variables, and returns them.
        logs, state = super().train_step(*args)
        groups = (
            self.trainable_variables,
            self.non_trainable_variables,
            self.optimizer.variables,
            self.metrics_variables,
        )
        own = zip(itertools.chain(*groups), itertools.chain(*state), strict=True)
        with keras.StatelessScope(state_mapping=list(own)) as scope:
            logs = self._after_step(logs)
        return logs, tuple([scope.get_current_value(v) for v in group] for group in groups)

    def _after_step(self, logs):
        """Notes what was not finite, and averages; returns the logs of training."""
        self._note_bad(logs["loss"])
        if self.averaged:
            self._average()
        return {name: value for name, value in logs.items() if name not in self.sdr.names}

    def _sync(self) -> None:
        """Makes the variables those of the last step: JAX's `fit` holds them itself meanwhile."""
        if keras.backend.backend() == "jax":
            self.jax_state_sync()

    def _note_bad(self, loss) -> None:
        """Notes on the device if the step is the first that is not finite, on any replica."""
        finite = ops.stack([ops.isfinite(loss), self.optimizer.finite])
        bad = ops.cast(ops.logical_not(finite), "float32")
        finite = sum_of_replicas(bad, self.optimizer.replicas) == 0
        step = self.optimizer.variables[0] - 1  # this step is counted already
        self._first_bad.assign(first_bad(self._first_bad, step, finite))

    def check_finite(self) -> None:
        """Waits for the device; raises `NotFiniteError` if a step has not been finite."""
        self._sync()
        step, kind = self._first_bad.numpy().tolist()
        if step != NONE:
            raise NotFiniteError(step, KINDS[kind])

    def _average(self) -> None:
        """Averages after each update; as in Keras, the first gives the average its value."""
        batches, done = self.optimizer.gradient_accumulation_steps or 1, self.optimizer.variables[0]
        momentum = ops.where(ops.equal(done % batches, 0), self.ema_momentum, 1.0)
        momentum = ops.where(ops.less_equal(done, batches), 0.0, momentum)
        for average, weight in zip(self.averaged.weights, self.unet.weights, strict=True):
            average.assign(momentum * average + (1 - momentum) * weight)

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True, **kwargs
    ):
        """Returns the loss, and updates the metrics; that of the SDR in validation only."""
        estimates, spectra = y_pred
        truth = self.loss.truth(spectra)
        distances = self.loss.distances(truth, estimates)  # [batch, stems]
        for i, metric in enumerate(self.stem_losses):
            metric.update_state(distances[:, i])
        if not training:
            # The network has computed its estimates already.
            separated = spectral.separate_patches(
                ops.sum(x, axis=1), lambda *_, **__: estimates, self.config
            )
            kept = Patching.of(self.config).kept
            self.sdr.update_state(x[..., kept], separated[..., kept])
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
    jax = keras.backend.backend() == "jax"  # would compute op by op, if not compiled
    trainer = Trainer(unet, config.model, config.ema_momentum)
    trainer.compile(
        optimizer=make_optimizer(config, steps_per_epoch),
        loss=make_loss(config, loss_weights),
        jit_compile=config.jit_compile or jax,
        # JAX's steps follow each other without the host as it is.
        steps_per_execution=1 if jax else config.steps_per_execution,
    )
    # Built here, so that a checkpoint can be loaded.
    model = config.model
    trainer.build((None, len(model.stems), model.channels, model.patch_samples))
    trainer.optimizer.build(trainer.trainable_variables)
    return trainer
