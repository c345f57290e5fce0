"""Splits into training and validation."""

import dataclasses
import itertools

import numpy as np
import pytest

from data_pipeline import audio, sigsep, splits
from data_pipeline.cuts import cuts_of
from data_pipeline.errors import AudioError
from sccunet.config import AugmentConfig, Config, ModelConfig

_PATCH = 1_000
_MODEL = ModelConfig(
    stems=("voice", "rest"),
    sample_rate=8_000,
    frame_length=64,
    hop_length=16,
    patch_samples=_PATCH,
    filters=(2, 2),
)
_CONFIG = Config(model=_MODEL)


def _make(data_dir, split, name, frames=_PATCH):
    """Writes a silent track."""
    for file in _MODEL.stems:
        audio.write_wav(data_dir / split / name / f"{file}.wav", np.zeros((frames, 1)), 8_000)


def _names(segments):
    return [(segment.track.split, segment.track.name) for segment in segments]


def _error(call, *args, **kwargs) -> str:
    with pytest.raises(AudioError) as caught:
        call(*args, **kwargs)
    return str(caught.value)


@pytest.fixture
def data_dir(tmp_path):
    return tmp_path / "data"


def test_split_by_valid_folder(data_dir):
    for split, name in itertools.product(("train", "valid", "test"), "ab"):
        _make(data_dir, split, f"{split} {name}")
    training, validation, how = splits.training_split(data_dir, _CONFIG)
    assert _names(training) == [("train", "train a"), ("train", "train b")]
    assert _names(validation) == [("valid", "valid a"), ("valid", "valid b")]
    assert [(segment.start, segment.frames) for segment in training] == [(0, _PATCH)] * 2
    assert how == "training on 2 tracks, validating on 2 tracks: the tracks in valid/"
    # Named tracks are trained on, from any split, and not used for validation.
    training, validation, _ = splits.training_split(data_dir, _CONFIG, ["valid a", "test b"])
    assert _names(training) == [("test", "test b"), ("valid", "valid a")]
    assert _names(validation) == [("valid", "valid b")]


def test_a_validation_track_left_in_train_is_not_trained_on(data_dir):
    for split, name in (("train", "a"), ("train", "b"), ("valid", "a")):
        _make(data_dir, split, name)
    training, validation, _ = splits.training_split(data_dir, _CONFIG)
    assert _names(training) == [("train", "b")]
    assert _names(validation) == [("valid", "a")]
    assert (
        _error(splits.training_split, data_dir, _CONFIG, ["a"])
        == f"{data_dir}: found 'a' in train/ and valid/, expected one"
    )


def test_split_by_musdbs_own_list(data_dir):
    reserved = splits._musdb_validation()
    assert len(reserved) == 14
    # musdb's own list.
    assert reserved == set(
        sigsep.load("musdb").DB(root=data_dir, subsets=[]).setup["validation_tracks"]
    )
    own = sorted(reserved)[:3]
    for name in ("A Song", "Z Song", *own):
        _make(data_dir, "train", name)
    training, validation, how = splits.training_split(data_dir, _CONFIG)
    assert _names(training) == [("train", "A Song"), ("train", "Z Song")]
    assert _names(validation) == [("train", name) for name in own]
    assert how.endswith("validating on 3 tracks: musdb's own validation tracks")
    training, validation, _ = splits.training_split(data_dir, _CONFIG, ["A Song", own[1]])
    assert _names(training) == sorted([("train", "A Song"), ("train", own[1])])
    assert _names(validation) == [("train", own[0]), ("train", own[2])]


def test_split_by_every_seventh_track(data_dir):
    for number in range(1, 16):
        _make(data_dir, "train", f"{number:02}")
    training, validation, how = splits.training_split(data_dir, _CONFIG)
    assert _names(validation) == [("train", "07"), ("train", "14")]
    assert len(training) == 13
    assert not set(_names(training)) & set(_names(validation))
    assert how == (
        "training on 13 tracks, validating on 2 tracks: every 7th track of train/ in name order"
    )


# Training and validation parts for patches of 1000 samples.
@pytest.mark.parametrize(
    ("frames", "trained", "held_out"),
    [(1_999, 1_999, 0), (2_000, 1_000, 1_000), (19_500, 18_500, 1_000), (41_700, 37_700, 4_000)],
)
def test_split_by_the_last_tenth(data_dir, frames, trained, held_out):
    _make(data_dir, "train", "a", frames=frames)
    _make(data_dir, "train", "b", frames=5_000)
    for names in ((), ("a", "b")):
        training, validation, how = splits.training_split(data_dir, _CONFIG, names)
        by_name = {segment.track.name: segment for segment in validation}
        assert [(s.track.name, s.start, s.frames) for s in training] == [
            ("a", 0, trained),
            ("b", 0, 4_000),
        ]
        assert (by_name["b"].start, by_name["b"].frames) == (4_000, 1_000)
        if held_out:
            assert (by_name["a"].start, by_name["a"].frames) == (trained, held_out)
        assert "a" not in by_name or held_out
        assert f"validating on the last tenth of {len(by_name)} of them" in how


@pytest.mark.parametrize("rest", ["valid", None])
def test_a_track_too_short_to_change_its_speed(data_dir, rest):
    """Only those to train on must be longer; a last tenth that validates is no part of them."""
    config = dataclasses.replace(_CONFIG, augment=AugmentConfig(speed=0.1))
    least = cuts_of(config).samples
    _make(data_dir, "train", "a", frames=least - 1 if rest else least + 999)
    if rest:
        _make(data_dir, rest, "b")
    assert _error(splits.training_split, data_dir, config) == (
        f"{data_dir}/train/a: found {least - 1} samples to train on, expected at least {least}"
        " with config.augment.speed"
    )
    _make(data_dir, "train", "a", frames=least if rest else least + 1_000)
    [segment], *_ = splits.training_split(data_dir, config)
    assert segment.frames == least


def test_nothing_to_validate_on(data_dir):
    _make(data_dir, "train", "a")
    assert _error(splits.training_split, data_dir, _CONFIG) == (
        f"{data_dir}: found no track to validate on, expected tracks in valid/ or one training"
        " track of at least 2000 samples (two patches)"
    )


def test_validation_never_overlaps_training(data_dir):
    """In many layouts, no sample of a track is in both."""
    reserved = sorted(splits._musdb_validation())[:2]
    layouts = [
        {"train": "abcdefgh", "valid": "ab"},
        {"train": "ab", "valid": "ab"},
        {"train": reserved, "valid": ""},
        {"train": [*"abcdefgh", *reserved], "test": "z"},
        {"train": [*"ab", reserved[0]], "valid": reserved},
    ]
    for number, layout in enumerate(layouts):
        folder = data_dir / str(number)
        for split, names in layout.items():
            for name in names:
                _make(folder, split, name, frames=2_500)
        for chosen in ((), ("b",), ("z",), tuple(reserved), ("a", reserved[0])):
            try:
                training, validation, _ = splits.training_split(folder, _CONFIG, chosen)
            except AudioError:
                continue
            assert training
            assert validation
            for one, other in itertools.product(training, validation):
                assert one.track.name != other.track.name or (
                    one.track == other.track and one.start + one.frames <= other.start
                )
