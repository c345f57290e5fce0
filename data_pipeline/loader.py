"""Batches of crops as NumPy arrays, [batch, stems, channels, samples]: those of `dataset`.

Threads read ahead. Nothing here needs TensorFlow.
"""

import importlib.util
import itertools
import os
from collections.abc import Iterator, Sequence

import numpy as np

from data_pipeline import augment
from data_pipeline.crops import Crops, Places
from data_pipeline.cuts import cuts_of
from data_pipeline.mmap_reader import numpy_reader
from data_pipeline.tracks import Segment
from sccunet.ahead import in_order
from sccunet.config import Config

# One thread read 1,300 of the paper's crops per second of its time. A tenth of that is Python's, of
# which one thread runs at a time; augmentation takes longer, and hardly any Python.
_THREADS = min(16, os.cpu_count() or 1)


def has_tensorflow() -> bool:
    """Whether TensorFlow is installed; does not import it."""
    return importlib.util.find_spec("tensorflow") is not None


def training_batches(
    segments: Sequence[Segment], config: Config, first_step: int = 0
) -> Iterator[np.ndarray]:
    """Yields the batches of training steps without end; see `dataset.training_dataset`.

    Raises:
      AudioError: if a file is gone or was truncated.
    """
    training = _Training(segments, config)
    return in_order(training.waveforms, zip(itertools.count(first_step)), _THREADS)


def training_batch(
    segments: Sequence[Segment], config: Config, step: int
) -> tuple[np.ndarray, list[list[tuple[str, int]]]]:
    """Returns the whole batch of one step, for inspection, and the places of its crops.

    Returns:
      Waveforms, float32 [batch, stems, channels, patch_samples], and for each crop and file the
      path and the first sample.
    """
    training = _Training(segments, config)
    places, margin = training.places(step), cuts_of(config).margin
    origins = [
        [
            (training.crops.files[i].path, int(first) + margin)
            for i, first in zip(*crop, strict=True)
        ]
        for crop in zip(places.index, places.start, strict=True)
    ]
    return training.waveforms(step), origins


class _Training:
    """Training crops, by the numbers of steps."""

    def __init__(self, segments: Sequence[Segment], config: Config):
        self.config, self.crops = config, Crops(segments, config)
        self._read = numpy_reader(self.crops.files, cuts_of(config).samples)

    def _numbers(self, step: int) -> np.ndarray:
        return step * self.config.batch_size + np.arange(self.config.batch_size)

    def places(self, step: int) -> Places:
        return self.crops.of_training(self._numbers(step))

    def waveforms(self, step: int) -> np.ndarray:
        crops = _read(self._read, self.places(step), self.crops.sources)
        return augment.waveforms(crops, self._numbers(step), self.config)


class FixedBatches(Sequence):
    """Batches of the given crops in their order; see `dataset.fixed_dataset`.

    Indexing raises AudioError if a file is gone or was truncated.
    """

    def __init__(
        self,
        segments: Sequence[Segment],
        config: Config,
        crops: np.ndarray,
        batch_size: int,
        stereo: bool = False,
    ):
        wanted = Crops(segments, config, stereo)
        self._reader = numpy_reader(wanted.files, config.model.patch_samples)
        self._places, self._sources = wanted.fixed(crops), wanted.sources
        self._firsts = range(0, len(crops), batch_size)

    def __len__(self) -> int:
        return len(self._firsts)

    def __getitem__(self, index: int) -> np.ndarray:
        own = slice(self._firsts[index], self._firsts[index] + self._firsts.step)
        return _read(self._reader, Places(*(x[own] for x in self._places)), self._sources)

    def __iter__(self) -> Iterator[np.ndarray]:
        return in_order(self.__getitem__, zip(range(len(self))), _THREADS)


def _read(read, places: Places, sources: Sequence[int]) -> np.ndarray:
    """Reads places, and adds up the files of each stem."""
    batch, files, taken = places.channels.shape
    flat = (x.reshape(batch * files, *x.shape[2:]) for x in places)
    waveforms = read(*flat).reshape(batch, files, taken, -1)
    if duets := files - sum(sources):  # the first stem's files once more, at the end
        waveforms[:, :duets] += waveforms[:, -duets:]
        waveforms = waveforms[:, :-duets]
    if len(sources) == waveforms.shape[1]:
        return np.ascontiguousarray(waveforms)
    return np.add.reduceat(waveforms, np.cumsum([0, *sources[:-1]]), axis=1)
