"""Open-Unmix, with weights published by its authors or trained by `train_open_unmix`."""

import os
from pathlib import Path

from experiments.baselines.system import System, versions
from experiments.baselines.torch_system import (
    TORCH,
    count_parameters,
    import_package,
    loading,
    resampled,
)
from sccunet.config import Config, ConfigError

PACKAGES = (TORCH,)
PACKAGES_ALONE = ("openunmix==1.3.0", "torchaudio==2.8.0")
OPEN_UNMIX_WEIGHTS = ("umx", "umxhq", "umxl")  # four-stem weights that openunmix downloads


def load(config: Config, weights: str | os.PathLike) -> System:
    """Loads Open-Unmix (Stöter, Uhlich, Liutkus, Mitsufuji 2019), with its Wiener filter.

    Args:
      config: names the stems.
      weights: a folder written by its own training or by `sccunet train_open_unmix`, of which all
        targets are used; or one of `OPEN_UNMIX_WEIGHTS`, which are downloaded once.

    Raises:
      ConfigError: if a package is missing, or the weights cannot be loaded or lack a stem.
    """
    torch = import_package("torch")
    utils = import_package("openunmix.utils")
    folder = Path(weights).expanduser()
    targets = _trained_targets(folder) if folder.exists() else None
    if targets is None and str(weights) not in OPEN_UNMIX_WEIGHTS:
        raise ConfigError(
            f"--weights: found {str(weights)!r}, expected a directory of trained weights or one of"
            f" {', '.join(OPEN_UNMIX_WEIGHTS)}"
        )
    # The filter needs at least two targets.
    niter = 0 if targets is not None and len(targets) == 1 else 1
    with loading(weights, "Open-Unmix's weights"):
        separator = utils.load_separator(str(weights), targets, niter=niter)
        separator.freeze()
        if separator.complexnorm.mono:
            raise ValueError("a network for mono")
    stems = list(separator.target_models)

    def estimate(mixture):
        return dict(zip(stems, separator(mixture[None])[0], strict=True))

    n_fft = separator.stft.n_fft
    separate = resampled(
        torch, estimate, stems, round(float(separator.sample_rate)), config, least=n_fft
    )
    return System(
        separate, lambda: count_parameters(separator.target_models), versions("openunmix", "torch")
    )


def _trained_targets(folder: Path) -> list[str]:
    """Returns the targets of a trained Open-Unmix; each has a .json and a .pth file."""
    targets = [path.stem for path in sorted(folder.glob("*.json")) if path.stem != "separator"]
    weights = [path.name for path in folder.glob("*.pth")]
    targets = [one for one in targets if any(name.startswith(one) for name in weights)]
    if not targets or not (folder / "separator.json").is_file():
        found = ", ".join(sorted(path.name for path in folder.glob("*"))[:10])
        raise ConfigError(
            f"{folder}: found {found or 'no files'}, expected separator.json, and <stem>.json and"
            " <stem>.pth of each stem"
        )
    return targets
