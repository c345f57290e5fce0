"""Calibration of masks, against closed forms, and as a program."""

import dataclasses
import json

import numpy as np
import pytest

from data_pipeline.audio_writer import write_wav
from sccunet import build_model
from sccunet.calibration import add_offsets, best_offsets, sdr
from sccunet.config import Config, ConfigError, ModelConfig
from sccunet.files import lock_folder
from sccunet.runs import load_unet
from sccunet.separation import Separator
from sccunet.unet import output_layer

_MODEL = ModelConfig(
    stems=("a", "b"),
    frame_length=256,
    hop_length=64,
    patch_samples=4096,
    filters=(3, 4),
    output="mask",
)
_CONFIG = Config(model=_MODEL)


def _even(unet):
    """Masks of 1/2 everywhere."""
    for weight in output_layer(unet).weights:
        weight.assign(np.zeros(weight.shape))
    return unet


def _stems(samples, channels, share):
    """Stem a is `share` of a noise, stem b is the rest."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (channels, samples))
    return np.stack([share * noise, (1 - share) * noise]).astype(np.float32)


@pytest.mark.parametrize("channels", [1, 2])
def test_sdr_of_a_known_share(channels):
    """The estimate is m of the mixture, the stem is c: the SDR is 20 log10(c / |c - m|)."""
    model = dataclasses.replace(_MODEL, channels=channels)
    unet = _even(build_model(model))
    batches = [_stems(4096, channels, 0.8)[None]] * 2
    offsets = np.array([[-1.0, 0.0], [0.0, 0.0], [2.0, 0.5]])
    found = sdr(unet, model, batches, offsets)
    masks = np.exp(offsets) / np.exp(offsets).sum(axis=1, keepdims=True)
    for stem, share in enumerate((0.8, 0.2)):
        expected = 20 * np.log10(share / np.abs(share - masks[:, stem]))
        np.testing.assert_allclose(found[:, stem], expected, atol=0.01)


def test_no_number_of_one_stem_improves_the_mean_of_three():
    model = dataclasses.replace(_MODEL, stems=("a", "b", "c"))
    levels = np.array([0.1, 0.3, 0.2]).reshape(1, 3, 1, 1)
    stems = (levels * np.random.default_rng(0).standard_normal((1, 3, 1, 4096))).astype(np.float32)
    unet = _even(build_model(model))
    offsets, before, after = best_offsets(unet, model, lambda: [stems])
    around = np.concatenate([offsets + step * np.eye(3)[:2] for step in (-0.25, -0.125, 0.125, 1)])
    found = sdr(unet, model, [stems], np.array([[0, 0, 0], offsets, *around]))
    np.testing.assert_allclose(found[:2], [before, after], atol=1e-4)
    assert np.all(found[2:].mean(axis=1) < found[1].mean())
    assert found[1].mean() > found[0].mean() + 0.2
    assert offsets[0] < 0 < offsets[1]
    assert offsets[2] == 0


def test_offsets_belong_to_their_stems():
    model = dataclasses.replace(_MODEL, channels=2)
    unet = _even(build_model(model))
    kernel = output_layer(unet).kernel.numpy()
    add_offsets(unet, [0.5, -1.0])
    np.testing.assert_allclose(output_layer(unet).bias.numpy(), [0.5, 0.5, -1, -1])
    np.testing.assert_array_equal(output_layer(unet).kernel.numpy(), kernel)


def test_without_masks_or_sound_it_is_refused():
    silence = [np.zeros((1, 2, 1, 4096), np.float32)]
    with pytest.raises(ConfigError, match="stem 'a': found only silence"):
        sdr(build_model(_MODEL), _MODEL, silence, np.zeros((1, 2)))
    plain = dataclasses.replace(_MODEL, output="magnitude")
    with pytest.raises(ConfigError, match="found 'magnitude', expected 'mask'"):
        sdr(build_model(plain), plain, silence, np.zeros((1, 2)))


def test_program_puts_the_best_number_into_the_weights(make_run, tmp_path, program, refusal):
    run = make_run(tmp_path / "run", _CONFIG, _even)
    share = 1 / (1 + np.exp(-1.25))  # the logit of the best mask is one of the candidates
    for stem, samples in zip("ab", _stems(9000, 2, share), strict=True):
        write_wav(tmp_path / "data" / "valid" / "song" / f"{stem}.wav", samples.T, 44_100)
    known = [["valid", "song", 0, 9000], ["train", "other", 0, 9000]]
    data = {"data_dir": str(tmp_path / "data"), "training": known}
    (run / "data.json").write_text(json.dumps(data))
    line = ("calibrate", f"--workdir={run}", f"--data_dir={tmp_path / 'data'}")
    with lock_folder(run, ".lock"):
        assert refusal(program(*line)).startswith(f"{run}: found a run that trains in it, expected")
    done = program(*line)
    assert done.returncode == 0, done.stderr
    assert f"warning: {run} was trained on song: its masks are too good there\n" in done.stderr
    assert "a: +1.250, SDR" in done.stdout
    assert "b: +0.000, SDR" in done.stdout
    unet = load_unet(run, _CONFIG)
    np.testing.assert_allclose(output_layer(unet).bias.numpy(), [1.25, 0])
    mixture = _stems(9000, 2, share).sum(axis=0).T
    found = Separator.from_model(unet, _CONFIG)(mixture, 44_100)["a"]
    np.testing.assert_allclose(found, share * mixture, atol=1e-4)
    record = json.loads((run / "calibration.json").read_text())
    assert record["tracks"] == ["valid/song"]
    assert record["stems"]["a"]["offset"] == 1.25


def test_program_refuses_a_network_without_masks(make_run, tmp_path, program, refusal):
    config = Config(model=dataclasses.replace(_MODEL, output="magnitude"))
    run = make_run(tmp_path / "run", config, lambda unet: unet)
    done = program("calibrate", f"--workdir={run}", f"--data_dir={tmp_path}")
    assert refusal(done) == (
        f"{run}: found model.output = 'magnitude', expected 'mask': only masks are calibrated"
    )
