"""Fixtures that several test files share."""

import os
from pathlib import Path
from unittest import mock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# PyTorch's OpenMP threads spin while they wait, which slows down all other processes.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import process
import pytest

from data_pipeline.audio_writer import write_wav
from sccunet import keras_settings

keras_settings.ignore()  # those of whoever runs the tests


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk():
    """The tests write thousands of small files, which need not survive a power cut."""
    with mock.patch.object(os, "fsync", return_value=None):
        yield


# A worker runs a whole file, so those that take longest come first.
_LONGEST = ("training", "train", "tour", "distribution", "export", "catalogue", "ablate")


def pytest_collection_modifyitems(items):
    names = [f"test_{name}.py" for name in _LONGEST]
    items.sort(key=lambda item: names.index(item.path.name) if item.path.name in names else 99)


@pytest.fixture(scope="session")
def randomise():
    """Function that sets every weight of a model to a random value, batch-norm statistics too."""

    def assign(model, seed=0):
        from sccunet.unet import output_layer

        rng = np.random.default_rng(seed)
        for layer in model.layers:
            for variable in layer.weights:
                shape, name = variable.shape, variable.name
                if name == "kernel":
                    *window, first, second = shape  # transposed: [h, w, out, in]
                    transposed = type(layer).__name__ == "Conv2DTranspose"
                    fan_in = np.prod(window) * (second if transposed else first)
                    value = rng.standard_normal(shape) * np.sqrt(2 / fan_in)
                elif name in ("gamma", "moving_variance"):
                    value = rng.uniform(0.5, 1.5, shape)
                elif name in ("beta", "moving_mean", "bias"):
                    value = rng.uniform(-0.3, 0.3, shape)
                else:
                    continue  # the state of a dropout layer's random generator
                variable.assign(value.astype(np.float32))
        # The last layer may be a ReLU: keep every stem from being silent by chance.
        bias = output_layer(model).bias
        bias.assign(bias.numpy() + 1)
        return model

    return assign


@pytest.fixture(scope="session")
def make_identity():
    """Function that sets weights so that every stem is the mixture, by the first skip."""

    def assign(model):
        for layer in model.layers:
            for weight in layer.weights:
                if weight.name in ("kernel", "bias", "beta", "moving_mean"):
                    weight.assign(np.zeros(weight.shape))
                elif weight.name == "moving_variance":
                    weight.assign(np.ones(weight.shape))
                elif weight.name == "gamma":
                    weight.assign(np.full(weight.shape, np.sqrt(1 + layer.epsilon)))
        width = model.get_layer("encoder1_conv1").filters
        # Where each kernel is 1: [height, width, in, out], in transposed ones [.., out, in].
        places = {
            "encoder1_conv1": (1, 1, 0, 0),
            "encoder1_conv2": (1, 1, 0, 0),
            "decoder1_conv1": (1, 1, 0, width),  # after the up-convolution's channels
            "decoder1_conv2": (1, 1, 0, 0),
            "stem_magnitudes": (0, 0, 0, slice(None)),
        }
        for name, place in places.items():
            kernel = model.get_layer(name).kernel
            value = np.zeros(kernel.shape)
            value[place] = 1
            kernel.assign(value)
        return model

    return assign


@pytest.fixture(scope="session")
def make_run():
    """Function that makes a training workdir: `make_run(path, config, weights_setter)`."""

    def make(path, config, set_weights):
        from sccunet import build_model
        from sccunet.checkpoints import BEST, save_whole

        path.mkdir(parents=True)
        (path / "config.json").write_text(config.to_json())
        save_whole(set_weights(build_model(config)), path / BEST)
        return path

    return make


@pytest.fixture(scope="session")
def make_portable():
    """Function that makes a portable model, without a card: `make_portable(path, config, ...)`."""

    def make(path, config, set_weights):
        from sccunet import build_model
        from sccunet.tflite import export_tflite

        path.mkdir(parents=True)
        (path / "config.json").write_text(config.to_json())
        export_tflite(set_weights(build_model(config)), config, path / "network.tflite")
        return path

    return make


@pytest.fixture(scope="session")
def export_unchecked():
    """`export_saved_model` without its check in a new process, which the export tests cover."""

    def export(*arguments, **options):
        from sccunet import export as module

        with mock.patch.object(module, "check_export"):
            return module.export_saved_model(*arguments, **options)

    return export


@pytest.fixture(scope="session")
def program():
    """Function that runs a program as its users do: `program("train", "--workdir=RUN", ...)`.

    With options of `subprocess.run` it starts a new Python; without, it forks one that has
    TensorFlow imported.
    """

    def run(name, *arguments, **options):
        return (process.fresh if options else process.run)(name, *arguments, **options)

    return run


@pytest.fixture(scope="session")
def refusal():
    """Function that returns the one error line of a program that failed as it should."""

    def message(done):
        assert done.returncode == 1, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, done.stderr
        return errors[0].removeprefix("error: ")

    return message


@pytest.fixture(scope="session")
def write_track():
    """Function that writes stereo noise of the given levels, as 16-bit WAVs, into a folder."""

    def write(folder, levels, seconds=2.0, seed=0, rate=44_100):
        rng = np.random.default_rng(seed)
        for stem, level in levels.items():
            noise = level * rng.standard_normal((round(seconds * rate), 2))
            write_wav(Path(folder) / f"{stem}.wav", noise, rate)
        return Path(folder)

    return write


@pytest.fixture
def snippet(tmp_path, monkeypatch):
    """Function that runs the Python block of a page that contains a text; returns its variables.

    It runs in `tmp_path`, for a model that has a stem "a" in place of the page's "vocals".
    """
    monkeypatch.chdir(tmp_path)

    def run(page, text):
        blocks = (Path(__file__).parents[1] / page).read_text().split("```python\n")[1:]
        [code] = [block.split("```")[0] for block in blocks if text in block.split("```")[0]]
        variables = {}
        exec(code.replace('"vocals"', '"a"'), variables)
        return variables

    return run
