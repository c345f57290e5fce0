"""The program separate as users run it: odd files, bad files, full disks, kills."""

import ctypes
import os
import re
import resource
import signal
import struct
import time
import types
from pathlib import Path

import numpy as np
import process
import pytest
import soundfile

from data_pipeline import audio
from data_pipeline.audio_writer import write_wav
from data_pipeline.errors import AudioError, DamagedError
from data_pipeline.wav import read_wav, wav_info
from experiments.separating import recording
from experiments.separating.output import Output, parse_stems
from experiments.separating.recording import separate_file
from sccunet.config import Config, ModelConfig
from sccunet.runs import load_unet
from sccunet.separation import Separator

_CONFIG = Config(
    model=ModelConfig(
        stems=("vocals", "drums", "bass"),
        frame_length=512,
        hop_length=128,
        patch_samples=8192,
        filters=(4, 8),
    ),
)
_STEMS = _CONFIG.model.stems


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, make_run, randomise):
    """A workdir with random weights."""
    return make_run(tmp_path_factory.mktemp("separate") / "run", _CONFIG, randomise)


@pytest.fixture(scope="module")
def run(workdir, make_portable, randomise):
    """The same as a portable model, which is loaded faster."""
    return make_portable(workdir.parent / "portable", _CONFIG, randomise)


@pytest.fixture(scope="module")
def separator(run):
    return Separator.load(run)


def _noise(samples, channels=2, seed=0, level=0.1):
    return level * np.random.default_rng(seed).standard_normal((samples, channels))


def _read(folder, ending=".wav"):
    return {path.stem: audio.read(path)[0] for path in sorted(Path(folder).glob(f"*{ending}"))}


def _left(folder):
    """All paths below a folder, hidden ones too."""
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*"))


# Rate, channels, subtype, samples; the extension gives the container.
_ODD = {
    **{f"{rate} Hz.wav": (rate, 2, "PCM_16", rate // 5) for rate in (8000, 11_025, 16_000, 22_050)},
    **{f"{rate} Hz.wav": (rate, 1, "FLOAT", rate // 5) for rate in (32_000, 37_800, 48_000)},
    **{f"{rate} Hz.wav": (rate, 2, "PCM_24", rate // 5) for rate in (88_200, 96_000, 192_000)},
    **{f"{c} channels.wav": (44_100, c, "PCM_16", 9000) for c in range(1, 9)},
    "8 bit.wav": (44_100, 1, "PCM_U8", 9001),
    "24 bit.wav": (44_100, 2, "PCM_24", 9002),
    "32 bit.wav": (44_100, 2, "PCM_32", 9003),
    "float.wav": (44_100, 2, "FLOAT", 9004),
    "double.wav": (44_100, 1, "DOUBLE", 9005),
    "one sample.wav": (44_100, 2, "PCM_16", 1),
    "one sample at 8 kHz.wav": (8000, 1, "PCM_16", 1),
    "two samples at 192 kHz.wav": (192_000, 1, "PCM_24", 2),
    "a patch.wav": (44_100, 1, "FLOAT", 8192),
    "größe — 音楽 ♫.wav": (44_100, 2, "PCM_16", 5000),
    " spaces  and 'quotes' \"here\".wav": (44_100, 1, "PCM_16", 5000),
    "not UTF-8 \udce9.wav": (44_100, 1, "PCM_16", 5000),
    "nor \udcff.flac": (44_100, 1, "PCM_16", 5000),
    "-dash.wav": (44_100, 1, "PCM_16", 5000),
    "many.dots.in.it.wav": (44_100, 1, "PCM_16", 5000),
    "UPPER.WAV": (44_100, 1, "PCM_16", 5000),
    "packed.flac": (44_100, 2, "PCM_16", 20_000),
    "packed 24 bit.flac": (96_000, 6, "PCM_24", 20_000),
    "lossy ogg.ogg": (44_100, 2, "VORBIS", 40_000),
    "lossy mp3.mp3": (48_000, 2, "MPEG_LAYER_III", 40_000),
    "interchange.aiff": (44_100, 2, "PCM_16", 5000),
    "long name " + "é" * 115 + ".wav": (44_100, 1, "PCM_16", 5000),
}
_CODED = ("apple.m4a", "video.mp4")
_BAD = (  # "hidden.wav" has its own test
    "zero bytes.wav",
    "header alone.wav",
    "half a header.wav",
    "start of a flac.flac",
    "random 1.mp3",
    "random 2.wav",
    "random 3.flac",
    "random 4.m4a",
    "text 1.wav",
    "text 2.txt",
    "nan.wav",
    "missing.wav",
    "64-bit integers.wav",
    "new\nline.wav",
    "text \udce9.wav",
)


def _encode_aac(path, samples, with_video):
    import av

    with av.open(str(path), "w") as container:
        if with_video:
            video = container.add_stream("mpeg4", rate=10)
            video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
        stream = container.add_stream("aac", rate=44_100, layout="stereo")
        if with_video:
            for _ in range(7):
                picture = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), "rgb24")
                container.mux(video.encode(picture))
            container.mux(video.encode())
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples.T, np.float32), "fltp", "stereo"
        )
        frame.sample_rate = 44_100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.mark.slow
def test_odd_files_give_the_same_as_the_python_interface(program, run, separator, tmp_path):
    songs, out = tmp_path / "songs", tmp_path / "not UTF-8 \udce9"
    songs.mkdir()
    for i, (name, (rate, channels, subtype, samples)) in enumerate(_ODD.items()):
        path = os.fsencode(songs / name)
        soundfile.write(path, _noise(samples, channels, i), rate, subtype=subtype)
    for name in _CODED:
        _encode_aac(songs / name, _noise(30_000), with_video=name.endswith("mp4"))
    (songs / "cover.jpg").write_bytes(b"no audio")
    done = program("separate", f"--model={run}", f"--output_dir={out}", songs)
    assert done.returncode == 0, done.stderr
    names = [*_ODD, *_CODED]
    assert f"stems of {len(names)} of {len(names)} files" in done.stdout
    assert {path.name for path in out.iterdir()} == {Path(name).stem for name in names}
    for name in names:
        given, rate = audio.read(songs / name)
        samples = len(given)
        if name in _ODD and not name.startswith("lossy"):
            assert (rate, given.shape[1], samples) == (*_ODD[name][:2], _ODD[name][3])
        assert name in _ODD or abs(samples - 30_000) < 2048  # the codec's padding
        expected = separator(given, rate)
        folder = out / Path(name).stem
        assert _left(folder) == sorted(f"{stem}.wav" for stem in _STEMS)
        for stem, truth in expected.items():
            info = wav_info(folder / f"{stem}.wav")
            assert (info.frames, info.channels, info.sample_rate) == (*given.shape, rate), name
            found = read_wav(info)
            assert samples < 10 or np.abs(found).max() > 1e-3, name
            np.testing.assert_allclose(found, truth, rtol=0, atol=1e-4, err_msg=name)


def _make_bad(path):
    """Makes a bad file; its name says what is wrong."""
    whole = path.parent.parent / "whole.wav"
    soundfile.write(whole, _noise(9000), 44_100)
    kind = path.stem.rstrip(" 1234\udce9")
    if kind == "zero bytes":
        path.write_bytes(b"")
    elif kind == "header alone":
        path.write_bytes(whole.read_bytes()[:44])
    elif kind == "half a header":
        path.write_bytes(whole.read_bytes()[:30])
    elif kind in ("text", "new\nline"):
        path.write_bytes(b"words, no sound\n" * 100)
    elif kind == "start of a flac":
        soundfile.write(path, _noise(9000), 44_100)
        path.write_bytes(path.read_bytes()[:60])
    elif kind == "random":
        path.write_bytes(np.random.default_rng(0).bytes(50_000))
    elif kind == "nan":
        samples = _noise(30_000)
        samples[25_000, 1] = np.nan
        soundfile.write(path, samples, 44_100, subtype="FLOAT")
    elif kind == "64-bit integers":
        sizes = 8036, b"WAVE", b"fmt ", 16, 1, 1, 44_100, 352_800, 8, 64, b"data", 8000
        path.write_bytes(struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", *sizes) + bytes(8000))
    else:
        assert kind == "missing"


def _as_unprivileged():
    """Drops, before exec, root's permission to read everything; a later exec cannot restore it."""
    libc = ctypes.CDLL(None, use_errno=True)
    drop_bounding, dac_override, dac_read_search = 24, 1, 2
    for capability in (dac_override, dac_read_search):
        if os.geteuid() == 0 and libc.prctl(drop_bounding, capability, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")


@pytest.mark.slow
def test_bad_files_give_one_line_each_and_leave_nothing(program, run, tmp_path):
    (tmp_path / "in").mkdir()
    paths, out = [tmp_path / "in" / name for name in _BAD], tmp_path / "out"
    for path in paths:
        _make_bad(path)
    done = program("separate", f"--model={run}", f"--output_dir={out}", *paths)
    assert done.returncode == 1
    assert done.stdout == f"stems of 0 of {len(paths)} files: {out}\n"
    assert "Traceback" not in done.stderr
    errors = sorted(re.findall("^error: (.*)$", done.stderr, re.M))
    for error, path in zip(errors, sorted(map(str, paths)), strict=True):
        assert error.startswith(f"{path}: ".replace("\n", "\\n"))
        assert "found" in error
    assert not out.exists() or _left(out) == []


def test_a_file_and_a_folder_that_hold_nothing_to_separate(program, refusal, run, tmp_path):
    hidden, folder = tmp_path / "hidden.wav", tmp_path / "no audio"
    soundfile.write(hidden, _noise(9000), 44_100)
    hidden.chmod(0o600 if os.geteuid() == 0 else 0)
    if os.geteuid() == 0:
        os.chown(hidden, 65_534, 65_534)
    line = ("separate", f"--model={run}", f"--output_dir={tmp_path / 'out'}")
    message = refusal(program(*line, hidden, preexec_fn=_as_unprivileged))
    assert message.startswith(f"{hidden}: cannot be read (Permission denied)")
    folder.mkdir()
    (folder / "cover.jpg").write_bytes(b"no audio")
    assert refusal(program(*line, folder)).startswith(f"{folder}: found no audio files")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def no_space():
    """Function that limits files written by this process, or another, to 150 000 bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(process_id=0):
        resource.prlimit(process_id, resource.RLIMIT_FSIZE, (150_000, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.slow
def test_no_space_gives_one_line_and_leaves_nothing(refusal, no_space, run, tmp_path):
    path, out = tmp_path / "song.wav", tmp_path / "out"
    soundfile.write(path, _noise(100_000), 44_100)
    running = process.start("separate", f"--model={run}", f"--output_dir={out}", path)
    no_space(running.process.pid)  # it has yet to load the model
    message = refusal(running.wait())
    assert re.match(rf"{out}/song/\w+\.wav: cannot be written \(", message)
    assert _left(out) == []

    no_space()
    separator, sums = Separator(_double, _CONFIG), parse_stems([], _STEMS)
    for output in (
        Output(sums, ".flac", "pcm24", "clamp"),
        Output(sums, ".flac", "pcm24", "rescale"),
    ):
        with pytest.raises(AudioError, match=rf"^{out}/.*: cannot be written \("):
            separate_file(separator, path, out / "song", output)
        assert _left(out) == []


def _damage(path, kind):
    """Makes a 60 000-sample file and damages it; returns the number of intact samples."""
    soundfile.write(path, _noise(60_000, 2, seed=7), 44_100)
    content = bytearray(path.read_bytes())
    if kind == "inside":
        middle = len(content) // 2
        content[middle : middle + 200] = bytes(200)
        path.write_bytes(content)
        return 60_000
    path.write_bytes(content[: len(content) // 2])
    return (len(content) // 2 - 44) // 4 if path.suffix == ".wav" else None


@pytest.mark.slow
def test_the_rest_of_damaged_files_is_separated_and_the_loss_reported(
    program, run, separator, tmp_path
):
    damaged = {"cut 1.wav": "cut", "cut 2.flac": "cut", "inside.flac": "inside"}
    good, out = tmp_path / "good.wav", tmp_path / "out"
    samples = {name: _damage(tmp_path / name, kind) for name, kind in damaged.items()}
    soundfile.write(good, _noise(5000), 44_100)
    paths = [tmp_path / name for name in damaged]
    done = program("separate", f"--model={run}", f"--output_dir={out}", *paths, good)
    assert done.returncode == 1
    assert "stems of 1 of 4 files" in done.stdout
    errors = re.findall("^error: (.*)$", done.stderr, re.M)
    for error, path in zip(errors, paths, strict=True):
        assert error.startswith(f"{path}: found ")
        assert " s that its header promises are missing" in error or "are silent" in error
        with audio.recording(path, salvage=True) as (_, blocks):
            given = []
            with pytest.raises(DamagedError):
                given.extend(blocks)
        given = np.concatenate(given)
        assert samples[path.name] in (None, len(given))
        assert len(given) > 20_000
        for stem, truth in separator(given, 44_100).items():
            np.testing.assert_allclose(_read(out / path.stem)[stem], truth, rtol=0, atol=1e-4)
    assert sorted(entry.name for entry in out.iterdir()) == ["cut 1", "cut 2", "good", "inside"]


@pytest.mark.slow
def test_memory_does_not_depend_on_the_length(make_run, randomise, tmp_path):
    config = Config(model=ModelConfig(stems=_STEMS, filters=(2, 4)))  # long patches: fewer of them
    run = make_run(tmp_path / "run", config, randomise)
    peaks = []
    for seconds in (10, 70):
        path = tmp_path / f"{seconds}.wav"
        soundfile.write(path, _noise(seconds * 44_100, 1), 44_100)
        running = process.start(
            *("separate", f"--model={run}", "--residual"),
            *(f"--output_dir={tmp_path}", "--encoding=pcm16", path),
        )
        status, peak = Path(f"/proc/{running.process.pid}/status"), 0
        while running.process.exitcode is None:
            if resident := re.search(r"VmHWM:\s+(\d+) kB", status.read_text()):
                peak = int(resident[1])
            time.sleep(0.02)
        assert running.wait().returncode == 0
        peaks.append(peak)
    assert peaks[1] - peaks[0] < 5000  # kB: the other 60 s of the mixture take 10 600


@pytest.mark.slow
def test_kills_leave_only_whole_files(program, run, tmp_path):
    songs, out = tmp_path / "songs", tmp_path / "out"
    songs.mkdir()
    lengths = {f"song {i}": 200_000 + 1000 * i for i in range(8)}
    for name, samples in lengths.items():
        soundfile.write(songs / f"{name}.wav", _noise(samples, 1), 44_100)
    line = ("separate", f"--model={run}", f"--output_dir={out}")
    line = (*line, "--skip_existing", "--format=flac", songs)
    rng = np.random.default_rng(0)

    def check():
        for folder in out.glob("[!.]*"):
            assert _left(folder) == sorted(f"{stem}.flac" for stem in _STEMS)
            for stem in _STEMS:
                assert soundfile.info(folder / f"{stem}.flac").frames == lengths[folder.name]
                found, _ = soundfile.read(folder / f"{stem}.flac")
                assert len(found) == lengths[folder.name]
        return len(list(out.glob("[!.]*")))

    finished = []
    for _ in range(5):
        before = set(out.glob(".*"))
        running = process.start(*line)
        while not set(out.glob(".*")) - before and running.process.is_alive():
            time.sleep(0.02)  # the model is loaded
        time.sleep(rng.uniform(0, 0.6))
        running.process.kill()
        running.wait()
        finished.append(check())
    assert finished == sorted(finished)
    done = program(*line)
    assert done.returncode == 0, done.stderr
    assert check() == len(lengths)
    assert list(out.glob(".*")) == []


@pytest.mark.slow
def test_an_interrupt_leaves_nothing_behind(run, tmp_path):
    path, out = tmp_path / "song.wav", tmp_path / "out"
    soundfile.write(path, _noise(5_000_000, 2), 44_100)
    running = process.start("separate", f"--model={run}", f"--output_dir={out}", path)
    while not list(out.glob(".song.*/content/*")) and running.process.is_alive():
        time.sleep(0.02)
    time.sleep(0.2)
    os.kill(running.process.pid, signal.SIGINT)
    done = running.wait(60)
    assert done.returncode == 130
    assert done.stderr.splitlines()[-1] == "error: interrupted"
    assert "Traceback" not in done.stderr
    assert _left(out) == []


@pytest.mark.slow
def test_all_kinds_of_models_give_the_same(program, export_unchecked, workdir, separator, tmp_path):
    recording = _noise(50_000).astype(np.float32)
    path, base = tmp_path / "song.wav", tmp_path / "base"
    soundfile.write(path, recording, 44_100, subtype="FLOAT")
    export = export_unchecked(load_unet(workdir, _CONFIG), _CONFIG, base)
    done = program("separate", f"--model={base}", f"--output_dir={tmp_path}", path)
    assert done.returncode == 0, done.stderr
    done = program("separate", f"--model={workdir}", f"--output_dir={tmp_path}/out", path)
    assert done.returncode == 0, done.stderr
    for found in (
        _read(tmp_path / "song"),
        _read(tmp_path / "out" / "song"),
        Separator.load(export)(recording, 44_100),
    ):
        assert sorted(found) == sorted(_STEMS)
        for stem, truth in separator(recording, 44_100).items():
            assert truth.std() > 0.001
            np.testing.assert_allclose(found[stem], truth, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_standard_input_residual_sums_and_masks(program, run, workdir, separator, tmp_path):
    recording = _noise(30_001).astype(np.float32)
    path, out = tmp_path / "song.wav", tmp_path / "out"
    soundfile.write(path, recording, 44_100, subtype="FLOAT")
    line = ("separate", f"--model={run}", f"--output_dir={out}")
    chosen = ("--residual", "--stems=vocals,accompaniment,b=bass+vocals")
    done = process.run(*line, *chosen, "-", stdin=path.read_bytes())
    assert done.returncode == 0, done.stderr
    found, stems = _read(out / "stdin"), separator(recording, 44_100)
    expected = {
        "vocals": stems["vocals"],
        "accompaniment": stems["drums"] + stems["bass"],
        "b": stems["bass"] + stems["vocals"],
        "residual": recording - sum(stems.values()),
    }
    assert sorted(found) == sorted(expected)
    for name, truth in expected.items():
        np.testing.assert_allclose(found[name], truth, rtol=0, atol=1e-4)

    for mask in ("soft", "wiener"):
        done = program(*line, f"--mask={mask}", "--overwrite", "--residual", path)
        assert done.returncode == 0, done.stderr
        found = _read(out / "song")
        residual = found.pop("residual")
        np.testing.assert_allclose(sum(found.values()) + residual, recording, rtol=0, atol=1e-5)
        assert np.abs(residual).max() < (1e-4 if mask == "soft" else 1e-2)
        assert np.abs(found["vocals"] - stems["vocals"]).max() > 1e-3

    (out / "song" / "residual.wav").unlink()
    line = ("separate", f"--model={workdir}", f"--output_dir={out}")
    done = program(*line, "--precision=mixed_bfloat16", "--overwrite", path)
    assert done.returncode == 0, done.stderr
    rough = _read(out / "song")
    assert sorted(rough) == sorted(stems)
    for stem in stems:
        error = np.linalg.norm(rough[stem] - stems[stem]) / np.linalg.norm(stems[stem])
        assert 1e-5 < error < 0.05


@pytest.mark.slow
def test_parts_in_other_formats_under_other_names(program, run, separator, tmp_path):
    recording = _noise(30_000).astype(np.float32)
    path, out = tmp_path / "song.wav", tmp_path / "out"
    soundfile.write(path, recording, 44_100, subtype="FLOAT")
    line = ("separate", f"--model={run}", f"--output_dir={out}", "--start=0.2", "--duration=0:00.4")
    line = (*line, "--format=mp3", "--bitrate=160k", "--name={track} - {stem}", "--skip_existing")
    done = program(*line, path)
    assert done.returncode == 0, done.stderr
    assert _left(out) == sorted(["song", *(f"song/song - {stem}.mp3" for stem in _STEMS)])
    for stem, truth in separator(recording[8_820:26_460], 44_100).items():
        found, rate = audio.read(out / "song" / f"song - {stem}.mp3")
        assert (found.shape, rate) == ((17_640, 2), 44_100)
        assert np.corrcoef(found.ravel(), truth.ravel())[0, 1] > 0.8
    assert program(*line, path).stdout.startswith("stems of 0 of 0 files (files with existing")


def _double(patches):
    """Replaces a network: vocals are twice the mixture, drums are the mixture, bass is silent."""
    return np.stack([2 * patches, patches, 0 * patches], axis=1)


@pytest.fixture
def tone(tmp_path):
    path = tmp_path / "tone.wav"
    samples = 0.75 * np.sin(2 * np.pi * 441 * np.arange(30_000) / 44_100)[:, None]
    write_wav(path, samples, 44_100, "float32")
    return path, samples


@pytest.mark.parametrize("ending", [".wav", ".flac"])
@pytest.mark.parametrize("encoding", ["float32", "pcm24", "pcm16"])
@pytest.mark.parametrize("clip_mode", ["rescale", "clamp", "none"])
def test_loud_stems(tone, tmp_path, capsys, ending, encoding, clip_mode):
    if encoding == "float32" and ending == ".flac":
        return
    path, samples = tone
    output = Output(parse_stems([], _STEMS), ending, encoding, clip_mode)
    separate_file(Separator(_double, _CONFIG), path, tmp_path / "out", output)
    found = _read(tmp_path / "out", ending)
    assert sorted(found) == sorted(_STEMS)
    told = capsys.readouterr().out
    resolution = {"float32": 1e-6, "pcm24": 2e-6, "pcm16": 4e-5}[encoding]
    if clip_mode == "rescale":  # by one factor, which keeps the balance
        expected = samples / 0.75, samples / 1.5
        assert told == f"{path}: stems turned down by 3.5 dB (--clip_mode=rescale)\n"
    elif clip_mode == "clamp" or encoding != "float32":
        expected = np.clip(2 * samples, -1, 1), samples
    else:
        expected = 2 * samples, samples
    for stem, truth in zip(("vocals", "drums"), expected, strict=True):
        np.testing.assert_allclose(found[stem], truth, rtol=0, atol=resolution)
    assert np.abs(found["bass"]).max() == 0
    info = soundfile.info(tmp_path / "out" / f"vocals{ending}")
    assert (info.format, info.subtype) == (
        ending[1:].upper(),
        {"float32": "FLOAT", "pcm24": "PCM_24", "pcm16": "PCM_16"}[encoding],
    )


def test_stems_that_fit_are_not_rescaled(tone, tmp_path, capsys):
    path, samples = tone
    half = Separator(lambda patches: np.stack([patches / 2] * 3, axis=1), _CONFIG)
    output = Output(parse_stems(["drums"], _STEMS), ".wav", "pcm24", "rescale")
    separate_file(half, path, tmp_path / "out", output)
    assert _left(tmp_path / "out") == ["drums.wav"]
    np.testing.assert_allclose(_read(tmp_path / "out")["drums"], samples / 2, atol=1e-6)
    assert capsys.readouterr().out == ""


def test_overwriting_keeps_other_files(tone, tmp_path):
    path, _ = tone
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    (out / "drums.wav").write_text("old")
    (tmp_path / ".out.abc.part").mkdir()  # from a killed run
    (tmp_path / ".out.abc.part" / "old.wav").write_text("half")
    separate_file(Separator(_double, _CONFIG), path, out, Output(parse_stems([], _STEMS)))
    assert _left(out) == ["bass.wav", "drums.wav", "notes.txt", "vocals.wav"]
    assert (out / "notes.txt").read_text() == "mine"
    assert wav_info(out / "drums.wav").frames == 30_000
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["out", "tone.wav"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "FILE: found none, expected recordings, folders of them, or -"),
        (
            ["--format=flac", "--encoding=float32", "a.wav"],
            "--encoding: found float32, expected pcm16 or pcm24 in FLAC",
        ),
        (
            ["--encoding=pcm16", "--clip_mode=none", "a.wav"],
            "--clip_mode: found none, expected rescale or clamp: pcm16 is limited to full scale",
        ),
        (["--format=mp3", "--encoding=pcm16", "a.wav"], "--encoding: given, expected none with"),
        (["--bitrate=192k", "a.wav"], "--bitrate: given, expected none with --format=wav"),
        (["--duration=0", "a.wav"], "--duration: found '0', expected more than 0"),
        (["--mask=soft", "--mask_exponent=0", "a.wav"], "exponent: found 0.0, expected a number"),
        (["--stems=horn", "a.wav"], "--stems: found 'horn' in 'horn', expected some of vocals,"),
    ],
)
def test_wrong_flags(program, refusal, run, tmp_path, options, message):
    done = program("separate", f"--model={run}", f"--output_dir={tmp_path}", *options)
    assert refusal(done).startswith(message)
    assert _left(tmp_path) == []


def test_recordings_that_hold_nan_are_named():
    blocks = [np.zeros((10, 1)), np.array([[0.0], [np.nan]])]
    with pytest.raises(AudioError, match=r"^song\.flac: found NaN or infinity after sample 10"):
        list(recording.Mixture("song.flac", blocks, 1, keep=False))


def test_goes_on_without_anybody_to_tell(run, tmp_path):
    for name, level in {"soft": 0.1, "loud": 1}.items():  # the loud one is turned down: a line
        write_wav(tmp_path / f"{name}.wav", np.full((5000, 1), level), 44_100)
    line = ("separate", f"--model={run}", f"--output_dir={tmp_path}/out", "--encoding=pcm16")
    paths = [tmp_path / f"{name}.wav" for name in ("loud", "missing", "soft")]
    done = process.run(*line, *paths, gone={0: "closed", 1: "unread", 2: "closed"})
    assert done.returncode == 1
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"loud", "soft"}


def test_any_failure_of_a_file_is_one_line(monkeypatch, capsys, tmp_path):
    from experiments import cli, model_flag, separate
    from experiments.separating import separation_flags

    files = [tmp_path / name for name in ("a.wav", "odd.wav", "big.wav", "z.wav")]
    for path in files:
        write_wav(path, np.zeros((10, 1)), 44_100)
    errors = {"odd.wav": RuntimeError("one\ntwo"), "big.wav": MemoryError(), "a.wav": None}
    done = []

    def separate_one(separator, file, folder, output, **_):
        if error := errors.get(Path(file).name):
            raise error
        done.append(folder.name)

    given = {"model": "run", "output_dir": tmp_path / "out", "precision": "float32"}
    given.update(dict.fromkeys(("audio_stream", "start", "duration", *model_flag.RUNTIME_FLAGS)))
    for flag in ("overwrite", "skip_existing", "recursive"):
        given[flag] = False
    monkeypatch.setattr("absl.flags.FLAGS", types.SimpleNamespace(**given))
    monkeypatch.setattr(separation_flags, "output_of_flags", lambda: Output({}))
    monkeypatch.setattr(cli, "reconstruction_of_flags", lambda: None)
    monkeypatch.setattr(Separator, "load", lambda *_, **__: None)
    monkeypatch.setattr(separate, "separate_file", separate_one)
    with pytest.raises(SystemExit) as ended:
        separate.main(list(map(str, files)))
    assert (ended.value.code, done) == (1, ["a", "z"])
    out, err = capsys.readouterr()
    assert out == f"stems of 2 of 4 files: {tmp_path}/out\n"
    odd, big = files[1:3]
    assert err == f"error: {odd}: RuntimeError: one\nerror: {big}: MemoryError\n"
    errors["a.wav"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        separate.main(list(map(str, files)))
