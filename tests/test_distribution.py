"""Replicas and workers: the same training, divided."""

import contextlib
import json
import re
import socket
import types

import h5py
import numpy as np
import process
import pytest
import tensorflow as tf

from experiments.training import run as training_run
from experiments.training.options import TrainOptions
from sccunet import distribution
from sccunet.checkpoints import CHECKPOINT
from sccunet.config import Config, ConfigError
from sccunet.distribution import is_chief, is_multiworker, make_strategy

_MIRRORED = TrainOptions("DATA", "RUN", strategy="mirrored")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory, write_track):
    folder = tmp_path_factory.mktemp("distribution") / "data"
    levels = {"vocals": 0.2, "drums": 0.1, "bass": 0.05, "other": 0.025}
    for seed, place in enumerate(("train/one", "train/two", "valid/check")):
        write_track(folder / place, levels, seconds=4.0, seed=seed)
    return folder


def _run(*arguments, **environment):
    return process.start_module("replicas", *arguments, **environment)


def _found(running, code=0):
    """Losses, and all that was printed."""
    done = running.wait()
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stdout + done.stderr


def _cluster(workers):
    """Returns TF_CONFIG of each worker, on free ports of the loopback interface."""
    sockets = [socket.socket() for _ in range(workers)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return [
        json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": i}})
        for i in range(workers)
    ]


@pytest.fixture(scope="module")
def alone(data_dir):
    """Losses of one device."""
    return _found(_run(data_dir, data_dir.parent / "alone", "one"))[0]


def _assert_close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=3e-4)  # losses over 2, SDRs in dB


@pytest.mark.slow
@pytest.mark.parametrize("replicas", [2, 4])
def test_replicas_of_one_machine(data_dir, alone, replicas):
    workdir = data_dir.parent / f"mirrored{replicas}"
    found, _ = _found(_run(data_dir, workdir, "mirrored", replicas))
    assert len(found["losses"]) == 10
    # Of its own gradients, each replica says whether they are finite.
    assert found.pop("finite") == [False] + [True] * (replicas - 1)
    for name, values in found.items():
        _assert_close(values, alone[name])


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"batch_size": 3}, "config.batch_size: found 3, expected a multiple of the 2 replicas"),
        ({"batch_size": 2, "jit_compile": True}, "config.jit_compile: found True with 2 replicas"),
        (
            {"batch_size": 2, "accumulation_steps": 3},
            "config.accumulation_steps: found 3 with 2 replicas, expected 1: Keras accumulates",
        ),
        ({"batch_size": 2}, None),
    ],
)
def test_invalid_settings_for_two_replicas(monkeypatch, changes, wrong):
    one = tf.distribute.MirroredStrategy(["CPU:0"])  # all the logical CPUs of this process
    two = types.SimpleNamespace(num_replicas_in_sync=2, extended=one.extended)
    monkeypatch.setattr(distribution, "make_strategy", lambda *_: (two, "two"))
    with pytest.raises(ConfigError, match=wrong) if wrong else contextlib.nullcontext():
        training_run.devices(Config(**changes), _MIRRORED)


def test_replicas_on_gpus_may_be_compiled(monkeypatch):
    devices = ("/device:GPU:0", "/device:GPU:1")
    extended = types.SimpleNamespace(worker_devices=devices)  # stands in for two GPUs
    two = types.SimpleNamespace(num_replicas_in_sync=2, extended=extended)
    monkeypatch.setattr(distribution, "make_strategy", lambda *_: (two, "two"))
    config = Config(batch_size=2, jit_compile=True)
    assert training_run.devices(config, _MIRRORED) is two


@pytest.mark.slow
def test_two_workers_of_which_one_is_asked_to_stop(data_dir, alone):
    """Both do, after the same step, and run again they end where one device ends."""
    workdir = data_dir.parent / "workers"

    def both(code, *stops):
        workers = [
            _run(data_dir, workdir, "multiworker", 1, stop, TF_CONFIG=cluster)
            for stop, cluster in zip(stops, _cluster(2), strict=True)
        ]
        try:
            return [_found(worker, code) for worker in workers]
        finally:
            for worker in workers:
                worker.process.kill()

    for losses, printed in both(75, 0, 7):
        assert "stopped after step 7, and saved" in printed
        _assert_close(losses["losses"], alone["losses"][:7])
        for name in ("validated", "sdr"):
            _assert_close(losses[name], alone[name][:1])
    for losses, printed in both(0, 0, 0):
        assert "continuing from epoch 1 of 2 and 2 of 5 steps" in printed
        assert len(losses["losses"]) == 3
        for name in ("validated", "sdr"):
            _assert_close(losses[name], alone[name][1:])
    with h5py.File(workdir / CHECKPOINT) as file:
        assert int(file["optimizer/vars/0"][()]) == 10
    names = {path.name for path in workdir.glob("*.h5")}
    assert names == {"last.weights.h5", "previous.weights.h5", "best.weights.h5"}


def test_auto_uses_the_available_devices():
    strategy, about = make_strategy("auto")
    assert about == "cpu (auto: found 0 GPUs), 1 replica"
    assert strategy is tf.distribute.get_strategy()
    assert is_chief(strategy)
    assert not is_multiworker(strategy)


def test_an_invalid_cluster(monkeypatch):
    for text in ("{", "[]", '{"cluster": {}}', "3"):
        monkeypatch.setenv("TF_CONFIG", text)
        with pytest.raises(ConfigError, match=r"^TF_CONFIG: found .*, expected JSON with cluster"):
            make_strategy("auto")


def test_devices_that_are_not_there(monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [])
    for name, tpu, message in (
        ("gpu", None, "--strategy=gpu: found no GPU, expected one"),
        ("cpu", "local", "--tpu: found --strategy=cpu, expected --strategy=tpu"),
        ("tpu", None, "--strategy=tpu: found no TPU 'local' ("),
        ("auto", "mine", "--strategy=tpu: found no TPU 'mine' ("),
        ("multiworker", None, "--strategy=multiworker: found no TF_CONFIG in the environment, exp"),
    ):
        with pytest.raises(ConfigError, match=f"^{re.escape(message)}") as caught:
            make_strategy(name, tpu)
        assert "\n" not in str(caught.value)


def test_a_backend_that_cannot_train(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    with pytest.raises(ConfigError, match=r"^KERAS_BACKEND: found torch, expected"):
        training_run.devices(Config(), _MIRRORED)
