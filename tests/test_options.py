"""The model's options through the whole chain: Python, graph, SavedModel, programs, TFLite."""

import dataclasses

import numpy as np
import pytest
import soundfile
import tensorflow as tf

from sccunet import build_model
from sccunet.checkpoints import BEST, load_weights, save_whole
from sccunet.config import Config, ModelConfig
from sccunet.export import export_saved_model
from sccunet.reconstruction import Reconstruction
from sccunet.runs import CONFIG
from sccunet.separation import Separator
from sccunet.separation_graph import separate_graph
from sccunet.tflite import export_tflite
from sccunet.unet import output_layer

_MODEL = ModelConfig(
    stems=("a", "b", "c"), frame_length=256, hop_length=64, patch_samples=4096, filters=(3, 4, 5)
)
_ALL = {"channels": 2, "input_power": 0.5, "output": "mask"}
_OPTIONS = [*({name: value} for name, value in _ALL.items()), _ALL]


def _config(options):
    return Config(model=dataclasses.replace(_MODEL, **options), downmix=False)


@pytest.fixture(params=_OPTIONS, ids=["stereo", "root", "mask", "all"])
def config(request):
    return _config(request.param)


def _noise(*shape, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def _assert_same(found, truth):
    assert list(found) == list(truth)
    for stem, samples in truth.items():
        assert samples.std() > 1e-3
        np.testing.assert_allclose(found[stem], samples, rtol=0, atol=1e-5)


def test_chain_computes_what_the_network_in_memory_does(config, randomise, tmp_path):
    """Recordings of 1 to 3 channels; the exports check themselves against the same network."""
    unet = randomise(build_model(config))
    separator = Separator.from_model(unet, config)
    path = tmp_path / "network.tflite"
    export_tflite(unet, config, path)
    run = tf.lite.Interpreter(str(path)).get_signature_runner("magnitudes")
    model = config.model
    magnitudes = np.abs(_noise(1, model.bins, model.frames, model.channels))
    given = magnitudes if model.channels == 2 else magnitudes[..., 0]
    found = run(mixture_magnitudes=given)
    estimates = np.split(unet(magnitudes, training=False).numpy(), 3, axis=-1)
    for stem, truth in zip(model.stems, estimates, strict=True):
        np.testing.assert_allclose(found[stem], truth.reshape(given.shape), rtol=1e-4, atol=1e-5)
    for channels in (1, 2, 3):
        waveform = _noise(5000, channels)
        truth = separator(waveform, model.sample_rate)
        graph = separate_graph(tf.constant(waveform[None]), unet, config)
        _assert_same({stem: x[0].numpy() for stem, x in graph.items()}, truth)


@pytest.mark.slow
def test_saved_model_and_programs_compute_the_same(randomise, tmp_path, program):
    config = _config(_ALL)
    unet = randomise(build_model(config))
    run = tmp_path / "run"
    run.mkdir()
    save_whole(unet, run / BEST)
    (run / CONFIG).write_text(config.to_json())
    export = export_saved_model(unet, config, tmp_path / "export")
    waveform = _noise(9000, 2)
    truth = Separator.from_model(unet, config)(waveform, 44_100)
    _assert_same(Separator.load(export)(waveform, 44_100), truth)
    soundfile.write(tmp_path / "song.wav", waveform, 44_100, "FLOAT")
    song, out = tmp_path / "song.wav", tmp_path / "out"
    line = (f"--model={run}", "--device=cpu", "--batch_size=3", f"--output_dir={out}")
    done = program("separate", *line, "--encoding=float32", song)
    assert done.returncode == 0, done.stderr
    written = {stem: out / "song" / f"{stem}.wav" for stem in truth}
    _assert_same({stem: soundfile.read(path)[0] for stem, path in written.items()}, truth)


def test_weights_go_through_a_file_bit_for_bit(config, randomise, tmp_path):
    unet, again = randomise(build_model(config)), build_model(config)
    save_whole(unet, tmp_path / BEST)
    load_weights(again, tmp_path / BEST)
    for weight, truth in zip(again.weights, unet.weights, strict=True):
        np.testing.assert_array_equal(weight.numpy(), truth.numpy())


def test_channels_go_in_pairs_and_a_single_one_twice():
    """Left times 1/2 and right times 1: a channel that goes in twice comes out times 3/4."""
    config = _config({"channels": 2})

    def network(magnitudes, training):
        return tf.tile(magnitudes * (0.5, 1.0), (1, 1, 1, 3))

    for channels, gains in ((1, [0.75]), (2, [0.5, 1]), (3, [0.5, 1, 0.75])):
        waveform = _noise(6000, channels)
        expected = dict.fromkeys(config.model.stems, waveform * np.float32(gains))
        _assert_same(Separator.from_model(network, config)(waveform, 44_100), expected)
        found = separate_graph(tf.constant(waveform[None]), network, config)
        _assert_same({stem: x[0].numpy() for stem, x in found.items()}, expected)


def test_wiener_filter_sees_both_channels(randomise):
    """Two networks, one per channel or for both, that estimate the same."""
    waveform, found = _noise(6000, 2), []
    for channels in (1, 2):

        def network(magnitudes, training, channels=channels):
            return tf.concat([magnitudes * gain for gain in (0.5, 0.3, 0.2)], axis=-1)

        how = Reconstruction(mask="wiener")
        config = _config({"channels": channels})
        found.append(Separator.from_model(network, config, how)(waveform, 44_100))
    _assert_same(found[1], found[0])


def test_masks_are_shares_of_the_mixture(randomise):
    config = _config({"output": "mask"})
    unet = randomise(build_model(config))
    shape = (1, _MODEL.bins, _MODEL.frames, 1)
    magnitudes = np.abs(_noise(*shape, seed=1))
    estimates = unet(magnitudes, training=False).numpy()
    assert np.all((estimates > 0) & (estimates < magnitudes))
    np.testing.assert_allclose(estimates.sum(axis=-1), magnitudes[..., 0], rtol=1e-5)
    # A number that is added to the logits of one stem multiplies its share, before the sum is 1.
    bias = output_layer(unet).bias
    bias.assign(bias.numpy() + np.log([1, 3, 1]))
    louder = estimates * (1, 3, 1)
    louder *= magnitudes / louder.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(unet(magnitudes, training=False), louder, rtol=1e-4)


def test_square_root_is_what_the_first_layer_reads(randomise):
    root = randomise(build_model(_config({"input_power": 0.5})))
    linear = build_model(_config({}))
    linear.set_weights(root.get_weights())
    magnitudes = np.abs(_noise(1, _MODEL.bins, _MODEL.frames, 1, seed=1))
    found, expected = root(magnitudes, training=False), linear(magnitudes**0.5, training=False)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
