"""The streams, on stems whose samples show where they come from."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from data_pipeline import (
    augment,
    dataset,
    loader,
    places,
    readers,
    splits,
    tfio_reader,
    tracks,
    volumes,
)
from data_pipeline.audio_writer import write_wav
from data_pipeline.cuts import BLOCK, cuts_of
from data_pipeline.tracks import Segment
from sccunet.config import AugmentConfig, Config, ModelConfig

_PATCH = 1024
_MODEL = ModelConfig(
    stems=("vocals", "rest"), frame_length=256, hop_length=64, patch_samples=_PATCH
)
_CONFIG = Config(model=_MODEL, sources={"rest": ("drums", "bass")}, batch_size=2)
_LENGTHS = {"a": 5 * _PATCH + 100, "b": 3 * _PATCH, "c": _PATCH}
# Amplitude of each file: a stem's sample is its track's ramp times this.
_LEVELS = {"vocals": 0.5, "drums": 0.25, "bass": 0.125}


@pytest.fixture(scope="module")
def segments(tmp_path_factory):
    """Track t's sample n is (t + 1) / 4 * n / 8192 times the file's level; right is -left / 2."""
    root = tmp_path_factory.mktemp("data")
    for t, (name, frames) in enumerate(_LENGTHS.items()):
        ramp = (t + 1) / 4 * np.arange(frames) / 8192
        for file, level in _LEVELS.items():
            stereo = np.stack([level * ramp, -0.5 * level * ramp], axis=1)
            write_wav(root / "train" / name / f"{file}.wav", stereo, 44_100, "float32")
    found = tracks.find_tracks(root, _CONFIG, "train")
    return [Segment(track, 0, track.frames) for track in found]


def _with(**changes):
    return dataclasses.replace(_CONFIG, **changes)


def _take(segments, config, batches, **kwargs):
    """Returns the crops of batches: [crops, stems, samples], or with `stereo` as they come."""
    stream = dataset.training_dataset(segments, config, **kwargs).take(batches)
    crops = np.concatenate([batch.numpy() for batch in stream])
    return crops if kwargs.get("stereo") else crops.squeeze(axis=2)


def _origin(crop, level=0.5, downmixed=True):
    """Returns track and start of a stem's crop, from its values."""
    values = (crop / level / (0.25 if downmixed else 1.0)).astype(np.float64)
    slope = np.diff(values).mean()  # the mean of 1 and -1/2 is 1/4
    return round(slope * 8192 * 4) - 1, round(values[0] / slope)


def test_crops_are_what_the_files_hold(segments):
    crops = _take(segments, _CONFIG, 6)
    assert crops.shape == (12, 2, _PATCH)
    for vocals, rest in crops:
        track, start = _origin(vocals)
        assert 0 <= start <= list(_LENGTHS.values())[track] - _PATCH
        ramp = 0.25 * (track + 1) / 4 * (start + np.arange(_PATCH)) / 8192
        np.testing.assert_allclose(vocals, 0.5 * ramp, atol=1e-6)
        np.testing.assert_allclose(rest, 0.375 * ramp, atol=1e-6)  # drums + bass


def test_a_pass_draws_every_track_by_its_length(segments):
    slots = 5 + 3 + 1
    crops = _take(segments, _with(batch_size=slots), 3).reshape(3, slots, 2, _PATCH)
    for one_pass in crops:
        origins = [_origin(vocals)[0] for vocals, _ in one_pass]
        assert sorted(origins) == [0] * 5 + [1] * 3 + [2]
    orders = [[_origin(vocals)[0] for vocals, _ in one_pass] for one_pass in crops]
    assert orders[0] != orders[1] or orders[1] != orders[2]


def test_fixed_cuts_are_each_used_once_in_a_new_order(segments):
    config = _with(random_crops=False, batch_size=9)
    first, second = (
        [_origin(v) for v, _ in _take(segments, config, 1, first_step=s)] for s in (0, 1)
    )
    cuts = [(t, n * _PATCH) for t, count in enumerate((5, 3, 1)) for n in range(count)]
    assert sorted(first) == sorted(second) == cuts
    assert first != second


def test_the_same_seed_gives_the_same_crops_and_another_seed_others(segments):
    np.testing.assert_array_equal(_take(segments, _CONFIG, 4), _take(segments, _CONFIG, 4))
    assert not np.array_equal(_take(segments, _CONFIG, 4), _take(segments, _with(seed=1), 4))


def test_a_stream_continues_where_it_stopped(segments):
    everything = AugmentConfig(
        gain_db=6.0,
        channel_swap=True,
        mix_tracks=0.5,
        speed=0.1,
        tilt_db=2.0,
        stem_dropout=(0.2, 0.2),
        duet=0.5,
    )
    config, long = _with(downmix=False, augment=everything), segments[:2]
    straight = _take(long, config, 7)
    np.testing.assert_array_equal(straight[6:], _take(long, config, 4, first_step=3))


@pytest.mark.skipif(not tfio_reader.available(), reason="tensorflow-io does not load here")
@pytest.mark.parametrize("stereo", [False, True])
@pytest.mark.parametrize("downmix", [False, True])
def test_both_readers_give_the_same_stream(segments, downmix, stereo):
    augmented = AugmentConfig(gain_db=6.0, channel_swap=not downmix, mix_tracks=0.5)
    config = _with(downmix=downmix, augment=augmented)
    ours = _take(segments, config, 3, stereo=stereo)
    theirs = _take(segments, config, 3, stereo=stereo, reader=readers.reader_named("tfio"))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-7)


@pytest.mark.parametrize("stereo", [False, True])
def test_waveforms_are_augmented_after_reading(segments, monkeypatch, stereo):
    """Only in training; each crop by its number in the run, whichever worker reads it."""
    plain = _take(segments, _CONFIG, 4, stereo=stereo)
    first = places.fixed_crops(segments, _CONFIG)[:1]
    fixed = [next(iter(dataset.fixed_dataset(segments, _CONFIG, first, 1))).numpy()]

    def numbered(crops, numbers, config):
        assert config == _CONFIG
        return crops + numbers.reshape(-1, *[1] * (crops.ndim - 1)).astype(np.float32)

    monkeypatch.setattr(augment, "changes", lambda config: True)
    monkeypatch.setattr(augment, "waveforms", numbered)
    shift = np.arange(8).reshape(-1, *[1] * (plain.ndim - 1))
    np.testing.assert_allclose(_take(segments, _CONFIG, 4, stereo=stereo), plain + shift, 1e-6)
    second = _take(segments, _CONFIG, 4, stereo=stereo, context=_context(2, 1, 2))
    np.testing.assert_allclose(second, (plain + shift)[1::2], 1e-6)
    fixed.append(next(iter(dataset.fixed_dataset(segments, _CONFIG, first, 1))).numpy())
    np.testing.assert_array_equal(*fixed)


# Sums of the stems of four crops, drawn by the first version: seeds, order and draws stay.
_DRAWN = {
    (): [-26.5586, -19.9189, 51.0859, 38.3145, -6.14453, -4.6084, -11.9883, -8.99121],
    (("gain_db", 6.0), ("channel_swap", True)): [
        *(28.9966, 62.9938, 59.9355, -35.7204, -3.47521, 16.9992, 41.8533, -10.7774),
    ],
    (("mix_tracks", 0.5),): [
        *(-26.5586, -19.9189, 23.9766, 39.252, -6.14453, -4.6084, -33.2383, -10.5029),
    ],
}


@pytest.mark.parametrize("changes", _DRAWN)
def test_draws_stay_those_of_the_first_version(segments, changes):
    augmented = AugmentConfig(**dict(changes))
    config = _with(downmix=False, augment=augmented)
    sums = _take(segments, config, 2).sum(axis=-1).ravel()
    np.testing.assert_allclose(sums, _DRAWN[changes], rtol=1e-4)


def test_segments_bound_the_crops(segments):
    part = [Segment(segments[0].track, 2 * _PATCH, 2 * _PATCH)]
    starts = [_origin(vocals)[1] for vocals, _ in _take(part, _CONFIG, 20)]
    assert min(starts) >= 2 * _PATCH
    assert max(starts) <= 3 * _PATCH
    assert max(starts) - min(starts) > _PATCH // 2


def test_gain_stays_within_its_range_and_is_each_stems_own(segments):
    plain = _take(segments, _CONFIG, 30)
    louder = _take(segments, _with(augment=AugmentConfig(gain_db=6.0)), 30)
    gains = 20 * np.log10((louder / np.where(plain == 0, np.nan, plain))[..., -1])
    assert np.abs(gains).max() <= 6.001
    assert gains.std(axis=0).min() > 2  # uniform over 12 dB: 3.5
    assert abs(np.corrcoef(gains.T)[0, 1]) < 0.5


def test_dropped_stems_are_silent_and_others_as_before(segments):
    config = _with(batch_size=40)
    plain = _take(segments, config, 1)
    dropped = dataclasses.replace(config, augment=AugmentConfig(stem_dropout=(0.5, 0.8)))
    crops = _take(segments, dropped, 1)
    sound = crops.any(axis=-1)  # [crops, stems]
    np.testing.assert_array_equal(crops, np.where(sound[..., None], plain, 0))
    assert sound.any(axis=1).all()
    assert not sound.all(axis=0).any()


def _played(segments, config):
    """Checks that a batch's crops are ramps from where they begin.

    Returns:
      Speeds [crops, stems], and the crops' tracks and first samples.
    """
    cuts, speeds, places = cuts_of(config), [], []
    waveforms, origins = loader.training_batch(segments, config, 0)
    for crop, (vocals, *others) in zip(waveforms[:, :, 0], origins, strict=True):
        for stem, level, (path, start) in zip(crop, (0.5, 0.375), (vocals, others[0]), strict=True):
            track = "abc".index(Path(path).parent.name)
            first = start - cuts.margin - segments[track].start
            assert 0 <= first <= segments[track].frames - cuts.samples
            ramp = level * 0.25 * (track + 1) / 4 / 8192  # a stem's step per sample
            speed = (stem[-1] - stem[0]) / ramp / (_PATCH - 1)
            np.testing.assert_allclose(stem, ramp * (start + speed * np.arange(_PATCH)), atol=2e-7)
            assert np.abs(speed * BLOCK - np.array(cuts.steps)).min() < 0.01
            speeds.append(speed)
        places.append((Path(vocals[0]).parent.name, vocals[1]))
    return np.array(speeds).reshape(-1, 2), places


@pytest.mark.parametrize("mixed", [0.0, 1.0])
def test_speed(segments, mixed):
    """Stems that belong together are played alike; mixed ones each on its own."""
    long = [Segment(segments[0].track, 2_000, 2_600), segments[1]]
    augmented = AugmentConfig(speed=0.25, mix_tracks=mixed)
    speeds, _ = _played(long, _with(batch_size=20, augment=augmented))
    assert np.abs(np.log(speeds)).max() < np.log(1.25) + 1e-3
    alike = np.abs(speeds[:, 0] - speeds[:, 1]) < 1e-3
    assert alike.mean() < 0.2 if mixed else alike.all()


def test_consecutive_crops_at_other_speeds_stay_in_their_segments(segments):
    config = _with(random_crops=False, batch_size=8, augment=AugmentConfig(speed=0.25))
    _, places = _played(segments[:2], config)
    cuts = cuts_of(config)
    last = {name: _LENGTHS[name] - cuts.samples + cuts.margin for name in "ab"}
    assert sorted(places) == [
        (name, min(max(slot * _PATCH, cuts.margin), last[name]))
        for name, slots in (("a", 5), ("b", 3))
        for slot in range(slots)
    ]


def test_mixed_stems_come_from_different_tracks(segments):
    def same(config):
        origins = [
            (_origin(vocals)[0], _origin(rest, level=0.375)[0])
            for vocals, rest in _take(segments, config, 30)
        ]
        return np.mean([a == b for a, b in origins])

    assert same(_CONFIG) == 1
    # Drawn by length 5 : 3 : 1, two tracks agree with chance (25 + 9 + 1) / 81.
    assert abs(same(_with(augment=AugmentConfig(mix_tracks=1.0))) - 35 / 81) < 0.2


@pytest.mark.parametrize("stems", [("vocals", "rest"), ("rest", "vocals")])
def test_duets_add_another_place_to_the_first_stem(segments, stems):
    augmented = AugmentConfig(mix_tracks=1.0, stem_dropout=(0.3, 0.0))
    model = dataclasses.replace(_MODEL, stems=stems)
    config = _with(batch_size=40, model=model, augment=augmented)
    plain, _ = loader.training_batch(segments, config, 0)
    config = dataclasses.replace(config, augment=dataclasses.replace(augmented, duet=0.5))
    crops, origins = loader.training_batch(segments, config, 0)
    second = []
    for *_, (path, start) in origins:
        ramp = 0.25 * ("abc".index(Path(path).parent.name) + 1) / 4 / 8192
        second.append(ramp * (start + np.arange(_PATCH)))
    level = 0.5 if stems[0] == "vocals" else 0.375
    changed = (crops != plain).any(axis=(1, 2, 3))
    added = np.where(changed[:, None], level * np.array(second), 0)
    np.testing.assert_allclose(crops[:, 0, 0] - plain[:, 0, 0], added, atol=1e-6)
    np.testing.assert_array_equal(crops[:, 1], plain[:, 1])
    sounds = plain[:, 0].any(axis=(1, 2))
    assert not changed[~sounds].any()
    assert 0.25 < changed[sounds].mean() < 0.75
    for (first, start), *_, (second, other) in np.array(origins, object)[changed]:
        assert (Path(first).parent, start) != (Path(second).parent, other)


@pytest.mark.parametrize("swap", [False, True])
def test_one_channel_at_a_time(segments, swap):
    config = _with(downmix=False, augment=AugmentConfig(channel_swap=swap))
    right = _take(segments, config, 40)[..., -1] < 0  # [crops, stems]
    assert 0.3 < right.mean() < 0.7
    together = np.mean(right[:, 0] == right[:, 1])
    assert together == 1 if not swap else 0.3 < together < 0.7


@pytest.mark.parametrize("swap", [False, True])
def test_stereo_gives_both_channels_of_the_same_crops(segments, swap):
    gains = AugmentConfig(gain_db=6.0, channel_swap=swap, mix_tracks=0.5)
    config = _with(downmix=False, augment=gains)
    mono, stereo = _take(segments, config, 20), _take(segments, config, 20, stereo=True)
    assert stereo.shape == (40, 2, 2, _PATCH)
    is_left = (stereo[:, :, 0] == mono).all(axis=-1)
    is_right = (stereo[:, :, 1] == mono).all(axis=-1)
    assert (is_left | is_right).all()
    model = dataclasses.replace(_MODEL, channels=2)  # the same for a network of two channels
    of_network = next(
        iter(dataset.training_dataset(segments, dataclasses.replace(config, model=model)))
    )
    np.testing.assert_array_equal(of_network, stereo[: _CONFIG.batch_size])
    swapped = stereo[:, :, 0, -1] < 0  # right is -left / 2
    np.testing.assert_allclose(
        np.where(swapped[..., None], stereo[:, :, 1], stereo[:, :, 0]) / -2,
        np.where(swapped[..., None], stereo[:, :, 0], stereo[:, :, 1]),
        atol=1e-6,
    )
    assert 0.3 < swapped.mean() < 0.7 if swap else not swapped.any()


def test_stereo_of_other_files(tmp_path):
    """Mono is doubled, of three channels the first two are read; fixed crops are unchanged."""
    ramp = np.arange(2 * _PATCH) / 8192
    for channels in (1, 3):
        root = tmp_path / str(channels)
        for file in _LEVELS:
            several = ramp[:, None] * (1 + np.arange(channels)) / 8
            write_wav(root / "train" / "song" / f"{file}.wav", several, 44_100, "float32")
        [track] = tracks.find_tracks(root, _CONFIG, "train")
        crops = dataset.fixed_dataset(
            [Segment(track, 0, track.frames)], _CONFIG, np.array([[(0, 5)] * 2]), 1, stereo=True
        )
        [[vocals, _]] = next(iter(crops)).numpy()
        expected = np.stack([ramp, min(channels, 2) * ramp])[:, 5 : 5 + _PATCH] / 8
        np.testing.assert_allclose(vocals, expected, atol=1e-6)


def test_fixed_crops_are_consecutive_whole_and_evenly_spread(segments):
    every = places.fixed_crops(segments, _CONFIG)
    cuts = [(t, n * _PATCH) for t, count in enumerate((5, 3, 1)) for n in range(count)]
    np.testing.assert_array_equal(every, [[cut] * 2 for cut in cuts])
    np.testing.assert_array_equal(places.fixed_crops(segments, _CONFIG, most=3), every[[0, 4, 8]])
    batches = [b.numpy() for b in dataset.fixed_dataset(segments, _CONFIG, every, 4)]
    assert [len(b) for b in batches] == [4, 4, 1]
    starts = [_origin(vocals) for b in batches for vocals, _ in b[:, :, 0]]
    assert starts == cuts


def test_steps_per_epoch(segments):
    assert places.steps_per_epoch(segments, _CONFIG) == 9 // 2
    assert places.steps_per_epoch(segments, _with(steps_per_epoch=7)) == 7


def _context(workers, worker, replicas):
    return tf.distribute.InputContext(workers, worker, replicas)


@pytest.mark.parametrize(("workers", "replicas"), [(1, 2), (2, 2), (2, 4)])
def test_workers_together_get_the_crops_of_one(segments, workers, replicas):
    """No two workers get the same crop in a step."""
    config = _with(batch_size=8, augment=AugmentConfig(gain_db=3.0, mix_tracks=0.5))
    part = config.batch_size // replicas
    whole = _take(segments, config, 3, first_step=5)
    shares = []
    for worker in range(workers):
        context = _context(workers, worker, replicas)
        share = _take(
            segments, config, 3 * replicas // workers, first_step=5, context=context
        )  # [steps * a worker's crops, stems, samples]
        shares.append(share.reshape(3, 8 // workers, 2, _PATCH))
    np.testing.assert_array_equal(np.concatenate(shares, axis=1).reshape(whole.shape), whole)
    assert dataset.training_dataset(
        segments, config, context=_context(workers, 0, replicas)
    ).element_spec.shape == (part, 2, 1, _PATCH)


def test_workers_share_the_fixed_crops(segments):
    crops = places.fixed_crops(segments, _CONFIG)[:8]
    (whole,) = np.array(list(dataset.fixed_dataset(segments, _CONFIG, crops, 8)))
    shares = [
        np.concatenate(
            list(
                dataset.fixed_dataset(
                    segments, _CONFIG, crops, 4, context=_context(2, worker, 2)
                ).as_numpy_iterator()
            )
        )
        for worker in (0, 1)
    ]
    for step in (0, 1):
        ours = np.concatenate([share[2 * step : 2 * step + 2] for share in shares])
        np.testing.assert_array_equal(ours, whole[4 * step : 4 * step + 4])


def test_the_batch_of_a_step_and_its_origins(segments):
    config = _with(batch_size=3, augment=AugmentConfig(mix_tracks=1.0))
    waveforms, origins = loader.training_batch(segments, config, 4)
    np.testing.assert_array_equal(waveforms[:, :, 0], _take(segments, config, 1, first_step=4))
    for (vocals, _), files in zip(waveforms[:, :, 0], origins, strict=True):
        assert [path.name for path in (Path(p) for p, _ in files)] == [
            *("vocals.wav", "drums.wav", "bass.wav"),
        ]
        track, start = _origin(vocals)
        assert Path(files[0][0]).parent.name == "abc"[track]
        assert files[0][1] == start


def test_files_of_partial_tracks_in_two_directories(tmp_path):
    """Samples are the files' own numbers, so they show where each stem of a crop comes from."""
    config = _with(
        augment=AugmentConfig(mix_tracks=0.5, silent_share=0.2), data_weights=(1, 1), batch_size=4
    )
    songs = {  # levels of vocals, drums and bass; the sum of drums and bass is the rest
        ("a", "song"): (0.01, 0.02, 0.04),
        ("a", "choir"): (0.08, None, None),
        ("b", "band"): (None, 0.1, 0.3),
        ("b", "quiet"): (1e-5, None, None),
    }
    for (folder, name), levels in songs.items():
        for file, level in zip(_LEVELS, levels, strict=True):
            if level:
                path = tmp_path / folder / "train" / name / f"{file}.wav"
                write_wav(path, np.full((3 * _PATCH, 2), level), 44_100, "float32")
    dirs = [tmp_path / "a", tmp_path / "b"]
    training, validation, _ = splits.training_split(dirs, config)
    assert {segment.track.name for segment in validation} == {"song"}
    training = volumes.with_silence(training, config, dirs)
    crops = _take(training, config, 100)
    assert np.ptp(crops, axis=-1).max() == 0  # no crop leaves its file
    vocals, rest = np.round(crops[..., 0], 6).T
    pairs = set(zip(vocals.tolist(), rest.tolist(), strict=True))
    found = {tuple(round(float(x), 6) for x in pair) for pair in pairs}
    # The second directory's vocals are silent, so they are not drawn at all.
    assert found == {(0.01, 0.06), (0.01, 0.4), (0.08, 0.06), (0.08, 0.4)}
    np.testing.assert_array_equal(crops[40:], _take(training, config, 90, first_step=10))
    batch, origins = loader.training_batch(training, config, 12)
    np.testing.assert_array_equal(batch[:, :, 0], crops[48:52])
    for (voice, others), files in zip(batch[..., 0, 0], origins, strict=True):
        names = [Path(path).parts[-4:-1:2] for path, _ in files]
        assert songs[names[0]][0] == pytest.approx(voice)
        assert sum(songs[names[1]][1:]) == pytest.approx(others)
