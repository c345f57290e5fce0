"""The network in PyTorch, for comparisons of speed; converts weights from Keras and back.

The code follows PyTorch's conventions and does not import TensorFlow: only `to_torch` and
`to_keras` use a Keras model. The layers in its `state_dict` have Keras's names.
"""

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sccunet.config import Config, ConfigError, ModelConfig, model_config
from sccunet.files import write_whole

try:
    import torch
    from torch import nn
    from torch.nn import functional
except ImportError as error:
    raise ConfigError(
        f"torch: cannot be imported ({error}), expected PyTorch: pip install torch"
    ) from error

# As in `sccunet.unet`, which would import TensorFlow.
_MOMENTUM = 0.1  # PyTorch's momentum is 1 minus Keras's
_EPSILON = 1e-3  # Keras's default
_LEAK = 0.05

# Keras's name of a layer's variable -> PyTorch's.
_NAMES = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
_COUNTER = "num_batches_tracked"  # only in PyTorch's batch normalisation


class _Up(nn.ConvTranspose2d):
    """Keras's "same" 5x5 transposed convolution of stride 2: [n] -> [2n]."""

    def __init__(self, channels: int, filters: int):
        super().__init__(channels, filters, 5, stride=2, padding=1)

    def forward(self, x):
        # Without padding the length is 2n + 3. TensorFlow cuts off 1 at the start and 2 at the end;
        # PyTorch's padding and output_padding cannot cut off more at the end than at the start.
        return super().forward(x)[:, :, :-1, :-1]


class SpectrogramChannelsUNet(nn.Module):
    """`sccunet.build_model` in PyTorch, channels first.

    Args:
      config: the result of a config file's `get_config()`, a `Config`, or its `.model` part.
    """

    def __init__(self, config: Any):
        super().__init__()
        model = model_config(config)
        *encoder_filters, bottom_filters = model.filters
        self._levels = len(encoder_filters)
        self._more_bins = -model.bins % 2**self._levels
        self._more_frames = -model.frames % 2**self._levels
        self._input_power, self._masks = model.input_power, model.output == "mask"
        self._stems = len(model.stems)
        channels = model.channels
        for level, filters in enumerate(encoder_filters, 1):
            self._convolution(f"encoder{level}_conv1", nn.Conv2d(channels, filters, 3, 1, 1))
            self._convolution(f"encoder{level}_conv2", nn.Conv2d(filters, filters, 3, 1, 1))
            channels = filters
        self._convolution("bottom_conv1", nn.Conv2d(channels, bottom_filters, 3, 1, 1))
        self._convolution("bottom_conv2", nn.Conv2d(bottom_filters, bottom_filters, 3, 1, 1))
        channels = bottom_filters
        for level, filters in reversed(list(enumerate(encoder_filters, 1))):
            name = f"decoder{level}"
            self._convolution(f"{name}_up", _Up(channels, filters))
            self._convolution(f"{name}_conv1", nn.ConvTranspose2d(2 * filters, filters, 3, 1, 1))
            self._convolution(f"{name}_conv2", nn.ConvTranspose2d(filters, filters, 3, 1, 1))
            channels = filters
        self.dropout = nn.Dropout(model.dropout)
        last = nn.Conv2d(channels, len(model.stems) * model.channels, 1)
        nn.init.xavier_uniform_(last.weight)
        nn.init.zeros_(last.bias)
        self._last = "stem_masks" if self._masks else "stem_magnitudes"
        self.add_module(self._last, last)

    def _convolution(self, name: str, convolution: nn.Module) -> None:
        # For transposed kernels, both PyTorch and Keras use the outputs as the fan-in.
        nn.init.kaiming_uniform_(convolution.weight, nonlinearity="relu")
        nn.init.zeros_(convolution.bias)
        self.add_module(name, convolution)
        norm = nn.BatchNorm2d(convolution.out_channels, eps=_EPSILON, momentum=_MOMENTUM)
        self.add_module(f"{name}_norm", norm)

    def _apply_convolution(self, name: str, x):
        return getattr(self, f"{name}_norm")(torch.relu(getattr(self, name)(x)))

    def forward(self, magnitudes):
        """Estimates the stems; dropout and batch statistics are used only in training mode.

        Args:
          magnitudes: linear magnitudes of the mixture [batch, channels, bins, frames].

        Returns:
          Magnitudes of the stems [batch, stems * channels, bins, frames], float32 also under
          autocast; all channels of a stem follow each other.
        """
        bins, frames = magnitudes.shape[2:]
        x = torch.sqrt(magnitudes) if self._input_power == 0.5 else magnitudes
        x = functional.pad(x, (0, self._more_frames, 0, self._more_bins))
        skips = []
        for level in range(1, self._levels + 1):
            x = self._apply_convolution(f"encoder{level}_conv1", x)
            x = self._apply_convolution(f"encoder{level}_conv2", x)
            skips.append(x)
            x = functional.max_pool2d(x, 2)
        x = self._apply_convolution("bottom_conv1", x)
        x = self._apply_convolution("bottom_conv2", x)
        for level in range(self._levels, 0, -1):
            x = self.dropout(self._apply_convolution(f"decoder{level}_up", x))
            x = torch.cat([x, skips.pop()], dim=1)
            x = self._apply_convolution(f"decoder{level}_conv1", x)
            x = self._apply_convolution(f"decoder{level}_conv2", x)
        with torch.autocast(x.device.type, enabled=False):
            last = getattr(self, self._last)
            x = last(x.to(last.weight.dtype))[:, :, :bins, :frames]
            if self._masks:
                masks = torch.softmax(x.unflatten(1, (self._stems, -1)), dim=1)
                return (masks * magnitudes[:, None]).flatten(1, 2)
            return output_relu(x)


def output_relu(x):
    """ReLU of any shape, with a small gradient where it is zero, as in `sccunet.unet`."""
    leaky = functional.leaky_relu(x, _LEAK)
    return leaky + (torch.relu(x) - leaky).detach()


def separate_patches(waveforms, unet, model: ModelConfig):
    """Separates mixture patches with the paper's reconstruction, `sccunet.spectral` in PyTorch.

    Args:
      waveforms: mixture, float32 [batch, channels, patch_samples].
      unet: a `SpectrogramChannelsUNet` in evaluation mode, compiled or not.
      model: gives stems, channels, frame_length and hop_length.

    Returns:
      float32 [batch, stems, channels, patch_samples]. In the part that `Patching` keeps, the
      result equals that of `sccunet.spectral`. Outside, where frames are missing, PyTorch
      normalises by the existing frames.
    """
    sizes = {"n_fft": model.frame_length, "hop_length": model.hop_length}
    window = torch.hann_window(model.frame_length, device=waveforms.device)
    batch = waveforms.shape[:2]
    spectrum = torch.stft(waveforms.flatten(0, 1), **sizes, window=window, return_complex=True)
    spectrum = spectrum.unflatten(0, batch)  # [batch, channels, bins, frames]
    mixture = spectrum.abs()
    estimates = unet(mixture).unflatten(1, (len(model.stems), model.channels))
    gain = estimates / mixture.clamp(min=1e-12)[:, None]  # [batch, stems, channels, bins, frames]
    stems = (gain * spectrum[:, None]).flatten(0, 2)
    stems = torch.istft(stems, **sizes, window=window, length=model.patch_samples)
    return stems.unflatten(0, gain.shape[:3])


def to_torch(unet, config: Any) -> dict[str, Any]:
    """Converts a Keras model's weights for PyTorch.

    Args:
      unet: from `sccunet.build_model(config)`.
      config: the config of `unet`.

    Returns:
      `state_dict` of `SpectrogramChannelsUNet(config)`, on the CPU, with bit-identical values.

    Raises:
      ConfigError: if `unet` is not the config's network.
    """
    state = {}
    for name, variable in _variables(unet).items():
        value = variable.numpy()
        # [height, width, in, out] -> [out, in, height, width]; in and out swapped if transposed
        value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value
        state[name] = torch.from_numpy(np.array(value, order="C"))
    _check_network(state, config)
    counters = [name for name in _expected(config) if name.endswith(_COUNTER)]
    return state | {name: torch.zeros((), dtype=torch.int64) for name in counters}


def to_keras(state_dict: Mapping[str, Any], unet) -> None:
    """Inverts `to_torch`: assigns the weights of a `state_dict` to `unet`.

    PyTorch's count of batches is ignored: Keras has none, and a fixed momentum needs none.

    Args:
      state_dict: weights of a `SpectrogramChannelsUNet`.
      unet: from `sccunet.build_model` with the same config; unchanged if anything is wrong.

    Raises:
      ConfigError: if names, shapes or dtypes are not those of this network.
    """
    variables = _variables(unet)
    shapes = {
        name: tuple(v.shape[axis] for axis in ((3, 2, 0, 1) if len(v.shape) == 4 else (0,)))
        for name, v in variables.items()
    }
    _check_fits(state_dict, shapes)
    for name, variable in variables.items():
        value = state_dict[name].detach().cpu().numpy()
        variable.assign(value.transpose(2, 3, 1, 0) if value.ndim == 4 else value)


def write_checkpoint(
    path: str | os.PathLike, state_dict: Mapping[str, Any], config: Config
) -> None:
    """Writes a twin's weights and the run's config to a file, whole or not at all."""
    written = io.BytesIO()
    torch.save({"state_dict": dict(state_dict), "config": config.to_json()}, written)
    write_whole(path, written.getvalue())


def read_checkpoint(path: str | os.PathLike) -> tuple[dict[str, Any], Config]:
    """Reads a file of `write_checkpoint`, tensors on the CPU, without running code from it.

    Raises:
      ConfigError: if the file is missing or is not such a checkpoint, or if its weights do not
        match its config.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{path}: found no such file, expected a checkpoint")
    with path.open("rb") as file:
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # the file may hold anything, and loading may raise anything
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ConfigError(f"{path}: found no PyTorch checkpoint ({reason[:200]})") from error
    if not (
        isinstance(content, dict)
        and isinstance(content.get("state_dict"), dict)
        and isinstance(content.get("config"), str)
    ):
        raise ConfigError(
            f"{path}: found another checkpoint, expected 'state_dict' and 'config' (JSON) in it"
        )
    try:
        config = Config.from_json(content["config"])
        _check_network(content["state_dict"], config)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return content["state_dict"], config


def _variables(unet) -> dict[str, Any]:
    """Returns a Keras model's weights by their names in the twin's `state_dict`."""
    return {
        f"{layer.name}.{_NAMES[variable.name]}": variable
        for layer in unet.layers
        for variable in layer.weights
        if variable.name in _NAMES  # not the state of dropout's random generator
    }


def _expected(config: Any) -> dict[str, Any]:
    """Returns the twin's `state_dict` without allocating memory."""
    with torch.device("meta"):
        return SpectrogramChannelsUNet(config).state_dict()


def _check_network(state_dict: Mapping[str, Any], config: Any) -> None:
    _check_fits(state_dict, {name: tuple(x.shape) for name, x in _expected(config).items()})


def _check_fits(state_dict: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raises ConfigError for the first wrong weight; ignores counters of batches."""
    found, expected = (
        {name: x for name, x in names.items() if not str(name).endswith(_COUNTER)}
        for names in (state_dict, shapes)
    )
    for name in expected:
        if name not in found:
            raise ConfigError(f"weights: found no {name}, expected {len(expected)} of this network")
    for name, value in found.items():
        if name not in expected:
            raise ConfigError(f"weights: found {name!r}, expected none but this network's")
        if not isinstance(value, torch.Tensor):
            raise ConfigError(f"weights: found {type(value).__name__} as {name}, expected a tensor")
        if tuple(value.shape) != expected[name] or value.dtype != torch.float32:
            dtype = str(value.dtype).removeprefix("torch.")
            raise ConfigError(
                f"weights: found {dtype} {list(value.shape)} as {name},"
                f" expected float32 {list(expected[name])}"
            )
