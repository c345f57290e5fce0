"""Weights that a run starts from: `train --init_from`."""

import dataclasses
import shutil

import numpy as np
import pytest

from data_pipeline import volumes
from experiments.training import fit as training_fit
from experiments.training.initial import initial_weights
from experiments.training.options import TrainOptions
from experiments.training.run import train
from sccunet import build_model, runs
from sccunet.checkpoints import BEST, CHECKPOINT, load_weights, save_whole
from sccunet.config import Config, ConfigError, ModelConfig
from sccunet.runs import CARD, NETWORK

_STEMS = ("vocals", "drums", "bass")
_CONFIG = Config(
    model=ModelConfig(
        stems=_STEMS, frame_length=512, hop_length=128, patch_samples=8192, filters=(4, 8)
    )
)


def _with(**changes):
    return dataclasses.replace(_CONFIG, model=dataclasses.replace(_CONFIG.model, **changes))


@pytest.fixture(scope="module")
def run(tmp_path_factory, make_run, randomise):
    """A workdir with random weights."""
    return make_run(tmp_path_factory.mktemp("initial") / "run", _CONFIG, randomise)


def _estimates(config, source):
    """Returns stem -> estimates of the network that starts from `source`, and what is printed."""
    weights, told = initial_weights(config, source)
    unet = build_model(config)
    unet.set_weights(weights)
    model = config.model
    mixture = np.random.default_rng(0).random((1, model.bins, model.frames, 1), np.float32)
    found = np.moveaxis(np.asarray(unet(mixture)), -1, 0)
    return dict(zip(model.stems, found, strict=True)), told


def test_stems_in_another_order_are_matched_by_name(run):
    truth, told = _estimates(_CONFIG, run)
    assert told == f"initial weights: {run / BEST}, stems vocals, drums, bass"
    assert not np.allclose(truth["vocals"], truth["bass"], rtol=0.1)
    other = _with(stems=("bass", "vocals", "drums"), sample_rate=22_050)
    found, told = _estimates(other, run / BEST)
    for stem in _STEMS:
        np.testing.assert_allclose(found[stem], truth[stem], rtol=1e-5)
    assert told == (
        f"initial weights: {run / BEST}, stems bass, vocals, drums"
        " (there in the order vocals, drums, bass); sample_rate was 44100, is 22050"
    )


def test_a_file_without_a_config_is_loaded_as_it_is(run, tmp_path, monkeypatch):
    """Also weights beside a portable model that is named."""
    path = shutil.copy(run / BEST, tmp_path / "mine.weights.h5")
    shutil.copytree(run, tmp_path / "shipped" / "small")
    for name in (NETWORK, CARD):
        (tmp_path / "shipped" / "small" / name).write_text("")
    monkeypatch.setattr(runs, "_SHIPPED", tmp_path / "shipped")
    loaded = [initial_weights(_CONFIG, source) for source in (run, path, "small")]
    for expected, *found in zip(*(weights for weights, _ in loaded), strict=True):
        for weight in found:
            np.testing.assert_array_equal(weight, expected)
    told = f"initial weights: {tmp_path}/shipped/small/{BEST}, stems vocals, drums, bass"
    assert loaded[2][1] == told
    _, told = initial_weights(_with(stems=("a", "b", "c")), path)
    assert told == (
        f"initial weights: {path}, stems a, b, c (found no config.json beside it, so their order"
        " is not checked)"
    )


@pytest.fixture
def data_dir(tmp_path, write_track):
    for place in ("train/one", "valid/two"):
        write_track(tmp_path / "data" / place, dict.fromkeys((*_STEMS, "other"), 0.1), seconds=0.3)
    return tmp_path / "data"


def test_other_networks_are_refused_before_anything_is_written(
    run, data_dir, tmp_path, monkeypatch
):
    """Also damaged weights, before the pass over the data."""
    monkeypatch.setattr(volumes, "training_volumes", lambda *_: pytest.fail("a pass over the data"))
    bare, cut = tmp_path / "bare.weights.h5", tmp_path / "cut.weights.h5"
    shutil.copy(run / BEST, bare)
    cut.write_bytes(bare.read_bytes()[:-4000])
    for name in ("empty", "portable"):
        (tmp_path / name).mkdir()
    (tmp_path / "portable" / NETWORK).write_bytes(b"")
    others = _with(stems=("vocals", "drums", "other"))
    for config, source, reason in (
        (
            others,
            run,
            "--init_from: found weights for the stems vocals, drums, bass in"
            f" {run / BEST}, expected vocals, drums, other as in the config",
        ),
        (
            _with(filters=(4, 16)),
            run / BEST,
            f"--init_from: found weights for model.filters = (4, 8) in {run / BEST}, expected"
            " (4, 16) as in the config",
        ),
        (_with(filters=(4, 16)), bare, f"{bare}: found weights that do not load ("),
        (_CONFIG, cut, f"{cut}: found weights that do not load ("),
        (_CONFIG, run / "config.json", f"{run / 'config.json'}: found weights that do not load ("),
        (_CONFIG, tmp_path / "none", f"{tmp_path / 'none'}: found no such file, expected weights"),
        (
            _CONFIG,
            "smal",
            "smal: found no such file, expected weights: those of a workdir, a",
        ),
        (_CONFIG, tmp_path / "empty", f"{tmp_path}/empty/best.weights.h5: found no such file, exp"),
        (
            _CONFIG,
            tmp_path / "portable",
            f"{tmp_path}/portable: found a portable model without best.weights.h5, expected wei",
        ),
    ):
        with pytest.raises(ConfigError) as caught:
            train(config, TrainOptions(data_dir, tmp_path / "run", init_from=source))
        assert str(caught.value).startswith(reason)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "run").exists()


def test_they_are_loaded_into_a_new_run_only(run, data_dir, tmp_path, monkeypatch):
    loaded = []
    monkeypatch.setattr(training_fit, "_run", lambda trainer, *_: loaded.append(trainer))
    options = TrainOptions(data_dir, tmp_path / "run", init_from=run)
    config = dataclasses.replace(_CONFIG, batch_size=1, loss_balance="equal")
    train(config, options)
    truth = build_model(_CONFIG)
    load_weights(truth, run / BEST)
    for here, there in zip(loaded[0].unet.weights, truth.weights, strict=True):
        np.testing.assert_array_equal(here.numpy(), there.numpy())

    save_whole(loaded[0], tmp_path / "run" / CHECKPOINT)
    train(config, dataclasses.replace(options, init_from=tmp_path / "removed since"))
    assert len(loaded) == 2
