"""Demucs, with weights that its authors published."""

import os
from pathlib import Path
from types import ModuleType
from typing import Any

from experiments.baselines.system import System, versions
from experiments.baselines.torch_system import (
    TORCH,
    count_parameters,
    import_package,
    loading,
    resampled,
)
from sccunet.config import Config, ConfigError

# Layers, resampling (imported by its first version), format and download of its weights.
PACKAGES = (
    TORCH,
    "einops==0.8.2",
    "julius==0.2.8",
    "safetensors==0.8.0",
    "huggingface-hub==2.4.0",
)
PACKAGES_ALONE = ("demucs==4.1.0",)


def load(config: Config, weights: str | os.PathLike) -> System:
    """Loads Demucs (Défossez 2021; Rouard, Massa, Défossez 2023), with overlapping segments.

    Demucs's own command applies one random shift by default. Here there are none, so that estimates
    are reproducible.

    Args:
      config: names the stems; "accompaniment" may be the sum of three.
      weights: a name that the package can download, such as htdemucs, or a folder with the files of
        such a download: <name>.yaml and the <signature>.safetensors files that it lists.

    Raises:
      ConfigError: if a package is missing, or the weights cannot be loaded or lack a stem.
    """
    torch = import_package("torch")
    apply = import_package("demucs.apply")
    folder = Path(weights).expanduser()
    with loading(weights, "the name of Demucs's weights or a folder of them"):
        if folder.is_dir():
            model = _demucs_in(folder, apply)
        else:
            model = import_package("demucs.pretrained").get_model(str(weights))
    model.eval()

    def estimate(mixture):
        # As `separate_tensor` in demucs.api, which needs packages that read files.
        reference = mixture.mean(0)
        mean, scale = reference.mean(), reference.std() + 1e-8
        stems = apply.apply_model(model, ((mixture - mean) / scale)[None], shifts=0)[0]
        return dict(zip(model.sources, stems * scale + mean, strict=True))

    separate = resampled(torch, estimate, model.sources, model.samplerate, config)
    return System(separate, lambda: count_parameters(model), versions("demucs", "torch"))


def _demucs_in(folder: Path, apply: ModuleType) -> Any:
    """Loads a bag of models from a folder, as the package downloads it."""
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
    """Refuses files that name another function: Demucs calls whatever a file names."""
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
