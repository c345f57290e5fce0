"""The options of a training run: where and how, while the config says what."""

import dataclasses
import os
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """Where and how a config is trained; the config says what.

    Attributes:
      data_dir: tracks in the MUSDB18-HQ layout.
      workdir: where config, weights and logs are written.
      tracks: names of those to train on; without them the training split.
      init_from: start from these weights, of a workdir or a file.
      strategy, tpu: as `sccunet.distribution.make_strategy` has them.
      reader: of WAV files, one of `data_pipeline.readers.READERS`.
      deterministic: the same run gives the same weights, to the bit.
      checkpoint_minutes: see `sccunet.checkpoints.Checkpoint`.
    """

    data_dir: str | os.PathLike
    workdir: str | os.PathLike
    tracks: tuple[str, ...] = ()
    init_from: str | os.PathLike | None = None
    strategy: str = "auto"
    tpu: str | None = None
    reader: str = "mmap"
    deterministic: bool = False
    checkpoint_minutes: float | None = None

    def __post_init__(self):
        object.__setattr__(self, "workdir", Path(self.workdir))
