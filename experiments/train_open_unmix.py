r"""Trains Open-Unmix on a data directory for a given time, to compare our networks with it.

Examples:
  sccunet train_open_unmix --config=small_2stems --data_dir=DATA --workdir=UMX --minutes=30
  sccunet evaluate --config=small_2stems --data_dir=DATA --output_dir=SCORES \
      --system=openunmix --weights=UMX

The program needs the openunmix package: run make comparison. Open-Unmix's network, with its own
optimiser, loss and input statistics, is trained on our stream: tracks, validation tracks,
augmentation and sample rate are the config's; crops are --seconds long and in stereo. One thing
differs from Open-Unmix's own training: the learning rate falls as a cosine to 0 over each stem's
time. In its own training the rate falls after 80 epochs without progress, more epochs than a run
of this length has.

--minutes is the wall-clock time from the end of the data checks to the end of the last stem's
training. The input statistics come first; then each stem in turn gets an equal share of the time
that is left, for its steps and validations. So the whole training misses --minutes by no more than
a step and a validation of the last stem are held up. Imports and checks before, and writing UMX
after, are not counted. The program runs on the CPU. If other programs use the same cores,
OMP_NUM_THREADS=1 is many times faster than PyTorch's default, whose threads wait for each other.

The program writes into UMX, in openunmix's own format:
  separator.json            settings of the STFT
  <stem>.pth, <stem>.json   weights of the best validation; settings, steps, losses, and the seconds
                            of this stem and in all
"""

import dataclasses
from collections.abc import Sequence

from absl import flags

from data_pipeline.names import listed_directories
from experiments import cli
from experiments.baselines.open_unmix_training import OpenUnmixOptions, train_open_unmix
from sccunet.config import Config, ConfigError

_USED = (
    *("model.stems", "model.sample_rate", "sources"),
    *("data_weights", "augment", "random_crops", "seed"),
)


def main(_: Sequence[str]) -> None:
    """Checks the flags and trains."""
    if _CONFIG.value is None:
        raise ConfigError(
            "--config: not given, expected a name such as small_4stems, or a config file"
        )
    cli.refuse_idle_overrides(_USED)
    config = Config.from_dict(_CONFIG.value)
    if _SEED.value is not None:
        config = dataclasses.replace(config, seed=_SEED.value)
    options = OpenUnmixOptions(
        data_dirs=listed_directories(_DATA_DIR.value),
        workdir=_WORKDIR.value,
        minutes=_MINUTES.value,
        hidden_size=_HIDDEN_SIZE.value,
        batch_size=_BATCH_SIZE.value,
        seconds=_SECONDS.value,
        tracks=tuple(_TRACKS.value),
    )
    train_open_unmix(config, options)


if __name__ == "__main__":
    _CONFIG = cli.define_config("Stems, augmentation and seed.")
    _DATA_DIR = cli.define_data_dirs()
    _WORKDIR = flags.DEFINE_string(
        "workdir", None, "A new folder for the trained networks.", required=True
    )
    _MINUTES = flags.DEFINE_float(
        "minutes", None, "Wall-clock time, shared by all stems.", required=True, lower_bound=0
    )
    _HIDDEN_SIZE = flags.DEFINE_integer(
        "hidden_size", 512, "Size of the LSTM layers; published: 512.", lower_bound=2
    )
    _BATCH_SIZE = flags.DEFINE_integer("batch_size", 16, "Crops per step.", lower_bound=1)
    _SECONDS = flags.DEFINE_float("seconds", 6.0, "Length of a crop, in seconds.", lower_bound=0)
    _TRACKS = cli.define_tracks("Train only on these tracks, from any split.")
    _SEED = flags.DEFINE_integer(
        "seed",
        None,
        "Seed of crops, augmentation, weights and dropout. Default: the config's.",
    )
    cli.run(main, needs=["tensorflow"])
