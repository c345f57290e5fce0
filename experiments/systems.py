"""What can be scored: a trained model, and the reference systems that bound it."""

import os
from collections.abc import Callable

import numpy as np

from sccunet.config import Config, Reconstruction

SYSTEMS = ("model", "mixture", "scaled", "irm")

# (mixture [samples, channels], references [stems, samples, channels]) -> estimates, as references.
System = Callable[[np.ndarray, np.ndarray], np.ndarray]


def load_system(
    system: str,
    model: str | os.PathLike,
    config: Config,
    reconstruction: Reconstruction | None = None,
) -> System:
    """The function that estimates the stems of a track.

    Args:
      system: one of `SYSTEMS`.
      model: training workdir or exported SavedModel; read for "model" only.
      config: the model's.
      reconstruction: how the model's estimates become stems; by default as in the paper.

    Raises:
      ConfigError: if the model cannot be loaded.
    """
    stems = config.model.stems
    if system == "mixture":
        return lambda mixture, references: np.stack([mixture] * len(stems))
    if system == "scaled":
        return scaled_mixture
    if system == "irm":
        frame, hop = config.model.frame_length, config.model.hop_length
        return lambda mixture, references: ideal_ratio_mask(mixture, references, frame, hop)

    from sccunet.separation import Separator

    separator = Separator.load(model, reconstruction)

    def separate(mixture: np.ndarray, references: np.ndarray) -> np.ndarray:
        estimates = separator(mixture, config.model.sample_rate)
        return np.stack([estimates[stem] for stem in stems])

    return separate


def scaled_mixture(mixture: np.ndarray, references: np.ndarray) -> np.ndarray:
    """The mixture times the constant that suits each stem best: what turning it down alone gains.

    Args:
      mixture: [samples, channels].
      references: [stems, samples, channels].

    Returns:
      float32 [stems, samples, channels]: for each stem the multiple of the mixture with the least
      squared error over all samples and channels.
    """
    mixture = np.asarray(mixture, np.float64)
    energy = np.vdot(mixture, mixture)
    gains = [np.vdot(mixture, stem) / energy if energy else 0.0 for stem in references]
    return np.stack([(gain * mixture).astype(np.float32) for gain in gains])


def ideal_ratio_mask(
    mixture: np.ndarray, references: np.ndarray, frame_length: int, hop_length: int
) -> np.ndarray:
    """The oracle of magnitude masks: |S_i| / sum_j |S_j| times the mixture's STFT, per channel.

    Args:
      mixture: [samples, channels].
      references: [stems, samples, channels].
      frame_length: of the Hann window and the FFT, in samples.
      hop_length: in samples.

    Returns:
      float32 [stems, samples, channels].
    """
    from scipy import signal

    window = signal.get_window("hann", frame_length)
    stft = signal.ShortTimeFFT(window, hop_length, fs=1)  # fs: times and frequencies are not used
    estimates = np.zeros(references.shape, np.float32)
    samples = len(mixture)
    padding = (0, max(0, frame_length - samples))  # the inverse needs a whole frame
    for channel in range(mixture.shape[1]):  # one at a time: a song's spectrograms are large
        spectrum = stft.stft(np.pad(mixture[:, channel], padding))  # [bins, frames]
        magnitudes = np.stack(
            [
                np.abs(stft.stft(np.pad(stem[:, channel], padding))).astype(np.float32)
                for stem in references
            ]
        )
        total = magnitudes.sum(axis=0)
        for i, magnitude in enumerate(magnitudes):
            mask = np.divide(magnitude, total, out=np.zeros_like(total), where=total > 0)
            estimates[i, :, channel] = stft.istft(mask * spectrum, k1=samples + padding[1])[
                :samples
            ]
    return estimates
