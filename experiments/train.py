r"""Trains a network on a data directory.

Examples:
  sccunet train --config=paper_4stems \
      --data_dir=DATA --workdir=RUN
  sccunet train --config=small_2stems \
      --data_dir=DATA --workdir=RUN --config.batch_size=2 --tracks=one,two
  sccunet train --config=paper_4stems \
      --data_dir=MY_STEMS --workdir=TUNED --init_from=RUN

  TF_CONFIG='{"cluster": {"worker": ["host1:2222", "host2:2222"]},
              "task": {"type": "worker", "index": 0}}' \
      sccunet train --strategy=multiworker --config=... --data_dir=... --workdir=...

Run again with the same flags, it continues from the last checkpoint in the workdir. SIGTERM saves
one and ends it with exit code 75: run it again.
"""

from collections.abc import Sequence

from absl import flags
from ml_collections import config_flags

from data_pipeline.readers import READERS
from experiments import cli
from experiments.training_options import TrainOptions
from sccunet.config import STRATEGIES, Config, ConfigError


def main(_: Sequence[str]) -> None:
    """Checks the flags and trains."""
    from experiments.training_run import train

    if _CONFIG.value is None:
        raise ConfigError(
            "--config: missing, expected a file such as experiments/configs/small_4stems.py"
        )
    options = TrainOptions(
        data_dir=_DATA_DIR.value,
        workdir=_WORKDIR.value,
        tracks=tuple(_TRACKS.value),
        init_from=_INIT_FROM.value,
        strategy=_STRATEGY.value,
        tpu=_TPU.value,
        reader=_READER.value,
        deterministic=_DETERMINISTIC.value,
        checkpoint_minutes=_CHECKPOINT_MINUTES.value,
    )
    train(Config.from_dict(_CONFIG.value), options)


if __name__ == "__main__":
    _CONFIG = config_flags.DEFINE_config_file("config", None, "What to train: a file of configs/.")
    _DATA_DIR = flags.DEFINE_string(
        "data_dir", None, "Tracks in the MUSDB18-HQ layout: train/<track>/<stem>.wav", required=True
    )
    _WORKDIR = flags.DEFINE_string(
        "workdir", None, "Where config, weights and TensorBoard logs are written.", required=True
    )
    _TRACKS = flags.DEFINE_list("tracks", [], "Train on these tracks alone, wherever they lie.")
    _INIT_FROM = flags.DEFINE_string(
        "init_from", None, "Start from the weights of a workdir or of a .weights.h5 file."
    )
    _STRATEGY = flags.DEFINE_enum(
        "strategy",
        "auto",
        STRATEGIES,
        "Where to compute. auto: several workers if TF_CONFIG names them, a TPU if --tpu is given,"
        " all GPUs, or the CPU. mirrored: all GPUs of this machine. multiworker: all machines of"
        " TF_CONFIG.",
    )
    _TPU = flags.DEFINE_string("tpu", None, "Name or address of a TPU; local on a TPU VM.")
    _READER = flags.DEFINE_enum(
        "reader",
        "mmap",
        READERS,
        "How WAV files are read: memory maps, or tensorflow-io, which needs TensorFlow 2.17 and"
        " runs in the graph without Python. Both give the same samples.",
    )
    _DETERMINISTIC = flags.DEFINE_boolean(
        "deterministic", False, "Give the same weights to the bit each time; slower."
    )
    _CHECKPOINT_MINUTES = flags.DEFINE_float(
        "checkpoint_minutes",
        10.0,
        "Write a checkpoint within epochs, too: what a killed run loses at most.",
        lower_bound=0.0,
    )
    cli.run(main)
