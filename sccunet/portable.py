"""Portable models: folders whose networks run without TensorFlow.

network.tflite  the network, as `sccunet.tflite` writes it: a patch's magnitudes in, each stem's out
config.json     the config of the run that trained it, as in its workdir
README.md       the model's card

`best.weights.h5` of the workdir may be added by hand, for others to start a training from.

This module does not import TensorFlow until a model is written.
"""

import os
from pathlib import Path

import numpy as np

from sccunet.config import Config, ConfigError
from sccunet.files import folder_written_whole
from sccunet.model_card import About, model_card
from sccunet.runs import CARD as CARD
from sccunet.runs import CONFIG as CONFIG
from sccunet.runs import NETWORK as NETWORK
from sccunet.separation import Separator

# Differences allowed in the stems of noise, in dB of the stem or of the noise, whichever is louder.
# In seven trained networks they were at most -128 dB, and with float16 weights -89 to -64 dB.
_FLOAT32, _FLOAT16 = -90.0, -45.0


def write_portable(
    unet, config: Config, folder: str | os.PathLike, half: bool = False, about: About | None = None
) -> float:
    """Writes a portable model, after a check that it separates noise as the network in memory does.

    Args:
      unet: from `build_model`, with its weights.
      config: config of the run that trained it.
      folder: the new folder; written whole or not at all.
      half: whether the weights are float16, in half of the space; they are computed in float32.
      about: what the card says beside that.

    Returns:
      The largest difference of a stem, in dB.

    Raises:
      UserError: if the folder exists, cannot be written, or the model computes something else.
    """
    from sccunet.tflite import export_tflite

    folder = check_new(folder)
    with folder_written_whole(folder, new=True) as partial:
        (partial / CONFIG).write_text(config.to_json())
        export_tflite(unet, config, partial / NETWORK, half)
        found = _difference(unet, config, partial)
        most = _FLOAT16 if half else _FLOAT32
        if not found <= most:
            raise ConfigError(
                f"{partial}: its stems of noise differ from those of the model in memory by"
                f" {found:.0f} dB, expected {most:.0f} dB or less"
            )
        weights = f"float16, which changes the stems of noise by {found:.0f} dB"
        size = (partial / NETWORK).stat().st_size
        card = model_card(
            folder.resolve().name, config, about or About(), size, weights if half else "float32"
        )
        (partial / CARD).write_text(card, encoding="utf-8")
    return found


def check_new(folder: str | os.PathLike) -> Path:
    """Returns the path of a folder that does not exist yet.

    Raises:
      ConfigError: if it exists.
    """
    if os.path.lexists(folder):
        what = "folder" if os.path.isdir(folder) else "file"
        raise ConfigError(f"{folder}: found an existing {what}, expected a new folder")
    return Path(folder)


def _difference(unet, config: Config, folder: Path) -> float:
    """Separates noise of two patches; returns the largest difference of a stem, in dB."""
    rate, samples = config.model.sample_rate, config.model.patch_samples + 1
    noise = (0.1 * np.random.default_rng(0).standard_normal((samples, 2))).astype(np.float32)
    truths = Separator.from_model(unet, config)(noise, rate)
    found = Separator.load(folder)(noise, rate)
    powers = [
        np.mean(np.square(found[stem] - truth)) / max(np.mean(np.square(truth)), 0.01)
        for stem, truth in truths.items()
    ]
    return float(10 * np.log10(np.max(powers) + 1e-20))  # NaN if one is
