"""Turns the network's estimates into stems by the mixture's phase, masks or a Wiener filter."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from types import ModuleType

import numpy as np

from sccunet import keras_settings, numpy_stft, spectral
from sccunet.checks import ConfigError, is_number, is_whole
from sccunet.config import ModelConfig

MASKS = ("none", "soft", "wiener")

# Mixture patches float32 [batch, channels, patch_samples] -> stems [batch, stems, channels,
# patch_samples].
PatchSeparator = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Reconstruction:
    """How the network's estimates become stems; chosen for separation, not for training.

    Attributes:
      mask: "none" gives each stem its estimated magnitude and the mixture's phase, as in the paper.
        "soft" gives each stem its share of the mixture's spectrogram, for each channel separately;
        the stems sum to the mixture. "wiener" refines the estimates with norbert's multichannel
        Wiener filter and expectation-maximisation (Nugraha, Liutkus, Vincent 2016); the stems sum
        to the mixture except where all estimates are 0.
      exponent: with "soft", the share is estimate**exponent divided by its sum over all stems. If
        estimates are the sources' magnitudes, 1 is the ratio mask and 2 the Wiener filter.
      iterations: with "wiener", the number of steps of expectation-maximisation.

    Raises:
      ConfigError: if a value is invalid.
    """

    mask: str = "none"
    exponent: float = 2.0
    iterations: int = 1

    def __post_init__(self):
        for ok, field, expected in (
            (self.mask in MASKS, "mask", f"one of {', '.join(MASKS)}"),
            (is_number(self.exponent, 0) and self.exponent > 0, "exponent", "a number over 0"),
            (is_whole(self.iterations, 1), "iterations", "a whole number, 1 or more"),
        ):
            if not ok:
                found = getattr(self, field)
                raise ConfigError(f"{field}: found {found!r}, expected {expected}")


def patch_separator(
    unet, model: ModelConfig, reconstruction: Reconstruction, batch_size: int = 1
) -> PatchSeparator:
    """Returns a function that separates patches by Keras: STFT, network, inverse STFT.

    It is compiled once under TensorFlow and JAX. Several threads may call it.

    Args:
      unet: magnitudes [batch, bins, frames, channels] -> [batch, bins, frames, stems * channels]. A
        network from `build_model` is used with its current weights: later training has no effect.
      model: gives patch_samples, frame_length and hop_length.
      reconstruction: how the estimates become stems.
      batch_size: the most patches in a call of the network; more are separated in turn.

    Raises:
      ConfigError: if `batch_size` is not a whole number over 0, or Keras's settings are unsuitable.
    """
    if not is_whole(batch_size, 1):
        raise ConfigError(f"batch_size: found {batch_size!r}, expected a whole number over 0")
    keras_settings.check()
    import keras

    from sccunet import keras_stft
    from sccunet.folding import fold

    if isinstance(unet, keras.Model):
        unet = fold(unet)
    compiled = functools.partial(_on_device, getattr(unet, "variables", ()))
    return _separator(unet, model, reconstruction, keras_stft, compiled, batch_size)


def numpy_patch_separator(
    network: Callable[..., np.ndarray], model: ModelConfig, reconstruction: Reconstruction
) -> PatchSeparator:
    """Does what `patch_separator` does in NumPy; several threads may call the function.

    Args:
      network: as `unet` of `patch_separator`, from arrays to arrays.
      model, reconstruction: as there.
    """
    # glibc gives the memory of arrays back, and the kernel zeroes it for the next patch, until an
    # array of this size was freed. That saves 7 % of the small network's time.
    np.empty(31 << 20, np.uint8)
    return _separator(network, model, reconstruction, numpy_stft, lambda function, *_: function)


def _separator(
    unet: Callable,
    model: ModelConfig,
    reconstruction: Reconstruction,
    library: ModuleType,
    compiled: Callable[..., Callable],
    batch_size: int = 1,
) -> PatchSeparator:
    """Returns a function that separates patches.

    Args:
      unet, model, reconstruction: as in `patch_separator`.
      library: as in `sccunet.spectral`.
      compiled: (function, shapes of its arguments) -> the function from arrays to arrays. The first
        size is the most rows of a call, or None for any number.
      batch_size: as in `patch_separator`.
    """
    patches = [batch_size, model.channels, model.patch_samples]
    if reconstruction.mask != "wiener":
        exponent = reconstruction.exponent if reconstruction.mask == "soft" else None
        return _in_batches(
            compiled(
                lambda mixture: spectral.separate_patches(mixture, unet, model, exponent, library),
                patches,
            ),
            batch_size,
        )
    estimate = _in_batches(
        compiled(lambda mixture: spectral.estimate_patches(mixture, unet, model, library), patches),
        batch_size,
    )
    parts = [None, len(model.stems), model.channels, model.frames, model.bins]
    synthesise = compiled(lambda *spectrum: library.istft(*spectrum, model), parts, parts)

    def separate(waveforms):
        real, imaginary, estimates = estimate(waveforms)
        # [rows, channels, ...] -> [rows * channels, ...]: all channels of the recording.
        together = [np.concatenate(list(x)) for x in (real, imaginary, estimates.swapaxes(1, 2))]
        stems = wiener(*together, reconstruction.iterations).astype(np.complex64)
        # [rows * channels, stems, frames, bins] -> [rows, stems, channels, frames, bins]
        stems = stems.reshape(len(real), model.channels, *stems.shape[1:]).swapaxes(1, 2)
        return synthesise(stems.real, stems.imag)

    return separate


def wiener(
    real: np.ndarray, imaginary: np.ndarray, estimates: np.ndarray, iterations: int
) -> np.ndarray:
    """Applies norbert's multichannel Wiener filter to the estimates, with the mixture's phase.

    Args:
      real, imaginary: the mixture's spectrogram, [channels, frames, bins] of one recording.
      estimates: magnitudes [channels, stems, frames, bins].
      iterations: steps of expectation-maximisation, which estimates each stem's spatial covariance
        from all frames.

    Returns:
      complex128 [channels, stems, frames, bins].
    """
    import norbert

    mixture = (real + 1j * imaginary.astype(np.float64)).transpose(1, 2, 0)
    # [channels, stems, frames, bins] -> [frames, bins, channels, stems]
    magnitudes = estimates.astype(np.float64).transpose(2, 3, 0, 1)
    stems = norbert.wiener(magnitudes, mixture, iterations, use_softmask=False)
    return stems.transpose(2, 3, 0, 1)


def _in_batches(function: Callable, size: int) -> Callable:
    """Turns a function of up to `size` patches [n, channels, samples] into one of any number."""

    def call(waveforms: np.ndarray):
        starts = range(0, len(waveforms), size)
        outputs = [function(waveforms[start : start + size]) for start in starts]
        if len(outputs) == 1:
            return outputs[0]
        if isinstance(outputs[0], tuple):
            return tuple(map(np.concatenate, zip(*outputs, strict=True)))
        return np.concatenate(outputs)

    return call


def _on_device(variables: Sequence, function: Callable, *shapes: list[int | None]) -> Callable:
    """Turns a function of float32 tensors into one of arrays, compiled if the backend does that.

    Args:
      variables: Keras's, which the function reads.
      function: from tensors to a tensor or a tuple of them, all with as many rows.
      shapes: as in `_separator`.
    """
    import keras
    from keras import ops, tree

    backend, most = keras.backend.backend(), shapes[0][0]
    if backend == "tensorflow":
        import tensorflow as tf

        any_rows = [[rows if rows == 1 else None, *others] for rows, *others in shapes]
        function = tf.function(
            function, input_signature=[tf.TensorSpec(shape, tf.float32) for shape in any_rows]
        )
    elif backend == "jax":
        function = _compiled_by_jax(function, variables)
    elif backend == "torch":
        import torch

        function = torch.no_grad()(function)

    def call(*arrays: np.ndarray):
        rows = len(arrays[0])
        if backend != "tensorflow" and most and rows < most:
            # The last call of a recording. JAX would compile once more for its number of rows, and
            # PyTorch search a GPU's fastest algorithms once more, if it was told to.
            arrays = [np.pad(x, [(0, most - rows)] + [(0, 0)] * (x.ndim - 1)) for x in arrays]
        outputs = function(*map(ops.convert_to_tensor, arrays))
        return tree.map_structure(lambda x: ops.convert_to_numpy(x)[:rows], outputs)

    return call


def _compiled_by_jax(function: Callable, variables: Sequence) -> Callable:
    """Does so with the variables' values as arguments: constants take longer and more memory."""
    import jax
    import keras

    @jax.jit
    def compiled(values, *arrays):
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            return function(*arrays)

    return lambda *arrays: compiled([variable.value for variable in variables], *arrays)
