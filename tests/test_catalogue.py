"""The program catalogue as users run it: thousands of files, bad files, kills."""

import contextlib
import functools
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import types
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import soundfile

from data_pipeline import audio
from data_pipeline.audio_writer import write_wav
from experiments.beam import pipeline, plans, worker
from experiments.beam.pipeline import Plan
from experiments.separating.output import Output, parse_stems
from experiments.separating.recording import separate_file
from sccunet.config import Config, ConfigError, ModelConfig
from sccunet.runs import load_config
from sccunet.separation import Separator

_ROOT = Path(__file__).parents[1]
_CONFIG = Config(
    model=ModelConfig(
        stems=("vocals", "rest"),
        sample_rate=8000,  # museval's time is proportional to it
        frame_length=256,
        hop_length=64,
        patch_samples=4096,
        filters=(4, 8),
    )
)
_STEMS = _CONFIG.model.stems

needs_beam = pytest.mark.skipif(
    importlib.util.find_spec("apache_beam") is None, reason="could not import 'apache_beam'"
)
needs_dask = pytest.mark.skipif(
    importlib.util.find_spec("distributed") is None, reason="could not import 'distributed'"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory, make_run, make_identity):
    """A workdir whose stems are the mixture."""
    return make_run(tmp_path_factory.mktemp("catalogue") / "run", _CONFIG, make_identity)


def _noise(samples, channels=1, seed=0):
    return np.random.default_rng(seed).uniform(-0.3, 0.3, (samples, channels))


def _counts(stdout):
    return tuple(int(n) for n in re.findall(r"^(?:done|skipped|failed) +(\d+)$", stdout, re.M))


def _reasons(stdout):
    return sorted(re.findall("^  (/.*)", stdout, re.M))


def _left(folder):
    """All paths below a folder, hidden ones too."""
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*"))


def _read_all(folder):
    """Returns the content of all JSON files below a folder."""
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*.json")}


@pytest.fixture
def start():
    """Function that starts the program as leader of a new session, and ends the session."""
    processes = []

    def popen(*arguments, code=("-m", "experiments.catalogue")):
        process = subprocess.Popen(
            [sys.executable, *code, *map(str, arguments)],
            cwd=_ROOT, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            # Shells start background jobs with SIGINT ignored, and that is inherited.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        processes.append(process)
        return process

    yield popen
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def _running(session):
    """Returns process id -> command line of the running processes of a session."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            state, _, _, its, *_ = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(its) == session and state != "Z":
                found[int(folder.name)] = (folder / "cmdline").read_bytes().decode()
    return found


def _wait_for(condition, seconds=600):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


_BAD = ("empty.wav", "text.wav", "header alone.wav", "half a header.wav", "cut.wav", "nan.wav",
        "random.flac", "start of a.flac", "random 2.mp3", "caf\udce9.ogg")  # fmt: skip


def _make_bad(path):
    """Makes a bad file; its name says what is wrong."""
    whole = path.parent.parent / f"whole{path.suffix}"
    if path.suffix in (".wav", ".flac"):
        soundfile.write(whole, _noise(3000), 8000)
    if path.name.startswith("random"):
        path.write_bytes(np.random.default_rng(0).bytes(20_000))
    elif path.name == "nan.wav":
        samples = _noise(3000)
        samples[2500] = np.nan
        soundfile.write(path, samples, 8000, subtype="FLOAT")
    elif path.suffix == ".ogg" or path.name == "text.wav":
        path.write_bytes(b"words, no sound\n" * 100)
    else:
        kept = {"empty": 0, "header alone": 44, "half a header": 30, "cut": 4044, "start of a": 60}
        path.write_bytes(whole.read_bytes()[: kept[path.stem]])


@pytest.fixture
def cluster(start, tmp_path):
    """Address of a Dask scheduler with two workers, each a process, and the workers' processes."""
    file = tmp_path / "scheduler.json"
    here = ("--host=127.0.0.1", "--dashboard-address=127.0.0.1:0", f"--scheduler-file={file}")
    scheduler = start("scheduler", "--port=0", *here, code=("-m", "dask"))
    _wait_for(lambda: file.exists() or scheduler.poll() is not None)
    where = ("--nthreads=1", "--no-nanny", f"--local-directory={tmp_path}")
    workers = [start("worker", *here, *where, code=("-m", "dask")) for _ in range(2)]
    return json.loads(file.read_text())["address"], workers


@pytest.fixture
def mixtures(tmp_path):
    """Name -> samples of 190 songs; `songs` has them and the bad files, and `files` is the list."""
    songs, files = tmp_path / "songs", tmp_path / "files"
    songs.mkdir()
    mixtures = {f"song {i:03}": _noise(1600 + 13 * i, 1 + i % 2, i) for i in range(190)}
    for name, samples in mixtures.items():
        soundfile.write(songs / f"{name}.wav", samples, 8000, subtype="FLOAT")
    for name in _BAD:
        _make_bad(songs / name)
    names = sorted(os.listdir(songs), key=os.fsencode)
    files.write_bytes(b"".join(os.fsencode(f"{songs / name}\n") for name in names))
    return mixtures


def _assert_bad_files_are_reported(stdout, songs):
    reasons = _reasons(stdout)
    assert len(reasons) == 10, stdout
    for name in _BAD:
        shown = str(songs / name).replace("\udce9", "\\udce9")
        (why,) = [reason for reason in reasons if reason.startswith(f"{shown}: ")]
        assert "found" in why


@needs_beam
@needs_dask
@pytest.mark.slow
def test_200_files_killed_and_started_again(program, start, cluster, mixtures, run, tmp_path):
    """A worker is killed, then the program; the other worker stops, and does the rest later."""
    songs, out = tmp_path / "songs", tmp_path / "out"
    address, workers = cluster
    line = ("separate", f"--model={run}", f"--output_dir={out}", f"--list={tmp_path / 'files'}")
    line = (*line, "--", "--runner=DaskRunner", f"--dask_client_address={address}")

    def finished():
        return {path.name for path in out.glob("[!.]*")} & mixtures.keys()

    process = start(*line)
    for least, next_to_die in ((50, workers[0]), (100, process)):
        _wait_for(lambda least=least: len(finished()) >= least or process.poll() is not None)
        next_to_die.kill()
    process.communicate()
    before = finished()
    assert 100 <= len(before) < 190
    stats = {path: path.stat() for name in before for path in (out / name).iterdir()}

    done = program("catalogue", *line)
    assert done.returncode == 1, done.stderr
    assert "error" not in done.stderr.lower()
    now, skipped, bad = _counts(done.stdout)
    assert (now + skipped, bad) == (190, 10), done.stdout
    assert len(before) <= skipped < 190  # the worker ended the file at hand
    assert not (out / ".catalogue").exists()
    _assert_bad_files_are_reported(done.stdout, songs)
    for path, stat in stats.items():  # nothing was done twice
        assert (path.stat().st_mtime_ns, path.stat().st_ino) == (stat.st_mtime_ns, stat.st_ino)
    assert {path.name for path in out.iterdir()} == {*mixtures, "cut"}
    for name, samples in mixtures.items():
        assert _left(out / name) == sorted(f"{stem}.wav" for stem in _STEMS)
        for stem in _STEMS:
            found, rate = audio.read(out / name / f"{stem}.wav")
            assert rate == 8000
            np.testing.assert_allclose(found, samples, rtol=0, atol=1e-4)
    assert _left(out / "cut") == ["damaged.txt", "rest.wav", "vocals.wav"]
    assert (out / "cut" / "damaged.txt").read_text().startswith(f"{songs}/cut.wav: found 0.25 s of")
    separator = Separator.load(run)
    for name in ("song 000", "song 101", "song 189"):
        separate_file(
            separator, songs / f"{name}.wav", tmp_path / name, Output(parse_stems([], _STEMS))
        )
        for stem in _STEMS:
            found, _ = audio.read(out / name / f"{stem}.wav")
            expected, _ = audio.read(tmp_path / name / f"{stem}.wav")
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def long_tracks(tmp_path_factory):
    """A folder of two tracks whose preparation takes seconds and needs no TensorFlow."""
    folder = tmp_path_factory.mktemp("long")
    soundfile.write(folder / "silence.flac", np.zeros(20 * 8000), 8000)
    for name in ("a", "b"):
        (folder / "music" / "train" / name).mkdir(parents=True)
        for stem in range(400):
            os.link(folder / "silence.flac", folder / "music" / "train" / name / f"{stem}.flac")
    return folder / "music"


# As on systems that do not end a process with its parent, and on Linux when that comes late.
_LEFT_ALONE = """
import runpy
from experiments.beam import pipeline
pipeline._WORKER = (
    "from experiments.beam import worker; worker._end_with_parent = lambda *_: None; "
    + pipeline._WORKER
)
runpy.run_module("experiments.catalogue", run_name="__main__", alter_sys=True)
"""


@pytest.fixture
def at_work(start, long_tracks, tmp_path):
    """The program with both of its workers at work, and their process ids."""
    out = tmp_path / "out"
    line = ("prepare", f"--musdb_dir={long_tracks}", f"--data_dir={out}", "--sample_rate=8000")
    process = start(*line, "--workers=2", code=("-c", _LEFT_ALONE))
    begun = out / ".catalogue"
    _wait_for(lambda: len(list(begun.glob("*/*.begun"))) == 2 or process.poll() is not None)
    assert process.poll() is None, process.communicate()
    workers = [i for i, line in _running(process.pid).items() if "serve(" in line]
    assert len(workers) == 2
    return process, workers


@needs_beam
@pytest.mark.slow
@pytest.mark.parametrize("end", ["kill", "Ctrl-C"])
def test_workers_end_with_the_program(at_work, end):
    process, _ = at_work
    if end == "kill":
        process.kill()  # the workers are not notified
    else:
        os.killpg(process.pid, signal.SIGINT)  # to all processes, as terminals do
    _wait_for(lambda: not _running(process.pid))
    _, errors = process.communicate()
    if end == "Ctrl-C":
        assert process.returncode == 130
        assert errors.splitlines()[-1] == "error: interrupted"
    assert "Error" not in errors
    assert "Traceback" not in errors


@needs_beam
@pytest.mark.slow
def test_a_worker_that_dies_ends_the_program(at_work, long_tracks):
    process, workers = at_work
    os.kill(workers[0], signal.SIGKILL)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert re.match(
        r"error: a worker process died \(out of memory\?\) while working on"
        rf" {long_tracks}/train/a or {long_tracks}/train/b; finished files are kept: run again",
        errors.splitlines()[-1],
    )
    assert "Traceback" not in errors
    _wait_for(lambda: not _running(process.pid))


@needs_beam
@pytest.mark.slow
def test_scores_of_all_but_a_bad_track(program, run, tmp_path):
    data_dir, scores = tmp_path / "data", tmp_path / "scores"
    for i, name in enumerate(("a", "b", "nan", "short")):
        for stem in _STEMS:
            samples = _noise(8000 * 2, seed=i + 10 * (stem == "rest"))
            write_wav(data_dir / "test" / name / f"{stem}.wav", samples, 8000, "float32")
    write_wav(data_dir / "test" / "short" / "rest.wav", _noise(8000), 8000)
    samples = _noise(8000 * 2)
    samples[99] = np.nan
    soundfile.write(data_dir / "test" / "nan" / "rest.wav", samples, 8000, subtype="FLOAT")
    line = (f"--model={run}", f"--data_dir={data_dir}", "--excerpt=1", "--tracks=a,b")
    others = ("--tracks=nan", "--tracks=short")
    done = program("catalogue", "score", *line, *others, f"--output_dir={scores}", "--workers=1")
    assert done.returncode == 1, done.stderr
    assert _counts(done.stdout) == (2, 0, 2)
    nan, short = _reasons(done.stdout)
    assert nan.startswith(f"{data_dir}/test/nan/rest.wav: found NaN or infinity at sample 99")
    assert short.startswith(f"{data_dir}/test/short/rest.wav: found 8000 samples, expected 16000")

    expected = tmp_path / "expected"
    assert program("evaluate", *line, f"--output_dir={expected}", "--jobs=1").returncode == 0
    assert _read_all(scores) == _read_all(expected)
    again = program("catalogue", "score", *line, f"--output_dir={scores}")
    assert again.returncode == 0, again.stderr
    assert _counts(again.stdout) == (0, 2, 0)
    assert "museval v4" in again.stdout

    line = (f"--data_dir={data_dir}", "--excerpt=1", "--tracks=a", "--system=scaled")
    line = (*line, "--config=small_2stems", "--config.model.sample_rate=8000")
    line = (*line, "--config.model.stems=('vocals', 'rest')", "--config.sources={}")
    other = program("catalogue", "score", *line, f"--output_dir={tmp_path / 'scaled'}")
    assert _counts(other.stdout) == (1, 0, 0), other.stderr
    settings = json.loads((tmp_path / "scaled" / "evaluation.json").read_text())
    assert (settings["system"], settings["excerpt_seconds"]) == ("scaled", 1)
    assert settings["stems"] == {"vocals": ["vocals"], "rest": ["rest"]}
    assert (tmp_path / "scaled" / "test" / "a.json").exists()


@needs_beam
@pytest.mark.slow
def test_all_but_bad_tracks_are_prepared(program, tmp_path):
    music, data_dir, expected = tmp_path / "in", tmp_path / "data", tmp_path / "expected"
    for i, name in enumerate(("train/a", "test/b", "train/short", "valid/text", "train/none")):
        (music / name).mkdir(parents=True)
        for stem in ("vocals", "drums")[: 2 * (i < 4)]:
            soundfile.write(music / name / f"{stem}.flac", _noise(5000, 2, i), 44_100)
    soundfile.write(music / "train" / "short" / "drums.ogg", _noise(4000, 2), 44_100)
    (music / "train" / "short" / "drums.flac").unlink()
    (music / "valid" / "text" / "drums.flac").write_text("words, no sound")
    soundfile.write(music / "test" / "b" / "vocals.flac", 0 * _noise(5000, 2), 44_100)
    line = ("catalogue", "prepare", f"--input_dir={music}", f"--data_dir={data_dir}", "--workers=2")
    done = program(*line)
    assert done.returncode == 1, done.stderr
    assert _counts(done.stdout) == (2, 0, 3)
    none, short, text = _reasons(done.stdout)
    assert none.startswith(f"{music}/train/none: found no audio files")
    assert short.startswith(f"{music}/train/short/")
    assert text.startswith(f"{music}/valid/text/drums.flac: ")
    assert f"warning: {music}/test/b/vocals.flac: silent from start to end\n" in done.stderr
    assert "Traceback" not in done.stderr

    assert _counts(program(*line).stdout) == (0, 2, 3)
    for name in ("train/short", "valid/text", "train/none"):
        shutil.rmtree(music / name)
    done = program("prepare", f"--input_dir={music}", f"--data_dir={expected}", "--jobs=1")
    assert done.returncode == 0, done.stderr
    assert [path for path in _left(data_dir) if path != "valid"] == _left(expected)
    for path in expected.rglob("*.wav"):
        assert (data_dir / path.relative_to(expected)).read_bytes() == path.read_bytes()


# Runs in one process, but with the interfaces that runners on other machines use.
_PORTABLE = ("--runner=PortableRunner", "--job_endpoint=embed", "--environment_type=LOOPBACK")


def _touch(_, path):
    Path(path).touch(exist_ok=False)
    return ["touched"]


@needs_beam
@pytest.mark.slow
@mock.patch.dict(os.environ)  # the workers' number of threads is set in it
def test_an_error_that_stops_every_unit_is_reported_once(tmp_path):
    out, missing = tmp_path / "out", tmp_path / "missing"
    load = functools.partial(load_config, missing)
    plan = Plan(out, {name: (name,) for name in "abcd"}, print, load, workers=1)
    with pytest.raises(ConfigError) as caught:
        pipeline.run(plan)
    assert str(caught.value).startswith(f"{missing}: found no such folder, expected")
    files = [str(tmp_path / name) for name in ("a", "caf\udce9")]
    units = {path: (path,) for path in files}
    done = pipeline.run(Plan(out, units, _touch), _PORTABLE)
    assert (done.done, done.failed, done.warnings) == (2, [], ["touched"] * 2)
    assert all(map(os.path.exists, files))
    for option, workers, message in (
        ("--runner=NoRunner", None, "Beam's flags: Unexpected pipeline runner: NoRunner."),
        ("--runner=FlinkRunner", 2, "--workers: given, expected none beside --runner=FlinkRunner"),
        (
            "--direct_num_workers=two",
            None,
            "Beam's flags: argument --direct_num_workers: invalid int value: 'two'",
        ),
    ):
        with pytest.raises(ConfigError) as caught:
            pipeline.run(plan, [option], workers)
        assert str(caught.value).startswith(message)
        assert _left(out) == []


@needs_beam
@needs_dask
def test_a_cluster_without_an_address(tmp_path):
    with pytest.raises(ConfigError, match="--dask_client_address: found none, expected that"):
        pipeline.run(Plan(tmp_path, {"a": ("a",)}, print), ["--runner=DaskRunner"])
    assert _left(tmp_path) == []


def test_records_of_a_killed_program_are_removed_and_those_of_another_one_kept(tmp_path):
    ours = tmp_path / ".catalogue"
    (ours / "records-0").mkdir(parents=True)
    (ours / "records-0" / "7").write_text("of a killed program")
    with pipeline._empty_records(tmp_path) as records:
        assert list(records.iterdir()) == []
        assert _left(ours) == [".lock", records.name]
        (records / "0").write_text("{}")
        with pytest.raises(ConfigError) as caught, pipeline._empty_records(tmp_path):
            pass
        assert str(caught.value) == (
            f"{tmp_path}: found another catalogue running in it, expected none"
        )
        assert (records / "0").exists()
    assert _left(tmp_path) == []


@needs_beam
def test_damage_of_a_file_is_reported_every_time(program, run, tmp_path):
    song, out = tmp_path / "music" / "disc 1" / "album" / "song.wav", tmp_path / "out"
    song.parent.mkdir(parents=True)
    soundfile.write(song, _noise(1000), 8000)
    stems = out / "disc 1" / "album" / "song"
    stems.mkdir(parents=True)
    for stem in _STEMS:
        (stems / f"{stem}.wav").touch()
    (stems / "damaged.txt").write_text(f"{song}: found half of it\n")
    line = ("catalogue", "separate", f"--model={run}", f"--output_dir={out}")
    done = program(*line, "--recursive", tmp_path / "music")
    assert done.returncode == 1
    assert _counts(done.stdout) == (0, 0, 1)
    assert _reasons(done.stdout) == [f"{song}: found half of it"]


@needs_beam
def test_wrong_inputs(program, refusal, run, tmp_path):
    line = ("catalogue", "separate", f"--model={run}", f"--output_dir={tmp_path / 'out'}")
    assert refusal(program(*line)) == (
        "FILE: found none, expected recordings, folders of them, or --list"
    )
    files = tmp_path / "files"
    files.write_text(f"{tmp_path}/a.wav\n\n{tmp_path}/b.wav\n{tmp_path}/a.flac\n")
    assert refusal(program(*line, f"--list={files}")).startswith(
        f"{tmp_path}/a.flac: its stems would be written to {tmp_path}/out/a, as those of"
        f" {tmp_path}/a.wav"
    )
    assert refusal(program(*line, "--runner=DirectRunner", "a.wav")) == (
        "--runner: found before --, expected Beam's flags behind it"
    )
    done = program(*line, f"--list={tmp_path}/none")
    assert refusal(done).startswith(f"{tmp_path}/none: cannot be read (No such file")
    assert refusal(program(*line, "-")).startswith("FILE: found -, expected files")
    done = program("catalogue", "prepare", f"--musdb_dir={run}", f"--data_dir={tmp_path}", "x.wav")
    assert refusal(done) == "found the argument 'x.wav', expected only --flags"


@pytest.mark.parametrize(
    ("arguments", "found"), [(("--model=x", "score"), "none"), (("paint", "--model=x"), "paint")]
)
def test_unknown_actions(program, refusal, arguments, found):
    expected = f"ACTION: found {found}, expected separate, score or prepare first"
    assert refusal(program("catalogue", *arguments)) == expected


def test_help_of_an_action_shows_its_flags(program):
    for action, theirs in {
        "separate": ("--list:", "--stems:", "--mask:", "--clip_mode:"),
        "score": ("--split:", "--mask:", "--excerpt:", "--system:", "--tracks:", "--config:"),
        "prepare": ("--input_dir:", "--musdb_dir:", "--trim:", "--sample_rate:"),
    }.items():
        done = program("catalogue", action, "--help")
        assert done.returncode == 0
        for flag in (*theirs, "--workers:"):
            assert flag in done.stdout


def test_a_worker_whose_program_has_ended_does_not_begin(monkeypatch):
    monkeypatch.setattr(worker, "_end_with_parent", lambda: None)
    monkeypatch.setattr(worker.runpy, "run_module", lambda *_, **__: pytest.fail("it began"))
    worker.serve(launcher=0)


def test_an_unexpected_error_fails_only_its_file(tmp_path, capfd):
    import pickle

    def work(loaded, number):
        return {0: [], 1: ["loud"], 2: None}[number]

    for number in range(4):
        unit = pickle.dumps((number, f"file {number}", (number,)))
        worker.do(unit, work, None, str(tmp_path))
        worker.do(unit, pytest.fail, None, str(tmp_path / "records of a program that has ended"))
    assert "KeyError: 3" in capfd.readouterr().err
    records = [(tmp_path / str(number)).read_text() for number in range(4)]
    assert records == [
        '{"status": "done", "failed": [], "warnings": []}',
        '{"status": "done", "failed": [], "warnings": ["loud"]}',
        '{"status": "skipped", "failed": [], "warnings": []}',
        '{"status": "failed", "failed": ["file 3: KeyError: 3"], "warnings": []}',
    ]


def test_a_track_that_cannot_be_looked_at_fails_alone(tmp_path, monkeypatch):
    for track in ("odd", "song"):
        write_wav(tmp_path / "in" / "test" / track / "x.wav", np.zeros((10, 1)), 44_100)
    given = {"input_dir": tmp_path / "in", "data_dir": tmp_path / "out"}
    given = types.SimpleNamespace(**given, musdb_dir=None, sample_rate=44_100, trim=0)
    sources_of = plans.inputs.sources_of

    def look(path):
        if path.endswith("odd"):
            raise PermissionError(13, "Permission denied")
        return sources_of(path)

    monkeypatch.setattr("absl.flags.FLAGS", given)
    monkeypatch.setattr(plans.inputs, "sources_of", look)
    plan = plans.plan_preparation([])
    assert [Path(path).name for path in plan.units] == ["song"]
    odd = tmp_path / "in" / "test" / "odd"
    assert plan.failed == [f"{odd}: PermissionError: [Errno 13] Permission denied"]
