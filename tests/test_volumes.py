"""The volumes of a training split, in closed form, and their cache."""

import dataclasses
import json
import os
import re

import librosa
import numpy as np
import pytest

from data_pipeline import tracks, volumes
from data_pipeline.audio_writer import write_wav
from data_pipeline.errors import AudioError
from data_pipeline.tracks import Segment
from data_pipeline.wav import read_wav
from sccunet.config import AugmentConfig, Config, ModelConfig

_PATCH, _FRAME, _HOP = 1024, 256, 64
_MODEL = ModelConfig(
    stems=("vocals", "rest"), frame_length=_FRAME, hop_length=_HOP, patch_samples=_PATCH
)
_CONFIG = Config(model=_MODEL, sources={"rest": ("drums", "bass")})


_FINGERPRINT = "ddc48d1773f84cff"  # of the fixture's tracks, all files with the same time


def _write(data_dir, name, frames, **levels):
    """A track of stereo noise; a level of 0 is silence."""
    rng = np.random.default_rng([frames, *name.encode()])
    for file in ("vocals", "drums", "bass"):
        noise = levels.get(file, 0.1) * rng.standard_normal((frames, 2))
        write_wav(data_dir / "train" / name / f"{file}.wav", noise, 44_100)


def _segments(data_dir, config=_CONFIG):
    found = tracks.find_tracks(data_dir, config, "train")
    return [Segment(track, 0, track.frames) for track in found]


def _volumes(data_dir, config=_CONFIG):
    return volumes.training_volumes(_segments(data_dir, config), config, [data_dir])


@pytest.fixture
def data_dir(tmp_path):
    """Two tracks: a long loud one with a tail after its last patch, and a short quiet one."""
    _write(tmp_path, "long", 5 * _PATCH + 300, vocals=0.2)
    _write(tmp_path, "short", 2 * _PATCH, vocals=0.01, bass=0.05)
    return tmp_path


@pytest.fixture
def computed(monkeypatch):
    """Counts how often volumes are computed."""
    calls, compute = [], volumes._computed

    def counted(*args):
        calls.append(args)
        return compute(*args)

    monkeypatch.setattr(volumes, "_computed", counted)
    return calls


def _norms(waveform, starts):
    """Returns the 2-norm of the magnitudes of each patch of a mono waveform, by librosa."""
    return [
        np.linalg.norm(
            np.abs(
                librosa.stft(
                    waveform[start : start + _PATCH],
                    n_fft=_FRAME,
                    hop_length=_HOP,
                    pad_mode="reflect",
                )
            )
        )
        for start in starts
    ]


def test_volume_is_the_mean_over_all_patches_of_the_norm_of_the_magnitudes(data_dir):
    norms = []
    for track, patches in (("long", 5), ("short", 2)):
        files = {
            name: read_wav(data_dir / "train" / track / f"{name}.wav").mean(axis=1)
            for name in ("vocals", "drums", "bass")
        }
        starts = range(0, patches * _PATCH, _PATCH)
        stems = (files["vocals"], files["drums"] + files["bass"])
        norms += zip(*(_norms(stem, starts) for stem in stems), strict=True)
    np.testing.assert_allclose(_volumes(data_dir), np.mean(norms, axis=0), rtol=1e-5)


def test_only_the_segment_counts(data_dir):
    track = _segments(data_dir)[0].track
    part = [Segment(track, _PATCH + 7, 2 * _PATCH)]
    vocals = read_wav(track.files["vocals"]).mean(axis=1)
    expected = np.mean(_norms(vocals, [_PATCH + 7, 2 * _PATCH + 7]))
    found = volumes.training_volumes(part, _CONFIG, [data_dir])[0]
    assert found == pytest.approx(expected, rel=1e-5)


def test_without_downmix_both_channels_count_whatever_the_seed(tmp_path, computed):
    """Training draws one channel of each crop, by the seed."""
    noise = np.random.default_rng(0).standard_normal((2 * _PATCH, 2)) * (0.2, 0.02)
    for file in ("vocals", "drums", "bass"):
        write_wav(tmp_path / "train" / "one" / f"{file}.wav", noise, 44_100)
    config = dataclasses.replace(_CONFIG, downmix=False)
    first = _volumes(tmp_path, config)
    waveforms = read_wav(tmp_path / "train" / "one" / "vocals.wav").T
    norms = [_norms(waveform, (0, _PATCH)) for waveform in waveforms]
    np.testing.assert_allclose(first, np.mean(norms) * np.array([1, 2]), rtol=1e-5)
    for seed in (1, 2):
        found = _volumes(tmp_path, dataclasses.replace(config, seed=seed))
        np.testing.assert_array_equal(found, first)
    assert len(computed) == 1


def test_second_call_reads_the_cache(data_dir, computed):
    first = _volumes(data_dir)
    (path,) = data_dir.glob("volumes.*.json")
    found = json.loads(path.read_text())
    assert re.fullmatch("[0-9a-f]{64}", found["fingerprint"])
    assert path.name == f"volumes.{found['fingerprint'][:16]}.json"
    assert (found["stems"], found["tracks"]) == (["vocals", "rest"], ["long", "short"])
    assert found["patches"] == [5, 2]

    # Fields that do not affect volumes change nothing.
    other = dataclasses.replace(_CONFIG, epochs=1, learning_rate=0.1, batch_size=1)
    for config in (_CONFIG, other):
        np.testing.assert_array_equal(_volumes(data_dir, config), first)
    assert len(computed) == 1
    assert [entry.name for entry in data_dir.iterdir() if entry.is_file()] == [path.name]


def test_files_of_earlier_versions_are_read_again(data_dir):
    """The fingerprint, and so the file's name, is that of the first version."""
    for path in data_dir.glob("*/*/*.wav"):
        os.utime(path, ns=(0, 10**18))
    (data_dir / f"volumes.{_FINGERPRINT}.json").write_text(
        json.dumps({"volumes": [[2, 1], [9, 8]], "patches": [5, 2]})
    )
    np.testing.assert_allclose(_volumes(data_dir), [4, 3])


def test_a_damaged_cache_is_made_again(data_dir, monkeypatch, caplog):
    computed, values = [], np.array([[2.0, 1.0], [9.0, 8.0]])
    found = [
        volumes._Volumes(row, np.tile(row, (n, 1))) for row, n in zip(values, (5, 2), strict=True)
    ]
    monkeypatch.setattr(volumes, "_computed", lambda *_: computed.append(1) or found)
    _volumes(data_dir)
    (path,) = data_dir.glob("volumes.*.json")
    whole = path.read_text()
    bad = '[["a", 1], [9, 8]]', "[[1], [2, 3]]", "[[1, 2]]", "[[1, 2], [3, NaN]]"
    damages = ["", whole[:-9], "null", "{}", *(f'{{"volumes": {text}}}' for text in bad)]
    damages += [whole.replace("9.0, 8.0", change) for change in ("9.0, null", "9.0", "9.0, []")]
    for damage in damages:
        path.write_text(damage)
        for _ in range(2):
            np.testing.assert_allclose(_volumes(data_dir), [4, 3])
        assert path.read_text() == whole
    assert len(computed) == 1 + len(damages)
    assert caplog.text.count(f"{path}: found a damaged file, expected volumes; computing") == len(
        damages
    )


def test_a_file_that_was_cut_short_since_it_was_checked_gives_one_line(data_dir):
    segments = _segments(data_dir)
    path = data_dir / "train" / "long" / "drums.wav"
    os.truncate(path, 2_000)
    with pytest.raises(AudioError, match=f"^{path}: found 489 samples, expected 5420 as before"):
        volumes.training_volumes(segments, _CONFIG, [data_dir])


def test_another_config_is_computed_again(data_dir, computed):
    before = _volumes(data_dir)
    for number, changes in enumerate(
        (
            {"model": dataclasses.replace(_MODEL, hop_length=32)},
            {"model": dataclasses.replace(_MODEL, patch_samples=2 * _PATCH)},
            {"model": dataclasses.replace(_MODEL, stems=("rest", "vocals"))},
            {"sources": {"rest": ("drums",)}},
            {"downmix": False},
        ),
        start=2,
    ):
        after = _volumes(data_dir, dataclasses.replace(_CONFIG, **changes))
        assert len(computed) == number, changes
        assert not np.allclose(before, after, rtol=1e-3), changes


def test_changed_file_is_computed_again(data_dir, computed):
    before = _volumes(data_dir)
    path = data_dir / "train" / "long" / "vocals.wav"
    write_wav(path, 2 * read_wav(path), 44_100)
    after = _volumes(data_dir)
    assert len(computed) == 2
    assert after[0] > 1.5 * before[0]
    assert after[1] == before[1]
    # A newer time could mean other samples.
    os.utime(path, ns=(0, 0))
    _volumes(data_dir)
    assert len(computed) == 3


def test_folder_that_cannot_be_written_only_costs_the_cache(data_dir, computed, caplog):
    cache_dir = data_dir / "a file"
    cache_dir.write_text("in the way")
    expected = _volumes(data_dir)
    for _ in range(2):
        found = volumes.training_volumes(_segments(data_dir), _CONFIG, [cache_dir])
        np.testing.assert_array_equal(found, expected)
    assert len(computed) == 3
    assert caplog.text.count("volumes are not kept beside the data") == 2
    assert "damaged" not in caplog.text


def test_stem_that_is_silent_in_one_track_gives_a_warning(data_dir, caplog):
    _write(data_dir, "short", 2 * _PATCH, vocals=0)
    for _ in range(2):  # also from the cache
        caplog.clear()
        assert _volumes(data_dir)[0] > 0
        warnings = [record.getMessage() for record in caplog.records]
        assert warnings == [
            "short: stem 'vocals' is silent throughout, expected sound in it; training continues"
        ]


def test_stem_that_is_silent_in_all_tracks_is_refused(data_dir):
    for name, frames in (("long", 5 * _PATCH + 300), ("short", 2 * _PATCH)):
        _write(data_dir, name, frames, drums=0, bass=0)
    for _ in range(2):
        with pytest.raises(AudioError) as caught:
            _volumes(data_dir)
        assert str(caught.value) == (
            "stem 'rest': found only silence in 2 training tracks, expected sound in at least one"
        )


def test_partial_tracks_count_where_they_have_the_stem_and_directories_keep_their_own(
    tmp_path, computed
):
    first, second = tmp_path / "first", tmp_path / "second"
    _write(first, "song", 3 * _PATCH)
    _write(second, "choir", 2 * _PATCH, vocals=0.3)
    for file in ("drums", "bass"):
        (second / "train" / "choir" / f"{file}.wav").unlink()
    config = dataclasses.replace(_CONFIG, augment=AugmentConfig(mix_tracks=1.0))
    [song], [choir] = (
        tracks.load_tracks(folder, [("train", name)], config, 1, partial=True)
        for folder, name in ((first, "song"), (second, "choir"))
    )
    segments = [Segment(song, 0, 3 * _PATCH), Segment(choir, 0, 2 * _PATCH, 1)]
    vocals = [
        norm
        for segment in segments
        for norm in _norms(
            read_wav(segment.track.files["vocals"]).mean(axis=1),
            range(0, segment.frames, _PATCH),
        )
    ]
    rest = _norms(
        sum(read_wav(song.files[file]).mean(axis=1) for file in ("drums", "bass")),
        range(0, 3 * _PATCH, _PATCH),
    )
    for _ in range(2):
        found = volumes.training_volumes(segments, config, [first, second])
        np.testing.assert_allclose(found, [np.mean(vocals), np.mean(rest)], rtol=1e-5)
    assert len(computed) == 2  # each directory's part once
    for folder, name in ((first, "song"), (second, "choir")):
        (path,) = folder.glob("volumes.*.json")
        assert json.loads(path.read_text())["tracks"] == [name]
    volumes.training_volumes(segments[:1], config, [first])  # as another run has kept it
    assert len(computed) == 2


def test_patches_40_db_below_the_mean_are_silent(tmp_path, computed):
    """Of equal patches with one at level x, the mean is (4 + x) / 5."""
    config = dataclasses.replace(_CONFIG, augment=AugmentConfig(mix_tracks=1.0, silent_share=0.1))
    noise = np.tile(np.random.default_rng(0).standard_normal((_PATCH, 2)), (5, 1)) / 8
    levels = {"vocals": 10 ** (-42.2 / 20), "drums": 10 ** (-41.7 / 20), "bass": 0}
    for file, level in levels.items():
        loud = noise * (file != "bass")
        loud[2 * _PATCH : 3 * _PATCH] *= level
        write_wav(tmp_path / "train" / "one" / f"{file}.wav", loud, 44_100, "float32")
    segments = _segments(tmp_path, config)
    assert volumes.with_silence(segments, _CONFIG, [tmp_path]) == segments
    assert not computed  # there is no need
    for _ in range(2):
        [found] = volumes.with_silence(segments, config, [tmp_path])
        assert found == dataclasses.replace(segments[0], silent=(frozenset({2}), frozenset()))
    assert len(computed) == 1
    # A file of an earlier version has no volumes of patches.
    (path,) = tmp_path.glob("volumes.*.json")
    path.write_text(json.dumps({"volumes": json.loads(path.read_text())["volumes"]}))
    volumes.training_volumes(segments, config, [tmp_path])
    assert len(computed) == 1
    assert volumes.with_silence(segments, config, [tmp_path]) == [found]
    assert len(computed) == 2
    assert "patch_volumes" in json.loads(path.read_text())
