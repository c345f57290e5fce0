"""The SavedModel in a process with only TensorFlow, against the model in memory."""

import concurrent.futures
import dataclasses
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import sccunet
from sccunet import build_model, export_check, run_saved_model, separation_graph, signatures
from sccunet.config import Config, ConfigError, ModelConfig
from sccunet.export import WARMUP, export_saved_model
from sccunet.patching import Patching
from sccunet.runs import METADATA, load_config
from sccunet.separation import Separator
from sccunet.separation_graph import separate_graph, separate_wav_graph

_CONFIG = Config(
    model=ModelConfig(
        stems=("a", "b", "c"),
        frame_length=256,
        hop_length=64,
        patch_samples=4096,
        filters=(3, 4, 5),
    ),
    sources={"c": ("drums", "bass")},
    loss_weights=(0.5, 0.3, 0.2),
    seed=3,
)
_MODEL = _CONFIG.model
_SIGNATURES = ("serving_default", "separate_wav", "magnitudes", "metadata")


def _noise(*shape, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def _wav(waveform, rate=44_100):
    return tf.audio.encode_wav(waveform, rate).numpy()


@pytest.fixture(scope="module")
def unet(randomise):
    return randomise(build_model(_CONFIG), seed=4)


@pytest.fixture(scope="module")
def exported(unet, tmp_path_factory):
    """Checked in a new process, as for users."""
    base = tmp_path_factory.mktemp("export") / "saved"
    return export_saved_model(unet, _CONFIG, base, training_data="noise", licence="none")


@pytest.fixture(scope="module")
def loaded(exported):
    """The export, loaded by TensorFlow."""
    return tf.saved_model.load(str(exported))


@pytest.fixture
def check_here(monkeypatch):
    """Exports are checked in this process: a fresh one takes seconds to import TensorFlow."""

    def run(path, requests):
        return {
            "tf2": run_saved_model.run_tf2(path, requests),
            "session": run_saved_model.run_session(path, requests),
        }

    monkeypatch.setattr(export_check, "_in_fresh_process", run)


# Runs where nothing of this project can be imported.
_ALONE = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("sccunet", "experiments", "data_pipeline"):
            raise ModuleNotFoundError(f"{name} is not to be imported here")
sys.meta_path.insert(0, Blocked())
"""


@pytest.mark.slow
def test_saved_model_alone_equals_the_model_in_memory(exported, unet, tmp_path):
    """Every signature, with both loaders, in a process with only TensorFlow."""
    lengths = (1, 300, 4096, 4097, 50_000)
    waveforms = [_noise(1, n, c, seed=n) for n in lengths for c in (1, 2)]
    waveforms.append(_noise(2, 5000, 2))
    magnitudes = np.abs(_noise(3, _MODEL.bins, _MODEL.frames))
    requests = [
        *(("serving_default", {"waveform": waveform}) for waveform in waveforms),
        ("magnitudes", {"mixture_magnitudes": magnitudes}),
        ("separate_wav", {"wav_bytes": np.array([_wav(x[0]) for x in waveforms], object)}),
        ("metadata", {"request": np.array(["", "x"], object)}),
    ]
    (tmp_path / "requests").write_bytes(pickle.dumps(requests))
    code = _ALONE + Path(run_saved_model.__file__).read_text()
    subprocess.run(
        [sys.executable, "-c", code, exported, "requests", "results"],
        check=True,
        cwd=tmp_path,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    by_loader = pickle.loads((tmp_path / "results").read_bytes())
    assert list(by_loader) == ["tf2", "session"]
    separator = Separator.from_model(unet, _CONFIG)
    estimates = keras.ops.convert_to_numpy(unet(magnitudes[..., None], training=False))
    text = (exported / METADATA).read_text()
    for results in by_loader.values():
        *separated, found_magnitudes, files, metadata = results
        for batch, found in zip(waveforms, separated, strict=True):
            assert sorted(found) == ["a", "b", "c"]
            for i, waveform in enumerate(batch):
                for stem, truth in separator(waveform, 44_100).items():
                    assert found[stem].shape == batch.shape
                    assert found[stem].dtype == np.float32
                    # Stems are about as loud as the input, so 1e-5 is meaningful.
                    assert len(waveform) == 1 or 0.001 < truth.std() < 1, truth.std()
                    np.testing.assert_allclose(found[stem][i], truth, rtol=0, atol=1e-5)
        for i, stem in enumerate(_MODEL.stems):
            np.testing.assert_allclose(
                found_magnitudes[stem], estimates[..., i], rtol=1e-5, atol=1e-5
            )
        for i, batch in enumerate(waveforms):
            rounded, _ = tf.audio.decode_wav(_wav(batch[0]))
            for stem, truth in separator(rounded.numpy(), 44_100).items():
                wav, rate = tf.audio.decode_wav(files[f"{stem}_wav_bytes"][i])
                assert rate == 44_100
                assert wav.shape == rounded.shape  # each file keeps its own length and channels
                np.testing.assert_allclose(wav, np.clip(truth, -1, 1), rtol=0, atol=1.01 / 32768)
        assert [entry.decode() for entry in metadata["metadata"]] == [text, text]


def test_snippet_on_the_page(exported, unet, tmp_path, snippet):
    (tmp_path / "EXPORT").symlink_to(exported.parent)
    waveform = _noise(5000, 2)
    (tmp_path / "song.wav").write_bytes(_wav(waveform))
    found = snippet("docs/serving.md", "saved_model.load")["stems"]["a"]
    truth = Separator.from_model(unet, _CONFIG)(waveform, 44_100)["a"]
    np.testing.assert_allclose(found[0], truth, rtol=0, atol=1e-3)  # 16 bits
    (tmp_path / "song.wav").write_bytes(_wav(waveform, 48_000))
    with pytest.raises(AssertionError, match=r"song\.wav: found 48000 Hz, expected the model's"):
        snippet("docs/serving.md", "saved_model.load")


def test_signatures_are_named_and_documented(exported):
    signatures = tf.saved_model.load(str(exported)).signatures
    documented = json.loads((exported / METADATA).read_text())["signatures"]
    assert set(signatures) == set(documented) == set(_SIGNATURES)
    for name, signature in signatures.items():
        _, inputs = signature.structured_input_signature
        outputs = signature.structured_outputs
        for found, documents in (
            (inputs, documented[name]["inputs"]),
            (outputs, documented[name]["outputs"]),
        ):
            assert sorted(found) == sorted(documents)
            for tensor, document in documents.items():
                spec = found[tensor]
                assert spec.dtype.name == document["dtype"]
                assert document["unit"]
                fixed = [size if isinstance(size, int) else None for size in document["shape"]]
                assert len(spec.shape) == len(fixed)
                if found is inputs:
                    assert spec.shape.as_list() == fixed
    show = subprocess.run(
        [
            Path(sys.executable).parent / "saved_model_cli",
            *("show", "--dir", exported, "--tag_set", "serve", "--signature_def", "separate_wav"),
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "inputs['wav_bytes'] tensor_info" in show
    for stem in _MODEL.stems:
        assert f"outputs['{stem}_wav_bytes'] tensor_info" in show


def test_metadata_is_inside_and_readable_through_a_signature(exported):
    signature = tf.saved_model.load(str(exported)).signatures["metadata"]
    (text,) = signature(request=tf.constant(["?"]))["metadata"].numpy()
    found = json.loads(text)
    assert text.decode() == (exported / METADATA).read_text()
    assert found["sample_rate"] == 44_100
    assert found["stems"] == ["a", "b", "c"]
    assert found["training_data"] == "noise"
    assert found["licence"] == "none"
    assert found["model_version"] == 1
    assert found["sccunet_version"] == sccunet.__version__
    assert re.fullmatch(r"unknown|[0-9a-f]{40}(-dirty)?", found["git_commit"])
    assert Config.from_dict(found["config"]) == load_config(exported) == _CONFIG


@pytest.mark.usefixtures("check_here")
def test_separator_loads_an_export_and_the_newest_of_several(exported, unet, tmp_path):
    other, base = build_model(_CONFIG), tmp_path / "[live] *? \\ caf\udce9"
    shutil.copytree(exported, base / "1")
    before = {path: path.read_bytes() for path in base.rglob("*") if path.is_file()}
    assert export_saved_model(other, _CONFIG, base) == base / "2"
    assert {path: path.read_bytes() for path in before} == before  # the old one is not touched
    assert sorted(path.name for path in base.iterdir()) == ["1", "2"]
    recording = _noise(10_000, 2)
    for path, net in ((base, other), (base / "2", other), (base / "1", unet)):
        loaded = Separator.load(path)
        assert loaded.config == _CONFIG
        for rate in (44_100, 48_000):
            truth = Separator.from_model(net, _CONFIG)(recording, rate)
            for stem, found in loaded(recording, rate).items():
                np.testing.assert_allclose(found, truth[stem], rtol=0, atol=1e-5)


def test_an_export_has_the_precision_that_it_was_exported_with(exported):
    with pytest.raises(ConfigError, match="precision: found 'mixed_bfloat16' for the SavedModel"):
        Separator.load(exported, precision="mixed_bfloat16")


def test_wrong_folding_is_found(unet, tmp_path, monkeypatch):
    monkeypatch.setattr(export_check, "fold", lambda unet: build_model(_CONFIG))
    with pytest.raises(ConfigError, match="batch normalisation does not fold: 'mag"):
        export_saved_model(unet, _CONFIG, tmp_path)
    assert not list(tmp_path.iterdir())


def test_damaged_export_is_named_in_one_line(exported, tmp_path):
    path = shutil.copytree(exported, tmp_path / "[live]" / "1")
    (path / "variables" / "variables.index").unlink()
    with pytest.raises(ConfigError) as caught:
        Separator.load(tmp_path / "[live]")
    assert str(caught.value).startswith(f"{path}: found a SavedModel that does not load (")
    assert f"{path}/variables/variables)" in str(caught.value)


def test_graph_gives_every_stem_its_own_name(unet, monkeypatch):
    """A batch of 2 stereo recordings: rows, stems and places are not confused."""
    batch = _noise(2, 9000, 2)
    found = separate_graph(tf.constant(batch), unet, _CONFIG)
    assert list(found) == ["a", "b", "c"]
    for i, waveform in enumerate(batch):
        for stem, truth in Separator.from_model(unet, _CONFIG)(waveform, 44_100).items():
            np.testing.assert_allclose(found[stem][i], truth, rtol=0, atol=1e-5)
    assert np.abs(found["a"] - found["b"]).max() > 1e-3

    def network(magnitudes, training):
        sizes.append(len(magnitudes))
        return unet(magnitudes, training=training)

    for most, expected in ((9, [8, 8]), (3, [3, 1] * 4)):  # patches in a call, as on a GPU
        monkeypatch.setattr(separation_graph, "_patches_per_call", lambda most=most: most)
        sizes = []
        for stem, samples in separate_graph(tf.constant(batch), network, _CONFIG).items():
            np.testing.assert_allclose(samples, found[stem], rtol=0, atol=1e-6)
        assert sizes == expected


def test_graph_at_every_length_around_its_patches(loaded, unet):
    patching = Patching.of(_CONFIG.model)
    separate, separator = loaded.signatures["serving_default"], Separator.from_model(unet, _CONFIG)
    step, fade = patching.step, patching.fade
    for length in (step - fade, step, 2 * step - fade, 3 * step - fade):
        for samples in (length - 1, length, length + 1):
            waveform = _noise(samples, 1)
            found = separate(waveform=waveform[None])
            for stem, truth in separator(waveform, 44_100).items():
                np.testing.assert_allclose(found[stem][0], truth, rtol=0, atol=1e-5)
    assert found["a"].shape == (1, 3 * step - fade + 1, 1)
    for shape in ((1, 0, 2), (0, 100, 2)):
        assert separate(waveform=tf.zeros(shape))["a"].shape == shape


def test_invalid_wavs_are_refused(loaded):
    separate = loaded.signatures["separate_wav"]
    good = _wav(_noise(500, 1))
    for bad, reason in (
        (_wav(_noise(500, 1), 48_000), r"separate_wav: found a WAV at.*48000.*Hz, expected.*44100"),
        (b"words", "RIFF|short"),
        (good[:34] + b"\x18\x00" + good[36:], "16-bit"),
        (good[:20] + b"\x03\x00" + good[22:], "PCM"),
        (good[:100], "short|size|length|Data"),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError, match=f"(?s){reason}"):
            separate(wav_bytes=tf.constant([good, bad]))


def test_wavs_of_loud_stems_are_clipped(tmp_path):
    """A network that doubles: samples beyond full scale are clipped."""
    config = Config(model=ModelConfig(stems=("a",), frame_length=256, hop_length=64,
                                      patch_samples=4096, filters=(3, 4)))  # fmt: skip

    def double(magnitudes, training):
        return 2 * magnitudes

    waveform = np.full((3000, 1), 0.75, np.float32)
    waveform[1500:] = -0.75
    wav = separate_wav_graph(tf.constant([_wav(waveform)]), double, config)["a_wav_bytes"][0]
    found, _ = tf.audio.decode_wav(wav)
    assert found.shape == waveform.shape
    assert np.mean(found[500:1400]) > 0.99
    assert np.mean(found[1600:2500]) < -0.99


def test_threads_calling_one_model_get_the_results_of_single_calls(loaded):
    calls = []
    for i in range(12):
        waveform = _noise(1, 3000 * (1 + i % 5), 1 + i % 2, seed=i)
        magnitudes = np.abs(_noise(2, _CONFIG.model.bins, _CONFIG.model.frames, seed=i))
        calls += [
            ("serving_default", {"waveform": waveform}),
            ("separate_wav", {"wav_bytes": tf.constant([_wav(waveform[0])])}),
            ("magnitudes", {"mixture_magnitudes": magnitudes}),
            ("metadata", {"request": tf.constant([""])}),
        ]

    def run(call):
        name, inputs = call
        return {key: x.numpy() for key, x in loaded.signatures[name](**inputs).items()}

    expected = [run(call) for call in calls]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for found, truth in zip(pool.map(run, calls), expected, strict=True):
            for key, value in truth.items():
                if value.dtype == object:
                    assert found[key].tolist() == value.tolist()
                else:
                    np.testing.assert_allclose(found[key], value, rtol=0, atol=1e-6)


def test_warmup_requests_fit_the_signatures(exported):
    """As TensorFlow Serving runs them: feeds and fetches by the signature definitions."""
    from tensorflow_serving.apis import prediction_log_pb2

    logs = []
    for record in tf.data.TFRecordDataset(str(exported / WARMUP)).as_numpy_iterator():
        log = prediction_log_pb2.PredictionLog.FromString(record).predict_log
        inputs = {key: tf.make_ndarray(tensor) for key, tensor in log.request.inputs.items()}
        logs.append((log.request.model_spec.signature_name, inputs))
    assert [name for name, _ in logs] == list(_SIGNATURES)
    assert (exported / WARMUP).stat().st_size < 20_000
    for (_, inputs), outputs in zip(
        logs, run_saved_model.run_session(str(exported), logs), strict=True
    ):
        assert outputs
        assert {len(value) for value in [*inputs.values(), *outputs.values()]} == {1}


def test_existing_version_is_refused_and_left_alone(unet, tmp_path):
    (tmp_path / "007").mkdir()
    (tmp_path / "007" / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError) as caught:
        export_saved_model(unet, _CONFIG, tmp_path, version=7)
    expected = f"{tmp_path / '7'}: found already there, expected a new version"
    assert str(caught.value) == expected
    assert [path.name for path in tmp_path.rglob("*")] == ["007", "mine.txt"]


def test_full_disk_is_named_in_one_line(unet, tmp_path, monkeypatch):
    def save(*_, **__):
        raise tf.errors.OutOfRangeError(None, None, "variables; File too large\nmore")

    monkeypatch.setattr(tf.saved_model, "save", save)
    with pytest.raises(ConfigError) as caught:
        export_saved_model(unet, _CONFIG, tmp_path)
    assert str(caught.value) == f"{tmp_path}/1: cannot be written (variables; File too large)"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("check_here")
def test_stems_of_any_name(randomise, tmp_path):
    model = dataclasses.replace(_CONFIG.model, stems=("lead vocals", "größe", "_x"))
    config = Config(model=model)
    unet = randomise(build_model(config))
    export_saved_model(unet, config, tmp_path)
    recording = _noise(3000, 1)
    truth = Separator.from_model(unet, config)(recording, 44_100)
    for stem, found in Separator.load(tmp_path)(recording, 44_100).items():
        np.testing.assert_allclose(found, truth[stem], rtol=0, atol=1e-5)


@pytest.mark.usefixtures("check_here")
def test_wrong_export_is_refused_and_nothing_is_left(unet, tmp_path, monkeypatch):
    def swapped(waveform, unet, config):
        stems = separate_graph(waveform, unet, config)
        stems["a"], stems["b"] = stems["b"], stems["a"]
        return stems

    monkeypatch.setattr(signatures, "separate_graph", swapped)
    with pytest.raises(ConfigError, match=r"'serving_default' by the tf2 loader: '.' differs from"):
        export_saved_model(unet, _CONFIG, tmp_path / "base")
    assert list((tmp_path / "base").iterdir()) == []


def test_export_that_does_not_run_is_refused(unet, tmp_path, monkeypatch):
    save = tf.saved_model.save

    def broken(module, path, **options):
        save(module, path, **options)
        (Path(path) / METADATA).unlink()

    monkeypatch.setattr(tf.saved_model, "save", broken)
    with pytest.raises(ConfigError, match=r"does not run in a fresh process \(.*metadata\.json"):
        export_saved_model(unet, _CONFIG, tmp_path / "base")
    assert list((tmp_path / "base").iterdir()) == []


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        ({"a": [np.zeros(3)], "b": []}, "found the outputs ['a', 'b'], expected ['a']"),
        ({"a": [np.zeros(4)]}, "'a' differs from the model in memory by inf"),
        ({"a": [np.array([0, 2e-5, 0])]}, "'a' differs from the model in memory by 2.0e-05"),
        ({"a": [np.array([0, np.nan, 0])]}, "'a' differs from the model in memory by nan"),
        ({"a": [np.array([0, 5e-6, 0])]}, None),
    ],
)
def test_differences_are_found(found, reason):
    assert (export_check.difference(found, {"a": [np.zeros(3)]}) or "None").startswith(str(reason))
