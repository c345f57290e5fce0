r"""Trains a network on a data directory.

Examples:
  sccunet train --config=paper_4stems --data_dir=DATA --workdir=RUN
  sccunet train --config=small_2stems --data_dir=DATA --workdir=RUN \
      --config.batch_size=2 --tracks=one,two
  sccunet train --config=small_2stems --data_dir=SONGS,CHOIRS --workdir=RUN \
      --config.data_weights="(0.7, 0.3)"
  sccunet train --config=paper_4stems --data_dir=MY_STEMS --workdir=TUNED --init_from=RUN

  KERAS_BACKEND=jax sccunet train --config=paper_4stems --data_dir=DATA --workdir=RUN

  TF_CONFIG='{"cluster": {"worker": ["host1:2222", "host2:2222"]},
              "task": {"type": "worker", "index": 0}}' \
      sccunet train --strategy=multiworker --config=... --data_dir=... --workdir=...

Any field of the config can be set, as batch_size above; each RUN/config.json lists all of them.

Run again with the same flags, the program continues from the last checkpoint in the workdir. On
SIGTERM or Ctrl-C it saves a checkpoint and exits with code 75: run it again. A second Ctrl-C ends
it at once.
"""

import os
from collections.abc import Sequence

from absl import flags

from data_pipeline.names import listed_directories
from data_pipeline.readers import READERS
from experiments import cli
from experiments.training.options import TrainOptions
from sccunet.config import STRATEGIES, Config, ConfigError


def main(_: Sequence[str]) -> None:
    """Checks the flags and trains."""
    from experiments.training.run import train

    if _CONFIG.value is None:
        raise ConfigError(
            "--config: not given, expected a name such as small_4stems, or a config file"
        )
    options = TrainOptions(
        data_dirs=listed_directories(_DATA_DIR.value),
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
    _CONFIG = cli.define_config("What to train.")
    _DATA_DIR = cli.define_data_dirs()
    _WORKDIR = flags.DEFINE_string(
        "workdir", None, "Folder for config, weights and TensorBoard logs.", required=True
    )
    _TRACKS = cli.define_tracks("Train only on these tracks, from any split.")
    _INIT_FROM = flags.DEFINE_string(
        "init_from",
        None,
        "Start from the weights of a workdir, of a .weights.h5 file, or of a model that ships with"
        " sccunet, by its name.",
    )
    _STRATEGY = flags.DEFINE_enum(
        "strategy",
        "auto",
        STRATEGIES,
        "Devices to train on. auto: several workers if TF_CONFIG names them, a TPU if --tpu is"
        " given, otherwise all GPUs, or the CPU. mirrored: all GPUs of this machine. multiworker:"
        " all machines of TF_CONFIG.",
    )
    _TPU = flags.DEFINE_string("tpu", None, "Name or address of a TPU; local on a TPU VM.")
    _READER = flags.DEFINE_enum(
        "reader",
        "mmap",
        READERS,
        "Reader of WAV files. mmap: memory maps. tfio: tensorflow-io, which needs TensorFlow 2.17"
        " and runs in the graph without Python. Both give the same samples.",
    )
    _DETERMINISTIC = flags.DEFINE_boolean(
        "deterministic", False, "Make equal runs give bit-identical weights; slower."
    )
    _CHECKPOINT_MINUTES = flags.DEFINE_float(
        "checkpoint_minutes",
        10.0,
        "Minutes between checkpoints within an epoch; the most that a killed run loses.",
        lower_bound=0.0,
    )
    # Keras on JAX needs no TensorFlow.
    _BACKEND = "jax" if os.environ.get("KERAS_BACKEND") == "jax" else "tensorflow"
    cli.run(main, any_backend=True, needs=[_BACKEND, "keras"])
