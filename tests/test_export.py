"""The SavedModel where only TensorFlow is at hand, against the model in memory."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from sccunet import build_model, export
from sccunet.config import Config, ConfigError, ModelConfig, load_config
from sccunet.export import export_saved_model, separate_graph
from sccunet.separation import Separator

_CONFIG = Config(
    model=ModelConfig(stems=("vocals", "accompaniment"), filters=(4, 8, 16)),
    sources={"accompaniment": ("drums", "bass", "other")},
    loss_weights=(0.7, 0.3),
    seed=3,
)
_SAMPLES = _CONFIG.model.patch_samples
_TINY = Config(
    model=ModelConfig(
        stems=("a", "b", "c"), frame_length=256, hop_length=64, patch_samples=4096, filters=(3, 4)
    )
)


def _noise(*shape, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


@pytest.fixture(scope="module")
def unet(randomise):
    return randomise(build_model(_CONFIG), seed=4)


@pytest.fixture(scope="module")
def exported(unet, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "saved"
    export_saved_model(unet, _CONFIG, path)
    return path


@pytest.fixture(scope="module")
def tiny(randomise):
    return randomise(build_model(_TINY))


# Runs a SavedModel on the waveforms of a folder; nothing of this project can be imported.
_ALONE = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("sccunet", "experiments", "data_pipeline"):
            raise ModuleNotFoundError(f"{name} is not to be imported here")
sys.meta_path.insert(0, Blocked())
import numpy as np
import tensorflow as tf

saved, folder = sys.argv[1:]
separate = tf.saved_model.load(saved).signatures["serving_default"]
for name, waveform in np.load(f"{folder}/waveforms.npz").items():
    stems = separate(waveform=tf.constant(waveform))
    np.savez(f"{folder}/{name}.npz", **{stem: audio.numpy() for stem, audio in stems.items()})
assert not any(name.startswith("sccunet") for name in sys.modules)
"""


@pytest.mark.slow
def test_saved_model_alone_separates_as_the_model_in_memory(exported, unet, tmp_path):
    lengths = (1, 1000, 88_200, 88_201, 1_000_000)
    waveforms = {f"{n}x{c}": _noise(1, n, c, seed=n) for n in lengths for c in (1, 2)}
    waveforms["batch"] = _noise(2, 100_000, 2)
    np.savez(tmp_path / "waveforms.npz", **waveforms)
    subprocess.run(
        [sys.executable, "-c", _ALONE, exported, tmp_path],
        check=True,
        cwd=tmp_path,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    separator = Separator.from_model(unet, _CONFIG)
    for name, batch in waveforms.items():
        found = np.load(tmp_path / f"{name}.npz")
        assert sorted(found) == ["accompaniment", "vocals"]
        for i, waveform in enumerate(batch):
            for stem, truth in separator(waveform, 44_100).items():
                assert found[stem].shape == batch.shape
                assert found[stem].dtype == np.float32
                # Stems of the input's order of size: 1e-5 means something.
                assert len(waveform) == 1 or 0.001 < truth.std() < 1, truth.std()
                np.testing.assert_allclose(found[stem][i], truth, rtol=0, atol=1e-5, err_msg=name)


def test_separator_loads_an_export(tiny, tmp_path):
    export_saved_model(tiny, _TINY, tmp_path / "saved")
    recording = _noise(10_000, 2)
    loaded = Separator.load(tmp_path / "saved")
    assert loaded.config == _TINY
    for rate in (44_100, 48_000):
        truth = Separator.from_model(tiny, _TINY)(recording, rate)
        for stem, found in loaded(recording, rate).items():
            np.testing.assert_allclose(found, truth[stem], rtol=0, atol=1e-5)


def test_signatures(exported):
    signatures = tf.saved_model.load(str(exported)).signatures
    assert set(signatures) == {"serving_default", "patches", "config"}
    serving = signatures["serving_default"]
    _, inputs = serving.structured_input_signature
    assert list(inputs) == ["waveform"]
    assert inputs["waveform"].shape.as_list() == [None, None, None]
    assert inputs["waveform"].dtype == tf.float32
    assert sorted(serving.structured_outputs) == sorted(_CONFIG.model.stems)
    assert {x.dtype for x in serving.structured_outputs.values()} == {tf.float32}
    patches = signatures["patches"]
    _, inputs = patches.structured_input_signature
    assert inputs["waveforms"].shape.as_list() == [None, _SAMPLES]
    found = patches(waveforms=tf.constant(_noise(3, _SAMPLES)))
    assert found["stems"].shape == (3, 2, _SAMPLES)


def test_config_is_inside_for_programs_and_for_serving(exported):
    text = tf.saved_model.load(str(exported)).signatures["config"]()["config"].numpy().decode()
    assert json.loads(text) == json.loads(_CONFIG.to_json())
    assert Config.from_json(text) == _CONFIG
    assert load_config(exported) == _CONFIG


def test_graph_gives_every_stem_its_own_name(tiny):
    """A batch of 2 stereo recordings: no row or stem is taken for another."""
    batch = _noise(2, 9000, 2)
    found = separate_graph(tf.constant(batch), tiny, _TINY)
    assert list(found) == ["a", "b", "c"]
    for i, waveform in enumerate(batch):
        for stem, truth in Separator.from_model(tiny, _TINY)(waveform, 44_100).items():
            np.testing.assert_allclose(found[stem][i], truth, rtol=0, atol=1e-5)
    assert np.abs(found["a"] - found["b"]).max() > 1e-3


def test_existing_folder_is_refused_and_left_alone(tiny, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError) as caught:
        export_saved_model(tiny, _TINY, tmp_path / "there")
    expected = f"{tmp_path / 'there'}: found already there, expected a new folder"
    assert str(caught.value) == expected
    assert [path.name for path in tmp_path.rglob("*")] == ["there", "mine.txt"]


def test_folders_above_are_made(tiny, tmp_path):
    export_saved_model(tiny, _TINY, tmp_path / "a" / "b")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]


@pytest.mark.parametrize("wrong", ["level", "order", "nan"])
def test_wrong_export_is_refused_and_nothing_is_left(tiny, tmp_path, monkeypatch, wrong):
    def off(waveform, unet, config):
        stems = separate_graph(waveform, unet, config)
        if wrong == "order":
            stems["a"], stems["b"] = stems["b"], stems["a"]
        elif wrong == "level":
            stems["c"] = stems["c"] + 2e-5
        else:
            stems["c"] = stems["c"] * float("nan")
        return stems

    monkeypatch.setattr(export, "separate_graph", off)
    with pytest.raises(ConfigError, match=r"stem '.' differs from the model in memory by .*1e-05"):
        export_saved_model(tiny, _TINY, tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []


def test_remains_of_an_interrupted_export_do_not_matter(tiny, tmp_path):
    (tmp_path / ".saved.part" / "variables").mkdir(parents=True)
    (tmp_path / ".saved.part" / "saved_model.pb").write_text("half")
    export_saved_model(tiny, _TINY, tmp_path / "saved")
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]
