"""The program benchmark: order of turns, contenders, figures and report."""

import importlib.util
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import process
import pytest

from experiments import benchmark
from experiments.benchmarks import clock, models, processes, programs, worker
from experiments.benchmarks import report as benchmark_report
from experiments.benchmarks.contender import CONTENDERS, find
from experiments.command import COMMANDS
from sccunet.config import ConfigError

ROOT = Path(__file__).parents[1]
COMMITTED = sorted(path.parent.name for path in (ROOT / "results").glob("*/benchmark.json"))


def found(name, seconds=(), work=1, case=None, peak=1e9, not_run=None, device="cpu"):
    """Returns a contender as in benchmark.json, with a round for each list of seconds."""
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
        "command": "sccunet benchmark",
        "machine": {"cpu": "Abacus", "cores": 2, "memory_gb": 8, "os": "Linux x86_64"},
        "rounds": 2,
        "seconds": 180.0,
        "audio": "synthetic",
        "measurements": list(measurements),
    }


PROGRAM = {"seconds": [1.2], "work": 10, "program_memory_bytes": 151e6, "threads": 2}
PROGRAM |= {"device": "cpu", "versions": {"python": "3.12"}}
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
        found("portable_10_s", [(1.0,)]) | {"rounds": [PROGRAM]},
    ),
}


def test_contenders_take_turns():
    turns = [(one.name, case) for one, case in benchmark.plan("train", ["ours", "twin"], [2, 8], 2)]
    two, eight = {"batch_size": 2}, {"batch_size": 8}
    once = [("ours", two), ("twin", two), ("ours", eight), ("twin", eight)]
    assert turns == once + once
    turns = benchmark.plan("input", ["openunmix_mp4", "bound"], [], 1)
    crops = [(one.name, case["crop_seconds"]) for one, case in turns]
    assert crops == [("openunmix_mp4", 2), ("bound", 2), ("bound", 6)]  # the excerpt is 6 s long
    turns = benchmark.plan("separate", ["ours", "help"], [], 2)
    commands = [name for group in COMMANDS.values() for name in group]
    assert [case for _, case in turns] == [{}, *({"program": name} for name in commands)] * 2


def test_each_section_has_the_contender_of_reference():
    for contenders in CONTENDERS.values():
        names = [one.name for one in contenders]
        assert names[0] == "ours"
        assert len(names) == len(set(names))


def test_figures():
    of_input = RESULTS["input"]["measurements"]
    assert benchmark_report.values("input", of_input[0]) == [8000, 4000, 2000, 4000, 4000, 1600]
    assert benchmark_report.values("train", RESULTS["train"]["measurements"][1]) == [11]
    assert benchmark_report.values("separate", RESULTS["separate"]["measurements"][0]) == [90, 110]


def rows_of(text):
    """Returns first cell of each table row -> the other cells."""
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {row[0]: row[1:] for row in rows}


def test_report():
    text = benchmark_report.render({"train": RESULTS["train"]})
    rows = rows_of(text)
    memory = ["2.00 s", "1.10 GB", "0.50 GB"]
    assert rows["the ours"] == ["10.0", "8.00 to 30.0", "1.00", *memory]
    assert rows["the twin_bfloat16"][:3] == ["12.5", "12.5 to 12.5", "1.25"]
    assert rows["the twin_compiled"] == ["not run: no compiler", *["—"] * 5]
    assert "## Input: stem-seconds per second\n\nnot run\n" in text
    assert "Abacus, 2 cores, 8 GB, Linux x86_64; threads: 2; rounds: 2; audio: synthetic." in text
    assert text.endswith("## On a GPU\n\nnot run\n")

    on_gpu = section(found("ours", [(0.1,)], work=10, case=BATCH, device="Sand H1"))
    text = benchmark_report.render(RESULTS | {"train": on_gpu})
    assert "Device: Sand H1." in text
    row = "| the ours | 0.0100 | 0.0100 to 0.0100 | 1.00 | 2.00 s | 1.00 GB | 0.50 GB | 7.00 GB |"
    assert row in text
    rows = rows_of(text.split("## Separate")[1].split("## On a GPU")[0])
    assert rows["the ours"] == [
        *("100", "90.0 to 110", "1.00", "0.556", "3.50 s"),
        *("2.00 s", "2.10 GB", "0.50 GB"),
    ]
    assert "the twin_compiled: only 2 of 2 rounds (ended by signal 9)" in text
    assert rows["the help, train"] == ["0.300 s", "0.200 to 0.400", "—"]
    assert rows["the portable_10_s"] == ["1.20 s", "1.20 to 1.20", "151 MB"]
    assert "Versions: python 3.11, python 3.12." in text


def test_reasons_contain_no_paths_of_the_machine():
    text = "x: [Errno 2]\n '/home/me/data/a b/c.wav', /tmp/y.so: a/b and 1/2"
    expected = "x: [Errno 2] '.../a b/c.wav', .../y.so: a/b and 1/2"
    assert processes._without_paths(text) == expected


def test_a_failed_contender_is_not_tried_again_and_stops_no_other(monkeypatch):
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
    line = ("benchmark", f"--output_dir={tmp_path}/out")
    for argument, message in (
        ("inputs", "found 'inputs', expected input, train, separate or all, or gpu"),
        ("--only=ours,theirs", "--only: found 'theirs', expected some of bound, bound_2_threads,"),
        ("--batch_sizes=2,x", "--batch_sizes: found '2,x', expected positive whole numbers"),
        ("--light_python=no/python", "--light_python: found 'no/python', expected the path of a"),
        ("--report_only", f"{tmp_path}/out: found no benchmark.json, expected results of a"),
    ):
        assert refusal(program(*line, argument)).startswith(message)
    assert list(tmp_path.iterdir()) == []


def test_a_report_goes_to_a_folder_of_the_user(program):
    """Not over the committed results."""
    text = " ".join(program("benchmark", "--help").stdout.split())
    default = re.search(r"--output_dir: Folder for the report\. \(default: '(.*?)'\)", text)[1]
    assert f"/{default}/" in (ROOT / ".gitignore").read_text().splitlines()


def test_report_without_results(tmp_path):
    with pytest.raises(ConfigError, match=r"found no benchmark\.json"):
        benchmark_report.write_report(tmp_path)


@pytest.fixture(scope="module")
def settings(tmp_path_factory, write_track):
    """Settings of the contenders: songs of 3 s, a network of two levels."""
    folder = tmp_path_factory.mktemp("benchmark")
    levels = dict.fromkeys(("vocals", "drums", "bass", "other", "mixture"), 0.1)
    for split in ("train", "valid", "test"):
        write_track(folder / "data" / split / f"{split}song", levels, seconds=3.0)
    return {
        "config": {"model": {"filters": [4, 8], "patch_samples": 16_384}},
        "data_dir": str(folder / "data"),
        "models": str(folder / "models"),
        "names": ["ours", "saved_model", "ours_portable", "twin"],
        "crop_seconds": 2,
        "batch_size": 1,
        "seconds": 2,
    }


@pytest.fixture(scope="module")
def prepared(settings):
    """The same with all forms of a model in the folder of the models."""
    folder = Path(settings["models"])
    with zipfile.ZipFile(ROOT / "tests" / "data" / "old_run.zip") as file:
        file.extractall(folder)
    (folder / "workdir").rename(folder / models.RUN)
    (folder / "export").rename(folder / models.SAVED_MODEL)

    def run_program(name, *arguments):
        done = process.run(name, *arguments)
        assert (name in ("convert", "export"), done.returncode) == (True, 0), done.stderr

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "run_program", run_program)
        models.prepare(settings)
    return settings


def test_missing_models_are_prepared(tmp_path, monkeypatch, capsys):
    run = tmp_path / models.RUN
    run.mkdir()
    lines = []

    def run_program(*line):
        lines.append(line)
        raise ConfigError("cannot be made")

    monkeypatch.setattr(models, "run_program", run_program)
    settings = {"config": {}, "models": str(tmp_path)}
    models.prepare({**settings, "names": ["ours", "htdemucs"]})
    assert lines == []
    models.prepare({**settings, "names": ["saved_model", "portable_10_s", "twin_compiled"]})
    assert lines == [
        ("export", f"--workdir={run}", f"--export_dir={tmp_path}/saved_model"),
        ("export", f"--workdir={run}", f"--portable={tmp_path}/portable"),
        ("convert", f"--workdir={run}", f"--output={tmp_path}/twin.pt"),
    ]
    assert capsys.readouterr().err == "".join(f"{line[0]}: cannot be made\n" for line in lines)


def check_result(section, result):
    """Checks that a contender did whole units of work, and what it reports of its process."""
    assert len(result["seconds"]) == (1 if section == "separate" else clock.REPEATS)
    assert all(seconds > 0 for seconds in result["seconds"])
    # Stem-seconds are whole batches of 8 crops of 2 s of 4 stems, or whole songs.
    unit = {"input": 4, "train": 1, "separate": 2}[section]
    assert result["work"] > 0
    assert result["work"] % unit == 0
    # The kernel counts pages in batches, so that a peak may lie a little below what was there.
    assert 0 < result["import_memory_bytes"] <= 1.01 * result["peak_memory_bytes"]
    assert result["start_up_seconds"] > 0
    assert result["first_call_seconds"] > 0
    assert result["device"] == "cpu"
    assert result["threads"] > 0
    assert "numpy" in result["versions"]


@pytest.mark.slow
def test_our_contenders(prepared, monkeypatch):
    monkeypatch.setattr(clock, "_WARM_UP", 0.0)
    monkeypatch.setattr(clock, "_LONG_ENOUGH", 0.01)
    for section, name in (
        ("input", "bound"),
        ("input", "ours"),
        ("input", "ours_stereo"),
        ("input", "ours_speed"),
        ("train", "ours"),
        ("train", "ours_pipeline"),
        ("separate", "ours"),
        ("separate", "saved_model"),
    ):
        result = worker.measure(find(section, name), {**prepared, "steps": 2})
        check_result(section, result)
        assert section != "train" or result["work"] == 2


# In one process, with very short timings.
QUICKLY = """
import json, sys
from experiments.benchmarks import clock, input, worker
from experiments.benchmarks.contender import find
clock._WARM_UP, clock._LONG_ENOUGH, input._BATCH = 0.0, 0.01, 1
names, settings = json.loads(sys.argv[1])
results = [worker.measure(find(*each), settings) for each in names]
print(json.dumps(results))
"""


@pytest.mark.slow
def test_contenders_of_other_frameworks_run_without_tensorflow(prepared):
    """TensorFlow in their process would be an error of `measure`."""
    names = [("separate", "ours_portable"), ("separate", "portable_10_s")]
    if importlib.util.find_spec("torch"):
        names += [("train", "twin"), ("separate", "twin")]
    if importlib.util.find_spec("openunmix"):
        names += [("input", "openunmix_musdb"), ("input", "openunmix_folder")]
        names += [("separate", "openunmix")]
    line = [sys.executable, "-c", QUICKLY]
    line.append(json.dumps([names, prepared]))
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout.splitlines()[-1])
    for (section, name), result in zip(names, results, strict=True):
        if name == "portable_10_s":
            assert result["program_memory_bytes"] > 2e7
            assert (len(result["seconds"]), result["work"]) == (1, 10)
            continue
        check_result(section, result)
        assert ("openvino" if name == "ours_portable" else "torch") in result["versions"]


def test_portable_models_run_in_the_python_of_the_flag(monkeypatch):
    lines = []

    def popen(line, **_):
        lines.append(line)
        raise InterruptedError

    monkeypatch.setattr(processes.subprocess, "Popen", popen)
    for name in ("ours", "ours_portable"):
        with pytest.raises(InterruptedError):
            processes.run_worker("separate", name, {"light_python": "LIGHT"})
    assert [line[0] for line in lines] == [sys.executable, "LIGHT"]


def test_memory_of_a_program_is_not_that_of_the_process_that_starts_it(monkeypatch):
    monkeypatch.chdir(ROOT)
    mine = b"x" * 300_000_000
    result = programs.run_program("separate", "--help")
    assert 5e6 < result["program_memory_bytes"] < len(mine)
    assert result["seconds"][0] > 0
    with pytest.raises(ConfigError, match="Unknown command line flag 'x'"):
        programs.run_program("separate", "--x")


def test_a_worker_reports_why_it_measured_nothing(settings):
    turns = [(find("input", "bound"), {"crop_seconds": 6})]
    [result] = benchmark.measure("input", turns, settings)
    assert result["rounds"] == []  # songs are 3 s long
    assert re.match(r"\.\.\./trainsong: found 132300 samples, expected at", result["not_run"])


@pytest.mark.slow
def test_the_program(program, settings, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "benchmark.json").write_text(json.dumps({"train": RESULTS["train"]}))
    done = program(
        *("benchmark", "separate", f"--data_dir={settings['data_dir']}"),
        f"--output_dir={out}",
        f"--work_dir={tmp_path}/work",
        "--config=small_4stems",
        "--config.model.filters=(4,8)",
        "--config.model.patch_samples=16384",
        "--seconds=2",
        "--rounds=1",
        "--only=ours",
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((out / "benchmark.json").read_text())
    assert list(results) == ["train", "separate"]
    assert results["train"] == RESULTS["train"]  # results of other sections are kept
    (one,) = results["separate"]["measurements"]
    assert (one["name"], one["not_run"]) == ("ours", None)
    (measured,) = one["rounds"]
    check_result("separate", measured)
    text = (out / "README.md").read_text()
    assert text == benchmark_report.render(results)
    assert text in done.stdout
    assert "sccunet benchmark separate --config=small_4stems " in text
    assert "--data_dir=DATA" in text
    for path in out.iterdir():
        assert str(tmp_path).encode() not in path.read_bytes()
    pictures = {path.name for path in out.glob("*.png")}
    assert pictures == {"train.png", "separate.png"}

    for path in (*out.glob("*.png"), out / "README.md"):
        path.unlink()
    done = program("benchmark", "--report_only", f"--output_dir={out}")
    assert done.returncode == 0, done.stderr
    assert (out / "README.md").read_text() == text
    assert {path.name for path in out.glob("*.png")} == pictures


def test_bfloat16_is_not_emulated(monkeypatch):
    contender = find("train", "ours_bfloat16")
    for units in (["avx2"], ["avx2", "avx512f"]):
        monkeypatch.setattr(worker, "vector_units", lambda units=units: units)
        with pytest.raises(ConfigError, match="no units for bfloat16"):
            worker.measure(contender, {})
    for units in (["avx2", "avx512f", "avx512_bf16"], ["avx2", "amx_bf16"], None):
        monkeypatch.setattr(worker, "vector_units", lambda units=units: units)
        with pytest.raises(KeyError, match="config"):  # starts, and lacks its settings
            worker.measure(contender, {})


@pytest.mark.parametrize("name", COMMITTED)
def test_committed_report_matches_its_json(name):
    folder = ROOT / "results" / name
    results = json.loads((folder / "benchmark.json").read_text())
    assert (folder / "README.md").read_text() == benchmark_report.render(results)
    texts = [each.read_text() for each in folder.iterdir() if each.suffix != ".png"]
    assert not [text for text in texts if re.search(r"/(tmp|home|work|root|mnt)/", text)]
