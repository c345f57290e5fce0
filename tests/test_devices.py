"""TensorFlow's devices, and PyTorch's, with stand-ins for GPUs."""

import sys
from unittest import mock

import pytest
import tensorflow as tf

from sccunet import devices
from sccunet.config import ConfigError

_GPUS = [f"/physical_device:GPU:{i}" for i in range(2)]


@pytest.fixture
def found(monkeypatch):
    """What TensorFlow is told: which GPUs it may use, and how much memory it takes of each."""
    told = {"visible": list(_GPUS), "memory": {}}
    config = tf.config
    monkeypatch.setattr(config, "list_physical_devices", lambda kind: list(_GPUS))
    monkeypatch.setattr(config, "get_visible_devices", lambda kind: told["visible"])
    monkeypatch.setattr(
        config, "set_visible_devices", lambda chosen, kind: told.update(visible=chosen)
    )
    monkeypatch.setattr(
        config.experimental, "set_memory_growth", lambda gpu, _: told["memory"].update({gpu: None})
    )
    monkeypatch.setattr(
        config,
        "set_logical_device_configuration",
        lambda gpu, limits: told["memory"].update({gpu: limits[0].memory_limit}),
    )
    return told


@pytest.mark.parametrize(
    ("device", "limit", "visible", "patches"),
    [
        (None, None, _GPUS, 8),
        ("cpu", None, [], 1),
        ("gpu", 2000, _GPUS[:1], 8),
        ("GPU:1", None, _GPUS[1:], 8),
    ],
)
def test_one_device_is_used_with_as_much_memory_as_it_needs(found, device, limit, visible, patches):
    devices.use(device, limit)
    assert found == {"visible": visible, "memory": dict.fromkeys(visible, limit)}
    assert devices.patches_per_call() == patches


@pytest.mark.parametrize(("there", "patches"), [(True, 8), (False, 1)])
def test_a_gpu_of_pytorch_takes_as_many_patches(monkeypatch, there, patches):
    monkeypatch.setattr("keras.backend.backend", lambda: "torch")
    torch = mock.Mock(**{"cuda.is_available.return_value": there})
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert devices.patches_per_call() == patches


def test_devices_that_are_not_there(found, monkeypatch):
    with pytest.raises(ConfigError) as caught:
        devices.use("gpu:2")
    assert str(caught.value) == (
        "device: found 'gpu:2', expected one that TensorFlow finds here: cpu, gpu, gpu:0, gpu:1"
    )
    with pytest.raises(ConfigError, match="gpu_memory_mb: found 9, expected none without a GPU"):
        devices.use("cpu", 9)
    monkeypatch.setattr("keras.backend.backend", lambda: "jax")
    with pytest.raises(ConfigError, match="device: found 'cpu', expected none: Keras runs on jax"):
        devices.use("cpu")


def test_a_device_that_is_chosen_too_late(found):
    late = mock.Mock(side_effect=RuntimeError("Visible devices cannot be modified"))
    with mock.patch.object(tf.config, "set_visible_devices", late):
        with pytest.raises(ConfigError) as caught:
            devices.use("gpu:1")
        assert str(caught.value) == (
            "device: found 'gpu:1', expected it before TensorFlow computes"
            " (Visible devices cannot be modified)"
        )
        found["visible"] = _GPUS[1:]
        devices.use("gpu:1")
        devices.use()  # of a program that has chosen for itself
    with mock.patch.object(tf.config.experimental, "set_memory_growth", late):
        devices.use()
