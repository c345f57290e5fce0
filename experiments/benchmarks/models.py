"""Models of the separation contenders: the same random weights in every form of a model."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.benchmarks.programs import run_program
from sccunet.config import Config, ConfigError

# Names in the folder of the models.
RUN, SAVED_MODEL, PORTABLE, TWIN = "run", "saved_model", "portable", "twin.pt"


def prepare(settings: Mapping[str, Any]) -> None:
    """Writes the models that the contenders in "names" need into the folder "models".

    Existing models are kept. If one cannot be made, its contender reports that it is missing.
    """
    from sccunet import build_model
    from sccunet.checkpoints import BEST
    from sccunet.files import folder_written_whole
    from sccunet.runs import CONFIG

    config = Config.from_dict(settings["config"])
    models = Path(settings["models"])
    run, exports, portable, twin = (models / name for name in (RUN, SAVED_MODEL, PORTABLE, TWIN))
    if not run.exists():
        with folder_written_whole(run) as folder:
            (folder / CONFIG).write_text(config.to_json())
            unet = build_model(config)
            _randomise_normalisation(unet)
            unet.save_weights(folder / BEST)
    if "saved_model" in settings["names"] and not exports.exists():
        _attempt("export", f"--workdir={run}", f"--export_dir={exports}")
    if any("portable" in name for name in settings["names"]) and not portable.exists():
        _attempt("export", f"--workdir={run}", f"--portable={portable}")
    if any(name.startswith("twin") for name in settings["names"]) and not twin.exists():
        _attempt("convert", f"--workdir={run}", f"--output={twin}")


def _randomise_normalisation(unet) -> None:
    """Sets batch normalisation as after training; in a new network it does almost nothing."""
    import numpy as np
    from keras import layers

    rng = np.random.default_rng(0)
    for layer in unet.layers:
        if isinstance(layer, layers.BatchNormalization):
            channels = layer.gamma.shape
            # A few are negative. Around 1, values would grow from one untrained layer to the next,
            # and with them the rounding errors that an export is checked for.
            layer.gamma.assign(rng.normal(0.5, 0.25, channels))
            layer.beta.assign(rng.normal(0, 0.1, channels))
            layer.moving_mean.assign(rng.normal(0, 0.1, channels))
            layer.moving_variance.assign(rng.uniform(0.5, 2, channels))


def _attempt(name: str, *arguments: str) -> None:
    try:
        run_program(name, *arguments)
    except ConfigError as error:
        print(f"{name}: {error}", file=sys.stderr)
