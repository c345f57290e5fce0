"""Changes the speed of crops, and shapes their spectra.

Speed: a windowed sinc. Its phases repeat after each block, so that every block is the product of
some samples with the same small matrix. Processors are fastest at that: 2 s take 0.7 ms, against
1.9 ms by FFT (a spectrum that is cut off or continued with zeros), and 17 ms by a gather of 16
samples for each sample. Tilt and equalizer: an FFT and its inverse, 1.1 ms.
"""

import math

import numpy as np
import tensorflow as tf

from data_pipeline.cuts import BLOCK, MARGIN, TAPS, cuts_of
from data_pipeline.draws import BANDS
from sccunet.config import Config

# Kaiser's window for images and aliases below -70 dB. The band between pass and stop is 0.137 of
# the Nyquist frequency wide, and the cutoff half of that below: 19 kHz pass, 22 kHz do not.
_BETA, _CUTOFF = 6.76, 0.93
# Below and above, the gain is that at the end: 0 Hz, rumble and hiss must not grow out of bounds.
_PIVOT, _OCTAVES = 1_000.0, BANDS // 2  # 62.5 Hz to 16 kHz


def resampled(crops: tf.Tensor, speeds: tf.Tensor, config: Config) -> tf.Tensor:
    """Plays cuts: sample n is the cut at `cuts.margin + n * step / BLOCK`.

    The speed is the nearest that `cuts = cuts_of(config)` can have; 1 changes nothing.

    Args:
      crops: cuts, float32 [n, channels, cuts.samples].
      speeds: how fast each is played, float32 [n].
      config: determines the cuts, and the length of a crop.

    Returns:
      float32 [n, channels, patch_samples].
    """
    cuts, patch = cuts_of(config), config.model.patch_samples
    first, last = cuts.steps[0], cuts.steps[-1]
    kernels = tf.constant(np.stack([_kernel(step, last) for step in cuts.steps]))
    steps = tf.clip_by_value(tf.cast(tf.round(speeds * BLOCK), tf.int32), first, last)
    blocks = -(-patch // BLOCK)

    def play(row):
        cut, step = row
        # [channels, blocks + 1, step]: a block reaches TAPS samples into the next.
        parts = tf.reshape(cut[:, : (blocks + 1) * step], [-1, blocks + 1, step])
        kernel = tf.gather(kernels, step - first)
        own = parts[:, :-1] @ kernel[:step]
        played = own + parts[:, 1:, :TAPS] @ kernel[step : step + TAPS]
        return tf.reshape(played, [-1, blocks * BLOCK])[:, :patch]

    shape = tf.TensorSpec([crops.shape[1], patch], crops.dtype)
    return tf.map_fn(play, (crops, steps), fn_output_signature=shape)


def _kernel(step: int, longest: int) -> np.ndarray:
    """Returns the matrix from `step` + TAPS samples to a block: float32 [longest + TAPS, BLOCK]."""
    places = np.arange(BLOCK) * step / BLOCK  # of the block's samples among those of the cut
    rows = places.astype(int) + np.arange(TAPS)[:, None]  # [TAPS, BLOCK]
    distances = rows - MARGIN - places
    if step == BLOCK:
        weights = distances == 0
    else:
        window = np.i0(_BETA * np.sqrt(1 - (2 * distances / TAPS) ** 2))
        weights = window * np.sinc(_CUTOFF * min(1, BLOCK / step) * distances)
    kernel = np.zeros([longest + TAPS, BLOCK], np.float32)
    kernel[rows, np.arange(BLOCK)] = weights / weights.sum(axis=0)
    return kernel


def tilted(crops: tf.Tensor, slopes: tf.Tensor, config: Config) -> tf.Tensor:
    """Tilts spectra around 1 kHz, without changes of phase.

    Args:
      crops: float32 [..., samples].
      slopes: in dB per octave, float32, of a shape that broadcasts to [..., 1].
      config: gives the sample rate.

    Returns:
      float32 [..., samples].
    """
    return _filtered(crops, slopes * tf.constant(_octaves(crops, config), crops.dtype))


def equalized(crops: tf.Tensor, bands: tf.Tensor, config: Config) -> tf.Tensor:
    """Changes the level of each octave from 62.5 Hz to 16 kHz, without changes of phase.

    Between the octaves, dB are linear in the logarithm of the frequency.

    Args:
      crops: float32 [..., samples].
      bands: in dB, float32, of a shape that broadcasts to [..., `BANDS`].
      config: gives the sample rate.

    Returns:
      float32 [..., samples].
    """
    places = _octaves(crops, config) + _OCTAVES
    below = np.minimum(places.astype(int), BANDS - 2)
    # No product of matrices: its rounding would depend on the number of crops.
    share = tf.constant(places - below, crops.dtype)
    low, high = (tf.gather(bands, band, axis=-1) for band in (below, below + 1))
    return _filtered(crops, low + (high - low) * share)


def _octaves(crops: tf.Tensor, config: Config) -> np.ndarray:
    """Returns the octaves above 1 kHz of the bins of a crop's FFT, 4 at most, up or down."""
    hertz = np.fft.rfftfreq(crops.shape[-1], 1 / config.model.sample_rate)
    return np.log2(hertz.clip(1) / _PIVOT).clip(-_OCTAVES, _OCTAVES)


def _filtered(crops: tf.Tensor, decibels: tf.Tensor) -> tf.Tensor:
    """Changes the level of each bin of the FFT, decibels [..., bins]."""
    gains = tf.exp(decibels * (math.log(10) / 20))
    spectra = tf.signal.rfft(crops)
    return tf.signal.irfft(spectra * tf.cast(gains, spectra.dtype), [crops.shape[-1]])
