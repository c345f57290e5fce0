"""The volume-balanced losses and their weights."""

from collections.abc import Callable, Sequence

import keras
import numpy as np
from keras import ops

from sccunet.config import Config, ConfigError

# Least mean square of the magnitudes by which an error is divided: quieter mixtures count less.
# White noise of -39 dBFS has as much, with a window of 2048 samples.
_SILENCE = 0.1


def make_loss(config: Config, weights: Sequence[float]) -> keras.losses.Loss:
    """Returns the loss that a config names, with alpha of each stem."""
    return (VolumeBalancedComplex if config.loss == "complex" else VolumeBalancedL1)(weights)


def loss_weights(config: Config, volumes: Callable[[], Sequence[float]]) -> tuple[float, ...]:
    """Returns a run's loss weights: those in its config, or those of its rule.

    To add a rule, add a name to `config.LOSS_BALANCES` and a case here.

    Args:
      config: gives `loss_weights` or, if that is empty, `loss_balance`.
      volumes: function that returns V_i for `balancing_weights`. It takes a pass over the training
        split, so it is called only if the rule needs it.

    Returns:
      alpha of each stem.

    Raises:
      ConfigError: as `balancing_weights`.
    """
    if config.loss_weights:
        return config.loss_weights
    if config.loss_balance == "equal":
        stems = len(config.model.stems)
        return (1 / stems,) * stems
    return tuple(balancing_weights(volumes()).tolist())


def balancing_weights(volumes: Sequence[float]) -> np.ndarray:
    """Computes loss weights that give every source the same influence, however loud it is.

    alpha_i = (1 / V_i) / sum_j (1 / V_j), so that sum_i alpha_i = 1 and alpha_i V_i is the same for
    every source i. Quiet sources weigh more.

    Args:
      volumes: V_i, the mean 2-norm of source i's training spectrograms, in any common unit.

    Returns:
      alpha, float64 [stems].

    Raises:
      ConfigError: if a volume is not a finite number over 0.
    """
    volumes = np.asarray(volumes, np.float64)
    if volumes.ndim != 1 or not volumes.size or not np.all(np.isfinite(volumes) & (volumes > 0)):
        raise ConfigError(f"volumes: found {volumes.tolist()}, expected finite numbers over 0")
    inverse = 1 / volumes
    return inverse / inverse.sum()


class _VolumeBalanced(keras.losses.Loss):
    """L = sum_i alpha_i d_i; a subclass defines d_i, the distance of source i.

    Args:
      weights: alpha_i, one per stem in the order of the channels, as from `balancing_weights`.
    """

    def __init__(self, weights: Sequence[float], name: str | None = None, **kwargs):
        super().__init__(name=name, **kwargs)
        self.weights = tuple(float(alpha) for alpha in weights)

    def call(self, y_true, y_pred):
        """Returns each example's loss, [batch]; the arguments are those of `distances`."""
        distances = self.distances(y_true, y_pred)  # [batch, stems]
        return ops.sum(distances * ops.convert_to_tensor(self.weights, distances.dtype), axis=-1)

    def get_config(self):
        return {**super().get_config(), "weights": self.weights}

    def _means(self, spectrograms):
        """Means over each stem: [batch, bins, frames, stems * channels] -> [batch, stems]."""
        means = ops.mean(spectrograms, axis=(1, 2))  # [batch, stems * channels]
        stems = len(self.weights)
        return ops.mean(ops.reshape(means, (-1, stems, means.shape[-1] // stems)), axis=-1)


@keras.saving.register_keras_serializable(package="sccunet")
class VolumeBalancedL1(_VolumeBalanced):
    """L = sum_i alpha_i mean(|Y_i - Yhat_i|), the paper's loss.

    Y_i is the magnitude spectrogram of source i, and Yhat_i its estimate by the network. The mean
    is taken over batch, bins, frames and channels.
    """

    def __init__(self, weights: Sequence[float], name: str = "volume_balanced_l1", **kwargs):
        super().__init__(weights, name, **kwargs)

    @staticmethod
    def truth(spectra):
        """Returns y_true of a `TrainingSpectra`."""
        return spectra.targets

    def distances(self, y_true, y_pred):
        """Returns mean(|Y_i - Yhat_i|) of each example, [batch, stems].

        Args:
          y_true, y_pred: magnitudes [batch, bins, frames, stems * channels].
        """
        return self._means(ops.abs(y_true - y_pred))


@keras.saving.register_keras_serializable(package="sccunet")
class VolumeBalancedComplex(_VolumeBalanced):
    """L = sum_i alpha_i mean(sum |S_i - Shat_i|^2 / sum |X|^2).

    S_i and X are the complex spectrograms of source i and of the mixture. The estimate Shat_i has
    the magnitude that the network estimates and the phase of X, as in the reconstruction. The sums
    are taken over bins, frames and channels, the mean over the batch. What is summed is the error
    that the SDR measures.
    """

    def __init__(self, weights: Sequence[float], name: str = "volume_balanced_complex", **kwargs):
        super().__init__(weights, name, **kwargs)

    @staticmethod
    def truth(spectra):
        """Returns y_true of a `TrainingSpectra`."""
        return spectra.mixture, spectra.aligned, spectra.energies

    def distances(self, y_true, y_pred):
        """Returns each example's error over the mixture's energy, [batch, stems].

        |S - Shat|^2 = |Shat|^2 - 2 |Shat| A + |S|^2, where A = |S| cos(difference of phases).

        Args:
          y_true: (mixture, aligned, energies) as in `sccunet.spectral.TrainingSpectra`.
          y_pred: magnitudes [batch, bins, frames, stems * channels].
        """
        mixture, aligned, energies = y_true
        errors = self._means(y_pred * (y_pred - 2 * aligned)) + energies
        energy = ops.mean(ops.square(mixture), axis=(1, 2, 3))  # [batch]
        return errors / ops.maximum(energy, _SILENCE)[:, None]
