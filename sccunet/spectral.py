"""Spectrograms of patches; no other module computes the network's input.

`sccunet.patching` describes how recordings are cut into patches. The functions take the arrays of
Keras or of NumPy: their argument `library` is `sccunet.numpy_stft`, or by default
`sccunet.keras_stft`, which is imported with the first call.
"""

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

from sccunet.config import ModelConfig


def _keras() -> ModuleType:
    from sccunet import keras_stft

    return keras_stft


def stft(waveforms, model: ModelConfig, library: ModuleType | None = None):
    """Computes the centred short-time Fourier transform (Hann, edges mirrored) of whole patches.

    Args:
      waveforms: float32 [..., patch_samples].
      model: gives frame_length and hop_length (paper: 2048 and 512).
      library: of the arrays.

    Returns:
      Real and imaginary part, each float32 [..., frames, bins]. Equal to librosa's
      `stft(pad_mode="reflect")`, transposed.
    """
    return (library or _keras()).stft(waveforms, model)


def istft(real, imaginary, model: ModelConfig, library: ModuleType | None = None):
    """Inverts `stft` by weighted overlap-add.

    Args:
      real, imaginary: float32 [..., frames, bins].
      model: gives frame_length and hop_length.
      library: of the arrays.

    Returns:
      float32 [..., patch_samples]. Exact only for samples that have all of the frames covering
      them; `sccunet.patching` keeps only those.
    """
    return (library or _keras()).istft(real, imaginary, model)


def magnitude(real, imaginary, library: ModuleType | None = None):
    """Magnitude of a complex spectrogram from its real and imaginary part, any shape."""
    ops = (library or _keras()).ops
    return ops.sqrt(ops.square(real) + ops.square(imaginary))


class TrainingSpectra(NamedTuple):
    """The network's input, and what its estimates are compared with.

    Attributes:
      mixture: magnitudes of the mixture, [batch, bins, frames, channels].
      targets: magnitudes |S| of the stems, [batch, bins, frames, stems * channels].
      aligned: |S| cos(phase of S - phase of the mixture), of the same shape: the part of a stem
        that an estimate with the mixture's phase can reach (Erdogan et al. 2015).
      energies: mean of |S|^2 over channels, frames and bins, [batch, stems].
    """

    mixture: Any
    targets: Any
    aligned: Any
    energies: Any


def training_spectra(waveforms, model: ModelConfig) -> TrainingSpectra:
    """Computes the network's input and targets from the stems of a batch of patches.

    The mixture is the sum of its stems, so its spectrogram is the sum of their spectrograms.

    Args:
      waveforms: float32 [batch, stems, channels, patch_samples].
      model: gives frame_length and hop_length.
    """
    ops = _keras().ops
    real, imaginary = stft(waveforms, model)  # [batch, stems, channels, frames, bins]
    mixture_real, mixture_imaginary = ops.sum(real, axis=1), ops.sum(imaginary, axis=1)
    mixture = magnitude(mixture_real, mixture_imaginary)  # [batch, channels, frames, bins]
    divisor = over_zero(mixture)
    cosine, sine = mixture_real / divisor, mixture_imaginary / divisor  # of the mixture's phase
    return TrainingSpectra(
        _to_network(mixture, ops),
        _to_network(magnitude(real, imaginary), ops),
        _to_network(real * cosine[:, None] + imaginary * sine[:, None], ops),
        ops.mean(ops.square(real) + ops.square(imaginary), axis=(2, 3, 4)),
    )


def over_zero(mixture, library: ModuleType | None = None):
    """Makes magnitudes safe divisors.

    The bound is far above 1e-19: the square of smaller numbers is 0 in float32, and so is the
    magnitude, though the real and imaginary parts are not.
    """
    return (library or _keras()).ops.maximum(mixture, 1e-12)


def _to_network(spectrograms, ops: ModuleType):
    """[batch, (stems,) channels, frames, bins] -> [batch, bins, frames, (stems *) channels]."""
    *_, frames, bins = spectrograms.shape
    channels = ops.reshape(spectrograms, (-1, math.prod(spectrograms.shape[1:-2]), frames, bins))
    return ops.transpose(channels, (0, 3, 2, 1))


def estimate_patches(
    waveforms, unet: Callable, model: ModelConfig, library: ModuleType | None = None
):
    """Computes the mixture's spectrogram and the network's estimates.

    Args:
      waveforms: mixture, float32 [batch, channels, patch_samples].
      unet: magnitudes [batch, bins, frames, channels] -> [batch, bins, frames, stems * channels].
      model: gives stems, channels, frame_length and hop_length.
      library: of the arrays.

    Returns:
      The mixture's real and imaginary part [batch, channels, frames, bins], and estimated
      magnitudes [batch, stems, channels, frames, bins].
    """
    library = library or _keras()
    ops = library.ops
    real, imaginary = library.stft(waveforms, model)  # [batch, channels, frames, bins]
    estimates = unet(_to_network(magnitude(real, imaginary, library), ops), training=False)
    estimates = ops.transpose(estimates, (0, 3, 2, 1))  # [batch, stems * channels, frames, bins]
    shape = (-1, len(model.stems), model.channels, *estimates.shape[2:])
    return real, imaginary, ops.reshape(estimates, shape)


def soft_masks(estimates, exponent: float, library: ModuleType | None = None):
    """Computes each stem's share of the mixture: generalised Wiener filter (Liutkus, Badeau 2015).

    Args:
      estimates: magnitudes [batch, stems, channels, frames, bins].
      exponent: over 0.
      library: of the arrays.

    Returns:
      estimates**exponent divided by its sum over the stems. Shares are equal where all estimates
      are 0, so the masks sum to 1 everywhere.
    """
    ops = (library or _keras()).ops
    # Relative to the largest, so that no power leaves float32's range.
    largest = ops.max(estimates, axis=1, keepdims=True)  # [batch, 1, channels, frames, bins]
    silent = largest <= 0
    relative = ops.where(silent, 1.0, estimates / ops.where(silent, 1.0, largest))
    shares = relative**exponent  # NumPy squares in place of its slow power
    return shares / ops.sum(shares, axis=1, keepdims=True)


def separate_patches(
    waveforms,
    unet: Callable,
    model: ModelConfig,
    mask_exponent: float | None = None,
    library: ModuleType | None = None,
):
    """Separates mixture patches into stems.

    Args:
      waveforms: mixture, float32 [batch, channels, patch_samples].
      unet: magnitudes [batch, bins, frames, channels] -> [batch, bins, frames, stems * channels].
      model: gives stems, channels, frame_length and hop_length.
      mask_exponent: None multiplies estimated magnitudes by the mixture's phase (the paper's
        reconstruction); a number applies `soft_masks` with this exponent.
      library: of the arrays.

    Returns:
      float32 [batch, stems, channels, patch_samples].
    """
    library = library or _keras()
    real, imaginary, estimates = estimate_patches(waveforms, unet, model, library)
    if mask_exponent is None:
        # A silent mixture has no phase, so the estimate becomes 0.
        gain = estimates / over_zero(magnitude(real, imaginary, library), library)[:, None]
    else:
        gain = soft_masks(estimates, mask_exponent, library)
    # [batch, stems, channels, frames, bins] -> [batch, stems, channels, patch_samples]
    return library.istft(gain * real[:, None], gain * imaginary[:, None], model)
