"""Arithmetic of the network's convolutions, and the rates of chips."""

import math
from collections.abc import Iterator

from sccunet.config import ModelConfig

_NVIDIA = "NVIDIA's data sheet, without sparsity"
_TPU = "Google's documentation of Cloud TPU"
# Start of a device's name -> TFLOP/s of bfloat16, and its source. The longer of two comes first.
_RATES = {
    "NVIDIA H200": (989.5, _NVIDIA),
    "NVIDIA H100 NVL": (835.5, _NVIDIA),
    "NVIDIA H100 PCIe": (756.5, _NVIDIA),
    "NVIDIA H100": (989.5, _NVIDIA),
    "NVIDIA A100": (312.0, _NVIDIA),
    "NVIDIA L40S": (362.0, _NVIDIA),
    "NVIDIA L4": (121.0, _NVIDIA),
    "TPU v4": (275.0, _TPU),
    "TPU v5 lite": (197.0, _TPU),
    "TPU v5": (459.0, _TPU),
    "TPU v6 lite": (918.0, _TPU),
}


def bfloat16_rate(device: str) -> tuple[float, str] | None:
    """Returns a chip's highest rate in TFLOP/s and where that is stated; None if unknown.

    Args:
      device: name, as PyTorch or JAX gives it.
    """
    return next((rate for start, rate in _RATES.items() if device.startswith(start)), None)


def forward_flops(model: ModelConfig) -> int:
    """Counts the operations of all convolutions for one patch; a multiplication with addition: 2.

    It counts the arithmetic of the definition, not of a faster algorithm such as Winograd's.
    """
    return sum(_flops(model))


def training_flops(model: ModelConfig) -> int:
    """Counts those of a training step for one crop.

    Gradients of the inputs and of the kernels take as many operations as the outputs. The network's
    own input has no gradient.
    """
    first, *others = _flops(model)
    return 2 * first + 3 * sum(others)


def _flops(model: ModelConfig) -> Iterator[int]:
    """Yields each convolution's operations, in the order of the layers."""
    bottom, before = len(model.filters) - 1, model.channels
    bins, frames = (math.ceil(size / 2**bottom) * 2**bottom for size in (model.bins, model.frames))
    areas = [bins * frames // 4**level for level in range(bottom + 1)]
    for area, filters in zip(areas, model.filters, strict=True):
        yield 2 * area * 9 * before * filters
        yield 2 * area * 9 * filters * filters
        before = filters
    for level in reversed(range(bottom)):
        filters = model.filters[level]
        yield 2 * areas[level + 1] * 25 * before * filters  # each value goes into 5x5 outputs
        yield 2 * areas[level] * 9 * 2 * filters * filters  # with as many channels of the encoder
        yield 2 * areas[level] * 9 * filters * filters
        before = filters
    yield 2 * areas[0] * before * len(model.stems) * model.channels
