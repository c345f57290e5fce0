"""Splits into training and validation."""

import dataclasses
import itertools

import numpy as np
import pytest

from data_pipeline import sigsep, splits, tracks
from data_pipeline.audio_writer import write_wav
from data_pipeline.cuts import cuts_of
from data_pipeline.errors import AudioError
from sccunet.config import AugmentConfig, Config, ConfigError, ModelConfig

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


def _make(data_dir, split, name, frames=_PATCH, stems=_MODEL.stems):
    """Writes a silent track."""
    for file in stems:
        write_wav(data_dir / split / name / f"{file}.wav", np.zeros((frames, 1)), 8_000)


def _names(segments):
    return [(segment.track.split, segment.track.name) for segment in segments]


def _error(call, *args, **kwargs) -> str:
    with pytest.raises((AudioError, ConfigError)) as caught:
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


def _mixing(chance=1.0, **changes):
    return Config(model=_MODEL, augment=AugmentConfig(mix_tracks=chance), **changes)


def test_directories_are_split_each_by_its_own_rule(data_dir):
    one, two, three = (data_dir / name for name in ("one", "two", "three"))
    for number in range(7):
        _make(one, "train", f"{number}")
    _make(two, "train", "0")
    _make(two, "valid", "6")
    _make(three, "train", "0", frames=1_500)  # too short to be split
    training, validation, how = splits.training_split([one, two, three], _CONFIG)
    assert [s.directory for s in training] == [0] * 6 + [1, 2]
    assert [s.track.name for s in training] == [*"012345", "0", "0"]
    assert [(s.directory, s.track.split, s.track.name) for s in validation] == [
        (0, "train", "6"),
        (1, "valid", "6"),
    ]
    assert how == (
        f"{one}: training on 6 tracks, validating on 1 track: every 7th track of train/ in name"
        f" order; {two}: training on 1 track, validating on 1 track: the tracks in valid/; {three}:"
        " training on 1 track"
    )
    # A track whose name validates in another directory may be the same song.
    _make(three, "train", "6", frames=1_500)
    again, _, how = splits.training_split([one, two, three], _CONFIG)
    assert again == training
    assert how.endswith("; not training on tracks that validate in another directory: '6'")
    # Named tracks are taken wherever they are.
    training, validation, _ = splits.training_split([one, two], _CONFIG, ["0"])
    assert [(s.directory, s.track.name) for s in training] == [(0, "0"), (1, "0")]
    assert [(s.directory, s.track.name) for s in validation] == [(1, "6")]


def test_directories_that_do_not_fit(data_dir):
    one, two = data_dir / "one", data_dir / "two"
    _make(one, "train", "a", frames=2_000)
    _make(two, "train", "b")
    _make(two, "train", "c")
    for dirs, config, names, message in (
        ([one, two, one], _CONFIG, (), f"--data_dir: found {one} twice, expected different"),
        (
            [one, two],
            _mixing(data_weights=(1, 2, 3)),
            (),
            "config.data_weights: found 3 numbers (1.0, 2.0, 3.0), expected one for each directory"
            f" of --data_dir={one},{two}",
        ),
        ([one, data_dir / "no"], _CONFIG, (), f"{data_dir}/no: found no such directory, expected"),
        ([one, two], _CONFIG, ["a"], f"{two}: found none of the named tracks, expected at least"),
        (
            [one, two],
            _CONFIG,
            ["x"],
            f"{one}, {two}: found no track named 'x', expected one",
        ),
        ([two], _CONFIG, (), f"{two}: found no track to validate on, expected tracks in valid/"),
    ):
        message_of = _error(splits.training_split, dirs, config, names)
        assert message_of.startswith(message)
        assert "\n" not in message_of


def test_partial_tracks_train_and_complete_ones_validate(data_dir):
    for number in range(8):
        _make(data_dir, "train", f"choir {number}", stems=("voice",))
        _make(data_dir, "train", f"song {number}")
    training, validation, how = splits.training_split(data_dir, _mixing(0.5))
    assert _names(validation) == [("train", "song 6")]
    assert len(training) == 15
    assert "mixture" not in training[0].track.files
    assert how.startswith("training on 15 tracks, validating on 1 track: every 7th track of train/")
    assert how.endswith("only some of the stems: " + ", ".join(f"'choir {n}'" for n in range(8)))
    # Those in valid/ are not needed; beside complete ones, they are named.
    _make(data_dir, "valid", "solo", stems=("voice",))
    assert _names(splits.training_split(data_dir, _mixing(0.5))[1]) == [("train", "song 6")]
    _make(data_dir, "valid", "whole")
    _, validation, how = splits.training_split(data_dir, _mixing(0.5))
    assert _names(validation) == [("valid", "whole")]
    assert ": the tracks in valid/, but for those with only some of the stems: 'solo'" in how


@pytest.mark.parametrize("apart", [False, True])
def test_without_complete_tracks_partial_ones_validate(data_dir, apart):
    """In one directory or in two, by rule 3, 4 and 1; a mixture is not looked at."""
    dirs = [data_dir / "a", data_dir / "b"] if apart else [data_dir] * 2
    kinds = list(zip(dirs, ("choir", "band"), (("voice",), ("rest",)), strict=True))
    for number in range(7):
        for folder, kind, stems in kinds:
            _make(folder, "train", f"{kind} {number}", 2_000, stems)
    _make(dirs[0], "train", "choir 3", 10, ("mixture",))
    dirs = dirs[: 1 + apart]
    training, validation, _ = splits.training_split(dirs, _mixing())
    assert sorted(s.track.name for s in validation) == ["band 6", "choir 6"]
    assert len(training) == 12
    for folder, kind, _ in kinds:
        (folder / "train" / f"{kind} 6").rename(folder / f"{kind} 6")
    training, validation, _ = splits.training_split(dirs, _mixing())
    assert [(s.start, s.frames) for s in validation] == [(_PATCH, _PATCH)] * 12
    assert len(training) == 12
    for folder, kind, _ in kinds:
        (folder / "valid").mkdir(exist_ok=True)
        (folder / f"{kind} 6").rename(folder / "valid" / f"{kind} x")
    _, validation, _ = splits.training_split(dirs, _mixing())
    assert sorted(s.track.name for s in validation) == ["band x", "choir x"]


def test_partial_tracks_that_cannot_be_used(data_dir):
    folder = data_dir / "train"
    for name in "ab":
        _make(data_dir, "train", name, 2_000, ("voice",))
    _make(data_dir, "train", "c", 2_000)
    need = "tracks with only some of the stems need mixed crops"
    lacks = "found voice.wav, expected rest.wav for the stem 'rest'"
    assert _error(splits.training_split, data_dir, _CONFIG) == (
        f"{folder}/a: {lacks} (and 1 more such track), or config.augment.mix_tracks over 0: {need}"
    )
    assert _error(tracks.find_tracks, data_dir, _mixing(), names=["a"]) == f"{folder}/a: {lacks}"
    assert len(splits.training_split(data_dir, _mixing(0.5))[0]) == 3
    assert _error(splits.training_split, data_dir, _mixing(), names=["a", "b"]) == (
        f"{data_dir}: found no training track with the stem 'rest', expected rest.wav in at least"
        " one"
    )
    _make(data_dir, "train", "d", 2_000, ("rest",))
    names = ["a", "b", "d"]
    assert len(splits.training_split(data_dir, _mixing(), names)[0]) == 3
    assert _error(splits.training_split, data_dir, _mixing(0.9), names) == (
        "config.augment.mix_tracks: found 0.9, expected 1, or a training track in"
        f" {data_dir} that has every stem, for the crops that are not mixed"
    )
    # A file that is only named otherwise, and one of several that are missing, are mistakes.
    (folder / "d" / "Voice.wav").touch()
    assert _error(splits.training_split, data_dir, _mixing(), names) == (
        f"{folder}/d: found Voice.wav, rest.wav, expected voice.wav for the stem 'voice'"
    )
    (folder / "d" / "Voice.wav").unlink()
    config = _mixing(sources={"voice": ("voice", "choir")})
    assert _error(splits.training_split, data_dir, config, names).startswith(
        f"{folder}/a: found voice.wav, expected choir.wav for the stem 'voice'"
    )
