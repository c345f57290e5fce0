"""Help of every program; separate and export as their users run them."""

import numpy as np
import pytest
import soundfile

from data_pipeline import audio
from data_pipeline.audio import AudioError
from experiments import plot, separate
from sccunet.config import Config, ModelConfig

_PROGRAMS = ("prepare", "train", "evaluate", "export", "separate", "plot", "demo")
_CONFIG = Config(
    model=ModelConfig(
        stems=("vocals", "rest"),
        frame_length=512,
        hop_length=128,
        patch_samples=8192,
        filters=(4, 8),
    ),
    sources={"rest": ("drums", "bass")},
)


@pytest.mark.parametrize("name", _PROGRAMS)
def test_help_shows_examples_at_once(program, name):
    done = program(name, "--help", env={"PYTHONPROFILEIMPORTTIME": "1", "PATH": ""})
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "absl.flags" in imported
    assert not imported & {"tensorflow", "keras", "museval", "matplotlib", "av"}
    assert "Traceback" not in done.stderr
    assert "Example" in done.stdout
    assert f"python -m experiments.{name}" in done.stdout


@pytest.fixture(scope="module")
def run(tmp_path_factory, randomise):
    """A workdir with random weights."""
    from sccunet import build_model
    from sccunet.training import BEST, save_whole

    workdir = tmp_path_factory.mktemp("programs") / "run"
    workdir.mkdir()
    (workdir / "config.json").write_text(_CONFIG.to_json())
    save_whole(randomise(build_model(_CONFIG)), workdir / BEST)
    return workdir


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """File -> (samples, rate, channels) of what decoding it gives."""
    folder = tmp_path_factory.mktemp("recordings")
    noise = 0.1 * np.random.default_rng(0).standard_normal((30_001, 2))
    files = {
        "wave.wav": (noise, 44_100),
        "packed.flac": (noise, 44_100),
        "lossy.mp3": (noise, 44_100),
        "low rate.wav": (noise[:, :1], 22_050),
        "blip.wav": (noise[:1], 44_100),
    }
    for name, (samples, rate) in files.items():
        soundfile.write(folder / name, samples, rate)
    decoded = {folder / name: audio.read(folder / name) for name in files}
    return {path: (*samples.shape, rate) for path, (samples, rate) in decoded.items()}


def _stems(output_dir, path):
    return {
        stem: audio.read_wav(output_dir / path.stem / f"{stem}.wav") for stem in ("vocals", "rest")
    }


@pytest.mark.slow
def test_workdir_and_its_export_give_the_same_stems_as_long_as_the_recording(
    program, refusal, run, recordings, tmp_path
):
    exported, output_dir = tmp_path / "exported", tmp_path / "out"
    done = program("export", f"--workdir={run}", f"--export_dir={exported}")
    assert done.returncode == 0, done.stderr
    assert str(exported) in done.stdout
    assert [entry.name for entry in tmp_path.iterdir()] == ["exported"]

    done = program("separate", f"--model={run}", f"--output_dir={output_dir}", *recordings)
    assert done.returncode == 0, done.stderr
    assert {entry.name for entry in output_dir.iterdir()} == {path.stem for path in recordings}
    by_workdir = {}
    for path, (samples, channels, rate) in recordings.items():
        folder = output_dir / path.stem
        assert sorted(entry.name for entry in folder.iterdir()) == ["rest.wav", "vocals.wav"]
        for stem in ("vocals", "rest"):
            info = audio.wav_info(folder / f"{stem}.wav")
            assert (info.frames, info.channels, info.sample_rate) == (samples, channels, rate)
            assert info.encoding == "float32"
        by_workdir[path] = _stems(output_dir, path)

    (output_dir / "wave" / "notes.txt").write_text("mine")
    (output_dir / "wave" / "vocals.wav").write_text("old")
    done = program(
        "separate", f"--model={exported}", f"--output_dir={output_dir}", "--overwrite", *recordings
    )
    assert done.returncode == 0, done.stderr
    assert (output_dir / "wave" / "notes.txt").read_text() == "mine"
    for path, stems in by_workdir.items():
        for stem, samples in _stems(output_dir, path).items():
            assert np.abs(samples).max() > 0
            np.testing.assert_allclose(samples, stems[stem], atol=1e-5)

    done = program("export", f"--workdir={run}", f"--export_dir={exported}")
    assert refusal(done) == f"{exported}: found already there, expected a new folder"


def _separate(program, refusal, run, tmp_path, *files):
    """What separate refuses with; nothing may be written."""
    before = sorted(tmp_path.rglob("*"))
    message = refusal(program("separate", f"--model={run}", f"--output_dir={tmp_path}", *files))
    assert sorted(tmp_path.rglob("*")) == before
    return message


def test_separate_refuses_what_is_there_already(program, refusal, run, recordings, tmp_path):
    (tmp_path / "wave").mkdir()
    assert _separate(program, refusal, run, tmp_path, *recordings) == (
        f"{tmp_path}/wave: found already there, expected --overwrite or a new folder"
    )


def test_separate_refuses_two_files_of_one_name(program, refusal, run, recordings, tmp_path):
    first, second = next(iter(recordings)), tmp_path / "wave.flac"
    soundfile.write(second, np.zeros((10, 1)), 44_100)
    assert _separate(program, refusal, run, tmp_path, first, second) == (
        f"{second}: would be written to {tmp_path}/wave as {first} is,"
        " expected names that differ before their ending"
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "found no such file, expected an audio file"),
        (b"", "found an empty file (0 bytes), expected an audio file"),
        (b"words, no sound\n", "found no readable audio (Invalid data found when processing"),
    ],
    ids=["missing", "empty", "text"],
)
def test_separate_refuses_a_bad_file_beside_a_good_one(
    program, refusal, run, recordings, tmp_path, content, reason
):
    path = tmp_path / "song.mp3"
    if content is not None:
        path.write_bytes(content)
    message = _separate(program, refusal, run, tmp_path, next(iter(recordings)), path)
    assert message.startswith(f"{path}: {reason}")


def test_separate_without_files(program, refusal, run, tmp_path):
    assert _separate(program, refusal, run, tmp_path) == (
        "FILE: found none, expected one or more recordings"
    )


def test_what_is_no_model_is_refused(program, refusal, recordings, tmp_path):
    model, output_dir, path = tmp_path / "model", tmp_path / "out", next(iter(recordings))
    expected = "expected a training workdir or an exported SavedModel"
    separate = ("separate", f"--model={model}", f"--output_dir={output_dir}", path)
    export = ("export", f"--workdir={model}", f"--export_dir={output_dir}")
    for line in (separate, export):
        assert refusal(program(*line)) == f"{model}: found no such folder, {expected}"
    model.mkdir()
    assert refusal(program(*separate)) == f"{model}: found no config.json, {expected}"
    assert not output_dir.exists()


def test_plot_without_estimates_and_evaluate_without_a_model(program, refusal, run, tmp_path):
    path = tmp_path / "file"
    path.write_text("in the way")
    done = program("plot", f"--truth_dir={run}", f"--estimates_dir={run}", f"--output={path}/x.png")
    assert refusal(done) == f"{run}: found no .wav files, expected one per stem"
    done = program("evaluate", f"--model={path}", f"--data_dir={run}", f"--output_dir={path}")
    assert refusal(done).startswith(f"{path}: found no such folder, expected a training workdir")


def test_separate_names_the_recording_that_holds_nan():
    blocks = [np.zeros((10, 1)), np.array([[0.0], [np.nan]])]
    with pytest.raises(AudioError, match=r"^song\.flac: found NaN or infinity behind sample 10"):
        list(separate._finite(blocks, "song.flac"))


def test_plot_refuses_what_does_not_fit(tmp_path):
    truth, estimates = tmp_path / "truth", tmp_path / "estimates"
    with pytest.raises(AudioError, match=r"estimates: found no \.wav files, expected one per stem"):
        plot.spectrograms(truth, estimates, tmp_path / "a.png")
    audio.write_wav(estimates / "vocals.wav", np.zeros((5000, 1)), 44_100)
    with pytest.raises(AudioError, match=r"truth: found no vocals\.wav, expected the true stems"):
        plot.spectrograms(truth, estimates, tmp_path / "a.png")
    audio.write_wav(truth / "vocals.wav", np.zeros((4000, 1)), 44_100)
    with pytest.raises(AudioError, match=r"found 4000 samples at 44100 Hz, expected 5000 at 44100"):
        plot.spectrograms(truth, estimates, tmp_path / "a.png")
