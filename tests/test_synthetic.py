"""The synthetic set: repeatable, in the layout of MUSDB18-HQ, and separable."""

import numpy as np
import pytest
import scipy.signal
import soundfile

from data_pipeline.synthetic import STEMS, make_set, make_track
from sccunet.config import UserError

RATE = 44_100
SEEDS = (0, 1, 2, 3)


@pytest.fixture(scope="module")
def tracks():
    return [make_track(seed, 6.0) for seed in SEEDS]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("synthetic")
    make_set(path, {"train": 1, "test": 1}, seconds=2.0)
    return path


def _decibels(sound):
    return 10 * np.log10(np.mean(np.square(sound, dtype=np.float64)) + 1e-20)


def _share_below(sound, hertz):
    """Returns the share of the energy of sound [samples, 2]."""
    frequencies, power = scipy.signal.welch(sound, RATE, nperseg=8192, axis=0)
    return power[frequencies < hertz].sum() / power.sum()


def _flatness(sound):
    """Returns geometric over arithmetic mean of the power from 200 Hz to 8 kHz; white noise: 1."""
    frequencies, power = scipy.signal.welch(sound.mean(axis=1), RATE, nperseg=4096)
    power = power[(frequencies > 200) & (frequencies < 8000)]
    return np.exp(np.mean(np.log(power))) / np.mean(power)


def test_same_seed_same_samples(tracks):
    again, other = make_track(0, 6.0), tracks[1]
    assert tuple(again) == STEMS
    for name in STEMS:
        np.testing.assert_array_equal(again[name], tracks[0][name])
        assert abs(np.corrcoef(again[name].ravel(), other[name].ravel())[0, 1]) < 0.3


@pytest.mark.parametrize(("seconds", "rate"), [(0.1, 44_100), (2.5, 8_000), (2.5, 48_000)])
def test_any_length_and_rate(seconds, rate):
    for sound in make_track(5, seconds, rate).values():
        assert sound.shape == (round(seconds * rate), 2)
        assert np.isfinite(sound).all()


def test_stems_are_stereo_and_never_clip(tracks):
    for track in tracks:
        for sound in (*track.values(), sum(track.values())):
            assert sound.dtype == np.float32
            assert sound.shape == (6 * RATE, 2)
            assert np.abs(sound).max() <= 0.86
            assert not np.array_equal(sound[:, 0], sound[:, 1])


def test_all_stems_sound_most_of_the_time_at_like_levels(tracks):
    for track in tracks:
        for sound in track.values():
            frames = [_decibels(sound[start : start + RATE]) for start in range(0, 6 * RATE, RATE)]
            assert np.mean(np.array(frames) > -50) >= 0.8
    means = [np.mean([_decibels(track[name]) for track in tracks]) for name in STEMS]
    assert max(means) - min(means) < 4


def test_stems_sound_like_their_names(tracks):
    for track in tracks:
        assert _share_below(track["bass"], 400) > 0.9
        assert _share_below(track["vocals"], 120) < 0.02
        assert _share_below(track["other"], 120) < 0.02
        assert _share_below(track["other"], 8000) > 0.99
        flatness = {name: _flatness(track[name]) for name in STEMS}
        assert max(flatness, key=flatness.get) == "drums"


def test_noise_floor_is_faint_and_in_every_band_and_second(tracks):
    # Every second counts: museval projects each separately.
    high = scipy.signal.butter(8, 18_000, "highpass", fs=RATE, output="sos")
    for track in tracks:
        for name, sound in track.items():
            band = scipy.signal.sosfilt(high, np.round(sound * 32767) / 32767, axis=0)
            for start in range(0, 6 * RATE, RATE):
                level = _decibels(band[start : start + RATE]) - _decibels(sound)
                assert level > -95, (name, start)
                assert name == "drums" or level < -50, (
                    name,
                    start,
                )  # hi-hats reach these frequencies


def test_set_has_the_layout_of_musdb(data_dir):
    found = sorted(str(path.relative_to(data_dir)) for path in data_dir.rglob("*"))
    files = [f"{name}.wav" for name in ("mixture", *STEMS)]
    expected = []
    for split in ("train", "test"):
        folder = f"{split}/synthetic {split} 00"
        expected += [split, folder, *(f"{folder}/{file}" for file in files)]
    assert found == sorted(expected)


def test_mixture_is_the_exact_sum_of_16_bit_stems(data_dir):
    sounds = {}
    for folder in sorted(data_dir.glob("*/*")):
        for path in folder.iterdir():
            assert soundfile.info(path).subtype == "PCM_16"
            sounds[path.stem], rate = soundfile.read(path, dtype="int16")
            assert rate == RATE
            assert sounds[path.stem].shape == (2 * RATE, 2)
        total = sum(sounds[name].astype(np.int32) for name in STEMS)
        np.testing.assert_array_equal(sounds["mixture"], total)


def test_splits_differ(data_dir):
    train, test = (
        soundfile.read(data_dir / split / f"synthetic {split} 00" / "mixture.wav")[0]
        for split in ("train", "test")
    )
    assert abs(np.corrcoef(train.ravel(), test.ravel())[0, 1]) < 0.3


def test_existing_tracks_are_kept(data_dir):
    before = {path: path.stat().st_mtime_ns for path in data_dir.rglob("*.wav")}
    make_set(data_dir, {"train": 1, "test": 1}, seconds=2.0)
    assert before == {path: path.stat().st_mtime_ns for path in data_dir.rglob("*.wav")}


def test_a_partial_track_never_appears(tmp_path, monkeypatch):
    from data_pipeline import synthetic

    def write(path, *args, **kwargs):
        if path.stem == "drums":
            raise OSError("disk full")
        path.write_bytes(b"")

    monkeypatch.setattr(synthetic.soundfile, "write", write)
    (tmp_path / "train").mkdir()
    with pytest.raises(UserError, match=r"00: cannot be written \(disk full\)"):
        synthetic._write_track(tmp_path / "train" / "synthetic train 00", 0.5, 0)
    assert [path.name for path in tmp_path.rglob("*")] == ["train"]
