"""What to read for crops: files, first samples, channels and gains, by NumPy.

Crop number i of a run is a pure function of (seed, i). Batches of places are then read at once, and
each sample is written once, into the batch's memory; `dataset` does that in a tf.data graph, and
`loader` without TensorFlow.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from data_pipeline import draws
from data_pipeline.places import TrainingPlaces
from data_pipeline.tracks import Segment
from sccunet.config import Config


class Places(NamedTuple):
    """What to read for n crops, as the arguments of a reader.

    Attributes:
      index: index in `Crops.files`, int64 [n, files].
      start: first sample in the file, int64 [n, files].
      channels: int32 [n, files, taken], or only `draws.MEAN`.
      gains: float32 [n, files].
    """

    index: np.ndarray
    start: np.ndarray
    channels: np.ndarray
    gains: np.ndarray


class Crops:
    """Places of crops in segments.

    Args:
      segments: as for `dataset.training_dataset`.
      config: the run's config.
      stereo: as for `dataset.training_dataset`.

    Attributes:
      files: all files of the segments.
      sources: number of the files whose sum is a stem, for each stem.
    """

    def __init__(self, segments: Sequence[Segment], config: Config, stereo: bool = False):
        self.segments, self.config = segments, config
        self._stereo = stereo or config.model.channels == 2
        names = [name for stem in config.model.stems for name in config.files_of(stem)]
        files = [segment.track.files.get(name) for segment in segments for name in names]
        self.files = [info for info in files if info]
        there = np.array([info is not None for info in files])
        # Readers refuse the number of a file that a partial track lacks.
        self._numbers = np.where(there, there.cumsum() - 1, len(files)).reshape(-1, len(names))
        self.sources = [len(config.files_of(stem)) for stem in config.model.stems]
        self._channels = np.array([segment.track.channels for segment in segments], np.int32)

    @functools.cached_property
    def _drawn(self) -> TrainingPlaces:
        return TrainingPlaces(self.segments, self.config)

    def of_training(self, numbers: np.ndarray) -> Places:
        """Returns the places of training crops with these numbers, int64 [n].

        With duets, the first stem's files follow once more, with another place, at the end.
        """
        config = self.config
        sounds = draws.sounding(config, numbers)
        found = self._of_training(numbers, sounds)
        if not config.augment.duet:
            return found
        sounds = sounds * draws.is_duet(config, numbers)[:, None]
        # The place of a crop that the run does not have: numbers begin at 0.
        second = self._of_training(-1 - numbers, sounds)
        pairs = zip(found, second, strict=True)
        return Places(*(np.concatenate([x, y[:, : self.sources[0]]], axis=1) for x, y in pairs))

    def _of_training(self, numbers: np.ndarray, gains: np.ndarray) -> Places:
        segment, start = self._drawn.of_crops(numbers)
        gains = gains * draws.gains(self.config, numbers)
        swapped = draws.swapped(self.config, numbers)
        return self._places(numbers, segment, start, swapped, gains)

    def fixed(self, crops: np.ndarray) -> Places:
        """Returns the places of crops from `places.fixed_crops`, without augmentation."""
        numbers, (segment, start) = np.arange(len(crops)), np.moveaxis(crops, -1, 0)
        swapped, gains = np.zeros(segment.shape, bool), np.ones(segment.shape, np.float32)
        return self._places(numbers, segment, start, swapped, gains)

    def _places(self, numbers, segment, start, swapped, gains) -> Places:
        """Returns the places to read for crops with these numbers; the rest is [n, stems]."""
        available = self._channels[segment]
        if self._stereo:
            channels = draws.two_channels(available, swapped)
        elif self.config.downmix:
            channels = np.full((*segment.shape, 1), draws.MEAN, np.int32)
        else:
            channels = draws.one_channel(self.config, numbers, available, swapped)
        # [n, stems, ...] -> [n, files, ...]
        segment, start, channels, gains = (
            np.repeat(x, self.sources, axis=1) for x in (segment, start, channels, gains)
        )
        index = self._numbers[segment, np.arange(segment.shape[1])]
        return Places(index, start, channels.astype(np.int32), gains.astype(np.float32))
