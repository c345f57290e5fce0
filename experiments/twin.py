"""The network in PyTorch, its weights from Keras and back: what our speed is held against.

Written as PyTorch's users would write it, and without TensorFlow: only `to_torch` and `to_keras`
touch a Keras model. In its `state_dict` layers have Keras's names.
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

# As in `sccunet.unet`, whose import would bring TensorFlow along.
_MOMENTUM = 0.1  # PyTorch counts from the other end than Keras
_EPSILON = 1e-3  # Keras's default
_LEAK = 0.05

# Keras's names of a layer's variables, and PyTorch's.
_NAMES = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
_COUNTER = "num_batches_tracked"  # PyTorch's batch normalisation alone has it


class _Up(nn.ConvTranspose2d):
    """Keras's "same" 5x5 transposed convolution of stride 2: [n] -> [2n]."""

    def __init__(self, channels: int, filters: int):
        super().__init__(channels, filters, 5, stride=2, padding=1)

    def forward(self, x):
        # 2n + 3 without padding, of which TensorFlow cuts off 1 before and 2 behind. PyTorch's
        # padding and output_padding can only cut off as much, or more, before.
        return super().forward(x)[:, :, :-1, :-1]


class SpectrogramChannelsUNet(nn.Module):
    """`sccunet.build_model` in PyTorch, channels first.

    Args:
      config: what a config file's `get_config()` returns, a `Config`, or its `.model` part.
    """

    def __init__(self, config: Any):
        super().__init__()
        model = model_config(config)
        *encoder_filters, bottom_filters = model.filters
        self._levels = len(encoder_filters)
        self._more_bins = -model.bins % 2**self._levels
        self._more_frames = -model.frames % 2**self._levels
        channels = 1
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
        self.stem_magnitudes = nn.Conv2d(channels, len(model.stems), 1)
        nn.init.xavier_uniform_(self.stem_magnitudes.weight)
        nn.init.zeros_(self.stem_magnitudes.bias)

    def _convolution(self, name: str, convolution: nn.Module) -> None:
        # Of a transposed kernel both PyTorch and Keras take the outputs for the fan-in.
        nn.init.kaiming_uniform_(convolution.weight, nonlinearity="relu")
        nn.init.zeros_(convolution.bias)
        self.add_module(name, convolution)
        norm = nn.BatchNorm2d(convolution.out_channels, eps=_EPSILON, momentum=_MOMENTUM)
        self.add_module(f"{name}_norm", norm)

    def _apply_convolution(self, name: str, x):
        return getattr(self, f"{name}_norm")(torch.relu(getattr(self, name)(x)))

    def forward(self, magnitudes):
        """The network; dropout and the batch's own statistics in training mode only.

        Args:
          magnitudes: mixture's linear magnitudes [batch, 1, bins, frames].

        Returns:
          Magnitudes of the stems [batch, stems, bins, frames], float32 under autocast too.
        """
        bins, frames = magnitudes.shape[2:]
        x = functional.pad(magnitudes, (0, self._more_frames, 0, self._more_bins))
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
            x = output_relu(self.stem_magnitudes(x.to(self.stem_magnitudes.weight.dtype)))
        return x[:, :, :bins, :frames]


def output_relu(x):
    """ReLU of any shape, through whose zeros a little gradient leaks, as `sccunet.unet`'s."""
    leaky = functional.leaky_relu(x, _LEAK)
    return leaky + (torch.relu(x) - leaky).detach()


def separate_patches(waveforms, unet, model: ModelConfig):
    """Stems of mixture patches, by the paper's reconstruction (`sccunet.spectral`'s in PyTorch).

    Args:
      waveforms: mixture, float32 [batch, patch_samples].
      unet: a `SpectrogramChannelsUNet` in evaluation mode, compiled or not.
      model: gives frame_length and hop_length.

    Returns:
      float32 [batch, stems, patch_samples]. What `Patching` keeps is `sccunet.spectral`'s;
      outside of that, where frames are missing, PyTorch divides by those that are there.
    """
    sizes = {"n_fft": model.frame_length, "hop_length": model.hop_length}
    window = torch.hann_window(model.frame_length, device=waveforms.device)
    # [batch, bins, frames]
    spectrum = torch.stft(waveforms, **sizes, window=window, return_complex=True)
    mixture = spectrum.abs()[:, None]
    gain = unet(mixture) / mixture.clamp(min=1e-12)  # [batch, stems, bins, frames]
    stems = (gain * spectrum[:, None]).flatten(0, 1)
    stems = torch.istft(stems, **sizes, window=window, length=model.patch_samples)
    return stems.unflatten(0, gain.shape[:2])


def to_torch(unet, config: Any) -> dict[str, Any]:
    """A Keras model's weights for PyTorch.

    Args:
      unet: from `sccunet.build_model(config)`.
      config: as there.

    Returns:
      `state_dict` of `SpectrogramChannelsUNet(config)`, on the CPU, bit by bit the same numbers.

    Raises:
      ConfigError: if `unet` is another network than the config's.
    """
    state = {}
    for name, variable in _variables(unet).items():
        value = variable.numpy()
        # [height, width, in, out] -> [out, in, height, width], transposed: in and out the other way
        value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value
        state[name] = torch.from_numpy(np.array(value, order="C"))
    _check_network(state, config)
    counters = [name for name in _expected(config) if name.endswith(_COUNTER)]
    return state | {name: torch.zeros((), dtype=torch.int64) for name in counters}


def to_keras(state_dict: Mapping[str, Any], unet) -> None:
    """The inverse of `to_torch`: gives `unet` the weights of a `state_dict`.

    PyTorch's count of batches is left out: Keras has none, and a fixed momentum needs none.

    Args:
      state_dict: of a `SpectrogramChannelsUNet`.
      unet: from `sccunet.build_model`, of the same config; left as it is if anything is wrong.

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
    """Writes a twin's weights and the run's config into a file, whole or not at all."""
    written = io.BytesIO()
    torch.save({"state_dict": dict(state_dict), "config": config.to_json()}, written)
    write_whole(path, written.getvalue())


def read_checkpoint(path: str | os.PathLike) -> tuple[dict[str, Any], Config]:
    """What `write_checkpoint` wrote, tensors on the CPU. No code that the file holds is run.

    Raises:
      ConfigError: if the file is missing or another one, or its weights are not of its config.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{path}: found no such file, expected a checkpoint")
    with path.open("rb") as file:
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # the file may be anything, and so may what it fails with
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
    """A Keras model's weights by their names in the twin's `state_dict`."""
    return {
        f"{layer.name}.{_NAMES[variable.name]}": variable
        for layer in unet.layers
        for variable in layer.weights
        if variable.name in _NAMES  # not the state of dropout's random generator
    }


def _expected(config: Any) -> dict[str, Any]:
    """The twin's `state_dict` without memory behind it."""
    with torch.device("meta"):
        return SpectrogramChannelsUNet(config).state_dict()


def _check_network(state_dict: Mapping[str, Any], config: Any) -> None:
    _check_fits(state_dict, {name: tuple(x.shape) for name, x in _expected(config).items()})


def _check_fits(state_dict: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Names the first weight that is not as it should be; counters of batches do not matter."""
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
