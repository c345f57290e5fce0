"""The program measure: the results of one process about one system."""

import json
import time

import numpy as np
import pytest

from data_pipeline.wav import read_wav
from experiments import measure
from experiments.baselines.system import System
from sccunet.config import Config, ConfigError, ModelConfig

RATE = 8000
CONFIG = Config(model=ModelConfig(stems=("vocals", "other"), sample_rate=RATE))


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory, write_track):
    folder = tmp_path_factory.mktemp("data")
    for name in ("a", "b"):
        levels = {"vocals": 0.1, "other": 0.1}
        write_track(folder / "test" / name, levels, 3.0, seed=ord(name), rate=RATE)
    return folder


def test_the_middle_is_separated_once_before_it_is_timed(data_dir, tmp_path, monkeypatch):
    heard = []

    def separate(mixture, references, key):
        if not heard:
            time.sleep(0.5)  # the warm-up takes longer
        heard.append((mixture, references.copy(), key))
        return np.stack([mixture, 0 * mixture])

    monkeypatch.setattr(
        measure, "load_system", lambda *_: System(separate, lambda: 12, {"abacus": "1"})
    )
    options = measure.Options(
        data_dir, "openunmix", config=CONFIG, names=["b"], excerpt=2, repeats=3,
        estimates_dir=tmp_path / "estimates",
    )  # fmt: skip
    result = measure.measure(options)
    stems = [read_wav(data_dir / "test" / "b" / f"{s}.wav") for s in CONFIG.model.stems]
    expected = sum(stems)[RATE // 2 : RATE // 2 + 2 * RATE]
    assert len(heard) == 1 + 3
    for mixture, references, key in heard:
        np.testing.assert_array_equal(mixture, expected)
        assert references.shape == (2, 2 * RATE, 2)
        assert not references.any()  # only an oracle receives the truth
        assert key == "test/b"
    np.testing.assert_array_equal(read_wav(tmp_path / "estimates" / "vocals.wav"), expected)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert (result["system"], result["track"]) == ("openunmix", "test/b")
    assert (result["start_seconds"], result["seconds_audio"]) == (0.5, 2.0)
    assert (result["sample_rate"], result["channels"]) == (RATE, 2)
    seconds = result["separation_seconds"]
    assert len(seconds) == 3
    assert max(seconds) < 0.5
    assert result["parameters"] == 12
    assert result["versions"].keys() == {"python", "numpy", "abacus"}
    assert result["machine"].keys() == {"cpu", "cores", "memory_gb", "os"}
    assert 10e6 < result["peak_memory_bytes"] < 1e12


def test_an_oracle_receives_the_truth(data_dir, tmp_path):
    options = measure.Options(data_dir, "irm", config=CONFIG, repeats=1, estimates_dir=tmp_path)
    result = measure.measure(options)
    truth = read_wav(data_dir / "test" / "a" / "vocals.wav")
    estimate = read_wav(tmp_path / "vocals.wav")
    assert np.sum((truth - estimate) ** 2) < 0.4 * np.sum(truth**2)  # the mixture has 1
    assert result["seconds_audio"] == 3.0  # the whole track
    assert result["parameters"] is None


def test_mistakes(data_dir):
    with pytest.raises(ConfigError, match="system: found 'folder', expected one of model, mixture"):
        measure.measure(measure.Options(data_dir, "folder", config=CONFIG))
    with pytest.raises(ConfigError, match="model: missing, expected a portable model, a training"):
        measure.measure(measure.Options(data_dir, config=CONFIG))


def test_the_program_counts_its_own_memory(program, data_dir, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(CONFIG.to_json())
    line = ("measure", "--system=mixture", f"--model={tmp_path}/run", f"--data_dir={data_dir}")
    ballast = np.ones(40_000_000)  # 320 MB in this process, which a child's ru_maxrss would include
    # In a new Python: a forked one has TensorFlow imported.
    done = program(*line, "--repeats=2", timeout=600)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert len(result["separation_seconds"]) == 2
    assert result["peak_memory_bytes"] < ballast.nbytes
    assert result["threads"] == 1
    done = program(*line, f"--output={tmp_path}/out/a.json")
    assert (done.returncode, done.stdout) == (0, "")
    assert json.loads((tmp_path / "out" / "a.json").read_text())["track"] == "test/a"
