"""Calibrates masks: one number per stem, added to the logits, that makes the SDR best.

Masks of recordings that resemble none of the training set come out too small: the network is
careful. A number in the last convolution's bias costs nothing in separation.
"""

from collections.abc import Iterable, Sequence

import keras
import numpy as np
from keras import ops

from sccunet import spectral
from sccunet.config import ConfigError, ModelConfig
from sccunet.folding import fold
from sccunet.patching import Patching
from sccunet.unet import output_layer

# Candidates for the number: a mask of 1/2 becomes one between 0.12 and 0.95.
OFFSETS = np.arange(-2, 3.125, 0.125)


def sdr_of_offsets(
    unet: keras.Model,
    model: ModelConfig,
    batches: Iterable[np.ndarray],
    offsets: Sequence[float] = OFFSETS,
) -> np.ndarray:
    """Computes each stem's SDR for numbers that are added to the logits of its masks.

    The SDR is 10 log10(sum s^2 / sum (s - estimate)^2), the sums over all batches and channels, and
    over the samples of a patch that separation keeps.

    Args:
      unet: from `build_model`, with `output = "mask"`.
      model: its configuration.
      batches: stems whose sum is the mixture, float32 [batch, stems, channels, patch_samples].
      offsets: the numbers.

    Returns:
      float64 [offsets, stems], dB.

    Raises:
      ConfigError: if the network has no masks, or a stem is silent in all batches.
    """
    if model.output != "mask":
        raise ConfigError(
            f"config.model.output: found {model.output!r}, expected 'mask' for a calibration"
        )
    energies = _energies(fold(unet), model, np.exp(np.asarray(offsets, np.float32)))
    signal, errors = np.zeros(len(model.stems)), np.zeros((len(offsets), len(model.stems)))
    for waveforms in batches:
        found = [ops.convert_to_numpy(part) for part in energies(waveforms)]
        signal += found[0]
        errors += found[1]
    for stem in np.flatnonzero(signal == 0):
        raise ConfigError(
            f"stem {model.stems[stem]!r}: found only silence, expected sound to calibrate on"
        )
    return 10 * np.log10(signal / np.maximum(errors, 1e-12 * signal))


def _energies(unet: keras.Model, model: ModelConfig, factors: np.ndarray):
    """Returns a function from stems to the energies [stems] and errors [offsets, stems]."""
    import tensorflow as tf

    kept = Patching.of(model).kept

    @tf.function(reduce_retracing=True)
    def energies(stems):
        mixture = tf.reduce_sum(stems, axis=1)  # [batch, channels, patch_samples]
        real, imaginary, estimates = spectral.estimate_patches(mixture, unet, model)
        shares = estimates / spectral.over_zero(spectral.magnitude(real, imaginary))[:, None]

        def error(factor):
            # sigmoid(x + log f) = f s / (1 + (f - 1) s), where s = sigmoid(x).
            masks = factor * shares / (1 + (factor - 1) * shares)
            found = spectral.istft(masks * real[:, None], masks * imaginary[:, None], model)
            return tf.reduce_sum(tf.square((stems - found)[..., kept]), axis=(0, 2, 3))

        errors = tf.map_fn(error, tf.constant(factors), parallel_iterations=1)
        return tf.reduce_sum(tf.square(stems[..., kept]), axis=(0, 2, 3)), errors

    return energies


def add_offsets(unet: keras.Model, offsets: Sequence[float]) -> None:
    """Adds one number per stem to the logits of its masks."""
    bias = output_layer(unet).bias
    value = ops.convert_to_numpy(bias)  # [stems * channels]
    bias.assign(value + np.repeat(offsets, len(value) // len(offsets)))
