"""What prepare writes, skips and refuses, and the program on a machine without ffmpeg."""

import concurrent.futures
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import types
import zipfile
from email.message import Message
from pathlib import Path

import numpy as np
import process
import pytest
import soundfile

from data_pipeline import audio, sigsep
from data_pipeline.errors import AudioError
from data_pipeline.wav import read_wav, wav_info
from experiments.preparing import inputs, preparation_flags, run, track
from sccunet.config import ConfigError

_STREAMS = ("mixture", "drums", "bass", "other", "vocals")


def _folders(tmp_path) -> tuple[str, str]:
    return str(tmp_path / "in"), str(tmp_path / "out")


def _flags(tmp_path) -> list[str]:
    """Returns flags to prepare `tmp_path/in` into `tmp_path/out`."""
    input_dir, data_dir = _folders(tmp_path)
    return [f"--input_dir={input_dir}", f"--data_dir={data_dir}"]


def _refusal(tmp_path, *args, **kwargs) -> str:
    """Returns the message of `prepare`, which must fail before a worker is started."""
    with pytest.raises(AudioError) as caught:
        run.prepare(*_folders(tmp_path), *args, **kwargs)
    return str(caught.value)


def _noise(seconds: float, rate: int = 44_100, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (round(seconds * rate), 2))


def _make(tmp_path, name: str, x: np.ndarray | bytes, rate: int = 44_100, **options) -> Path:
    """Writes `in/train/<name>`, audio or bytes."""
    path = tmp_path / "in" / "train" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(x, bytes):
        path.write_bytes(x)
    else:
        soundfile.write(os.fsencode(path), x, rate, **options)
    return path


def _tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def _excerpt() -> Path:
    return Path(sigsep.load("stempeg").example_stem_path())


@pytest.fixture
def in_threads(monkeypatch):
    """Decodes in threads: new processes would first import everything."""
    threads = concurrent.futures.ThreadPoolExecutor
    monkeypatch.setattr(concurrent.futures, "ProcessPoolExecutor", lambda jobs, **_: threads(jobs))


def test_musdb_excerpt_beside_a_folder_of_compressed_files(program, refusal, capsys, tmp_path):
    stem_mp4 = tmp_path / "in" / "test" / "An Artist - A Song: Mix.stem.mp4"
    stem_mp4.parent.mkdir(parents=True)
    shutil.copy(_excerpt(), stem_mp4)
    x = _noise(0.5, 48_000)
    _make(tmp_path, "my song/tuba.flac", x, 48_000, subtype="PCM_24")
    _make(tmp_path, "my song/kazoo.ogg", x / 2, 48_000)
    _make(tmp_path, "my song/cover.jpg", b"not for us")
    _make(tmp_path, "my song/._tuba.flac", b"a Macintosh leaves these")
    (tmp_path / "in" / "train" / "README.txt").touch()

    (tmp_path / "bin").mkdir()
    line = ("prepare", *_flags(tmp_path))
    done = program(*line, env={**os.environ, "PATH": str(tmp_path / "bin")})
    assert done.returncode == 0, done.stderr
    end = f"prepared 2 tracks, skipped 0 finished: {tmp_path / 'out'}"
    assert done.stdout.splitlines()[-1] == end
    name = "An Artist - A Song: Mix"
    assert _tree(tmp_path / "out") == sorted(
        [f"test/{name}/{stem}.wav" for stem in _STREAMS]
        + ["train/my song/kazoo.wav", "train/my song/tuba.wav"]
    )
    for number, stem in enumerate(_STREAMS):
        info = wav_info(tmp_path / "out" / "test" / name / f"{stem}.wav")
        assert (info.sample_rate, info.channels, info.encoding) == (44_100, 2, "pcm16")
        assert info.frames == 268_288
        decoded, _ = audio.read(stem_mp4, number)
        clipped = np.clip(np.rint(decoded * 32_768), -32_768, 32_767)
        np.testing.assert_array_equal(read_wav(info) * 32_768, clipped)
    tuba = read_wav(tmp_path / "out" / "train" / "my song" / "tuba.wav")
    assert len(tuba) == round(0.5 * 44_100)
    expected = audio.resample(x.astype(np.float32), 48_000, 44_100)
    np.testing.assert_allclose(tuba, expected, atol=0.51 / 32_768 + 1e-6)

    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.wav")}
    run.prepare(*_folders(tmp_path))
    assert capsys.readouterr().out.startswith("prepared 0 tracks, skipped 2 finished")
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.wav")}

    # The existing files have another rate.
    path = tmp_path / "out" / "test" / name / "bass.wav"
    reason = f"{path}: found 44100 Hz, expected 22050 Hz or no file"
    with pytest.raises(AudioError, match=re.escape(reason)):
        run.prepare(*_folders(tmp_path), sample_rate=22_050)
    done = process.run(*line, "--tracks=my song,d")
    assert refusal(done) == (
        f"{tmp_path / 'in'}: found no track named 'd', expected one of {name!r}, 'my song'"
    )


def test_named_tracks_another_rate_and_warnings(in_threads, capsys, tmp_path):
    silent = _make(tmp_path, "a/silent.wav", np.zeros((4_410, 2)))
    loud = _make(tmp_path, "a/loud.wav", 4 * _noise(0.1), subtype="FLOAT")
    for name in ("b", "c"):
        _make(tmp_path, f"{name}/x.wav", _noise(0.2))
    run.prepare(*_folders(tmp_path), ["c", "a"], jobs=1, sample_rate=8_000)
    out, err = capsys.readouterr()
    assert out.splitlines()[-1].startswith("prepared 2 tracks, skipped 0 finished")
    found = ["train/a/loud.wav", "train/a/silent.wav", "train/c/x.wav"]
    assert _tree(tmp_path / "out") == found
    info = wav_info(tmp_path / "out" / "train" / "c" / "x.wav")
    assert (info.sample_rate, info.frames) == (8_000, 1_600)
    assert f"warning: {silent}: silent from start to end" in err
    assert f"warning: {loud}: peaks at " in err


def test_clipping_gives_a_warning(tmp_path):
    loud = _make(tmp_path, "a/loud.wav", 4 * _noise(0.1), subtype="FLOAT")
    target = tmp_path / "out" / "train" / "a"
    warnings = track.prepare_track(target, inputs.sources_of(str(loud.parent)), 44_100)
    assert warnings == [f"{loud}: peaks at 2.00 of full scale, clipped to 16 bits"]
    found = read_wav(target / "loud.wav")
    assert (found.min(), found.max()) == (-1, 32_767 / 32_768)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


_SECONDS = 4


@pytest.mark.skipif(sys.platform != "linux", reason="finds the workers in /proc")
def test_killed_midway_it_leaves_whole_tracks_and_continues(capsys, tmp_path):
    x = _noise(_SECONDS, 48_000)
    for number in range(6):
        for stem in ("one", "two"):
            _make(tmp_path, f"song {number}/{stem}.flac", x, 48_000)
    out = tmp_path / "out" / "train"
    # Leftovers of an earlier kill.
    (out / ".song 3.k1lled.part").mkdir(parents=True)
    (out / ".song 3.k1lled.part" / "junk.wav").touch()
    running = process.start("prepare", "--jobs=2", *_flags(tmp_path))
    deadline = time.monotonic() + 60
    while not list(out.glob("song *")):
        assert running.process.exitcode is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    workers = _children(running.process.pid)
    assert len(workers) >= 2
    running.process.kill()
    running.wait()
    while any(_runs(worker) for worker in workers):
        assert time.monotonic() < deadline, "the workers live on"
        time.sleep(0.02)
    whole = {path.name: _tree(path) for path in out.glob("song *")}
    assert 0 < len(whole) < 6
    for name, files in whole.items():
        assert files == ["one.wav", "two.wav"]
        for file in files:
            assert wav_info(out / name / file).frames == _SECONDS * 44_100
    later = time.time_ns()
    (out / f".{min(whole)}.k1lled.part").mkdir()  # another run has finished it since

    run.prepare(*_folders(tmp_path), jobs=2)
    end = f"prepared {6 - len(whole)} tracks, skipped {len(whole)} finished"
    assert capsys.readouterr().out.splitlines()[-1].startswith(end)
    assert sorted(os.listdir(out)) == [f"song {number}" for number in range(6)]
    for number in range(6):
        assert _tree(out / f"song {number}") == ["one.wav", "two.wav"]
        again = (out / f"song {number}" / "one.wav").stat().st_mtime_ns > later
        assert again == (f"song {number}" not in whole)


def test_ctrl_c_ends_it_without_the_other_tracks(tmp_path):
    x = _noise(_SECONDS, 48_000)
    for number in range(12):
        _make(tmp_path, f"song {number}/one.flac", x, 48_000)
    out = tmp_path / "out" / "train"
    running = subprocess.Popen(
        [sys.executable, "-m", "experiments.prepare", "--jobs=2", *_flags(tmp_path)],
        cwd=process.ROOT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Shells start background jobs with SIGINT ignored, and that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 120
    while not list(out.glob("song *")):
        assert running.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.killpg(running.pid, signal.SIGINT)  # to all processes, as terminals do
    _, message = running.communicate(timeout=120)
    assert (running.returncode, message) == (130, "error: interrupted\n")
    assert len(list(out.glob("song *"))) < 8


def test_of_two_runs_at_once_the_first_to_finish_writes_the_track(tmp_path, monkeypatch):
    _make(tmp_path, "a/x.wav", _noise(0.1))
    sources = inputs.sources_of(str(tmp_path / "in" / "train" / "a"))
    target = tmp_path / "out" / "train" / "a"
    decode, found = audio.recording, []

    def other_run_first(*arguments):
        monkeypatch.setattr(audio, "recording", decode)
        found.append(os.listdir(target.parent))
        assert track.prepare_track(target, sources, 44_100) == []
        found.append((target / "x.wav").stat().st_mtime_ns)
        return decode(*arguments)

    monkeypatch.setattr(audio, "recording", other_run_first)
    assert track.prepare_track(target, sources, 44_100) is None
    (hidden,), written = found
    assert hidden.startswith(".a.")  # and the other did not remove it
    assert (target / "x.wav").stat().st_mtime_ns == written
    assert _tree(tmp_path / "out") == ["train/a/x.wav"]

    monkeypatch.setattr(audio, "recording", other_run_first)
    shutil.rmtree(target)
    with pytest.raises(AudioError, match="found 44100 Hz, expected 8000 Hz or no file"):
        track.prepare_track(target, sources, 8_000)
    assert _tree(tmp_path / "out") == ["train/a/x.wav"]


@pytest.mark.slow
def test_two_programs_at_once_share_the_tracks(tmp_path):
    x = _noise(0.2)
    for number in range(12):
        for stem in ("one", "two"):
            _make(tmp_path, f"song {number}/{stem}.flac", x)
    runs = [process.start("prepare", "--jobs=1", *_flags(tmp_path)) for _ in range(2)]
    ends = [done.wait() for done in runs]
    assert [end.returncode for end in ends] == [0, 0], ends
    counts = [
        re.fullmatch(r"prepared (\d+) tracks?, skipped (\d+) finished: .*", end.stdout.strip())
        for end in ends
    ]
    written, skipped = zip(*(map(int, found.groups()) for found in counts), strict=True)
    assert sum(written) == sum(skipped) == 12
    found = [f"train/song {number}/{stem}.wav" for number in range(12) for stem in ("one", "two")]
    assert _tree(tmp_path / "out") == sorted(found)
    for file in found:
        assert wav_info(tmp_path / "out" / file).frames == len(x)


def test_trim_cuts_to_the_shortest_file(in_threads, capsys, tmp_path):
    x = _noise(0.5)
    lengths = {"a": 22_050, "b": 12_050, "c": 22_049}
    files = {
        name: _make(tmp_path, f"song/{name}.wav", x[:frames]) for name, frames in lengths.items()
    }
    assert _refusal(tmp_path) == f"{files['b']}: found 0.27 s, expected 0.50 s as in a.wav"
    assert _refusal(tmp_path, trim=9_999) == (
        f"{files['b']}: found 12050 samples, expected 22050 as in {files['a']};"
        " --trim=10000 or more cuts to the shortest"
    )
    assert _tree(tmp_path / "out") == []
    run.prepare(*_folders(tmp_path), trim=10_000)
    for name, file in files.items():
        found = read_wav(tmp_path / "out" / "train" / "song" / f"{name}.wav")
        np.testing.assert_array_equal(found, read_wav(file)[:12_050])
    out, err = capsys.readouterr()
    assert out.startswith("prepared 1 track, skipped 0 finished: ")
    assert err == (
        f"warning: {files['b']}: 10000 samples shorter than the longest file of its track; all are"
        " cut to 12050 samples\n"
    )


def test_names_that_training_would_not_find_give_a_warning(in_threads, capsys, tmp_path):
    odd = _make(tmp_path, "song/Vocals.ogg", _noise(0.1))
    _make(tmp_path, "song/drums.wav", _noise(0.1))
    _make(tmp_path, "song/Tuba.wav", _noise(0.1))
    for _ in range(2):  # also for finished tracks
        run.prepare(*_folders(tmp_path))
        assert capsys.readouterr().err == (
            f"warning: {odd}: found the name 'Vocals', expected 'vocals', as configs call it:"
            " training tells capitals from small letters\n"
        )


def test_the_input_is_named_by_one_of_two_flags(monkeypatch):
    for input_dir, musdb_dir, message in (
        ("a", "b", "--input_dir: found --musdb_dir too, expected one of them"),
        (None, None, "--input_dir: not given, expected a value (--help lists all flags)"),
    ):
        given = types.SimpleNamespace(input_dir=input_dir, musdb_dir=musdb_dir)
        monkeypatch.setattr(preparation_flags.flags, "FLAGS", given)
        with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
            preparation_flags.input_dir_of_flags()
    given.musdb_dir = "b"
    assert preparation_flags.input_dir_of_flags() == "b"


def test_bad_files_are_all_found_before_anything_is_written(tmp_path):
    """One line for each bad track, naming the file, what was found and what was expected."""
    folder = tmp_path / "in" / "train"
    whole = _make(tmp_path, "good/x.wav", _noise(0.5)).read_bytes()
    _make(tmp_path, "bad channels/a.wav", _noise(0.5))
    _make(tmp_path, "bad channels/b.wav", _noise(0.5)[:, :1])
    _make(tmp_path, "bad cut/x.wav", whole[:-4_000])
    _make(tmp_path, "bad empty/x.ogg", b"")
    _make(tmp_path, "bad length/a.flac", _noise(0.5))
    _make(tmp_path, "bad length/b.ogg", _noise(1))
    _make(tmp_path, "bad none/x.txt", b"words")
    _make(tmp_path, "bad noise/x.mp3", np.random.default_rng(0).bytes(9_000))
    _make(tmp_path, "bad picture/x.m4a", b"\x89PNG\r\n\x1a\n" + bytes(100))
    (folder / "bad kind" / "x.ogg").mkdir(parents=True)
    _make(tmp_path, "bad stems.stem.mp4", whole)
    _make(tmp_path, "bad two/x.flac", _noise(0.5))
    _make(tmp_path, "bad two/x.wav", whole)
    lines = _refusal(tmp_path).splitlines()
    assert lines == [
        f"{folder}/bad channels/b.wav: found 1 channel, expected 2 as in a.wav",
        f"{folder}/bad cut/x.wav: found 21050 samples (truncated), expected the 22050 samples"
        " that its header promises",
        f"{folder}/bad empty/x.ogg: found an empty file (0 bytes), expected an audio file",
        f"{folder}/bad kind: found no audio files, expected files that end in .wav, .flac, .mp3 or"
        " the like",
        f"{folder}/bad length/b.ogg: found 1.00 s, expected 0.50 s as in a.flac",
        f"{folder}/bad noise/x.mp3: found no readable audio (Invalid data found when processing"
        " input), expected an audio file",
        f"{folder}/bad none: found no audio files, expected files that end in .wav, .flac, .mp3 or"
        " the like",
        f"{folder}/bad picture/x.m4a: found 0 audio streams, expected at least 1",
        f"{folder}/bad stems.stem.mp4: found 1 audio stream, expected 5",
        f"{folder}/bad two/x.wav: found beside x.flac, expected one file named x",
    ]
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_forbidden_file(tmp_path):
    path = _make(tmp_path, "a/x.wav", _noise(0.2))
    path.chmod(0)
    assert _refusal(tmp_path) == (
        f"{path}: cannot be read (Permission denied), expected a readable file"
    )


def _bad_nan(tmp_path):
    x = _noise(1)
    x[22_050] = np.nan
    path = _make(tmp_path, "bad/x.wav", x, subtype="FLOAT")
    return f"{path}: found NaN or infinity at 0.50 s, expected numbers"


def _bad_length(tmp_path):
    _make(tmp_path, "bad/a.flac", _noise(1))
    path = _make(tmp_path, "bad/b.flac", _noise(1)[:-1])
    return (
        f"{path}: found 44099 samples, expected 44100 as in {path.with_name('a.flac')};"
        " --trim=1 or more cuts to the shortest"
    )


def _bad_middle(tmp_path):
    data = bytearray(_excerpt().read_bytes())
    middle = len(data) // 2
    data[middle : middle + 20_000] = bytes(20_000)
    path = _make(tmp_path, "bad.stem.mp4", bytes(data))
    return (
        f"{path}: found audio that cannot be decoded after 2.9 s (Invalid data found when"
        " processing input), expected audio that decodes to its end"
    )


def _bad_end(tmp_path):
    data = _excerpt().read_bytes()
    path = _make(tmp_path, "bad.stem.mp4", data[: len(data) // 2])
    return (
        f"{path}: found 2.9 s of audio (truncated or damaged), expected the 6.1 s that its header"
        " promises"
    )


@pytest.mark.parametrize("make", [_bad_nan, _bad_length, _bad_middle, _bad_end])
def test_what_only_decoding_finds(tmp_path, make):
    message = make(tmp_path)
    ((split, name), path), *_ = inputs.find_inputs(str(tmp_path / "in")).items()
    target = tmp_path / "out" / split / name
    with pytest.raises(AudioError) as caught:
        track.prepare_track(target, inputs.sources_of(path), 44_100)
    assert str(caught.value) == message
    assert os.listdir(target.parent) == []


def test_tracks_that_fail_do_not_stop_the_others(in_threads, tmp_path, monkeypatch):
    message = _bad_nan(tmp_path)
    good = ["a", "lat\udce9"]  # a name that is not UTF-8
    for name in (*good, "odd"):
        _make(tmp_path, f"{name}/{name}.flac", _noise(0.2))

    def prepare(target, *how):
        if target.endswith("odd"):
            raise MemoryError("no\nroom")
        return track.prepare_track(target, *how)

    monkeypatch.setattr(run, "prepare_track", prepare)
    out = tmp_path / "out" / "train"
    assert _refusal(tmp_path, jobs=1) == f"{message}\n{out}/odd: MemoryError: no"
    assert sorted(os.listdir(out)) == good
    for name in good:
        assert wav_info(out / name / f"{name}.wav").frames == 8_820


def test_no_input(tmp_path):
    assert _refusal(tmp_path) == (
        f"{tmp_path / 'in'}: found no such directory, expected a folder with tracks"
    )
    (tmp_path / "in" / "train").mkdir(parents=True)
    assert _refusal(tmp_path) == (
        f"{tmp_path / 'in'}: found no tracks, expected <split>/<track>.stem.mp4 or"
        " <split>/<track>/<stem>.*, split being train, valid or test"
    )


def test_a_track_in_both_layouts_and_output_over_input(tmp_path):
    shutil.copy(_excerpt(), _make(tmp_path, "a/x.wav", _noise(0.2)).parents[1] / "a.stem.mp4")
    folder = tmp_path / "in" / "train"
    assert _refusal(tmp_path) == (
        f"{folder}/a.stem.mp4: found the same track as {folder}/a, expected one of the two"
    )
    (tmp_path / "out").symlink_to(tmp_path / "in")
    assert _refusal(tmp_path) == (
        f"--data_dir={tmp_path}/out: found the input folder, expected another"
    )


def test_something_else_lies_at_the_target(tmp_path):
    _make(tmp_path, "a/x.wav", _noise(0.2))
    target = tmp_path / "out" / "train" / "a"
    target.mkdir(parents=True)
    assert _refusal(tmp_path) == (
        f"{target}: found no x.wav in it, expected a prepared track or nothing"
    )


def test_download(refusal, monkeypatch, tmp_path):
    """musdb's own download, with the network replaced."""
    nobody = "http://127.0.0.1:9"  # answers
    done = process.run(
        "prepare", "--download", *_flags(tmp_path), http_proxy=nobody, https_proxy=nobody
    )
    assert refusal(done) == (
        "--download: musdb's previews cannot be downloaded (<urlopen error [Errno 111] Connection"
        f" refused>), expected internet access and a writable {tmp_path / 'in'}"
    )

    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.write(_excerpt(), "train/A - B.stem.mp4")
    archive.seek(0)
    archive.info = Message
    monkeypatch.setattr(sigsep.load("musdb"), "urlopen", lambda request: archive)
    folder = str(tmp_path / "in")
    inputs.download(folder)
    assert inputs.find_inputs(folder) == {
        ("train", "A - B"): str(tmp_path / "in" / "train" / "A - B.stem.mp4")
    }
