"""Changes the speed of crops, and shapes their spectra, by NumPy.

Speed: a windowed sinc. Its phases repeat after each block, so that every block is the product of
some samples with the same small matrix. Processors are fastest at that: 2 s take 0.7 ms, against
1.9 ms by FFT (a spectrum that is cut off or continued with zeros), and 17 ms by a gather of 16
samples for each sample. Tilt and equalizer: an FFT and its inverse, 1.1 ms. (All measured when
TensorFlow computed them.)
"""

import functools

import numpy as np

from data_pipeline.cuts import BLOCK, MARGIN, TAPS, cuts_of
from data_pipeline.draws import BANDS
from sccunet.config import Config

# Kaiser's window for images and aliases below -70 dB. The band between pass and stop is 0.137 of
# the Nyquist frequency wide, and the cutoff half of that below: 19 kHz pass, 22 kHz do not.
_BETA, _CUTOFF = 6.76, 0.93
# OpenBLAS takes threads for larger products. The reader's own threads use all cores already, and
# those of OpenBLAS spend several times the product's time waiting for each other.
_ROWS = 8
# Below and above, the gain is that at the end: 0 Hz, rumble and hiss must not grow out of bounds.
_PIVOT, _OCTAVES = 1_000.0, BANDS // 2  # 62.5 Hz to 16 kHz


def resampled(crops: np.ndarray, speeds: np.ndarray, config: Config) -> np.ndarray:
    """Plays cuts: sample n is the cut at `cuts.margin + n * step / BLOCK`.

    The speed is the nearest that `cuts = cuts_of(config)` can have; 1 changes nothing.

    Args:
      crops: cuts, float32 [n, channels, cuts.samples].
      speeds: how fast each is played, float32 [n].
      config: determines the cuts, and the length of a crop.

    Returns:
      float32 [n, channels, patch_samples].
    """
    steps, patch = cuts_of(config).steps, config.model.patch_samples
    nearest = np.round(speeds * BLOCK).astype(int).clip(steps[0], steps[-1])
    played = np.empty((*crops.shape[:2], patch), np.float32)
    blocks = -(-patch // BLOCK)
    for cut, step, out in zip(crops, nearest.tolist(), played, strict=True):
        # [channels, blocks + 1, step]: a block reaches TAPS samples into the next.
        parts = cut[:, : (blocks + 1) * step].reshape(-1, blocks + 1, step)
        kernel = _kernel(step)
        own = _product(parts[:, :-1], kernel[:step])
        own += _product(parts[:, 1:, :TAPS], kernel[step:])
        out[:] = own.reshape(len(cut), -1)[:, :patch]
    return played


def _product(parts: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Multiplies [channels, blocks, n] by [n, BLOCK], `_ROWS` blocks at once."""
    channels, blocks, n = parts.shape
    groups, rest = divmod(blocks, _ROWS)
    whole = blocks - rest
    grouped = parts[:, :whole].reshape(channels, groups, _ROWS, n) @ kernel
    whole_blocks = grouped.reshape(channels, whole, BLOCK)
    return np.concatenate([whole_blocks, parts[:, whole:] @ kernel], axis=1)


@functools.cache
def _kernel(step: int) -> np.ndarray:
    """Returns the matrix from `step` + TAPS samples to a block: float32 [step + TAPS, BLOCK]."""
    places = np.arange(BLOCK) * step / BLOCK  # of the block's samples among those of the cut
    rows = places.astype(int) + np.arange(TAPS)[:, None]  # [TAPS, BLOCK]
    distances = rows - MARGIN - places
    if step == BLOCK:
        weights = distances == 0
    else:
        window = np.i0(_BETA * np.sqrt(1 - (2 * distances / TAPS) ** 2))
        weights = window * np.sinc(_CUTOFF * min(1, BLOCK / step) * distances)
    kernel = np.zeros([step + TAPS, BLOCK], np.float32)
    kernel[rows, np.arange(BLOCK)] = weights / weights.sum(axis=0)
    return kernel


def tilted(crops: np.ndarray, slopes: np.ndarray, config: Config) -> np.ndarray:
    """Tilts spectra around 1 kHz, without changes of phase.

    Args:
      crops: float32 [..., samples].
      slopes: in dB per octave, float32, of a shape that broadcasts to [..., 1].
      config: gives the sample rate.

    Returns:
      float32 [..., samples].
    """
    octaves = _octaves(crops.shape[-1], config.model.sample_rate)
    return _filtered(crops, slopes * octaves)


def equalized(crops: np.ndarray, bands: np.ndarray, config: Config) -> np.ndarray:
    """Changes the level of each octave from 62.5 Hz to 16 kHz, without changes of phase.

    Between the octaves, dB are linear in the logarithm of the frequency.

    Args:
      crops: float32 [..., samples].
      bands: in dB, float32, of a shape that broadcasts to [..., `BANDS`].
      config: gives the sample rate.

    Returns:
      float32 [..., samples].
    """
    places = _octaves(crops.shape[-1], config.model.sample_rate) + _OCTAVES
    below = np.minimum(places.astype(int), BANDS - 2)
    # No product of matrices: its rounding would depend on the number of crops.
    low, rise = bands[..., below], np.diff(bands)[..., below]
    return _filtered(crops, low + rise * (places - below).astype(np.float32))


@functools.lru_cache(8)
def _octaves(samples: int, sample_rate: int) -> np.ndarray:
    """Returns the octaves above 1 kHz of the bins of a crop's FFT, 4 at most, up or down."""
    hertz = np.fft.rfftfreq(samples, 1 / sample_rate).clip(1)
    return np.log2(hertz / _PIVOT).clip(-_OCTAVES, _OCTAVES).astype(np.float32)


def _filtered(crops: np.ndarray, decibels: np.ndarray) -> np.ndarray:
    """Changes the level of each bin of the FFT, float32 decibels [..., bins]."""
    import scipy.fft  # its FFT computes in float32, as NumPy's before version 2 does not

    filtered = np.empty_like(crops)
    factors = np.exp(decibels * np.float32(np.log(10) / 20))
    factors = np.broadcast_to(factors, (len(crops), *factors.shape[1:]))
    # One crop after the other: its spectra fit into the processor's cache.
    for crop, factor, out in zip(crops, factors, filtered, strict=True):
        out[:] = scipy.fft.irfft(scipy.fft.rfft(crop) * factor, crop.shape[-1])
    return filtered
