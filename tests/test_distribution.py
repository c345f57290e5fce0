"""Replicas and workers: the same training, divided."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import types
from pathlib import Path

import h5py
import numpy as np
import pytest
import tensorflow as tf

from experiments import training_run
from experiments.training_options import TrainOptions
from sccunet import distribution
from sccunet.checkpoints import CHECKPOINT
from sccunet.config import Config, ConfigError
from sccunet.distribution import is_chief, is_multiworker, make_strategy

_ROOT = Path(__file__).parents[1]
_MIRRORED = TrainOptions("DATA", "RUN", strategy="mirrored")
_SCRIPT = [sys.executable, "tests/replicas.py"]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory, write_track):
    folder = tmp_path_factory.mktemp("distribution") / "data"
    levels = {"vocals": 0.2, "drums": 0.1, "bass": 0.05, "other": 0.025}
    for seed, place in enumerate(("train/one", "train/two", "valid/check")):
        write_track(folder / place, levels, seconds=4.0, seed=seed)
    return folder


def _found(process):
    out, errors = process.communicate(timeout=600)
    assert process.returncode == 0, out + errors
    return json.loads(out.splitlines()[-1])


def _run(*arguments, **environment):
    return subprocess.Popen(
        [*_SCRIPT, *map(str, arguments)],
        cwd=_ROOT,
        env={**os.environ, "PYTHONPATH": str(_ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


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
    return _found(_run(data_dir, data_dir.parent / "alone", "one"))


def _assert_same(found, expected):
    assert len(found["losses"]) == 10
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-4 * max(values))


@pytest.mark.slow
@pytest.mark.parametrize("devices", [2, 4])
def test_replicas_of_one_machine(data_dir, alone, devices):
    workdir = data_dir.parent / f"mirrored{devices}"
    _assert_same(_found(_run(data_dir, workdir, "mirrored", devices)), alone)


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"batch_size": 3}, "config.batch_size: found 3, expected a multiple of the 2 replicas"),
        ({"batch_size": 2, "jit_compile": True}, "config.jit_compile: found True with 2 replicas"),
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
def test_two_workers(data_dir, alone):
    workdir = data_dir.parent / "workers"
    processes = [_run(data_dir, workdir, "multiworker", TF_CONFIG=c) for c in _cluster(2)]
    try:
        found = [_found(process) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for each in found:
        _assert_same(each, alone)
    names = {path.name for path in workdir.glob("*.h5")}
    assert names == {"last.weights.h5", "previous.weights.h5", "best.weights.h5"}


@pytest.mark.slow
def test_one_of_two_workers_is_asked_to_stop_and_both_do(data_dir):
    workdir = data_dir.parent / "stopped"
    flags = [
        "--config=experiments/configs/small_4stems.py",
        *(f"--data_dir={data_dir}", f"--workdir={workdir}"),
        *("--config.model.filters=(4, 8)", "--config.model.patch_samples=16384"),
        *("--config.batch_size=2", "--config.epochs=2", "--config.steps_per_epoch=60"),
        *("--config.validation_crops=2", "--strategy=multiworker"),
    ]

    def start():
        return [
            subprocess.Popen(
                [sys.executable, "-m", "experiments.train", *flags],
                cwd=_ROOT,
                env={**os.environ, "TF_CONFIG": cluster},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for cluster in _cluster(2)
        ]

    processes = start()
    try:
        seen = ""
        for line in processes[0].stdout:
            seen += line
            if "Epoch 2/2" in line:
                break
        processes[1].send_signal(signal.SIGTERM)
        texts = [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [75, 75], seen + "".join(texts)
    (step,) = {re.search(r"stopped after step (\d+), and saved", text)[1] for text in texts}
    assert 60 < int(step) <= 120

    processes = start()
    try:
        texts = [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "".join(texts)
    for text in texts:
        assert f"continuing from epoch 1 of 2 and {int(step) - 60} of 60 steps" in text
    with h5py.File(workdir / CHECKPOINT) as file:
        assert int(file["optimizer/vars/0"][()]) == 120


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
