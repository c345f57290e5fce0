"""Spectrograms of patches; no other module computes the network's input.

`sccunet.patching` describes how recordings are cut into patches. The code uses `keras.ops` and runs
under every Keras backend and XLA.
"""

import keras
from keras import ops

from sccunet.config import ModelConfig


def stft(waveforms, model: ModelConfig):
    """Computes the centred short-time Fourier transform (Hann, edges mirrored) of whole patches.

    Args:
      waveforms: float32 [..., patch_samples].
      model: gives frame_length and hop_length (paper: 2048 and 512).

    Returns:
      Real and imaginary part, each float32 [..., frames, bins]. Equal to librosa's
      `stft(pad_mode="reflect")`, transposed.
    """
    return ops.stft(
        waveforms,
        sequence_length=model.frame_length,
        sequence_stride=model.hop_length,
        fft_length=model.frame_length,
        window="hann",
        center=True,
    )


def istft(real, imaginary, model: ModelConfig):
    """Inverts `stft` by weighted overlap-add.

    Args:
      real, imaginary: float32 [..., frames, bins].
      model: gives frame_length and hop_length.

    Returns:
      float32 [..., patch_samples]. Exact only for samples that have all of the frames covering
      them; `sccunet.patching` keeps only those.
    """
    return ops.istft(
        (real, imaginary),
        sequence_length=model.frame_length,
        sequence_stride=model.hop_length,
        fft_length=model.frame_length,
        length=model.patch_samples,
        window="hann",
        center=True,
    )


def magnitude(real, imaginary):
    """Magnitude of a complex spectrogram from its real and imaginary part, any shape."""
    return ops.sqrt(ops.square(real) + ops.square(imaginary))


def training_magnitudes(waveforms, model: ModelConfig):
    """Computes the network's input and targets from the stems of a batch of patches.

    The mixture is the sum of its stems, so its spectrogram is the sum of their spectrograms.

    Args:
      waveforms: float32 [batch, stems, patch_samples].
      model: gives frame_length and hop_length.

    Returns:
      Magnitudes of the mixture [batch, bins, frames, 1] and targets [batch, bins, frames, stems].
    """
    real, imaginary = stft(waveforms, model)  # [batch, stems, frames, bins]
    mixture = magnitude(ops.sum(real, axis=1), ops.sum(imaginary, axis=1))  # [batch, frames, bins]
    targets = magnitude(real, imaginary)
    return (
        ops.expand_dims(ops.transpose(mixture, (0, 2, 1)), -1),  # [batch, bins, frames, 1]
        ops.transpose(targets, (0, 3, 2, 1)),  # [batch, bins, frames, stems]
    )


def estimate_patches(waveforms, unet: keras.Model, model: ModelConfig):
    """Computes the mixture's spectrogram and the network's estimates.

    Args:
      waveforms: mixture, float32 [batch, patch_samples].
      unet: magnitudes [batch, bins, frames, 1] -> magnitudes [batch, bins, frames, stems].
      model: gives frame_length and hop_length.

    Returns:
      The mixture's real and imaginary part [batch, frames, bins], and estimated magnitudes
      [batch, stems, frames, bins].
    """
    real, imaginary = stft(waveforms, model)  # [batch, frames, bins]
    mixture = ops.transpose(magnitude(real, imaginary), (0, 2, 1))  # [batch, bins, frames]
    estimates = unet(ops.expand_dims(mixture, -1), training=False)  # [batch, bins, frames, stems]
    return real, imaginary, ops.transpose(estimates, (0, 3, 2, 1))


def soft_masks(estimates, exponent: float):
    """Computes each stem's share of the mixture: generalised Wiener filter (Liutkus, Badeau 2015).

    Args:
      estimates: magnitudes [batch, stems, frames, bins].
      exponent: over 0.

    Returns:
      estimates**exponent divided by its sum over the stems. Shares are equal where all estimates
      are 0, so the masks sum to 1 everywhere.
    """
    # Relative to the largest, so that no power leaves float32's range.
    largest = ops.max(estimates, axis=1, keepdims=True)  # [batch, 1, frames, bins]
    silent = largest <= 0
    relative = ops.where(silent, 1.0, estimates / ops.where(silent, 1.0, largest))
    shares = ops.power(relative, exponent)
    return shares / ops.sum(shares, axis=1, keepdims=True)


def separate_patches(
    waveforms, unet: keras.Model, model: ModelConfig, mask_exponent: float | None = None
):
    """Separates mixture patches into stems.

    Args:
      waveforms: mixture, float32 [batch, patch_samples].
      unet: magnitudes [batch, bins, frames, 1] -> magnitudes [batch, bins, frames, stems].
      model: gives frame_length and hop_length.
      mask_exponent: None multiplies estimated magnitudes by the mixture's phase (the paper's
        reconstruction); a number applies `soft_masks` with this exponent.

    Returns:
      float32 [batch, stems, patch_samples].
    """
    real, imaginary, estimates = estimate_patches(waveforms, unet, model)
    if mask_exponent is None:
        # A silent mixture has no phase, so the estimate becomes 0. The bound is far above 1e-19:
        # the square of smaller numbers is 0 in float32, and so is the magnitude, though the real
        # and imaginary parts are not.
        mixture = ops.maximum(magnitude(real, imaginary), 1e-12)
        gain = estimates / ops.expand_dims(mixture, 1)
    else:
        gain = soft_masks(estimates, mask_exponent)
    return istft(  # [batch, stems, frames, bins] -> [batch, stems, patch_samples]
        gain * ops.expand_dims(real, 1), gain * ops.expand_dims(imaginary, 1), model
    )
