"""References to compare systems with: the mixture, and oracles that use the true stems."""

from collections.abc import Callable

import numpy as np

from experiments.baselines.system import System, versions
from sccunet.config import Config


def mixture(config: Config) -> System:
    """Returns a system with the mixture as every stem."""
    stems = len(config.model.stems)
    return System(lambda mixture, references, key: np.stack([mixture] * stems))


def scaled(config: Config) -> System:
    """Returns the system of `scaled_mixture`."""
    return System(lambda mixture, references, key: scaled_mixture(mixture, references))


def ideal_ratio_mask(config: Config) -> System:
    """Returns the system of `ideal_mask` with masks |S_i| / sum_j |S_j|."""
    return _masking(_shares, config)


def ideal_binary_mask(config: Config) -> System:
    """Returns the system of `ideal_mask` with masks 1 where |S_i| is the largest, otherwise 0."""
    return _masking(_winner, config)


def wiener_filter(config: Config) -> System:
    """Returns the system of `multichannel_wiener` with the config's frames."""
    frame, hop = config.model.frame_length, config.model.hop_length
    return System(
        lambda mixture, references, key: multichannel_wiener(mixture, references, frame, hop),
        versions=versions("norbert"),
    )


def _masking(mask: Callable[[np.ndarray], np.ndarray], config: Config) -> System:
    frame, hop = config.model.frame_length, config.model.hop_length
    return System(
        lambda mixture, references, key: ideal_mask(mask, mixture, references, frame, hop)
    )


def scaled_mixture(mixture: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Scales the mixture by the best constant for each stem: the gain of a volume change.

    Args:
      mixture: [samples, channels].
      references: [stems, samples, channels].

    Returns:
      float32 [stems, samples, channels]: for each stem, the multiple of the mixture with the least
      squared error over all samples and channels.
    """
    mixture = np.asarray(mixture, np.float64)
    energy = np.vdot(mixture, mixture)
    gains = [np.vdot(mixture, stem) / energy if energy else 0.0 for stem in references]
    return np.stack([(gain * mixture).astype(np.float32) for gain in gains])


def _shares(magnitudes: np.ndarray) -> np.ndarray:
    total = magnitudes.sum(axis=0)
    return np.divide(magnitudes, total, out=np.zeros_like(magnitudes), where=total > 0)


def _winner(magnitudes: np.ndarray) -> np.ndarray:
    return magnitudes.argmax(axis=0) == np.arange(len(magnitudes))[:, None, None]


def ideal_mask(
    mask: Callable[[np.ndarray], np.ndarray],
    mixture: np.ndarray,
    references: np.ndarray,
    frame_length: int,
    hop_length: int,
) -> np.ndarray:
    """An oracle: multiplies the mixture's STFT by masks from the true stems, channel by channel.

    Args:
      mask: magnitudes of the true stems [stems, bins, frames] -> masks of the same shape, which sum
        to 1 over the stems.
      mixture: [samples, channels].
      references: [stems, samples, channels].
      frame_length: length of the Hann window and the FFT, in samples.
      hop_length: in samples.

    Returns:
      float32 [stems, samples, channels].
    """
    stft, padding = _stft(len(mixture), frame_length, hop_length)
    estimates = np.zeros(references.shape, np.float32)
    for channel in range(mixture.shape[1]):  # one at a time: a song's spectrograms are large
        spectrum = stft.stft(np.pad(mixture[:, channel], padding))  # [bins, frames]
        magnitudes = np.stack(
            [
                np.abs(stft.stft(np.pad(stem[:, channel], padding))).astype(np.float32)
                for stem in references
            ]
        )  # [stems, bins, frames]
        for i, gain in enumerate(mask(magnitudes)):
            waveform = stft.istft(gain * spectrum, k1=len(mixture) + padding[1])
            estimates[i, :, channel] = waveform[: len(mixture)]
    return estimates


def multichannel_wiener(
    mixture: np.ndarray, references: np.ndarray, frame_length: int, hop_length: int
) -> np.ndarray:
    """An oracle: the multichannel Wiener filter of the true stems' local Gaussian models.

    As SiSEC's "MWF": power spectrograms and spatial covariances are computed from the true stems.

    Args:
      mixture: [samples, channels].
      references: [stems, samples, channels].
      frame_length: length of the Hann window and the FFT, in samples.
      hop_length: in samples.

    Returns:
      float32 [stems, samples, channels].
    """
    import norbert

    stft, padding = _stft(len(mixture), frame_length, hop_length)

    def spectrum(signal: np.ndarray) -> np.ndarray:  # [frames, bins, channels], norbert's order
        padded = np.pad(signal, (padding, (0, 0)))
        return stft.stft(padded, axis=0).transpose(2, 0, 1).astype(np.complex64)

    # [frames, bins, channels, stems]. A single iteration estimates the models from its input.
    truth = np.stack([spectrum(stem) for stem in references], axis=-1)
    filtered = norbert.expectation_maximization(truth, spectrum(mixture), iterations=1)[0]
    estimates = np.zeros(references.shape, np.float32)
    for i in range(len(references)):
        waveform = stft.istft(
            filtered[..., i].transpose(1, 2, 0), k1=len(mixture) + padding[1], f_axis=0, t_axis=-1
        )
        estimates[i] = waveform.reshape(-1, mixture.shape[1])[: len(mixture)]
    return estimates


def _stft(samples: int, frame_length: int, hop_length: int):
    """Returns SciPy's transform, and the padding that a recording of this length needs."""
    from scipy import signal

    window = signal.get_window("hann", frame_length)
    # fs only scales times and frequencies, which are not used.
    return signal.ShortTimeFFT(window, hop_length, fs=1), (0, max(0, frame_length - samples))
