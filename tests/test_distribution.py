"""Replicas and workers: the same training, divided."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from sccunet.config import ConfigError
from sccunet.distribution import is_chief, is_multiworker, make_strategy

_ROOT = Path(__file__).parents[1]
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
    """TF_CONFIG of each worker, on free ports of loopback."""
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


def test_auto_takes_what_is_there():
    strategy, about = make_strategy("auto")
    assert about == "cpu (auto: found 0 GPUs), 1 replica"
    assert strategy is tf.distribute.get_strategy()
    assert is_chief(strategy)
    assert not is_multiworker(strategy)


def test_a_cluster_that_is_none(monkeypatch):
    for text in ("{", "[]", '{"cluster": {}}', "3"):
        monkeypatch.setenv("TF_CONFIG", text)
        with pytest.raises(ConfigError, match=r"^TF_CONFIG: found .*, expected JSON with cluster"):
            make_strategy("auto")
