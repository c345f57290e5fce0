r"""Trains Open-Unmix on a data directory for a given time: what our networks are compared with.

Examples:
  python -m experiments.train_open_unmix --config=experiments/configs/small_2stems.py \
      --data_dir=DATA --workdir=UMX --minutes=30
  python -m experiments.evaluate --config=experiments/configs/small_2stems.py \
      --data_dir=DATA --output_dir=SCORES --system=openunmix --weights=UMX

It needs the openunmix package: make comparison. Its network, with its optimiser, loss and input
statistics, gets our training stream: tracks, validation tracks, augmentation and sample rate are
the config's, crops are --seconds long and in stereo. One thing differs from its own training: the
learning rate falls as a cosine to 0 over each stem's time. There it waits for 80 epochs without
progress before it falls, which so short a training never sees.

--minutes is the wall-clock time from the end of the data's checks to the end of the last stem's
training: input statistics first, then an equal share of what is left for each stem, in which its
steps and its validations fall. Imports and checks before it and the writing of UMX after it are
not counted. It runs on the CPU; on cores that other programs use as well, OMP_NUM_THREADS=1 is many
times faster than PyTorch's own choice, whose threads wait for each other.

Written into UMX, as openunmix itself reads it:
  separator.json            of the STFT
  <stem>.pth, <stem>.json   weights of the best validation; settings, steps, seconds and losses
"""

import dataclasses
from collections.abc import Sequence

from absl import flags
from ml_collections import config_flags

from experiments import cli
from experiments.baselines.open_unmix_training import OpenUnmixOptions, train_open_unmix
from sccunet.config import Config, ConfigError


def main(_: Sequence[str]) -> None:
    """Checks the flags and trains."""
    if _CONFIG.value is None:
        raise ConfigError(
            "--config: missing, expected a file such as experiments/configs/small_4stems.py"
        )
    config = Config.from_dict(_CONFIG.value)
    if _SEED.value is not None:
        config = dataclasses.replace(config, seed=_SEED.value)
    options = OpenUnmixOptions(
        data_dir=_DATA_DIR.value,
        workdir=_WORKDIR.value,
        minutes=_MINUTES.value,
        hidden_size=_HIDDEN_SIZE.value,
        batch_size=_BATCH_SIZE.value,
        seconds=_SECONDS.value,
        tracks=tuple(_TRACKS.value),
    )
    train_open_unmix(config, options)


if __name__ == "__main__":
    _CONFIG = config_flags.DEFINE_config_file(
        "config", None, "Stems, augmentation and seed: a file of configs/."
    )
    _DATA_DIR = flags.DEFINE_string(
        "data_dir", None, "Tracks in the MUSDB18-HQ layout: train/<track>/<stem>.wav", required=True
    )
    _WORKDIR = flags.DEFINE_string(
        "workdir", None, "A new folder: the trained networks.", required=True
    )
    _MINUTES = flags.DEFINE_float(
        "minutes", None, "Wall-clock time, shared by all stems.", required=True, lower_bound=0
    )
    _HIDDEN_SIZE = flags.DEFINE_integer(
        "hidden_size", 512, "Of the networks; 512 as published.", lower_bound=2
    )
    _BATCH_SIZE = flags.DEFINE_integer("batch_size", 16, "Crops per step.", lower_bound=1)
    _SECONDS = flags.DEFINE_float("seconds", 6.0, "Length of a crop.", lower_bound=0)
    _TRACKS = flags.DEFINE_list("tracks", [], "Train on these tracks alone, wherever they lie.")
    _SEED = flags.DEFINE_integer(
        "seed", None, "Of crops, augmentation, weights and dropout. Default: the config's."
    )
    cli.run(main)
