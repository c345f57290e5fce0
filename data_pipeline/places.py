"""Where crops are cut: the segment and the first sample of each stem of a crop; by NumPy.

A segment's consecutive patches are slots, numbered across segments. A training crop has a slot for
all its stems or, if stems are mixed, one for each. It starts at a random place in the slot's
segment. All samples that are read for it are in the segment.
"""

import functools
from collections.abc import Callable, Sequence

import numpy as np

from data_pipeline import draws, philox
from data_pipeline.cuts import cuts_of
from data_pipeline.tracks import Segment
from sccunet.config import Config


def steps_per_epoch(segments: Sequence[Segment], config: Config) -> int:
    """Number of training steps per epoch: `config.steps_per_epoch`, or a pass over all slots."""
    slots = sum(segment.frames // config.model.patch_samples for segment in segments)
    return config.steps_per_epoch or max(1, slots // config.batch_size)


def patches_of_stems(segments: Sequence[Segment], config: Config) -> list[np.ndarray]:
    """Lists the consecutive patches of the segments that have a stem, for each stem.

    Returns:
      For each stem int64 [patches, 2], a segment's index and the first sample in its files.
    """
    patch = config.model.patch_samples
    counts = np.array([segment.frames // patch for segment in segments], np.int64)
    index = np.arange(len(segments)).repeat(counts)
    number = np.arange(len(index)) - (counts.cumsum() - counts)[index]
    start = np.array([segment.start for segment in segments], np.int64)[index] + number * patch
    has = np.array([segment.track.has(config) for segment in segments])[index]
    return [np.stack([index, start], axis=1)[own] for own in has.T]


def side_by_side(patches: Sequence[np.ndarray], most: int = 0) -> np.ndarray:
    """Joins each stem's patches to crops; stems with fewer patches begin again.

    Args:
      patches: from `patches_of_stems`.
      most: largest number of crops, evenly spread; 0 takes all.

    Returns:
      int64 [crops, stems, 2], a segment's index and the first sample in its files.
    """
    count = max(len(own) for own in patches)
    numbers = np.arange(count)
    if most and most < count:
        numbers = np.linspace(0, count - 1, most).round().astype(int)
    return np.stack([own[numbers % max(1, len(own))] for own in patches], axis=1)


def fixed_crops(segments: Sequence[Segment], config: Config, most: int = 0) -> np.ndarray:
    """Lists the consecutive patches of the complete tracks, or `most` of them, evenly spread.

    Without complete tracks, crops join patches of several tracks: the k-th of each stem.

    Returns:
      int64 [crops, stems, 2], a segment's index and the first sample in its files, for each stem.
    """
    patches = patches_of_stems(segments, config)
    taken = _taken(segments, config)
    patches = [own[taken[own[:, 0], stem]] for stem, own in enumerate(patches)]
    return side_by_side(patches, most)


def longest_crop(segments: Sequence[Segment], config: Config) -> int:
    """Returns the largest number of samples of which `fixed_crops` can make crops."""
    frames = np.array([segment.frames for segment in segments])
    return int((frames[:, None] * _taken(segments, config)).max(axis=0).min())


def _taken(segments: Sequence[Segment], config: Config) -> np.ndarray:
    """Returns the stems of each segment that fixed crops have, bool [segments, stems]."""
    has = np.array([segment.track.has(config) for segment in segments])
    complete = has.all(axis=1, keepdims=True)
    return has & complete if complete.any() else has


class TrainingPlaces:
    """Draws the places of training crops, each by its number alone.

    Crops whose stems are not mixed have the slots of complete tracks; mixed stems have the slots of
    all tracks that have the stem.

    Args:
      segments, config: as for `dataset.training_dataset`.
    """

    def __init__(self, segments: Sequence[Segment], config: Config):
        self.config, self.cuts = config, cuts_of(config)
        self.patch = config.model.patch_samples
        counts = np.array([segment.frames // self.patch for segment in segments], np.int64)
        self.ends = counts.cumsum()
        self.firsts = self.ends - counts
        self.starts = np.array([segment.start for segment in segments], np.int64)
        self.frames = np.array([segment.frames for segment in segments], np.int64)
        owner = np.arange(len(segments)).repeat(counts)  # each slot's segment
        has = np.array([segment.track.has(config) for segment in segments])[owner]
        directory = np.array([segment.directory for segment in segments])[owner]
        self.whole = _Slots(has.all(axis=1, keepdims=True), directory, None, config)
        self.mixed = _Slots(has, directory, _silent(segments, counts, config), config)

    def of_crops(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns each stem's segment and first sample to read, for crops with these numbers.

        Args:
          numbers: int64 [n].

        Returns:
          Two arrays, int64 [n, stems].
        """
        config, stems = self.config, len(self.config.model.stems)
        seeds = functools.partial(draws.seeds, config, numbers)
        chance = config.augment.mix_tracks
        if chance < 1:
            slots = self.whole.draw(seeds) if config.data_weights else self.whole.of_pass(numbers)
            whole = [x.repeat(stems, axis=1) for x in self._place(slots, seeds(draws.PLACE))]
        if chance > 0:
            near = config.augment.silent_share < 1
            mixed = self._place(self.mixed.draw(seeds), seeds(draws.MIX_PLACE), near)
        if chance in (0, 1):
            return tuple(mixed if chance else whole)
        mix = draws.is_mixed(config, numbers)[:, None]
        return tuple(np.where(mix, *pair) for pair in zip(mixed, whole, strict=True))

    def _place(
        self, slots: np.ndarray, seeds: np.ndarray, near: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns segment and first sample of the cuts for slots, all int64 [n, columns].

        Random cuts start anywhere in the segment or, if `near`, within half a patch of the slot.
        """
        segment = np.searchsorted(self.ends, slots, side="right")
        first, last = 0, self.frames[segment] - self.cuts.samples
        offset = (slots - self.firsts[segment]) * self.patch - self.cuts.margin
        offset = np.clip(offset, first, last)
        if self.config.random_crops:
            if near:
                first = np.maximum(offset - self.patch // 2, first)
                last = np.minimum(offset + self.patch // 2, last)
            # float64 so that every sample of an hour-long file can be a start.
            share = philox.uniform_double(seeds, slots.shape[1])
            offset = first + (share * (last - first + 1)).astype(np.int64)
        return segment, self.starts[segment] + offset


class _Slots:
    """Draws slots, for one or several columns at once: the stems, if they are mixed.

    A column has a list of slots for each directory if `config.data_weights` are given, otherwise
    one; or, if `silent` is given, two in place of each, of sounding and of silent slots.

    Args:
      usable: bool [slots, columns].
      directory: index of each slot's directory, int [slots].
      silent: bool [slots, columns]; None makes no difference.
      config: gives the weights of the directories, and the largest share of silent slots.
    """

    def __init__(
        self,
        usable: np.ndarray,
        directory: np.ndarray,
        silent: np.ndarray | None,
        config: Config,
    ):
        self.config = config
        weights = np.array(config.data_weights or (1.0,))
        self.shape = usable.shape[1], len(weights), 1 if silent is None else 2
        lists: dict[bytes, tuple[int, np.ndarray]] = {}
        firsts, counts, total = [], [], 0
        for column, group, is_silent in np.ndindex(self.shape):
            chosen = usable[:, column].copy()
            if config.data_weights:
                chosen &= directory == group
            if silent is not None:
                chosen &= silent[:, column] == is_silent
            own = np.flatnonzero(chosen)
            # Stems that have the same tracks share a list.
            first, _ = lists.setdefault(own.tobytes(), (total, own))
            total = max(total, first + len(own))
            firsts.append(first)
            counts.append(len(own))
        self.order = np.concatenate([own for _, own in lists.values()])
        self.firsts, self.counts = np.array(firsts, np.int64), np.array(counts, np.uint64)
        counts = np.reshape(counts, self.shape)
        sounds, there = counts[..., 0] > 0, counts.sum(axis=2) > 0  # [columns, directories]
        # A directory without a sound of a stem serves only if no directory has one.
        serves = np.where(sounds.any(axis=1, keepdims=True), sounds, there)
        chances = np.cumsum(weights * serves, axis=1)
        self.chances = (chances / np.maximum(chances[:, -1:], 1e-300)).astype(np.float32)
        share = counts[..., -1] / np.maximum(counts.sum(axis=2), 1)
        share = np.where(sounds, np.minimum(share, config.augment.silent_share), 1)
        self.silent_share = share.ravel().astype(np.float32)

    def of_pass(self, numbers: np.ndarray) -> np.ndarray:
        """Returns the slots of crops in passes over all, each in a new order: int64 [n, 1]."""
        count = len(self.order)
        passes, places = np.divmod(numbers, count)
        for number in np.unique(passes).tolist():
            own = passes == number
            order = philox.permutation(self.config.seed, number, count)
            places[own] = order[places[own]]
        return self.order[places][:, None]

    def draw(self, seeds: Callable[[int], np.ndarray]) -> np.ndarray:
        """Draws a slot for each column, int64 [n, columns]; `seeds` gives those of a purpose."""
        columns, groups, kinds = self.shape
        which = groups * np.arange(columns)  # or [n, columns], from the first draw on
        if groups > 1:
            found = philox.uniform(seeds(draws.DIRECTORY), columns)[..., None]
            which = which + (found >= self.chances).sum(axis=-1)
        if kinds > 1:
            found = philox.uniform(seeds(draws.SILENT), columns)
            which = kinds * which + (found < self.silent_share[which])
        found = philox.whole(seeds(draws.MIX_SLOT), columns)
        place = (found % np.maximum(self.counts[which], 1)).astype(np.int64)
        return self.order[self.firsts[which] + place]


def _silent(segments: Sequence[Segment], counts: np.ndarray, config: Config) -> np.ndarray | None:
    """Returns whether a stem is silent in a slot, bool [slots, stems]; None if all is taken."""
    if config.augment.silent_share == 1:
        return None
    silent = np.zeros((counts.sum(), len(config.model.stems)), bool)
    for segment, first in zip(segments, counts.cumsum() - counts, strict=True):
        for stem, patches in enumerate(segment.silent):
            silent[first + np.array(sorted(patches), np.int64), stem] = True
    return silent
