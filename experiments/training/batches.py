"""The batches of a training run: by tf.data, or by NumPy where TensorFlow is not installed."""

import dataclasses
from collections.abc import Sequence

import keras
import numpy as np

from data_pipeline import loader, places
from data_pipeline.mmap_reader import MakeReader
from data_pipeline.tracks import Segment
from sccunet.checks import counted
from sccunet.config import Config, ConfigError


@dataclasses.dataclass(frozen=True)
class Batches:
    """The data sets of a run.

    Attributes:
      config, reader, training, validation: as in `fit.fit`.
      crops: validation crops, in whole batches.
      batch_size: batch size of the validation.
    """

    config: Config
    reader: MakeReader | None
    training: Sequence[Segment]
    validation: Sequence[Segment]
    crops: np.ndarray
    batch_size: int

    @property
    def steps_per_epoch(self) -> int:
        return places.steps_per_epoch(self.training, self.config)

    @property
    def seconds(self) -> float:
        """Length of a crop, in seconds."""
        return self.config.model.patch_samples / self.config.model.sample_rate

    def of_training(self, first_step: int, context=None):
        """Returns batches from a step on, for `Trainer.fit`; `context` as in `dataset`."""
        if self.reader is None:
            found = loader.training_batches(self.training, self.config, first_step)
            return ((batch,) for batch in found)
        from data_pipeline.dataset import training_dataset

        return training_dataset(
            self.training, self.config, first_step, self.reader, context=context
        )

    def of_validation(self, context=None):
        """Returns all batches of a validation, as `of_training` does."""
        if self.reader is None:
            return _Repeated(
                loader.FixedBatches(self.validation, self.config, self.crops, self.batch_size)
            )
        from data_pipeline.dataset import fixed_dataset

        return fixed_dataset(
            self.validation, self.config, self.crops, self.batch_size, self.reader, context=context
        )


class _Repeated(keras.utils.PyDataset):
    """The validation's batches, which Keras reads again in each epoch."""

    def __init__(self, batches: loader.FixedBatches):
        super().__init__()
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> tuple[np.ndarray]:
        return (self._batches[index],)


def make_batches(
    config: Config,
    replicas: int,
    reader: MakeReader | None,
    training: Sequence[Segment],
    validation: Sequence[Segment],
) -> Batches:
    """Returns the data sets of a run.

    Args:
      config, training, validation: as in `fit.fit`.
      replicas: number of devices that share a batch.
      reader: None where TensorFlow is not installed.

    Raises:
      ConfigError: for fewer validation crops than replicas.
    """
    crops = places.fixed_crops(validation, config, config.validation_crops)
    # Only whole batches that the replicas can share: the compiled step has one shape.
    batch_size = min(config.batch_size, len(crops)) // replicas * replicas
    if not batch_size:
        raise ConfigError(
            f"--strategy: found {replicas} replicas, expected no more than"
            f" {counted(len(crops), 'validation crop')}"
        )
    crops = crops[: len(crops) // batch_size * batch_size]
    return Batches(config, reader, training, validation, crops, batch_size)
