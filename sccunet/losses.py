"""The volume-balanced L1 loss and its weights."""

from collections.abc import Callable, Sequence

import keras
import numpy as np
from keras import ops

from sccunet.config import Config, ConfigError


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


@keras.saving.register_keras_serializable(package="sccunet")
class VolumeBalancedL1(keras.losses.Loss):
    """L = sum_i alpha_i mean(|Y_i - Yhat_i|), the paper's loss.

    Y_i is the magnitude spectrogram of source i, and Yhat_i is channel i of the network's output.
    The mean is taken over batch, bins and frames.

    Args:
      weights: alpha_i, one per stem in the order of the channels, as from `balancing_weights`.
    """

    def __init__(self, weights: Sequence[float], name: str = "volume_balanced_l1", **kwargs):
        super().__init__(name=name, **kwargs)
        self.weights = tuple(float(alpha) for alpha in weights)

    def call(self, y_true, y_pred):
        """Returns each example's loss, [batch]; both arguments are [batch, bins, frames, stems]."""
        distances = ops.mean(ops.abs(y_true - y_pred), axis=(1, 2))  # [batch, stems]
        return ops.sum(distances * ops.convert_to_tensor(self.weights, distances.dtype), axis=-1)

    def get_config(self):
        return {**super().get_config(), "weights": self.weights}
