"""Finding, checking and reading tracks."""

import os

import numpy as np
import pytest
import soundfile

from data_pipeline import splits, tracks
from data_pipeline.audio_writer import write_wav
from data_pipeline.errors import AudioError
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
        write_wav(data_dir / split / name / f"{file}.wav", x, rate)


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
    # Names override the split.
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
    write_wav(data_dir / "train" / "a" / "mixture.wav", given, 8_000)
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


def test_compressed_files_are_referred_to_prepare(data_dir):
    _make(data_dir, "train", "a", files=("voice",))
    soundfile.write(data_dir / "train" / "a" / "rest.ogg", np.zeros(_PATCH), 8_000)
    prepare = (
        f"expected .wav files: run sccunet prepare --input_dir={data_dir} --data_dir=ANOTHER_FOLDER"
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
        ({"rate": 44_100}, "found 44100 Hz, expected 8000 Hz (sccunet prepare converts)"),
        (
            {"frames": 999},
            "found 999 samples, expected 1000 as in voice.wav (sccunet prepare --trim cuts to the"
            " shortest)",
        ),
        ({"frames": 100}, "found 100 samples, expected 1000 as in voice.wav"),
        ({"channels": 1}, "found 1 channel, expected 2 as in voice.wav"),
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
    # Other tracks are not checked.
    assert len(tracks.find_tracks(data_dir, _CONFIG, names=["good"])) == 1
