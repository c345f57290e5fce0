"""Waveforms to loss on the device, the optimizer's schedule, and what a run writes as it goes."""

import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
from keras import ops

from sccunet import spectral
from sccunet.config import Config, ConfigError, ModelConfig
from sccunet.losses import VolumeBalancedL1

CHECKPOINT = "last.weights.h5"
BEST = "best.weights.h5"


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
        # Kept with the weights so that a continued run knows what it has to beat.
        self.best_loss = self.add_weight(
            name="best_loss",
            shape=(),
            initializer=keras.initializers.Constant(math.inf),
            trainable=False,
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
        store["best_loss"] = ops.convert_to_numpy(self.best_loss)
        for i, state in enumerate(self._random_states):
            store[f"random_state_{i}"] = ops.convert_to_numpy(state)

    def load_own_variables(self, store):
        """The inverse of `save_own_variables`."""
        self.best_loss.assign(store["best_loss"])
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
        optimizer=keras.optimizers.Adam(
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


def save_whole(model: keras.Model, path: str | os.PathLike) -> None:
    """`model.save_weights`, the file being there whole or not at all."""
    path = Path(path)
    # Keras wants the ending; the leading dot keeps an interrupted write apart.
    partial = path.with_name(f".{path.name}")
    model.save_weights(partial, overwrite=True)
    os.replace(partial, path)


def load_weights(model: keras.Model, path: str | os.PathLike) -> None:
    """`model.load_weights`, with one line where it fails.

    Raises:
      ConfigError: if the file is missing, damaged or another network's.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{path}: found no such file, expected weights")
    try:
        with warnings.catch_warnings():
            # One for every layer that does not fit, ahead of the error that says so.
            warnings.filterwarnings("ignore", message="Skipping nested container")
            model.load_weights(path)
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(f"{path}: found weights that do not load ({reason})") from error


class Checkpoint(keras.callbacks.Callback):
    """Writes the best and the last weights into a workdir after every epoch.

    The last ones come with everything that a run continues from: the optimizer's state, the number
    of steps done (hence epochs) and the state of the random generators.
    """

    def __init__(self, workdir: str | os.PathLike):
        super().__init__()
        self.workdir = Path(workdir)

    def on_epoch_end(self, epoch, logs=None):
        if self.model.stop_training:  # the loss is NaN, and so are the weights
            return
        loss = (logs or {}).get("val_loss", math.inf)
        if loss < float(self.model.best_loss):
            self.model.best_loss.assign(loss)
            save_whole(self.model.unet, self.workdir / BEST)
        save_whole(self.model, self.workdir / CHECKPOINT)


class TensorBoard(keras.callbacks.TensorBoard):
    """Keras's scalars, and what the model makes of fixed validation crops: pictures and sound.

    Args:
      log_dir: of the events.
      crops: waveforms of the stems, float32 [crops, stems, patch_samples].
      initial_epoch: of a continued run, which is noted in the log.
    """

    def __init__(self, log_dir: str, crops: np.ndarray, initial_epoch: int = 0):
        super().__init__(log_dir, write_graph=False)
        self._crops = crops
        self._initial_epoch = initial_epoch

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        import tensorflow as tf

        with self._val_writer.as_default():
            if self._initial_epoch:
                tf.summary.text(
                    "run", f"continued from epoch {self._initial_epoch}", self._initial_epoch
                )
            self._look("truth", self._crops, self._initial_epoch)

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        mixtures = ops.convert_to_tensor(self._crops.sum(axis=1))
        estimates = ops.convert_to_numpy(
            spectral.separate_patches(mixtures, self.model.unet, self.model.config)
        )
        with self._val_writer.as_default():
            self._look("estimate", estimates, epoch + 1)

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
