"""Where crops are cut, of segments whose files are never opened."""

import dataclasses

import numpy as np
import pytest
from scipy.stats import binom

from data_pipeline import places
from data_pipeline.tracks import Segment, Track
from sccunet.config import AugmentConfig, Config, ModelConfig

_PATCH = 1024
_MODEL = ModelConfig(
    stems=("vocals", "rest"), frame_length=256, hop_length=64, patch_samples=_PATCH
)
_CONFIG = Config(model=_MODEL, sources={"rest": ("drums", "bass")}, random_crops=False)
_FILES = {"v": ("vocals",), "r": ("drums", "bass")}
_CROPS = 2000


def _with(mix=0.0, silent=1.0, **changes):
    augmented = AugmentConfig(mix_tracks=mix, silent_share=silent)
    return dataclasses.replace(_CONFIG, augment=augmented, **changes)


def _segment(patches, stems="vr", directory=0, silent=(), start=0, tail=0):
    """A segment whose track has the stems; those that are `silent` are it in the given patches."""
    names = [name for stem in stems for name in _FILES[stem]]
    track = Track("", "train", dict.fromkeys(names))
    silent = tuple(frozenset(dict(silent).get(stem, ())) for stem in _FILES)
    return Segment(track, start, patches * _PATCH + tail, directory, silent)


def _drawn(segments, config, first=0):
    """Returns segments and first samples of the run's first crops, each int [crops, stems]."""
    return places.TrainingPlaces(segments, config).of_crops(np.arange(first, _CROPS))


def _check_share(found, share):
    """Checks the mean of draws; a right one lies outside the bounds once in a million times."""
    low, high = binom.interval(1 - 1e-6, found.size, share)
    assert low <= found.sum() <= high, (found.mean(), share)


@pytest.mark.parametrize("mix", [0.0, 1.0])
@pytest.mark.parametrize(
    ("weights", "shares"), [((), (0.1, 0.3, 0.6)), ((1, 1, 2), (0.25, 0.25, 0.5))]
)
def test_directories_are_drawn_by_their_weights_or_their_patches(mix, weights, shares):
    segments = [_segment(1), _segment(3, directory=1), _segment(2, directory=2)]
    segments.append(_segment(4, directory=2))
    owner, start = _drawn(segments, _with(mix, data_weights=weights))
    of = np.array([segment.directory for segment in segments])
    for directory, share in enumerate(shares):
        for stem in (0, 1):
            _check_share(of[owner[:, stem]] == directory, share)
    # Within a directory, every patch is equally likely.
    for index, patch, share in ((1, 2, shares[1] / 3), (2, 1, shares[2] / 6)):
        _check_share((owner[:, 0] == index) & (start[:, 0] == patch * _PATCH), share)
    same = owner[:, 0] == owner[:, 1]
    if mix:  # each stem has its own directory, and its own place
        _check_share(of[owner[:, 0]] == of[owner[:, 1]], np.square(shares).sum())
    else:
        assert same.all()
        assert (start[:, 0] == start[:, 1]).all()


def test_stems_come_from_the_tracks_that_have_them():
    """In unmixed crops both come from the only complete track."""
    segments = [_segment(2, "v"), _segment(3, "r"), _segment(1), _segment(4, "v", 1)]
    for weights, shares in (((), (3 / 7, 4 / 7)), ((1, 3), (0.25, 0.75))):
        owner, _ = _drawn(segments, _with(1.0, data_weights=weights))
        assert set(owner[:, 0]) == {0, 2, 3}
        assert set(owner[:, 1]) == {1, 2}  # the second directory has none
        for directory, share in enumerate(shares):
            _check_share((owner[:, 0] == 3) == directory, share)
        _check_share(owner[:, 1] == 2, 1 / 4)
        owner, _ = _drawn(segments, _with(0.5, data_weights=weights))
        _check_share((owner == 2).all(axis=1), 0.5 + 0.5 / 4 * shares[0] / 3)


@pytest.mark.parametrize(("most", "share"), [(0.0, 0.0), (0.2, 0.2), (0.9, 0.5)])
@pytest.mark.parametrize("weights", [(), (1.0, 1.0)])
def test_silent_patches_are_drawn_up_to_their_share(most, share, weights):
    """Half of the vocals' patches are silent, and all of the second directory's."""
    vocals, rest = {0, 2, 5}, {1}
    segments = [
        _segment(6, silent={"v": vocals, "r": rest}),
        _segment(6, directory=1, silent={"v": range(0) if not weights else range(6)}),
    ]
    if not weights:
        segments[1] = _segment(6, directory=1, silent={"v": vocals})
    owner, start = _drawn(segments, _with(1.0, most, data_weights=weights))
    patch = start // _PATCH
    _check_share(np.isin(patch[:, 0], list(vocals)), share)
    if weights:
        assert (owner[:, 0] == 0).all()
    # Fewer of the rest's patches are silent: 1 of 6 in one of two directories, 1 of 12 in all.
    quiet = (owner[:, 1] == 0) & (patch[:, 1] == 1)
    _check_share(quiet, min(most, 1 / 6) / 2 if weights else min(most, 1 / 12))


def test_a_stem_that_never_sounds_is_taken_as_it_comes():
    segments = [_segment(2, silent={"v": {0, 1}}), _segment(2, silent={"v": {0, 1}})]
    owner, start = _drawn(segments, _with(1.0, 0.1))
    for index, patch in np.ndindex(2, 2):
        _check_share((owner[:, 0] == index) & (start[:, 0] == patch * _PATCH), 1 / 4)


def test_crops_near_sounding_patches_stay_within_half_a_patch_and_the_segment():
    segments = [_segment(4, silent={"v": {1, 2}, "r": {0, 1, 2}}, start=500, tail=700)]
    _, start = _drawn(segments, _with(1.0, 0.0, random_crops=True))
    half = _PATCH // 2
    bounds = [[(0, half), (3 * _PATCH - half, 3 * _PATCH + half)]]
    bounds += [[(3 * _PATCH - half, 3 * _PATCH + half)]]
    for found, own in zip((start - 500).T, bounds, strict=True):
        inside = [(low <= found) & (found <= high) for low, high in own]
        assert np.any(inside, axis=0).all()
        for (low, high), part in zip(own, inside, strict=True):
            assert found[part].min() < low + 20
            assert found[part].max() > high - 20


def test_a_crop_depends_on_its_number_alone():
    segments = [_segment(5, "v", 0, {"v": {1}}), _segment(3, "r", 1, {"r": {0}}), _segment(9)]
    config = _with(0.7, 0.1, data_weights=(1, 2), random_crops=True)
    every, later = _drawn(segments, config), _drawn(segments, config, first=_CROPS - 50)
    np.testing.assert_array_equal(np.array(every)[:, -50:], later)
    assert not np.array_equal(every, _drawn(segments, dataclasses.replace(config, seed=1)))


def test_fixed_crops_are_of_complete_tracks_or_pair_partial_ones():
    partial = [_segment(2, "v", start=7), _segment(1, "r"), _segment(1, "v"), _segment(1, "r")]
    crops = places.fixed_crops([*partial, _segment(2)], _CONFIG)
    np.testing.assert_array_equal(crops, [[(4, 0)] * 2, [(4, _PATCH)] * 2])
    crops = places.fixed_crops(partial, _CONFIG)
    pairs = [[(0, 7), (1, 0)], [(0, 7 + _PATCH), (3, 0)], [(2, 0), (1, 0)]]
    np.testing.assert_array_equal(crops, pairs)
    np.testing.assert_array_equal(places.fixed_crops(partial, _CONFIG, 2), [pairs[0], pairs[2]])
    assert places.longest_crop(partial, _CONFIG) == _PATCH
    assert places.longest_crop([*partial, _segment(2)], _CONFIG) == 2 * _PATCH
