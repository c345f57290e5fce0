"""Calibrates masks: numbers that, added to the stems' logits, make the SDR best.

Masks of singers that a network has not heard come out too small: the network is careful. Numbers in
the last convolution's bias cost nothing in separation.
"""

from collections.abc import Callable, Iterable

import keras
import numpy as np
from keras import ops

from sccunet import spectral
from sccunet.config import ConfigError, ModelConfig
from sccunet.folding import fold
from sccunet.patching import Patching
from sccunet.unet import output_layer

# Stems as `Trainer` takes them: float32 [batch, stems, channels, patch_samples].
Batches = Iterable[np.ndarray]

# Candidates for a number, and then for what is added to the best of them.
_COARSE = np.arange(-2, 4.5, 0.5)
_FINE = np.arange(-0.375, 0.5, 0.125)


def best_offsets(
    unet: keras.Model, model: ModelConfig, batches: Callable[[], Batches]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Searches one number for each stem that makes the mean of the stems' SDRs best.

    The last stem's is 0: the same number for all stems changes nothing, since masks sum to 1. Each
    of the others in turn gets the best of the multiples of 1/8 from -2.375 to 4.375, until none
    changes any more; first to the nearest half.

    Args:
      unet: from `build_model`, with `output = "mask"`.
      model: its configuration.
      batches: function that returns the data; called once for each search.

    Returns:
      The numbers [stems], and the SDRs [stems] in dB without and with them; see `sdr`.

    Raises:
      ConfigError: as `sdr`.
    """
    others = range(len(model.stems) - 1)
    offsets, folded, before = np.zeros(len(model.stems)), fold(unet), None
    while True:
        start = offsets
        for stem in others:
            for numbers in (_COARSE, _FINE):
                candidates = np.tile(offsets, (len(numbers), 1))
                candidates[:, stem] = numbers + (offsets[stem] if numbers is _FINE else 0)
                ratios = sdr(folded, model, batches(), candidates)
                if before is None:
                    before = ratios[np.flatnonzero(_COARSE == 0)[0]]
                best = ratios.mean(axis=1).argmax()
                offsets, after = candidates[best], ratios[best]
        if len(others) <= 1 or np.array_equal(start, offsets):
            return offsets, before, after


def sdr(unet: keras.Model, model: ModelConfig, batches: Batches, offsets: np.ndarray) -> np.ndarray:
    """Computes each stem's SDR for numbers that are added to the logits of the masks.

    The SDR is 10 log10(sum s^2 / sum (s - estimate)^2), as `sccunet.metrics.SDR` defines it.

    Args:
      unet: from `build_model` or `fold`, with `output = "mask"`.
      model: its configuration.
      batches: the data.
      offsets: the numbers, [n, stems].

    Returns:
      float64 [n, stems], dB.

    Raises:
      ConfigError: if the network has no masks, or a stem is silent in all batches.
    """
    if model.output != "mask":
        raise ConfigError(
            f"config.model.output: found {model.output!r}, expected 'mask' for a calibration"
        )
    energies = _energies(unet, model, np.exp(offsets).astype(np.float32))
    signal, errors = np.zeros(len(model.stems)), np.zeros(np.shape(offsets))
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
    """Returns a function from stems to their energies [stems] and the errors [n, stems]."""
    import tensorflow as tf

    kept = Patching.of(model).kept

    @tf.function(reduce_retracing=True)
    def energies(stems):
        mixture = tf.reduce_sum(stems, axis=1)  # [batch, channels, patch_samples]
        real, imaginary, estimates = spectral.estimate_patches(mixture, unet, model)
        shares = estimates / spectral.over_zero(spectral.magnitude(real, imaginary))[:, None]

        def error(factor):  # [stems]
            # A number added to a logit multiplies its share, before the sum is 1.
            masks = shares * factor[:, None, None, None]
            masks /= spectral.over_zero(tf.reduce_sum(masks, axis=1, keepdims=True))
            found = spectral.istft(masks * real[:, None], masks * imaginary[:, None], model)
            return tf.reduce_sum(tf.square((stems - found)[..., kept]), axis=(0, 2, 3))

        errors = tf.map_fn(error, tf.constant(factors), parallel_iterations=1)
        return tf.reduce_sum(tf.square(stems[..., kept]), axis=(0, 2, 3)), errors

    return energies


def add_offsets(unet: keras.Model, offsets: np.ndarray) -> None:
    """Adds one number per stem to the logits of its masks."""
    bias = output_layer(unet).bias
    value = ops.convert_to_numpy(bias)  # [stems * channels]
    bias.assign(value + np.repeat(offsets, len(value) // len(offsets)))
