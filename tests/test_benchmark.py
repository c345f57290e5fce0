"""experiments.benchmark: the order of its turns, its figures and its report."""

import json
import re
from pathlib import Path

import pytest

from experiments import benchmark
from experiments.benchmarks import contenders
from experiments.benchmarks import report as benchmark_report
from experiments.benchmarks.contenders import CONTENDERS, PROGRAMS
from sccunet.config import ConfigError

COMMITTED = sorted(Path(__file__).parents[1].glob("results/*/benchmark.json"))
NAMES = {s: [c.name for c in CONTENDERS if c.section == s] for s in benchmark_report.SECTIONS}


def found(name, seconds=(), work=1, case=None, peak=1e9, not_run=None, device="cpu"):
    """What benchmark.json has of a contender; a round for each list of seconds."""
    rounds = [
        {
            "seconds": list(each),
            "work": work,
            "start_up_seconds": 3.0 + i,
            "first_call_seconds": 2.0,
            "import_memory_bytes": 5e8,
            "peak_memory_bytes": peak + 1e8 * i,
            "device_memory_bytes": None if device == "cpu" else 7e9,
            "threads": 2,
            "device": device,
            "versions": {"python": "3.11"},
        }
        for i, each in enumerate(seconds)
    ]
    label = f"the {name}"
    return {"name": name, "label": label, "case": case or {}, "rounds": rounds, "not_run": not_run}


def section(*measurements):
    return {
        "command": "python -m experiments.benchmark",
        "machine": {"cpu": "Abacus", "cores": 2, "memory_gb": 8, "os": "Linux x86_64"},
        "rounds": 2,
        "seconds": 180.0,
        "audio": "synthetic",
        "measurements": list(measurements),
    }


CROP, BATCH = {"crop_seconds": 2}, {"batch_size": 8}
RESULTS = {
    "input": section(
        found("ours", [(1, 2, 4), (2, 2, 5)], work=8000, case=CROP),  # 4000 a second
        found("openunmix_musdb", [(1,)], work=50, case=CROP),
        found("openunmix_folder", [(2,)], work=1000, case=CROP),
        found("bound", [(1,)], work=8001, case=CROP),
    ),
    "train": section(
        found("ours", [(8, 10, 12), (9, 10, 30)], case=BATCH),
        found("ours_pipeline", [(22,)], work=2, case=BATCH),
        found("ours_bfloat16", [(8,)], case=BATCH),
        found("twin", [(14,)], case=BATCH),
        found("twin_compiled", not_run="no compiler", case=BATCH),
        found("twin_bfloat16", [(12.5,)], case=BATCH),
    ),
    "separate": section(
        found("ours", [(90,), (110,)], work=180, peak=2e9),
        found("saved_model", [(125,)], work=180, peak=3e9),
        found("twin", [(140,)], work=180, peak=2.2e9),
        found("twin_compiled", [(120,), (120,)], work=180, peak=5e9, not_run="ended by signal 9"),
        found("help", [(0.2, 0.4)], case={"program": "train"}),
        found("help", [(1.5,)], case={"program": "plot"}),
    ),
}


def test_contenders_take_turns():
    turns = [(one.name, case) for one, case in benchmark.plan("train", ["ours", "twin"], [2, 8], 2)]
    two, eight = {"batch_size": 2}, {"batch_size": 8}
    once = [("ours", two), ("twin", two), ("ours", eight), ("twin", eight)]
    assert turns == once + once
    turns = benchmark.plan("input", ["openunmix_mp4", "bound"], [], 1)
    crops = [(one.name, case["crop_seconds"]) for one, case in turns]
    assert crops == [("openunmix_mp4", 2), ("bound", 2), ("bound", 6)]  # the excerpt has 6 s
    turns = benchmark.plan("separate", ["ours", "help"], [], 2)
    assert len(turns) == 2 * (1 + len(PROGRAMS))
    assert turns[0][1] == {}
    programs = Path(benchmark.__file__).parent.glob("*.py")
    runnable = {path.stem for path in programs if "cli.run(main" in path.read_text()}
    assert runnable == set(PROGRAMS)


def test_each_section_has_the_contender_that_is_the_measure():
    for names in NAMES.values():
        assert names[0] == "ours"
        assert len(names) == len(set(names))


def test_figures():
    of_input = RESULTS["input"]["measurements"]
    assert benchmark_report.values("input", of_input[0]) == [8000, 4000, 2000, 4000, 4000, 1600]
    assert benchmark_report.values("train", RESULTS["train"]["measurements"][1]) == [11]
    assert benchmark_report.values("separate", RESULTS["separate"]["measurements"][0]) == [90, 110]


def test_targets():
    targets = benchmark_report.targets(RESULTS)
    assert [(t.what, t.measured, t.met) for t in targets if t.case == "2 s crops"] == [
        ("ours / Open-Unmix's best loader", 8.0, True),
        ("ours, augmented, stereo / Open-Unmix's best loader", None, None),
        ("ours / bound, 1 thread", 4000 / 8001, False),
        ("ours / bound, 2 threads", None, None),
    ]
    assert [(t.what, t.measured, t.met) for t in targets if t.case == "batch 8"] == [
        ("step: pipeline / memory", 1.1, True),
        ("step: ours / twin's best, float32", 10 / 14, True),
        ("step: bfloat16 / float32", 0.8, False),
        ("step: bfloat16, pipeline / memory", None, None),
    ]
    rest = [t for t in targets if t.case not in ("2 s crops", "batch 8")]
    assert [(t.what, t.case, t.measured, t.met) for t in rest] == [
        ("SavedModel and Python API: slower / faster", "", 1.25, False),
        ("Python API / twin's best, float32", "", 100 / 120, True),
        ("SavedModel / twin's best, float32", "", 125 / 120, False),
        ("peak memory: Python API / twin", "", pytest.approx(2.1 / 2.2), True),
        ("peak memory: SavedModel / twin", "", pytest.approx(3 / 2.2), False),
        ("--help of the slowest program, s", "plot", 1.5, False),
        ("a 10 s file, in a new process, s", "small_4stems", None, None),
    ]
    assert benchmark_report.targets({}) == []


def rows_of(text):
    """First cell of each table row -> the rest."""
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {row[0]: row[1:] for row in rows}


def test_report():
    text = benchmark_report.render({"train": RESULTS["train"]}, {})
    rows = rows_of(text)
    memory = ["2.00 s", "1.10 GB", "0.50 GB"]
    assert rows["the ours"] == ["10.0", "8.00 to 30.0", "1.00", *memory]
    assert rows["the twin_bfloat16"][:3] == ["12.5", "12.5 to 12.5", "1.25"]
    assert rows["the twin_compiled"] == ["not run: no compiler", *["—"] * 5]
    assert rows["step: bfloat16 / float32"] == ["batch 8", "at most 0.75", "0.800", "no"]
    assert "## Input: stem-seconds per second\n\nnot run\n" in text
    assert "Abacus, 2 cores, 8 GB, Linux x86_64; threads: 2; rounds: 2; audio: synthetic." in text
    assert "## On a GPU\n\nnot run: there was none.\n" in text
    assert text.endswith("Nothing is noted.\n")

    kept = {"change": "less", "why": "more", "before": "2 s", "after": "1 s", "how": "a clock"}
    changes = {"kept": [kept], "dropped": ["a thing: slower"], "not_met": ["too far"]}
    on_gpu = section(found("ours", [(0.1,)], work=10, case=BATCH, device="Sand H1"))
    text = benchmark_report.render(RESULTS | {"train_gpu": on_gpu}, changes)
    assert "| less | more | 2 s | 1 s | a clock |" in text
    assert "- a thing: slower" in text
    assert "Why some are not met:\n\n- too far\n" in text
    assert "Device: Sand H1." in text
    row = "| the ours | 0.0100 | 0.0100 to 0.0100 | 1.00 | 2.00 s | 1.00 GB | 0.50 GB | 7.00 GB |"
    assert row in text.split("## On a GPU")[1]
    assert "there was none" not in text
    rows = rows_of(text.split("## Separate")[1].split("## On a GPU")[0])
    assert rows["the ours"] == [
        *("100", "90.0 to 110", "1.00", "0.556", "3.50 s"),
        *("2.00 s", "2.10 GB", "0.50 GB"),
    ]
    assert "the twin_compiled: only 2 of 2 rounds (ended by signal 9)" in text
    assert rows["the help, train"] == ["0.300 s", "0.200 to 0.400"]


def test_reasons_say_nothing_of_the_machine():
    text = "x: [Errno 2]\n '/home/me/data/a b/c.wav', /tmp/y.so: a/b and 1/2"
    expected = "x: [Errno 2] '.../a b/c.wav', .../y.so: a/b and 1/2"
    assert benchmark._without_paths(text) == expected


def test_what_fails_is_not_tried_again_and_stops_nothing(monkeypatch):
    calls = []

    def run_worker(section, name, settings):
        calls.append((name, settings["batch_size"]))
        return {"not_run": "broken"} if name == "twin" else {"seconds": [1.0]}

    monkeypatch.setattr(benchmark, "run_worker", run_worker)
    turns = benchmark.plan("train", ["ours", "twin"], [2], 3)
    found = benchmark.measure("train", turns, {"seconds": 1})
    assert calls == [("ours", 2), ("twin", 2), ("ours", 2), ("ours", 2)]
    ours, twin = found
    assert (len(ours["rounds"]), ours["not_run"]) == (3, None)
    assert (twin["rounds"], twin["not_run"], twin["case"]) == ([], "broken", {"batch_size": 2})


def test_mistakes_are_one_line(program, refusal, tmp_path):
    line = ("benchmark", f"--output_dir={tmp_path}/out", f"--work_dir={tmp_path}/work")
    for argument, message in (
        ("inputs", "found 'inputs', expected input, train, separate or all"),
        ("--only=ours,theirs", "--only: found 'theirs', expected some of bound, bound_2_threads,"),
        ("--batch_sizes=2,x", "--batch_sizes: found '2,x', expected whole numbers over 0"),
        ("--report_only", f"{tmp_path}/out: found no benchmark.json, expected results of a"),
    ):
        assert refusal(program(*line, argument)).startswith(message)
    assert list(tmp_path.iterdir()) == []


def test_report_without_results(tmp_path):
    with pytest.raises(ConfigError, match=r"found no benchmark\.json"):
        benchmark_report.write_report(tmp_path)


@pytest.mark.slow
def test_the_program(program, write_track, tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    levels = dict.fromkeys(("vocals", "drums", "bass", "other"), 0.1)
    for split in ("train", "valid", "test"):
        write_track(data / split / f"{split}song", levels, seconds=3.0)
    done = program(
        *("benchmark", "input", "train", "separate", f"--data_dir={data}"),
        f"--output_dir={out}",
        f"--work_dir={tmp_path}/work",
        "--config=experiments/configs/small_4stems.py",
        "--config.model.filters=(4,8)",
        "--config.model.patch_samples=16384",
        "--batch_sizes=1",
        "--seconds=2",
        "--rounds=1",
        "--only=ours,ours_pipeline,bound,saved_model",
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((out / "benchmark.json").read_text())
    assert list(results) == ["input", "train", "separate"]
    for result in results.values():
        for one in result["measurements"]:
            if one["case"] == {"crop_seconds": 6}:  # songs have 3 s
                assert one["rounds"] == []
                assert re.match(
                    r"\.\.\./trainsong: found 132300 samples, expected at", one["not_run"]
                )
                continue
            assert one["not_run"] is None
            (measured,) = one["rounds"]
            assert all(seconds > 0 for seconds in measured["seconds"])
            assert 0 < measured["import_memory_bytes"] <= measured["peak_memory_bytes"]
            assert 0 < measured["start_up_seconds"] < 300
            assert measured["first_call_seconds"] > 0
            assert measured["device"] == "cpu"
    names = [[one["name"] for one in results[s]["measurements"]] for s in results]
    assert names == [["ours", "bound"] * 2, ["ours", "ours_pipeline"], ["ours", "saved_model"]]
    assert results["separate"]["measurements"][0]["rounds"][0]["work"] == 2
    text = (out / "README.md").read_text()
    assert text == benchmark_report.render(results, {})
    assert text in done.stdout
    rows = rows_of(text)
    assert rows["step: pipeline / memory"][3] in ("yes", "no")
    assert "--data_dir=DATA" in text
    for path in out.iterdir():
        assert str(tmp_path).encode() not in path.read_bytes()
    pictures = {path.name for path in out.glob("*.png")}
    assert pictures == {"input.png", "train.png", "separate.png"}

    # Another section's run leaves these where they are, and reports can be made anew.
    for path in out.glob("*.png"):
        path.unlink()
    (out / "README.md").unlink()
    (out / "changes.json").write_text(json.dumps({"dropped": ["nothing at all"]}))
    done = program("benchmark", "--report_only", f"--output_dir={out}")
    assert done.returncode == 0, done.stderr
    assert "- nothing at all" in (out / "README.md").read_text()
    assert {path.name for path in out.glob("*.png")} == pictures


def test_bfloat16_is_not_emulated(monkeypatch):
    contender = contenders.find("train", "ours_bfloat16")
    for units in (["avx2"], ["avx2", "avx512f"]):
        monkeypatch.setattr(contenders, "vector_units", lambda units=units: units)
        with pytest.raises(ConfigError, match="no units for bfloat16"):
            contenders.measure(contender, {})
    for units in (["avx2", "avx512f", "avx512_bf16"], ["avx2", "amx_bf16"], None):
        monkeypatch.setattr(contenders, "vector_units", lambda units=units: units)
        with pytest.raises(KeyError, match="config"):  # begins, and misses its settings
            contenders.measure(contender, {})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("section", "name"),
    [
        ("input", "openunmix_musdb"),
        ("input", "openunmix_folder"),
        ("train", "twin"),
        ("separate", "twin"),
        ("separate", "openunmix"),
    ],
)
def test_what_others_do(section, name, write_track, tmp_path):
    """In this process's Python, beside torch and Open-Unmix where these are installed."""
    for module in ("torch", "openunmix") if "openunmix" in name else ("torch",):
        pytest.importorskip(module)
    for split in ("train", "valid", "test"):
        levels = dict.fromkeys(("vocals", "drums", "bass", "other", "mixture"), 0.1)
        write_track(tmp_path / "data" / split / f"{split}song", levels, seconds=3.0)
    settings = {
        "config": {"model": {"filters": [4, 8], "patch_samples": 16_384}},
        "data_dir": str(tmp_path / "data"),
        "models": str(tmp_path / "models"),
        "crop_seconds": 2,
        "batch_size": 1,
        "seconds": 2,
    }
    if (section, name) == ("separate", "twin"):
        benchmark.run_worker("separate", "prepare", settings)
    result = benchmark.run_worker(section, name, settings)
    assert "not_run" not in result, result
    assert all(seconds > 0 for seconds in result["seconds"])
    # Stem-seconds are whole batches of 8 crops of 2 s of 4 stems.
    works = {"input": 64 * round(result["work"] / 64), "train": 1, "separate": 2}
    assert result["work"] == works[section] > 0


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.parent.name)
def test_committed_report_is_that_of_its_json(path):
    results = json.loads(path.read_text())
    changes = path.with_name("changes.json")
    found = json.loads(changes.read_text()) if changes.exists() else {}
    assert path.with_name("README.md").read_text() == benchmark_report.render(results, found)
    texts = [each.read_text() for each in path.parent.iterdir() if each.suffix != ".png"]
    assert not [text for text in texts if re.search(r"/(tmp|home|work|root|mnt)/", text)]
