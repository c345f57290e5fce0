"""Portable models against the workdirs that they are from, by OpenVINO and by TensorFlow."""

import concurrent.futures
import dataclasses
import functools
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from process import ROOT

from sccunet.config import Config, ConfigError, ModelConfig
from sccunet.patching import Patching
from sccunet.reconstruction import Reconstruction
from sccunet.runs import CONFIG, NETWORK
from sccunet.runtime import OpenVinoNetwork, TensorFlowNetwork
from sccunet.separation import Separator

_MONO = ModelConfig(
    stems=("b", "größe", "a"), frame_length=256, hop_length=64, patch_samples=4096, filters=(4, 8)
)
_STEREO = dataclasses.replace(
    _MONO, stems=("b", "a"), patch_samples=4100, channels=2, input_power=0.5, output="mask"
)
_CONFIGS = {
    channels: Config(model=model, downmix=False)
    for channels, model in ((1, _MONO), (2, _STEREO))
}  # fmt: skip
_RATE = _MONO.sample_rate


def _noise(samples, channels):
    noise = np.random.default_rng(samples).uniform(-1, 1, (samples, channels))
    return noise.astype(np.float32)


@pytest.fixture(scope="module")
def models(randomise, make_run, make_portable, tmp_path_factory):
    """Function (channels of the network) -> its workdir and portable model; each is made once."""

    @functools.cache
    def make(channels):
        config, folder = _CONFIGS[channels], tmp_path_factory.mktemp("models") / "a [x]"
        return (
            make_run(folder / "run", config, randomise),
            make_portable(folder / "portable", config, randomise),
        )

    return make


@pytest.fixture(scope="module")
def separators(models):
    """Function (channels, reconstruction) -> separators by Keras and by OpenVINO."""
    return functools.cache(
        lambda channels, how: [Separator.load(path, how) for path in models(channels)]
    )


_HOW = [Reconstruction(), Reconstruction("soft", 1.5), Reconstruction("wiener")]


def _assert_same(found, truth):
    assert list(found) == list(truth)
    for stem, samples in truth.items():
        assert found[stem].dtype == np.float32
        np.testing.assert_allclose(found[stem], samples, rtol=0, atol=1e-4, err_msg=stem)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("how", _HOW, ids=lambda how: how.mask)
def test_portable_model_separates_as_its_workdir(channels, how, separators):
    keras, openvino = separators(channels, how)
    recordings = [(1, 1), (100, 2), (3 * 4096 + 5, 3), (5000, 8)]
    for samples, recorded in recordings[: 3 if how.mask == "wiener" else 4]:
        recording = _noise(samples, recorded)
        recording[3000:8000, 0] = 0
        truth = keras(recording, _RATE)
        _assert_same(openvino(recording, _RATE), truth)
    assert min(stem.std() for stem in truth.values()) > 0.005


def test_another_sample_rate_and_blocks(separators):
    keras, openvino = separators(2, _HOW[0])
    recording = _noise(9000, 2)
    truth = keras(recording, 48_000)
    parts = list(openvino.stream(np.split(recording, [1, 1, 300, 7000]), 48_000))
    _assert_same({stem: np.concatenate([part[stem] for part in parts]) for stem in truth}, truth)


@pytest.mark.parametrize("channels", [1, 2])
def test_runtimes_give_the_same(channels, models, separators):
    _, portable = models(channels)
    model = _CONFIGS[channels].model
    ours, theirs = OpenVinoNetwork(portable, model, "cpu"), TensorFlowNetwork(portable, model)
    shape = (3, channels, model.frames, model.bins)
    spectrograms = np.abs(np.random.default_rng(0).standard_normal(shape)).astype(np.float32)
    magnitudes = spectrograms.transpose(0, 3, 2, 1)
    truth = theirs(magnitudes)
    assert truth.shape == (*magnitudes.shape[:3], len(model.stems) * channels)
    assert truth.std(axis=(0, 1, 2)).min() > 0.01
    for layout in (magnitudes, np.ascontiguousarray(magnitudes), magnitudes.astype(np.float64)):
        np.testing.assert_allclose(ours(layout), truth, rtol=0, atol=1e-5)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        several = list(pool.map(ours, [magnitudes, 2 * magnitudes] * 10))
    for found in several[::2]:
        np.testing.assert_allclose(found, truth, rtol=0, atol=1e-5)
    nodes = ours._compiled.get_runtime_model().get_ops()
    layers = {node.get_rt_info()["layerType"].value for node in nodes}
    assert "Softmax" not in layers  # which is slow
    assert "Convolution" in layers
    recording = _noise(5000, 2)
    found = Separator.load(portable, runtime="tensorflow")(recording, _RATE)
    _assert_same(found, separators(channels, _HOW[0])[1](recording, _RATE))


def test_stems_come_a_few_patches_after_the_mixture(separators):
    """A few are separated at the same time; memory does not depend on the length."""
    _, openvino = separators(2, _HOW[0])
    step, fed, given = Patching.of(_STEREO).step, 0, 0

    def blocks():
        nonlocal fed
        for _ in range(100):
            fed += 500
            yield _noise(500, 2)

    for part in openvino.stream(blocks(), _RATE):
        given += len(part["a"])
        if fed < 50_000:
            assert fed - given <= _STEREO.patch_samples + openvino._parallel * step + 500
    assert given == 50_000


def test_the_environment_limits_threads(models, monkeypatch):
    _, portable = models(2)
    for threads, expected in (("1", 1), ("2", 2)):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        network = OpenVinoNetwork(portable, _STEREO)
        assert network.parallel == expected
        assert network._compiled.get_property("INFERENCE_NUM_THREADS") == expected


def _change(**fields):
    def change(folder):
        config = _CONFIGS[2]
        model = dataclasses.replace(config.model, **fields)
        text = dataclasses.replace(config, model=model).to_json()
        (folder / CONFIG).write_text(text)

    return change


def _network(content):
    return lambda folder: (folder / NETWORK).write_bytes(content((folder / NETWORK).read_bytes()))


_FITS = ", expected the network that sccunet export wrote for the config beside it"


@pytest.mark.parametrize("runtime", ["openvino", "tensorflow"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_network(lambda _: b""), "found no TFLite file"),
        (_network(lambda _: b"no network\n"), "found no TFLite file"),
        (_network(lambda whole: whole[:10_000]), "found a network that does not load ("),
        (_network(lambda whole: whole[:-9]), "found a network that does not load ("),
        (_change(stems=("a", "b", "c")), "found other stems"),
        (_change(hop_length=32), "found magnitudes [1, 129, 65, 2] in place of [1, 129, 129, 2]"),
        (_change(channels=1), "found magnitudes [1, 129, 65, 2] in place of [1, 129, 65]"),
    ],
    ids=["empty", "text", "half", "cut", "stems", "frames", "channels"],
)
def test_networks_that_do_not_fit(change, message, runtime, models, tmp_path):
    for name in (NETWORK, CONFIG):
        (tmp_path / name).write_bytes((models(2)[1] / name).read_bytes())
    change(tmp_path)
    with pytest.raises(ConfigError) as caught:
        Separator.load(tmp_path, runtime=runtime)
    assert str(caught.value).startswith(f"{tmp_path / NETWORK}: {message}")
    assert str(caught.value).endswith(_FITS)
    assert "\n" not in str(caught.value)


_RUN, _PORTABLE = 0, 1


@pytest.mark.parametrize(
    ("kind", "choice", "message"),
    [
        (_PORTABLE, {"device": "NPU.7"}, "device: found 'NPU.7', expected one that OpenVINO finds"),
        (_PORTABLE, {"runtime": "torch"}, "runtime: found 'torch' for the portable model {}, expe"),
        (_RUN, {"runtime": "openvino"}, "runtime: found 'openvino' for the training workdir {}, "),
        (
            _PORTABLE,
            {"runtime": "tensorflow", "device": "CPU"},
            "device: found 'CPU' for the portable model {}, expected none: LiteRT runs it",
        ),
        (_PORTABLE, {"batch_size": 2}, "batch_size: found 2 for the portable model {}, expected n"),
        (_RUN, {"batch_size": 0}, "batch_size: found 0, expected a whole number over 0"),
        (_PORTABLE, {"gpu_memory_mb": 9}, "gpu_memory_mb: found 9 for the portable model {}, expe"),
        (_RUN, {"device": "gpu:7"}, "device: found 'gpu:7', expected one that TensorFlow finds"),
        (_PORTABLE, {"precision": "mixed_bfloat16"}, "precision: found 'mixed_bfloat16' for the p"),
        (_RUN, {"precision": "half"}, "precision: found 'half' for the training workdir {}, expec"),
    ],
)
def test_choices_that_do_not_fit_the_model(kind, choice, message, models):
    path = models(1)[kind]
    with pytest.raises(ConfigError) as caught:
        Separator.load(path, **choice)
    assert str(caught.value).startswith(message.format(path))
    assert "\n" not in str(caught.value)


def test_flags(models, program, refusal, tmp_path):
    song, out = tmp_path / "song.wav", f"--output_dir={tmp_path / 'out'}"
    soundfile.write(song, _noise(100, 1), _RATE)
    run, portable = models(1)
    message = refusal(program("separate", f"--model={run}", "--runtime=openvino", out, song))
    assert message.startswith("runtime: found 'openvino' for the training workdir")
    message = refusal(program("separate", f"--model={portable}", "--device=NPU.7", out, song))
    assert message.startswith("device: found 'NPU.7'")
    data = [f"--model={run}", f"--data_dir={tmp_path}", "--system=mixture", "--device=CPU"]
    message = refusal(program("evaluate", *data, out))
    assert message == "--device: given, expected none beside --system=mixture"


def test_openvino_that_is_not_installed(models, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ConfigError) as caught:
        Separator.load(models(1)[1])
    assert str(caught.value).startswith("OpenVINO: cannot be imported (")
    assert str(caught.value).endswith(", expected it for a portable model: pip install openvino")


_ALONE = """
import sys
for absent in ("tensorflow", "keras", "scipy"):
    sys.modules[absent] = None
import numpy as np
import sccunet
from experiments.machine import peak_memory

separator = sccunet.Separator.load(sys.argv[1])
rate = separator.config.model.sample_rate

def peak_after(blocks):
    block = np.random.default_rng(0).uniform(-1, 1, (10_000, 2)).astype(np.float32)
    samples = sum(len(stems["a"]) for stems in separator.stream([block] * blocks, rate))
    assert samples == blocks * len(block)
    return peak_memory()

few, many = peak_after(int(sys.argv[2])), peak_after(int(sys.argv[3]))
# OpenVINO's converter would bring its telemetry.
found = {"tensorflow", "keras", "scipy", "openvino_telemetry"} & {
    name for name, module in sys.modules.items() if module
}
print(few, many, found)
"""


def _alone(portable, few, many):
    """Separates `few` and then `many` blocks of 10 000 samples; returns the peaks in MB."""
    done = subprocess.run(
        [sys.executable, "-c", _ALONE, portable, str(few), str(many)],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    few, many, found = done.stdout.split(maxsplit=2)
    assert found.strip() == "set()"
    return int(few) / 1e6, int(many) / 1e6


def test_alone(models):
    """Without TensorFlow, Keras and SciPy, and without messages to OpenVINO's makers."""
    _alone(models(2)[1], 1, 2)


@pytest.mark.slow
def test_an_hour_takes_the_memory_of_five_minutes(models, tmp_path):
    """At 1 kHz, so that it takes seconds; in memory the hour and its stems would take 80 MB."""
    for name in (NETWORK, CONFIG):
        text = (models(2)[1] / name).read_bytes()
        (tmp_path / name).write_bytes(text.replace(b'"sample_rate": 44100', b'"sample_rate": 1000'))
    few, many = _alone(tmp_path, 5 * 6, 60 * 6)
    assert many < few + 20
