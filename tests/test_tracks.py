"""Finding, checking and splitting tracks."""

import itertools
import os

import numpy as np
import pytest
import soundfile

from data_pipeline import audio, sigsep, splits, tracks
from data_pipeline.wav import AudioError
from sccunet.config import Config, ModelConfig

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


def _make(data_dir, split, name, frames=_PATCH, files=("voice", "rest"), channels=2, rate=8_000):
    """Writes a track whose files hold random whole numbers, for exact sums."""
    for number, file in enumerate(files):
        x = np.random.default_rng(number).integers(-1_000, 1_000, (frames, channels)) / 32_768
        audio.write_wav(data_dir / split / name / f"{file}.wav", x, rate)


def _names(segments):
    return [(segment.track.split, segment.track.name) for segment in segments]


def _error(call, *args, **kwargs) -> str:
    with pytest.raises(AudioError) as caught:
        call(*args, **kwargs)
    return str(caught.value)


@pytest.fixture
def data_dir(tmp_path):
    return tmp_path / "data"


def test_tracks_are_sorted_by_split_and_name(data_dir):
    for split, name in (("train", "b"), ("test", "c"), ("train", "a"), ("valid", "a")):
        _make(data_dir, split, name)
    (data_dir / "train" / ".a.part").mkdir()
    (data_dir / "train" / "notes.txt").touch()
    found = tracks.find_tracks(data_dir, _CONFIG)
    everything = [("test", "c"), ("train", "a"), ("train", "b"), ("valid", "a")]
    assert [(track.split, track.name) for track in found] == everything
    assert (found[0].frames, found[0].channels) == (_PATCH, 2)
    assert sorted(found[0].files) == ["rest", "voice"]
    assert found[0].files["rest"].path == str(data_dir / "test" / "c" / "rest.wav")
    only = tracks.find_tracks(data_dir, _CONFIG, "train")
    assert [track.name for track in only] == ["a", "b"]
    # Names win over a split.
    named = tracks.find_tracks(data_dir, _CONFIG, "train", ["c", "a"])
    assert [(track.split, track.name) for track in named] == [
        ("test", "c"),
        ("train", "a"),
        ("valid", "a"),
    ]


def test_stems_and_mixture(data_dir):
    config = Config(model=_MODEL, sources={"rest": ("drums", "bass")})
    _make(data_dir, "train", "a", files=("voice", "drums", "bass", "unused"))
    (track,) = tracks.find_tracks(data_dir, config)
    voice, drums, bass = (
        soundfile.read(track.files[name].path, dtype="float32")[0]
        for name in ("voice", "drums", "bass")
    )
    stems = tracks.read_stems(track, config)
    assert stems.dtype == np.float32
    np.testing.assert_array_equal(stems, np.stack([voice, drums + bass]))
    np.testing.assert_array_equal(tracks.read_mixture(track, config), voice + drums + bass)

    given = np.full((_PATCH, 2), 0.25)
    audio.write_wav(data_dir / "train" / "a" / "mixture.wav", given, 8_000)
    (track,) = tracks.find_tracks(data_dir, config)
    assert sorted(track.files) == ["bass", "drums", "mixture", "voice"]
    np.testing.assert_array_equal(tracks.read_mixture(track, config), given)


def test_missing_directory_and_no_tracks(data_dir):
    layout = "<split>/<track>/<file>.wav, split being train, valid or test"
    for call in (tracks.find_tracks, splits.training_split):
        assert (
            _error(call, data_dir, _CONFIG)
            == f"{data_dir}: found no such directory, expected tracks in {layout}"
        )
    data_dir.mkdir()
    assert (
        _error(tracks.find_tracks, data_dir, _CONFIG)
        == f"{data_dir}: found no tracks, expected {layout}"
    )
    _make(data_dir, "train", "a")
    assert (
        _error(tracks.find_tracks, data_dir, _CONFIG, "test")
        == f"{data_dir / 'test'}: found no tracks, expected {layout}"
    )


def test_unknown_track(data_dir):
    for number in range(12):
        _make(data_dir, "train", f"song{number:02}")
    for call in (splits.training_split, tracks.find_tracks):
        message = _error(call, data_dir, _CONFIG, names=["song01", "sing"])
        assert message.startswith(
            f"{data_dir}: found no track named 'sing', expected one of 'song00', 'song01', "
        )
        assert message.endswith("'song09', ... (12 in all)")


def test_unknown_stem(data_dir):
    _make(data_dir, "train", "a", files=("voice", "drums"))
    assert _error(tracks.find_tracks, data_dir, _CONFIG) == (
        f"{data_dir / 'train' / 'a'}: found drums.wav, voice.wav,"
        " expected rest.wav for the stem 'rest'"
    )


def test_compressed_files_send_to_prepare(data_dir):
    _make(data_dir, "train", "a", files=("voice",))
    soundfile.write(data_dir / "train" / "a" / "rest.ogg", np.zeros(_PATCH), 8_000)
    prepare = (
        "expected .wav files: run python -m experiments.prepare"
        f" --musdb_dir={data_dir} --data_dir=ANOTHER_FOLDER"
    )
    assert (
        _error(tracks.find_tracks, data_dir, _CONFIG)
        == f"{data_dir / 'train' / 'a'}: found rest.ogg, {prepare}"
    )
    (data_dir / "test").mkdir()
    (data_dir / "test" / "b.stem.mp4").touch()
    assert (
        _error(tracks.find_tracks, data_dir, _CONFIG, "test")
        == f"{data_dir / 'test'}: found .stem.mp4 files, {prepare}"
    )


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"rate": 44_100}, "found 44100 Hz, expected 8000 Hz (experiments.prepare converts)"),
        ({"frames": 999}, "found 999 samples, expected 1000 as in voice.wav"),
        ({"channels": 1}, "found 1 channels, expected 2 as in voice.wav"),
    ],
)
@pytest.mark.parametrize("file", ["rest", "mixture"])
def test_files_that_do_not_fit(data_dir, file, other, message):
    _make(data_dir, "train", "a")
    _make(data_dir, "train", "a", files=(file,), **other)
    path = data_dir / "train" / "a" / f"{file}.wav"
    assert _error(tracks.find_tracks, data_dir, _CONFIG) == f"{path}: {message}"


def test_truncated_and_empty_files(data_dir):
    _make(data_dir, "train", "a")
    path = data_dir / "train" / "a" / "rest.wav"
    os.truncate(path, 44 + 4 * 600)
    assert _error(tracks.find_tracks, data_dir, _CONFIG) == (
        f"{path}: found 600 samples (truncated), expected the 1000 samples that its header promises"
    )
    os.truncate(path, 0)
    assert (
        _error(tracks.find_tracks, data_dir, _CONFIG)
        == f"{path}: found an empty file (0 bytes), expected a WAV file"
    )


def test_track_shorter_than_a_patch(data_dir):
    _make(data_dir, "train", "a", frames=_PATCH - 1)
    message = f"{data_dir / 'train' / 'a'}: found 999 samples, expected at least 1000"
    assert len(tracks.find_tracks(data_dir, _CONFIG)) == 1
    assert _error(tracks.find_tracks, data_dir, _CONFIG, min_frames=_PATCH) == message
    assert _error(splits.training_split, data_dir, _CONFIG) == message


def test_one_line_for_each_bad_track(data_dir):
    for number in range(13):
        _make(data_dir, "train", f"{number:02}", files=("voice",))
    _make(data_dir, "train", "good")
    lines = _error(tracks.find_tracks, data_dir, _CONFIG).split("\n")
    assert len(lines) == 11
    assert lines[9] == (
        f"{data_dir / 'train' / '09'}: found voice.wav, expected rest.wav for the stem 'rest'"
    )
    assert lines[10] == "... and 3 more"
    # What isn't asked for isn't looked at.
    assert len(tracks.find_tracks(data_dir, _CONFIG, names=["good"])) == 1


def test_split_by_valid_folder(data_dir):
    for split, name in itertools.product(("train", "valid", "test"), "ab"):
        _make(data_dir, split, f"{split} {name}")
    training, validation, how = splits.training_split(data_dir, _CONFIG)
    assert _names(training) == [("train", "train a"), ("train", "train b")]
    assert _names(validation) == [("valid", "valid a"), ("valid", "valid b")]
    assert [(segment.start, segment.frames) for segment in training] == [(0, _PATCH)] * 2
    assert how == "training on 2 tracks, validating on 2 tracks: the tracks in valid/"
    # Named tracks are trained on wherever they lie, and do not validate.
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
    # The list that musdb itself goes by.
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


# Of patches of 1000 samples: what is trained on and what validates.
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


def test_nothing_to_validate_on(data_dir):
    _make(data_dir, "train", "a")
    assert _error(splits.training_split, data_dir, _CONFIG) == (
        f"{data_dir}: found no track to validate on, expected tracks in valid/ or one training"
        " track of at least 2000 samples (two patches)"
    )


def test_validation_never_overlaps_training(data_dir):
    """Over many layouts: no sample of a track's name is in both."""
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
