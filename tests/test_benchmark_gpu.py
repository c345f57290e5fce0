"""The section gpu of the program benchmark: what is measured in which order, limits and report."""

import json
import math
import sys
import time
from pathlib import Path

import pytest

from data_pipeline.tracks import find_tracks, read_mixture
from experiments.benchmarks import arithmetic, gpu, gpu_report, processes, report
from experiments.benchmarks.contender import find
from sccunet.config import Config, ConfigError, ModelConfig

_MODEL = ModelConfig(filters=(2, 3, 5), patch_samples=8192, channels=2, stems=("a", "b", "c"))


def test_operations_of_the_convolutions_are_those_that_pytorch_counts():
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    from experiments.twin import SpectrogramChannelsUNet

    unet = SpectrogramChannelsUNet(_MODEL)
    magnitudes = torch.ones(1, _MODEL.channels, _MODEL.bins, _MODEL.frames)
    with FlopCounterMode(display=False) as forward:
        estimates = unet(magnitudes)
    assert arithmetic.forward_flops(_MODEL) == forward.get_total_flops()
    with FlopCounterMode(display=False) as backward:
        estimates.sum().backward()
    total = forward.get_total_flops() + backward.get_total_flops()
    assert arithmetic.training_flops(_MODEL) == total


def test_the_rate_of_a_device_is_that_of_its_name():
    names = ("NVIDIA H100 80GB HBM3", "NVIDIA H100 PCIe", "NVIDIA L4", "NVIDIA L40S", "TPU v5 lite")
    rates = [arithmetic.bfloat16_rate(name)[0] for name in names]
    assert rates == [989.5, 756.5, 121.0, 362.0, 197.0]
    assert arithmetic.bfloat16_rate("cpu") is None


def test_what_matters_most_is_measured_first_and_nothing_twice():
    cells = gpu.plan([32, 8, 64], Config().model)
    words = [(section, one.name, *case.values()) for section, one, case in cells]
    assert words[:3] == [
        ("train", "ours_jax_bfloat16", 32),
        ("train", "twin_bfloat16_compiled", 32),
        ("train", "twin_bfloat16", 32),
    ]
    assert {("input", "ours_numpy", 2.0), ("input", "ours", 2.0)} <= set(words)
    assert len(words) == len(set(words))
    for size in (8, 32, 64):
        for name in ("ours_jax", "ours_torch", "ours_tensorflow", "twin", "twin_compiled"):
            bfloat16 = name.replace("_compiled", "_bfloat16_compiled")
            bfloat16 += "_bfloat16" * (bfloat16 == name)
            assert {("train", name, size), ("train", bfloat16, size)} <= set(words)
    backends = {one.backend for section, one, _ in cells if section != "input" and one.is_ours}
    assert backends == {"jax", "torch", "tensorflow"}


def test_a_set_of_noise_is_found_as_any_other(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "_SECONDS", 1)
    config = Config(model=ModelConfig(sample_rate=8000, patch_samples=8192))
    data_dir = gpu.noise_set(tmp_path, config)
    assert gpu.noise_set(tmp_path, config) == data_dir  # again
    tracks = find_tracks(data_dir, config, split="train")
    assert (len(tracks), tracks[0].frames) == (4, 8000)
    mixture = read_mixture(tracks[0], config, 0, 8000)
    assert 0.02 < mixture.std() < 0.1


def _measured(device="Sand H1", seconds=(2.0, 1.0, 3.0), work=10):
    return {
        "seconds": list(seconds),
        "work": work,
        "first_call_seconds": 20.0,
        "device_memory_bytes": 7e9,
        "device": device,
        "versions": {"jax": "0.1"},
    }


def _one(section, name, case, measured=None, not_run=None):
    rounds = [measured] if measured else []
    return {
        **{"section": section, "name": name, "label": f"the {name}", "case": case},
        **{"rounds": rounds, "not_run": not_run},
    }


def test_a_failure_and_the_time_limit_stop_no_other(monkeypatch, capsys):
    def run_worker(section, name, settings, limit):
        calls.append((name, settings["batch_size"], limit))
        now[0] += 100.0
        return {"not_run": "out of memory"} if name == "twin" else _measured()

    calls, saved, now = [], [], [0.0]
    monkeypatch.setattr(gpu, "run_worker", run_worker)
    monkeypatch.setattr(gpu.time, "monotonic", lambda: now[0])
    case = {"batch_size": 8}
    names = ("ours_jax", "twin", "ours_torch", "twin_compiled", "twin_bfloat16")
    cells = [("train", find("train", name), case) for name in names]
    earlier = [
        _one("train", "ours_torch", case, _measured()),
        _one("train", "twin_compiled", case, not_run="no time was left"),
        _one("train", "twin_compiled", {"batch_size": 4}, _measured()),
    ]
    gpu.measure(cells, {"gpu": True}, 310.0, earlier, lambda found: saved.append(list(found)))
    assert calls == [("ours_jax", 8, 120.0), ("twin", 8, 120.0), ("twin_compiled", 8, 110.0)]
    assert [len(each) for each in saved] == [3, 4, 5, 6]
    results = {(one["name"], *one["case"].values()): one for one in saved[-1]}
    assert len(results) == 6
    assert results["twin", 8]["not_run"] == "out of memory"
    assert results["twin_bfloat16", 8]["not_run"] == "no time was left"
    assert results["twin_compiled", 8]["rounds"] == [_measured()]
    assert " 210 s left: train twin 8: not run: out of memory\n" in capsys.readouterr().err


def test_reading_needs_no_gpu(monkeypatch):
    def run_worker(section, name, settings, limit):
        needs[section] = settings["gpu"]
        return {"not_run": "a stand-in"}

    needs = {}
    monkeypatch.setattr(gpu, "run_worker", run_worker)
    cells = [
        cell for cell in gpu.plan([8], Config().model) if cell[1].name in ("twin", "ours_numpy")
    ]
    gpu.measure(cells, {"gpu": True}, math.inf, [], list)
    assert needs == {"train": True, "separate": True, "input": False}


@pytest.mark.parametrize(
    ("script", "limit", "expected"),
    [("sleep 100", 0.1, "stopped after 0 s"), ("kill -9 $$", 9, "killed by signal 9, perhaps out")],
)
def test_a_process_that_takes_too_long_or_is_killed_says_so(monkeypatch, script, limit, expected):
    monkeypatch.setattr(processes, "WORKER", ("-c", script))
    monkeypatch.setattr(sys, "executable", "/bin/sh")
    result = processes.run_worker("train", "twin", {}, limit)
    assert result["not_run"].startswith(expected)


def test_what_a_process_started_ends_with_it(monkeypatch):
    # As PyTorch's compiler may be left behind.
    script = 'sleep 100 >/dev/null 2>&1 & echo "{\\"child\\": $!}"'
    monkeypatch.setattr(processes, "WORKER", ("-c", script))
    monkeypatch.setattr(sys, "executable", "/bin/sh")
    child = processes.run_worker("train", "twin", {})["child"]
    state = Path(f"/proc/{child}/stat")
    ends = time.monotonic() + 60
    while state.exists() and state.read_text().split()[2] != "Z":
        assert time.monotonic() < ends
        time.sleep(0.01)


def test_only_a_gpu_is_measured(monkeypatch):
    from experiments.benchmarks import worker

    monkeypatch.setattr(worker, "on_gpu", lambda: False)
    with pytest.raises(ConfigError, match="found only the CPU, expected a GPU"):
        worker.measure(find("input", "bound"), {"gpu": True})


def _report(measurements, peak=None):
    config = Config(
        model=ModelConfig(stems=("vocals", "rest"), filters=(4, 8), patch_samples=44_100),
        sources={"rest": ("drums", "bass", "other")},
    )
    machine = {"cpu": "Abacus", "cores": 2, "memory_gb": 8, "os": "Linux x86_64"}
    result = {"command": "sccunet benchmark gpu", "machine": machine, "seconds": 180.0}
    result |= {"peak_tflops": peak, "config": config.to_dict(), "measurements": measurements}
    return config.model, result


def _cells(lines, label):
    [line] = [line for line in lines if line.startswith(f"| {label} |")]
    return line.strip("| ").split(" | ")[1:]


def test_report():
    case = {"batch_size": 32}
    faster = _measured(seconds=(1.0, 1.0, 1.0))
    model, result = _report(
        [
            _one("train", "ours_jax_bfloat16", case, _measured()),
            _one("train", "twin_bfloat16", case, faster),
            _one("train", "twin_bfloat16_compiled", case, not_run="no | compiler"),
            _one("train", "ours_torch_bfloat16", case, _measured("cpu")),
            _one("train", "twin", case, faster),
            _one("separate", "ours_jax", {"patches": 8}, _measured(seconds=(1.5,), work=180.0)),
            _one("separate", "twin", {}, _measured(seconds=(3.0,), work=180.0)),
            # 10 seconds of files: 2.5 crops of 1 s
            _one("input", "ours", {"crop_seconds": 1.0}, _measured("cpu", (0.01,))),
        ],
        peak=2.0,
    )
    lines = gpu_report.render(result)
    text = "\n".join(lines)
    flops = 32 * arithmetic.training_flops(model) / 0.2 / 1e12
    row = _cells(lines, "the ours_jax_bfloat16")
    assert row[:4] == ["200", "100 to 300", "2.00", "160"]
    assert row[5:] == [f"{flops / 2:.2f}", "7.00 GB", "20.0 s"]
    assert float(row[4]) == pytest.approx(flops, rel=0.01)
    assert _cells(lines, "the twin_bfloat16_compiled")[0] == "not run: no / compiler"
    assert _cells(lines, "the ours_torch_bfloat16, on cpu")[:3] == ["200", "100 to 300", "—"]
    assert _cells(lines, "the ours")[0] == "250"
    summary = "| training step, batch 32, bfloat16, ms | 200 (the ours_jax_bfloat16) |"
    assert f"{summary} 100 (the twin_bfloat16) | 2.00 |" in text
    ours = "the ours_jax, patches in a call: 8"
    assert f"| 180 s of stereo, float32, s | 1.50 ({ours}) | 3.00 (the twin) | 0.50 |" in text
    assert _cells(lines, ours)[0] == "1.50"
    assert "takes 320 crops per second. The input delivers 250 (the ours), 0.78 times" in text
    assert "Device: Sand H1. Abacus, 2 cores," in text
    assert "highest rate in bfloat16: 2 TFLOP/s (given by --peak_tflops)" in text
    readme = report.render({"gpu": result})
    assert text.rstrip() in readme
    assert "\n## Train" not in readme


def test_report_of_failures_alone():
    _, result = _report([_one("train", "twin", {"batch_size": 8}, not_run="no GPU")])
    lines = gpu_report.render(result)
    assert _cells(lines, "the twin")[0] == "not run: no GPU"
    assert "Versions: not run." in lines
    assert not [line for line in lines if line.startswith(("### Sep", "### Inp", "| work"))]


@pytest.mark.slow
def test_the_program(program, refusal, write_track, tmp_path):
    """A contender that cannot run, one that runs, and again, with nothing left to measure."""
    pytest.importorskip("torch")
    out = tmp_path / "out"
    levels = dict.fromkeys(("vocals", "drums", "bass", "other", "mixture"), 0.1)
    for split in ("test", "train", "valid"):
        write_track(tmp_path / split / f"{split} song", levels, seconds=1.0)
    line = (
        *("benchmark", "gpu", "--on_cpu", f"--output_dir={out}", f"--data_dir={tmp_path}"),
        *("--config.model.filters=(2,3)", "--config.model.patch_samples=8192", "--seconds=1"),
        *("--batch_sizes=1", "--minutes=9", "--only=twin,ours_numpy,ours_jax_bfloat16_pipeline"),
    )
    assert refusal(program(*line, "--rounds=2")).startswith("--rounds: given, expected none with")
    assert refusal(program("benchmark", "gpu", "train")).startswith("found 'gpu', expected input,")
    done = program(*line)
    assert done.returncode == 0, done.stderr
    text = (out / "benchmark.json").read_text()
    found = {(one["section"], one["name"]): one for one in json.loads(text)["gpu"]["measurements"]}
    assert len(found) == 4
    [read] = found["input", "ours_numpy"]["rounds"]
    assert (read["device"], "tensorflow" in read["versions"]) == ("cpu", False)
    assert found["train", "ours_jax_bfloat16_pipeline"]["not_run"]
    for section in ("train", "separate"):
        [result] = found[section, "twin"]["rounds"]
        assert result["device"] == "cpu"
        assert result["work"] == 1
    assert (out / "README.md").read_text() in done.stdout
    assert str(tmp_path) not in text

    done = program(*line, "--minutes=0.1")
    assert done.returncode == 0, done.stderr
    again = json.loads((out / "benchmark.json").read_text())["gpu"]["measurements"]
    kept = [(one["section"], one["name"]) for one in again if one["rounds"]]
    assert kept == [("separate", "twin"), ("input", "ours_numpy"), ("train", "twin")]
