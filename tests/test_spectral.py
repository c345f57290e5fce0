"""Spectrograms of Keras and of NumPy against librosa and each other, patches in closed form."""

import dataclasses
import itertools

import numpy as np
import pytest
from keras import ops

from sccunet import keras_stft, numpy_stft, spectral
from sccunet.config import Config, ModelConfig
from sccunet.patching import Patching
from sccunet.separation import Separator

librosa = pytest.importorskip("librosa")

_PAPER = ModelConfig()
_TINY = ModelConfig(stems=("a", "b"), frame_length=256, hop_length=64, patch_samples=2048)
# A hop that is not a power of two, a patch that is not a multiple of the hop.
_ODD = ModelConfig(stems=("a", "b"), frame_length=600, hop_length=120, patch_samples=5003)


def _noise(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _tone(samples, hertz, rate=44_100):
    return np.sin(2 * np.pi * hertz * np.arange(samples) / rate).astype(np.float32)


def _repeat(stems):
    """A stand-in for the network: each stem is the mixture."""
    return lambda magnitudes, training: ops.repeat(magnitudes, stems, axis=-1)


_LIBRARIES = pytest.mark.parametrize("library", [keras_stft, numpy_stft], ids=["keras", "numpy"])


def _librosa_stft(waveform, model):
    return librosa.stft(
        waveform, n_fft=model.frame_length, hop_length=model.hop_length, pad_mode="reflect"
    )


@pytest.mark.parametrize("model", [_PAPER, _TINY, _ODD], ids=["paper", "tiny", "odd"])
@pytest.mark.parametrize("signal", ["noise", "tone"])
@_LIBRARIES
def test_stft_is_librosas(model, signal, library):
    samples = model.patch_samples
    waveform = _noise(samples) if signal == "noise" else _tone(samples, 1234.5)
    parts = spectral.stft(waveform, model, library)
    real, imaginary = (ops.convert_to_numpy(part) for part in parts)
    assert real.dtype == imaginary.dtype == np.float32
    assert real.shape == (model.frames, model.bins)
    truth = _librosa_stft(waveform, model)
    assert truth.shape == (model.bins, model.frames)
    np.testing.assert_allclose((real + 1j * imaginary).T, truth, rtol=0, atol=1e-4)


def _smoothed(magnitudes, training):
    """A stand-in for the network of two stems: each bin is the mean of its neighbours."""
    first = (np.roll(magnitudes, 1, axis=1) + np.roll(magnitudes, -1, axis=2)) / 2
    return ops.convert_to_tensor(np.concatenate([first, 2 * magnitudes], axis=-1))


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(("length", "hop"), [(256, 64), (256, 32), (600, 120), (20, 5), (64, 1)])
def test_numpy_equals_keras(length, hop, channels):
    model = ModelConfig(("a", "b"), 44_100, length, hop, 4 * length + 7, channels=channels)
    waveforms = _noise(2, channels, model.patch_samples) / 3
    waveforms[0, 0, : 3 * length] = 0  # silence, and sound in the same patch
    waveforms[1] *= 1e-30  # whose square is 0 in float32

    def numpys(magnitudes, training):
        return _smoothed(magnitudes, training).numpy()

    for mask_exponent in (None, 1.0, 2.0):
        found = spectral.separate_patches(waveforms, numpys, model, mask_exponent, numpy_stft)
        assert found.dtype == np.float32
        truth = spectral.separate_patches(waveforms, _smoothed, model, mask_exponent)
        assert np.abs(truth).max() > 0.1
        np.testing.assert_allclose(found, truth, rtol=0, atol=1e-5)
    parts = spectral.estimate_patches(waveforms, numpys, model, numpy_stft)
    others = spectral.estimate_patches(waveforms, _smoothed, model)
    for part, other in zip(parts, others, strict=True):
        assert part.dtype == np.float32
        np.testing.assert_allclose(part, other, rtol=0, atol=1e-5 * np.abs(other).max())


def test_training_patch_is_1025_by_173():
    mixture, targets, *_ = spectral.training_spectra(_noise(2, 4, 1, 88_200), _PAPER)
    assert mixture.shape == (2, 1025, 173, 1)
    assert targets.shape == (2, 1025, 173, 4)


@pytest.mark.parametrize("channels", [1, 2])
def test_training_spectra_are_those_of_the_stems_and_of_their_sum(channels):
    stems = _noise(3, 2, channels, 2048)
    spectra = spectral.training_spectra(stems, _TINY)
    mixture, targets, aligned, energies = (ops.convert_to_numpy(part) for part in spectra)
    assert energies.shape == (3, 2)
    power = np.square(targets).reshape(3, -1, 2, channels)
    np.testing.assert_allclose(energies, power.mean(axis=(1, 3)), rtol=1e-5)
    assert mixture.shape[-1] == channels
    for b, channel in itertools.product(range(3), range(channels)):
        whole = _librosa_stft(stems[b, :, channel].sum(axis=0), _TINY)
        np.testing.assert_allclose(mixture[b, :, :, channel], np.abs(whole), rtol=0, atol=1e-4)
        for i in range(2):
            truth = _librosa_stft(stems[b, i, channel], _TINY)
            where = (b, ..., i * channels + channel)
            np.testing.assert_allclose(targets[where], np.abs(truth), rtol=0, atol=1e-4)
            cosine = np.cos(np.angle(truth) - np.angle(whole))
            np.testing.assert_allclose(aligned[where], np.abs(truth) * cosine, rtol=0, atol=1e-3)


@pytest.mark.parametrize("model", [_PAPER, _TINY, _ODD], ids=["paper", "tiny", "odd"])
@_LIBRARIES
def test_identity_network_returns_the_kept_samples(model, library):
    stems = len(model.stems)
    waveforms = _noise(2, 1, model.patch_samples)

    def unet(magnitudes, training):
        return library.ops.repeat(magnitudes, stems, axis=-1)

    found = spectral.separate_patches(waveforms, unet, model, library=library)
    found = ops.convert_to_numpy(found)
    assert found.shape == (2, stems, 1, model.patch_samples)
    patching = Patching.of(model)
    kept = slice(patching.margin, patching.margin + patching.keep)
    for i in range(stems):
        np.testing.assert_allclose(found[:, i, :, kept], waveforms[..., kept], rtol=0, atol=1e-5)


def test_two_channels_go_to_their_own_places():
    model = dataclasses.replace(_TINY, channels=2)
    waveforms = _noise(2, 2, model.patch_samples)
    gains = np.array([0.25, 0.5, 2.0, 1.0], np.float32)  # stem 0 left, right, stem 1 left, right

    def network(magnitudes, training):  # [batch, bins, frames, 2] -> [batch, bins, frames, 4]
        return ops.concatenate([magnitudes, magnitudes], axis=-1) * gains

    found = ops.convert_to_numpy(spectral.separate_patches(waveforms, network, model))
    assert found.shape == (2, 2, 2, model.patch_samples)
    patching = Patching.of(model)
    kept = slice(patching.margin, patching.margin + patching.keep)
    expected = gains.reshape(1, 2, 2, 1) * waveforms[:, None, :, kept]
    np.testing.assert_allclose(found[..., kept], expected, rtol=0, atol=2e-5)


def test_estimates_go_with_the_mixtures_phase_to_their_stems():
    gains = np.array([0.25, 0.0, 2.0, 1.0], np.float32)
    waveforms = _noise(1, 1, 88_200)
    found = spectral.separate_patches(waveforms, lambda x, training: x * gains, _PAPER)
    kept = slice(1024, 87_000)
    np.testing.assert_allclose(
        ops.convert_to_numpy(found)[0, :, 0, kept],
        gains[:, None] * waveforms[0, :, kept],
        rtol=0,
        atol=2e-5,
    )


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0, 3.0])
@_LIBRARIES
def test_soft_masks_are_shares_of_powers(exponent, library):
    estimates = np.abs(_noise(2, 3, 1, 5, 7))  # [batch, stems, channels, frames, bins]
    masks = ops.convert_to_numpy(spectral.soft_masks(estimates, exponent, library))
    assert masks.dtype == np.float32
    powers = estimates.astype(np.float64) ** exponent
    np.testing.assert_allclose(masks, powers / powers.sum(axis=1, keepdims=True), atol=1e-6)


@pytest.mark.parametrize("level", [0, 1e-37, 1e-20, 1e20])
@_LIBRARIES
def test_soft_masks_sum_to_one_at_any_level(level, library):
    estimates = np.full((1, 4, 2, 3), level, np.float32)
    estimates[:, 1:, 1] = 0
    masks = ops.convert_to_numpy(spectral.soft_masks(estimates, 2.0, library))
    np.testing.assert_allclose(masks[:, :, 0], 0.25, atol=1e-6)
    expected = [1, 0, 0, 0] if level else [0.25] * 4
    np.testing.assert_allclose(masks[0, :, 1].T, [expected] * 3, atol=1e-6)


def test_masked_patches_share_out_the_mixture():
    waveforms = _noise(2, 1, _TINY.patch_samples)

    def network(magnitudes, training):  # shares of 1/10 and 9/10 with exponent 2
        return ops.concatenate([magnitudes, 3 * magnitudes], axis=-1)

    stems = spectral.separate_patches(waveforms, network, _TINY, mask_exponent=2.0)
    patching = Patching.of(_TINY)
    kept = slice(patching.margin, patching.margin + patching.keep)
    for stem, share in ((0, 0.1), (1, 0.9)):
        found = ops.convert_to_numpy(stems)[:, stem, :, kept]
        np.testing.assert_allclose(found, share * waveforms[..., kept], rtol=0, atol=1e-5)


@_LIBRARIES
def test_silence_stays_silent_for_any_estimate(library):
    ones = lambda x, training: library.ops.ones((*x.shape[:3], 2), "float32")  # noqa: E731
    silence = np.zeros((1, 1, 2048), np.float32)
    found = spectral.separate_patches(silence, ones, _TINY, library=library)
    assert np.all(ops.convert_to_numpy(found) == 0)


_MODELS = [_PAPER, _TINY, _ODD, ModelConfig(frame_length=64, hop_length=4, patch_samples=300)]


@pytest.mark.parametrize("overlap", [0.0, 0.1, 0.25, 0.5])
@pytest.mark.parametrize("model", _MODELS, ids=lambda model: f"{model.frame_length}")
def test_windows_sum_to_one(model, overlap):
    patching = Patching.of(model, overlap)
    window, step = patching.window, patching.step
    assert window.shape == (patching.keep,)
    assert window.dtype == np.float32
    assert patching.fade <= overlap * patching.keep
    assert np.all((window > 0) & (window <= 1))
    total = np.zeros(3 * step + patching.keep)
    for i in range(4):
        total[i * step : i * step + patching.keep] += window
    # One from the end of the first fade-in to the beginning of the last fade-out.
    np.testing.assert_allclose(total[patching.fade : 4 * step], 1, rtol=0, atol=2e-7)
    # The fade itself in closed form: sin^2 at the middle of each sample.
    n = np.arange(patching.fade)
    fade = 0.5 - 0.5 * np.cos(np.pi * (n + 0.5) / max(patching.fade, 1))
    np.testing.assert_allclose(window[: patching.fade], fade, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(window, window[::-1])


@pytest.mark.parametrize("model", _MODELS, ids=lambda model: f"{model.frame_length}")
def test_kept_samples_have_all_of_their_frames(model):
    patching = Patching.of(model)
    centres = np.arange(model.frames) * model.hop_length
    half = model.frame_length // 2
    for sample in (patching.margin, patching.margin + patching.keep - 1):
        there = np.sum((centres - half <= sample) & (sample < centres + half))
        assert there == model.frame_length // model.hop_length
    assert patching.margin + patching.keep <= model.patch_samples
    # Every frame lies within the patch and does not see a mirrored edge.
    first, last = patching.margin - half, patching.margin + patching.keep + half
    assert first >= 0
    assert last <= model.patch_samples


@pytest.mark.parametrize("overlap", [0.0, 0.1, 0.25, 0.5])
@pytest.mark.parametrize("model", _MODELS, ids=lambda model: f"{model.frame_length}")
def test_patches_cover_any_length_and_none_is_idle(model, overlap):
    patching = Patching.of(model, overlap)
    step, fade = patching.step, patching.fade
    near = [m * step + d for m in range(5) for d in range(-fade - 2, -fade + 3)]
    near += [m * step + d for m in range(5) for d in range(-2, 3)]
    rng = np.random.default_rng(0)
    for samples in [0, 1, 2, *near, *rng.integers(0, 50 * step, 200).tolist()]:
        if samples < 0:
            continue
        # The first `count` patches complete the recording up to here; one fewer does not.
        count = patching.count(samples)
        assert count * step - fade >= samples
        assert count == 0 or (count - 1) * step - fade < samples


_LENGTHS = {
    "paper": (_PAPER, [1, 2, 1000, 88_200, 88_201]),
    "tiny": (_TINY, [1, 2, 1000, 2048, 2049]),
    "odd": (_ODD, [1, 2, 1000, 5003, 5004]),
}


@pytest.mark.parametrize("name", _LENGTHS)
def test_any_length_is_reconstructed_whole(name):
    model, lengths = _LENGTHS[name]
    separator = Separator.from_model(_repeat(len(model.stems)), Config(model=model))
    step, fade = Patching.of(model).step, Patching.of(model).fade
    lengths = [*lengths, step - 1, step, step + 1, step - fade, step - fade + 1, 3 * step + 17]
    for samples in lengths:
        waveform = np.clip(_noise(samples, 1, seed=samples) / 3, -1, 1)
        for stem, found in separator(waveform, model.sample_rate).items():
            assert found.shape == waveform.shape, (stem, samples)
            error = np.abs(found - waveform)
            assert error.max() < 1e-5, (stem, samples, error.argmax())
