"""What `sccunet.spectral` needs of Keras: its array functions, the STFT and its inverse.

It runs under every Keras backend and XLA. `sccunet.numpy_stft` has the same names.
"""

from keras import ops

from sccunet.config import ModelConfig

__all__ = ["istft", "ops", "stft"]


def stft(waveforms, model: ModelConfig):
    """Does what `sccunet.spectral.stft` says."""
    return ops.stft(
        waveforms,
        sequence_length=model.frame_length,
        sequence_stride=model.hop_length,
        fft_length=model.frame_length,
        window="hann",
        center=True,
    )


def istft(real, imaginary, model: ModelConfig):
    """Does what `sccunet.spectral.istft` says."""
    return ops.istft(
        (real, imaginary),
        sequence_length=model.frame_length,
        sequence_stride=model.hop_length,
        fft_length=model.frame_length,
        length=model.patch_samples,
        window="hann",
        center=True,
    )
