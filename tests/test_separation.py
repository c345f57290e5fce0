"""Separation of whole recordings, in blocks of any size."""

import dataclasses
import functools
import math
import threading
import time

import numpy as np
import pytest
from keras import ops

from sccunet import build_model, devices, reconstruction
from sccunet.checkpoints import BEST, save_whole
from sccunet.config import Config, ConfigError, ModelConfig
from sccunet.patching import Patching
from sccunet.reconstruction import Reconstruction
from sccunet.runs import CONFIG, load_unet
from sccunet.separation import Separator

_MODEL = ModelConfig(
    stems=("a", "b"), frame_length=256, hop_length=64, patch_samples=4096, filters=(4, 8)
)
_CONFIG = Config(model=_MODEL)
_RATE = _MODEL.sample_rate
_PATCHING = Patching.of(_MODEL)


def _noise(samples, channels=1, seed=0):
    noise = np.random.default_rng(seed).uniform(-1, 1, (samples, channels))
    return noise.astype(np.float32)


@pytest.fixture(scope="module")
def identity(make_identity):
    return Separator.from_model(make_identity(build_model(_CONFIG)), _CONFIG)


@pytest.fixture(scope="module")
def unet(randomise):
    return randomise(build_model(_CONFIG))


@pytest.fixture(scope="module")
def random(unet):
    """Stems that depend on every sample of a patch."""
    return Separator.from_model(unet, _CONFIG)


@pytest.fixture(scope="module")
def masked(unet):
    """Function that returns the separator of a reconstruction; each is made once."""
    return functools.cache(lambda how: Separator.from_model(unet, _CONFIG, how))


def _around(*lengths):
    return sorted({length + d for length in lengths for d in (-1, 0, 1)})


@pytest.mark.parametrize("channels", [1, 2])
def test_identity_network_returns_the_recording(identity, channels):
    step, fade, patch = _PATCHING.step, _PATCHING.fade, _MODEL.patch_samples
    lengths = _around(1, 64, 256, step, step - fade, 2 * step - fade, patch, 3 * step, 2 * patch)
    for samples in lengths:
        recording = _noise(samples, channels, seed=samples)
        stems = identity(recording, _RATE)
        assert list(stems) == ["a", "b"]
        for stem in stems.values():
            assert stem.dtype == np.float32
            assert stem.shape == recording.shape
            np.testing.assert_allclose(stem, recording, rtol=0, atol=1e-4, err_msg=f"{samples}")


def test_real_network_with_the_papers_patch_returns_the_recording(make_identity):
    config = Config(model=ModelConfig(filters=(1, 1, 1, 1, 1)))  # padded to 1040 x 176
    separator = Separator.from_model(make_identity(build_model(config)), config)
    recording = _noise(88_201, 2)
    for stem in separator(recording, 44_100).values():
        np.testing.assert_allclose(stem, recording, rtol=0, atol=1e-4)


def test_every_length(identity):
    stems = identity(np.zeros((0, 2), np.float32), _RATE)
    assert {stem.shape for stem in stems.values()} == {(0, 2)}


@pytest.mark.parametrize("seed", range(3))
def test_blocks_of_any_sizes_give_the_same(random, seed):
    rng = np.random.default_rng(seed)
    recording = _noise(30_011, 2)
    whole = random(recording, _RATE)
    largest = (50, 3000, 20_000)[seed]
    cuts = np.cumsum(rng.integers(0, largest, 2 * len(recording) // largest))  # some are empty
    blocks = np.split(recording, cuts[cuts < len(recording)])
    assert len(blocks) > 1
    parts = list(random.stream(iter(blocks), _RATE))
    for stem, truth in whole.items():
        assert truth.std() > 0.01
        joined = np.concatenate([part[stem] for part in parts])
        assert joined.shape == truth.shape
        np.testing.assert_allclose(joined, truth, rtol=0, atol=1e-6)


def test_stems_come_as_soon_as_possible(identity):
    """One patch's worth of stems per step: memory does not depend on the length."""
    fed = 0

    def blocks():
        nonlocal fed
        for _ in range(200):
            fed += 500
            yield _noise(500)

    given = 0
    for part in identity.stream(blocks(), _RATE):
        given += len(part["a"])
        assert len(part["a"]) <= _PATCHING.step
        if fed < 200 * 500:
            assert fed - given <= _MODEL.patch_samples + 500
    assert given == 200 * 500


def test_progress(identity):
    for rate, samples in ((_RATE, 20_000), (48_000, 5000), (_RATE, 1), (48_000, 0)):
        calls = []
        identity(_noise(samples), rate, progress=lambda *call, calls=calls: calls.append(call))
        assert calls == sorted(calls)
        assert {total for _, total in calls} <= {samples}
        assert not samples or calls[-1][0] == samples
        assert len(calls) >= samples // _MODEL.patch_samples


def test_patches_that_are_separated_at_the_same_time():
    three = threading.Barrier(3)

    def halves(patches):
        three.wait(60)  # until three patches are here
        time.sleep(0.01 * np.random.default_rng().random())  # they end in another order
        return np.stack([patches / 2, patches / 4], axis=1)

    recording = _noise(11 * _PATCHING.step + 5)
    assert _PATCHING.count(len(recording)) == 12
    stems = Separator(halves, _CONFIG, parallel=3)(recording, _RATE)
    np.testing.assert_allclose(stems["a"], recording / 2, rtol=0, atol=1e-6)
    np.testing.assert_allclose(stems["b"], recording / 4, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("channels", "expected"), [(2, [4, 4, 4, 2]), (7, [7] * 7)])
def test_a_call_has_the_patches_of_several_places(channels, expected):
    calls = []

    def halves(patches):
        calls.append(len(patches))
        return np.stack([patches / 2, patches / 4], axis=1)

    recording = _noise(6 * _PATCHING.step + 5, channels)
    blocks = np.split(recording, range(3000, len(recording), 3000))
    parts = list(Separator(halves, _CONFIG, batch_size=5).stream(blocks, _RATE))
    assert calls == expected
    for stem, gain in (("a", 0.5), ("b", 0.25)):
        found = np.concatenate([part[stem] for part in parts])
        np.testing.assert_allclose(found, gain * recording, rtol=0, atol=1e-6)
    calls.clear()
    patches = _noise(7 * 10, 1).reshape(7, 1, 10)
    found = reconstruction._in_batches(halves, 5)(patches)
    assert calls == [5, 2]
    np.testing.assert_array_equal(found[:, 1], patches / 4)


@pytest.mark.parametrize("mask", ["none", "wiener"])
def test_batches_give_the_stems_of_single_patches(masked, unet, mask, monkeypatch):
    how, step = Reconstruction(mask), _PATCHING.step
    single = masked(how)
    monkeypatch.setattr(devices, "on_gpu", lambda: True)  # and so two calls at a time
    batches = Separator.from_model(unet, _CONFIG, how, batch_size=5)
    assert (single._parallel, batches._parallel) == (1, 2)
    shapes = [(2 * step + 5, 2), (1, 1), (100, 3), (6 * step + 5, 2), (step, 7)]
    for samples, channels in shapes[: 5 if mask == "none" else 1]:
        recording = _noise(samples, channels)
        found = batches(recording, _RATE)
        for stem, truth in single(recording, _RATE).items():
            assert found[stem].shape == recording.shape
            np.testing.assert_allclose(found[stem], truth, rtol=0, atol=1e-6)


@pytest.mark.parametrize("parallel", [1, 3])
def test_an_error_in_one_patch_ends_the_separation(parallel):
    calls = []

    def fails(patches):
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("no memory")
        return np.stack([patches] * 2, axis=1)

    with pytest.raises(RuntimeError, match="no memory"):
        Separator(fails, _CONFIG, parallel)(_noise(50 * _PATCHING.step), _RATE)
    assert len(calls) < 15  # the rest is not separated


def test_both_parts_of_a_recording_cut_on_the_patch_grid_are_separated_alike(random):
    """Only more than a patch from the cut: nearer, patches see zeros for the other part."""
    step, patch = _PATCHING.step, _MODEL.patch_samples
    recording, cut = _noise(8 * step + 100), 4 * step
    whole, early, late = (
        random(part, _RATE) for part in (recording, recording[:cut], recording[cut:])
    )
    for stem in _MODEL.stems:
        joined = np.concatenate([early[stem], late[stem]])
        error = np.abs(joined - whole[stem])
        assert max(error[: cut - patch].max(), error[cut + patch :].max()) < 1e-6
        assert error[cut - patch : cut + patch].max() > 1e-3


def test_each_channel_is_separated_on_its_own(random):
    recording = _noise(5000, 3)
    together = random(recording, _RATE)
    for c in range(3):
        alone = random(recording[:, c : c + 1], _RATE)
        for stem in _MODEL.stems:
            np.testing.assert_allclose(together[stem][:, c : c + 1], alone[stem], atol=1e-5)


def test_stems_are_not_mistaken_for_one_another():
    def halves(patches):  # stem a is half of the mixture, b a quarter
        return np.stack([patches / 2, patches / 4], axis=1)

    recording = _noise(9000, 2)
    for rate in (_RATE, 2 * _RATE):
        stems = Separator(halves, _CONFIG)(recording, rate)
        assert np.std(stems["a"]) == pytest.approx(2 * np.std(stems["b"]), rel=1e-5)
        for c in range(2):
            assert np.corrcoef(stems["a"][:, c], recording[:, c])[0, 1] > (
                0.99 if rate == _RATE else 0.6
            )


@pytest.mark.parametrize("rate", [8000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000])
def test_other_sample_rates_keep_length_and_tone(identity, rate):
    for samples in (1, rate // 10 + 1, rate // 3 + 7):
        time = np.arange(samples) / rate
        tone = np.stack([np.sin(2 * np.pi * f * time) for f in (440, 1000)], axis=1)
        stems = identity(tone.astype(np.float32), rate)
        for stem in stems.values():
            assert stem.shape == tone.shape
            assert stem.dtype == np.float32
            if samples > 1:
                for c in range(2):
                    assert np.corrcoef(stem[:, c], tone[:, c])[0, 1] > 0.999
                # Same level and place, away from the ends.
                inner = slice(samples // 4, -samples // 4)
                np.testing.assert_allclose(stem[inner], tone[inner], rtol=0, atol=2e-3)


@pytest.mark.parametrize("rate", [48_000, 96_000, 192_000])
def test_resampling_keeps_every_length(rate):
    """Resampled there and back, some of these are up to 2 samples longer, others shorter."""
    separator = Separator(lambda patches: np.stack([patches, patches], axis=1), _CONFIG)
    for samples in range(1, 50):
        stems = separator(_noise(samples, 2), rate)
        assert {stem.shape for stem in stems.values()} == {(samples, 2)}


def test_blocks_at_another_sample_rate_give_the_same(identity):
    recording = _noise(20_000, 2)
    whole = identity(recording, 48_000)
    parts = list(identity.stream(np.split(recording, [1, 300, 7000, 7001]), 48_000))
    for stem, truth in whole.items():
        joined = np.concatenate([part[stem] for part in parts])
        np.testing.assert_allclose(joined, truth, rtol=0, atol=1e-4)


@pytest.mark.parametrize("rate", [_RATE, 22_050])
def test_no_blocks_give_no_samples(identity, rate):
    blocks = identity.stream([], rate)
    assert sum(len(block[_MODEL.stems[0]]) for block in blocks) == 0


def test_a_fading_tail_does_not_explode(random):
    # 900 dB of decay passes through every level at which squares leave float32's range.
    samples = 6 * _PATCHING.step
    tail = _noise(samples, 1) * 10 ** (-45 * np.arange(samples) / samples)[:, None]
    stems = random(tail.astype(np.float32), _RATE)
    for stem in stems.values():
        assert np.abs(stem).max() < 10 * max(1.0, np.abs(stem[: _PATCHING.step]).max())
        assert np.abs(stem[-_PATCHING.step :]).max() < 1e-6


_MASKS = [
    Reconstruction("soft", exponent=1.0),
    Reconstruction("soft", exponent=2.0),
    Reconstruction("wiener", iterations=1),
    Reconstruction("wiener", iterations=3),
]


@pytest.mark.parametrize("reconstruction", _MASKS, ids=str)
@pytest.mark.parametrize("kind", ["mono", "stereo", "same", "silent", "five"])
def test_masked_stems_sum_to_the_mixture(masked, reconstruction, kind):
    recording = _noise(2 * _PATCHING.step + 5, {"mono": 1, "five": 5}.get(kind, 2))
    if kind == "same":  # one channel is the other: the spatial covariances are singular
        recording[:, 1] = recording[:, 0]
    if kind == "silent":
        recording[1000:6000] = 0
        recording[:, 1] = 0
    stems = masked(reconstruction)(recording, _RATE)
    assert all(stem.dtype == np.float32 for stem in stems.values())
    assert min(stem.std() for stem in stems.values()) > 0.01
    if reconstruction.mask == "soft":
        np.testing.assert_allclose(sum(stems.values()), recording, rtol=0, atol=1e-4)
    else:  # norbert drops bins that are 0 in every stem
        assert (sum(stems.values()) - recording).std() < 0.01 * recording.std()


@pytest.mark.parametrize("iterations", [1, 2])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_wiener_equals_norbert(masked, unet, iterations, channels):
    """Computed in another way: librosa's transforms in double precision, plain overlap-add."""
    librosa, norbert = pytest.importorskip("librosa"), pytest.importorskip("norbert")
    recording = _noise(6000, channels)
    found = masked(Reconstruction("wiener", iterations=iterations))(recording, _RATE)

    count = -(-(len(recording) + _PATCHING.fade) // _PATCHING.step)
    behind = _MODEL.patch_samples * count
    padded = np.pad(recording.T.astype(np.float64), ((0, 0), (_PATCHING.lead, behind)))
    total = np.zeros((2, channels, padded.shape[1] + _MODEL.patch_samples))
    for i in range(count):
        start = i * _PATCHING.step
        patch = padded[:, start : start + _MODEL.patch_samples]
        mixture = np.stack(
            [librosa.stft(row, n_fft=256, hop_length=64, pad_mode="reflect") for row in patch]
        )  # [channels, bins, frames]
        magnitudes = np.abs(mixture)[..., None].astype(np.float32)
        estimates = ops.convert_to_numpy(unet(magnitudes, training=False)).astype(np.float64)
        stems = norbert.wiener(
            estimates.transpose(2, 1, 0, 3),  # [frames, bins, channels, stems]
            mixture.transpose(2, 1, 0).copy(),
            iterations,
            use_softmask=False,
        )
        keep = slice(_PATCHING.margin, _PATCHING.margin + _PATCHING.keep)
        for stem in range(2):
            for c in range(channels):
                wave = librosa.istft(stems[:, :, c, stem].T, hop_length=64, length=len(patch[c]))
                total[stem, c, start : start + _PATCHING.keep] += wave[keep] * _PATCHING.window
    for stem, name in enumerate(_MODEL.stems):
        truth = total[stem, :, _PATCHING.fade :][:, : len(recording)].T
        assert np.abs(truth).max() > 0.1
        np.testing.assert_allclose(found[name], truth, rtol=0, atol=1e-3)


@pytest.mark.parametrize("reconstruction", _MASKS[1:3], ids=str)
def test_masks_do_not_depend_on_the_blocks(masked, reconstruction):
    recording = _noise(12_000, 2)
    separator = masked(reconstruction)
    whole = separator(recording, _RATE)
    parts = list(separator.stream(np.split(recording, [1, 4000, 4001]), _RATE))
    for stem, truth in whole.items():
        joined = np.concatenate([part[stem] for part in parts])
        np.testing.assert_allclose(joined, truth, rtol=0, atol=1e-6)


def test_no_seam_at_any_block_or_patch_boundary(identity):
    """An error only at a boundary would show in the samples around it."""
    samples = 5 * _PATCHING.step + 17
    recording = _noise(samples, 2)
    blocks = np.split(recording, range(777, samples, 777))
    parts = list(identity.stream(blocks, _RATE))
    for stem in _MODEL.stems:
        error = np.abs(np.concatenate([part[stem] for part in parts]) - recording)
        for boundary in [0, *range(0, samples, _PATCHING.step), *range(0, samples, 777), samples]:
            assert error[max(boundary - 2, 0) : boundary + 2].max(initial=0) < 1e-4
        assert error.max() < 1e-4


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mask": "hard"}, "mask: found 'hard', expected one of none, soft, wiener"),
        ({"exponent": 0.0}, "exponent: found 0.0, expected a number over 0"),
        ({"iterations": 0}, "iterations: found 0, expected a whole number, 1 or more"),
    ],
)
def test_invalid_reconstructions(fields, message):
    with pytest.raises(ConfigError) as caught:
        Reconstruction(**fields)
    assert str(caught.value) == message


def _workdir(path, unet):
    (path / CONFIG).write_text(_CONFIG.to_json())
    save_whole(unet, path / BEST)
    return path


def test_workdir_separates_as_the_model_in_memory(tmp_path, unet, random):
    recording = _noise(7000, 2)
    truth = random(recording, _RATE)
    loaded = Separator.load(_workdir(tmp_path, unet))
    assert loaded.config == _CONFIG
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([CONFIG, BEST])
    for stem, found in loaded(recording, _RATE).items():
        np.testing.assert_allclose(found, truth[stem], rtol=0, atol=1e-6)


def test_bfloat16_separates_almost_the_same(tmp_path, unet, random):
    recording = _noise(3 * _MODEL.patch_samples, 2)
    truth = random(recording, _RATE)
    found = Separator.load(_workdir(tmp_path, unet), precision="mixed_bfloat16")(recording, _RATE)
    for stem, samples in found.items():
        error = np.linalg.norm(samples - truth[stem]) / np.linalg.norm(truth[stem])
        assert 1e-5 < error < 0.02  # bfloat16 has 8 bits


def test_workdir_with_exports_in_it_is_a_workdir(tmp_path, unet, random):
    workdir = _workdir(tmp_path, unet)
    (workdir / "1").mkdir()
    (workdir / "1" / "saved_model.pb").write_text("not to be loaded")
    recording = _noise(5000)
    truth = random(recording, _RATE)
    for stem, found in Separator.load(workdir)(recording, _RATE).items():
        np.testing.assert_allclose(found, truth[stem], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("waveform", "found"),
    [
        (np.zeros(1000, np.float32), "found float32 [1000]"),
        (np.zeros((1000, 2), np.int16), "found int16 [1000, 2]"),
        (np.zeros((2, 1000), np.float32), "found float32 [2, 1000]"),
        ([[1, 2]], "found int64 [1, 2]"),
    ],
)
def test_arrays_that_are_not_waveforms_are_refused(identity, waveform, found):
    with pytest.raises(ValueError, match="expected floats") as caught:
        identity(waveform, _RATE)
    assert found in str(caught.value)


@pytest.mark.parametrize("rate", [0, -44_100, math.nan, math.inf])
def test_impossible_sample_rates_are_refused(identity, rate):
    with pytest.raises(ValueError, match=f"sample_rate: found {rate}, expected a number of Hz"):
        identity(_noise(10), rate)


def test_missing_weights(tmp_path):
    (tmp_path / CONFIG).write_text(_CONFIG.to_json())
    with pytest.raises(ConfigError) as caught:
        Separator.load(tmp_path)
    assert str(caught.value) == f"{tmp_path / BEST}: found no such file, expected weights"


def test_missing_workdir(tmp_path):
    with pytest.raises(ConfigError, match="found no such folder, expected a portable model, a tr"):
        Separator.load(tmp_path / "missing")


def test_damaged_weights(tmp_path, unet):
    path = _workdir(tmp_path, unet) / BEST
    whole = path.read_bytes()
    for content in (b"", b"no weights\n", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(ConfigError) as caught:
            Separator.load(tmp_path)
        assert str(caught.value).startswith(f"{path}: found weights that do not load (")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", [{"filters": (3, 8)}, {"filters": (4, 4, 8)}, {"stems": ("a",)}])
def test_weights_of_another_network(tmp_path, change):
    other = dataclasses.replace(_CONFIG, model=dataclasses.replace(_MODEL, **change))
    save_whole(build_model(other), tmp_path / BEST)
    with pytest.raises(ConfigError) as caught:
        load_unet(tmp_path, _CONFIG)
    assert str(caught.value).startswith(f"{tmp_path / BEST}: found weights that do not load (")
    assert "\n" not in str(caught.value)


def test_from_model_accepts_any_callable():
    def twice(magnitudes, training):
        assert not training
        return ops.repeat(2 * magnitudes, 2, axis=-1)

    recording = _noise(5000)
    for stem in Separator.from_model(twice, _CONFIG)(recording, _RATE).values():
        np.testing.assert_allclose(stem, 2 * recording, rtol=0, atol=1e-4)
