"""What `sccunet.spectral` needs of NumPy: its array functions, the STFT and its inverse.

Results are float32. `sccunet.keras_stft` has the same names.
"""

import functools

import numpy as np
import numpy as ops

from sccunet.config import ModelConfig

__all__ = ["istft", "ops", "stft"]


def stft(waveforms: np.ndarray, model: ModelConfig) -> tuple[np.ndarray, np.ndarray]:
    """Does what `sccunet.spectral.stft` says; the results are views of one complex array."""
    half = model.frame_length // 2
    padding = [(0, 0)] * (waveforms.ndim - 1) + [(half, half)]
    padded = np.pad(waveforms, padding, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, model.frame_length, axis=-1)
    spectrum = np.fft.rfft(frames[..., :: model.hop_length, :] * _hann(model.frame_length))
    spectrum = spectrum.astype(np.complex64, copy=False)  # NumPy 1 computes in double precision
    return spectrum.real, spectrum.imag


def istft(real: np.ndarray, imaginary: np.ndarray, model: ModelConfig) -> np.ndarray:
    """Does what `sccunet.spectral.istft` says."""
    spectrum = np.empty(real.shape, np.complex64)
    spectrum.real, spectrum.imag = real, imaginary
    frames = np.fft.irfft(spectrum).astype(np.float32, copy=False)
    frames *= _synthesis_window(model.frame_length, model.hop_length)
    # A hop divides the frame's length: the k-th part of each frame goes to the k-th hop after the
    # frame's first, so one addition for each part takes the place of one for each frame.
    parts = model.frame_length // model.hop_length
    frames = frames.reshape(*real.shape[:-1], parts, model.hop_length)
    hops = np.zeros((*real.shape[:-2], model.frames - 1 + parts, model.hop_length), np.float32)
    for k in range(parts):
        hops[..., k : k + model.frames, :] += frames[..., k, :]
    half = model.frame_length // 2
    return hops.reshape(*hops.shape[:-2], -1)[..., half : half + model.patch_samples]


@functools.cache
def _hann(length: int) -> np.ndarray:
    """The periodic Hann window, float32 [length]."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)).astype(np.float32)


@functools.cache
def _synthesis_window(length: int, hop: int) -> np.ndarray:
    """The Hann window over the sum of the squares of all windows there, float32 [length]."""
    window = _hann(length).astype(np.float64)
    squares = np.square(window).reshape(-1, hop).sum(axis=0)
    return (window / np.tile(squares, length // hop)).astype(np.float32)
