"""The options of a training run; its config is `sccunet.config.Config`."""

import dataclasses
import os
from pathlib import Path

from data_pipeline.names import Directories, directories
from sccunet.config import ConfigError


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """Where and how a config is trained.

    Attributes:
      data_dirs: a data directory, or several: tracks in the MUSDB18-HQ layout.
      workdir: folder for config, weights and logs.
      tracks: names of the tracks to train on; default: the training split.
      init_from: a workdir or weights file with the initial weights.
      strategy, tpu: as in `sccunet.distribution.make_strategy`.
      reader: reader of WAV files, one of `data_pipeline.readers.READERS`.
      deterministic: whether equal runs give bit-identical weights.
      checkpoint_minutes: as in `sccunet.checkpoints.Checkpoint`.
    """

    data_dirs: Directories
    workdir: str | os.PathLike
    tracks: tuple[str, ...] = ()
    init_from: str | os.PathLike | None = None
    strategy: str = "auto"
    tpu: str | None = None
    reader: str = "mmap"
    deterministic: bool = False
    checkpoint_minutes: float | None = None

    def __post_init__(self):
        object.__setattr__(self, "data_dirs", directories(self.data_dirs))
        object.__setattr__(self, "workdir", Path(self.workdir))
        try:
            os.fspath(self.workdir).encode()
        except UnicodeEncodeError as error:  # or TensorBoard's writer would fail
            raise ConfigError(
                f"{self.workdir}: found a name that is not UTF-8, expected one that TensorFlow can"
                " write to"
            ) from error
