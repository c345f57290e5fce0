"""Training and separation under Keras's JAX backend, with and without TensorFlow installed."""

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from jax_training import CONFIG, EPOCHS, STEPS, STOPPED
from kill_training import arrays
from process import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed"),
]

# What `jax_training.py` prints under TensorFlow.
_LOSSES = [
    *(1.75414, 1.63349, 1.68371, 1.67200, 1.67192),
    *(1.53315, 1.61063, 1.68046, 1.71525, 1.64366),
]
_VALIDATED = [1.64480, 1.59480]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("jax")


def _printed(script, *arguments):
    """Runs a script of this folder under JAX with four devices; returns the JSON it prints last."""
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / script, *arguments],
        env={
            **os.environ,
            "KERAS_BACKEND": "jax",
            "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
            "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        },
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def ran(folder):
    return _printed("jax_training.py", folder, "more")


def _close(found, losses, validated, atol):
    np.testing.assert_allclose(found["losses"], losses, rtol=0, atol=atol)
    np.testing.assert_allclose(found["val_loss"], validated, rtol=0, atol=atol)


def test_losses_are_those_of_tensorflow(ran):
    _close(ran["whole"], _LOSSES, _VALIDATED, 1e-3)
    has_tensorflow = importlib.util.find_spec("tensorflow") is not None
    assert ran["modules"] == ["tensorflow"] * has_tensorflow + ["jax"]
    assert ("no TensorBoard logs" in ran["whole"]["printed"]) != has_tensorflow


def test_a_stopped_run_continues_with_the_same_weights(ran, folder):
    assert len(ran["stopped"]["losses"]) == STOPPED
    assert len(ran["continued"]["losses"]) == EPOCHS * STEPS - STOPPED
    assert f"continuing from epoch 1 of 2 and {STOPPED - STEPS} of" in ran["continued"]["printed"]
    found, expected = (arrays(folder / name / "last.weights.h5") for name in ("again", "whole"))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    assert int(found["optimizer/vars/0"]) == EPOCHS * STEPS


def test_the_host_reads_from_the_device_once_in_twenty_steps(ran):
    """After the last it reads the logs of the epoch, too."""
    assert [step for step in ran["reads"] if step] == [20, 40]


def test_patches_are_separated_by_one_compiled_function(ran):
    """Of 5 patches, which 2 and 1 do not fill."""
    assert ran["separation"]["compiled"] == 1
    np.testing.assert_allclose(ran["separation"]["differences"], 0, atol=1e-5)


def test_devices_that_share_batches_compute_the_losses_of_one(ran):
    assert "strategy: auto (cpu, JAX), 1 replica\n" in ran["whole"]["printed"]
    assert "strategy: mirrored (cpu, JAX), 4 replicas\n" in ran["shared"]["printed"]
    _close(ran["shared"], ran["whole"]["losses"], ran["whole"]["val_loss"], 1e-4)


def test_tensorflow_loads_the_weights(ran, folder):
    pytest.importorskip("tensorflow")
    from sccunet.checkpoints import load_newest, load_weights
    from sccunet.runs import load_config
    from sccunet.training import compile_trainer
    from sccunet.unet import build_model

    assert load_config(folder / "whole") == CONFIG
    unet = build_model(CONFIG)
    load_weights(unet, folder / "whole" / "best.weights.h5")
    trainer = compile_trainer(unet, CONFIG, CONFIG.loss_weights, STEPS)
    assert load_newest(trainer, folder / "whole")
    assert (trainer.steps_done, int(trainer.epochs_done)) == (EPOCHS * STEPS, EPOCHS)


def test_layers_compute_what_those_of_keras_do():
    """And the gradient of an up-convolution's kernel stays a convolution with small kernels."""
    found = _printed("jax_layers.py")
    assert not found.pop("swapped")
    assert found.pop("swapped_by_keras")
    assert set(found) == {"up", "norm", "pad"}
    assert all(difference < 2e-6 for difference in found.values()), found
