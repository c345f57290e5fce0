"""The training program: what it writes, how it continues, and what it refuses."""

import importlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import soundfile

from data_pipeline import dataset, splits, tracks
from data_pipeline.wav import AudioError, read_wav
from experiments import train
from sccunet.config import Config, ConfigError
from sccunet.runs import load_config

_ROOT = Path(__file__).parents[1]
_LEVELS = {"vocals": 0.2, "drums": 0.1, "bass": 0.05, "other": 0.025}
_EPOCHS, _STEPS = 8, 3
_TINY = {
    "model.filters": (4, 8),
    "model.patch_samples": 16_384,
    "batch_size": 2,
    "epochs": _EPOCHS,
    "steps_per_epoch": _STEPS,
    "validation_crops": 2,
}


def _config(name="small_4stems", **changes):
    """A config file's config made tiny; changes of fields inside of another as `model__filters`."""
    values = importlib.import_module(f"experiments.configs.{name}").get_config()
    changes = {field.replace("__", "."): value for field, value in changes.items()}
    values.update_from_flattened_dict({**_TINY, **changes})
    return Config.from_dict(values)


def _flags(data_dir, workdir, name="small_4stems", **changes):
    """The same as the program's arguments."""
    return [
        f"--config=experiments/configs/{name}.py",
        f"--data_dir={data_dir}",
        f"--workdir={workdir}",
        *(f"--config.{field}={value}" for field, value in {**_TINY, **changes}.items()),
    ]


def _names(segments):
    return [f"{split}/{name}" for split, name, *_ in segments]


def _arrays(path):
    """Every array of a weights file, by its place there."""
    arrays = {}

    def visit(name, item):
        if isinstance(item, h5py.Dataset):
            arrays[name] = np.asarray(item)

    with h5py.File(path) as file:
        file.visititems(visit)
    return arrays


def _iterations(workdir):
    """Optimizer steps that a workdir's checkpoint has behind it."""
    arrays = _arrays(workdir / "last.weights.h5")
    return int(arrays["optimizer/vars/0"])


def _trainable(path=None):
    """Trainable weights, hence no statistics, of a U-Net's file or of the seed's fresh one."""
    import keras

    from sccunet import build_model
    from sccunet.checkpoints import load_weights

    config = _config()
    keras.utils.set_random_seed(config.seed)
    unet = build_model(config)
    if path:
        load_weights(unet, path)
    return np.concatenate([weight.numpy().ravel() for weight in unet.trainable_weights])


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory, write_track):
    """Noise: two training tracks, one that validates, and one in test/ that nobody asked for."""
    folder = tmp_path_factory.mktemp("train") / "data"
    for seed, place in enumerate(("train/one", "train/two", "valid/check", "test/lone")):
        write_track(folder / place, _LEVELS, seed=seed)
    return folder


@pytest.fixture(scope="module")
def finished(data_dir, program):
    """A whole run: its workdir and what it printed."""
    workdir = data_dir.parent / "finished"
    done = program("train", *_flags(data_dir, workdir))
    assert done.returncode == 0, done.stderr
    return workdir, done.stdout


@pytest.fixture
def copy(finished, tmp_path):
    """A copy of the finished run's workdir."""
    return shutil.copytree(finished[0], tmp_path / "copy")


# A whole run.


@pytest.mark.slow
def test_a_run_writes_config_data_and_weights(finished):
    workdir, printed = finished
    names = {"config.json", "data.json", "tensorboard"}
    names |= {f"{name}.weights.h5" for name in ("best", "last", "previous")}
    assert {entry.name for entry in workdir.iterdir()} == names
    assert "training on 2 tracks, validating on 1 track: the tracks in valid/" in printed
    assert _iterations(workdir) == _EPOCHS * _STEPS

    config = load_config(workdir)
    assert config.model == _config().model
    # The noise's volume is its level, and the weights balance volumes.
    balanced = np.array([1 / _LEVELS[stem] for stem in config.model.stems])
    np.testing.assert_allclose(config.loss_weights, balanced / balanced.sum(), rtol=0.03)
    assert sum(config.loss_weights) == pytest.approx(1, abs=1e-9)

    data = json.loads((workdir / "data.json").read_text())
    assert _names(data["training"]) == ["train/one", "train/two"]
    assert _names(data["validation"]) == ["valid/check"]


@pytest.mark.slow
def test_a_run_logs_losses_rate_pictures_and_sound(finished):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    seen = {}
    for part in ("train", "validation"):
        events = EventAccumulator(str(finished[0] / "tensorboard" / part), {"tensors": 0}).Reload()
        seen[part] = {
            tag: [event.step for event in events.Tensors(tag)] for tag in events.Tags()["tensors"]
        }
    losses = {"epoch_loss", *(f"epoch_{stem}_loss" for stem in _LEVELS)}
    for part in ("train", "validation"):
        assert losses <= set(seen[part])
        assert all(seen[part][tag] == list(range(_EPOCHS)) for tag in losses)
    assert seen["train"]["epoch_learning_rate"] == list(range(_EPOCHS))
    for stem in _LEVELS:  # a picture and a sound each
        for what, expected in (("truth", {0}), ("estimate", set(range(1, _EPOCHS + 1)))):
            looks = [steps for tag, steps in seen["validation"].items() if f"{what}/{stem}" in tag]
            assert looks, sorted(seen["validation"])
            assert set().union(*looks) == expected


@pytest.mark.slow
def test_a_finished_run_says_so_and_changes_nothing(copy, data_dir, capsys):
    before = _arrays(copy / "last.weights.h5")
    train.train(_config(), data_dir, copy)
    assert f"all {_EPOCHS} epochs are done: {copy}" in capsys.readouterr().out
    after = _arrays(copy / "last.weights.h5")
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)


@pytest.mark.slow
def test_a_finished_run_goes_on_for_more_epochs(copy, data_dir, capsys):
    train.train(_config(epochs=_EPOCHS + 1), data_dir, copy)
    assert f"continuing from epoch {_EPOCHS} of {_EPOCHS + 1} in {copy}" in capsys.readouterr().out
    assert _iterations(copy) == (_EPOCHS + 1) * _STEPS
    assert load_config(copy).epochs == _EPOCHS + 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": 0.5}, "the run there has learning_rate = 0.005, found 0.5;"),
        ({"seed": 1}, "the run there has seed = 0, found 1;"),
        ({"model__filters": (4, 16)}, "'filters': (4, 8)"),
        ({"loss_weights": (0.25,) * 4}, "the run there has loss_weights = ("),
        ({"name": "small_2stems"}, "('vocals', 'accompaniment')"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_workdir_of_another_config_is_refused(copy, data_dir, change, message):
    with pytest.raises(ConfigError) as caught:
        train.train(_config(**change), data_dir, copy)
    assert str(caught.value).startswith(f"{copy}/config.json: the run there has ")
    assert message in str(caught.value)
    assert str(caught.value).endswith("expected the same, or another --workdir")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_workdir_of_other_tracks_is_refused(copy, data_dir):
    with pytest.raises(ConfigError, match=r"data\.json: the run there has other training or valid"):
        train.train(_config(), data_dir, copy, names=["one"])


# Killed.


def _await(path, process, newer_than=0.0):
    while not (path.exists() and path.stat().st_mtime > newer_than):
        assert process.poll() is None, "ended before it was killed"
        time.sleep(0.01)


@pytest.mark.slow
def test_killed_twice_it_ends_as_if_it_had_never_been(finished, data_dir, program, tmp_path):
    workdir, rng, began = tmp_path / "run", np.random.default_rng(2), 0.0
    line = [sys.executable, "-m", "experiments.train", *_flags(data_dir, workdir)]
    for _ in range(2):
        process = subprocess.Popen(
            line, cwd=_ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            _await(workdir / "last.weights.h5", process, newer_than=began)
            time.sleep(rng.uniform(0, 0.5))
        finally:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        began = time.time()
        assert 0 < _iterations(workdir) < _EPOCHS * _STEPS
        # What a kill in the midst of writing leaves.
        for name in (".last.weights.h5", ".best.weights.h5", ".config.json.part"):
            (workdir / name).write_text("half")
    done = program("train", *line[3:])
    assert done.returncode == 0, done.stderr
    epoch = re.search(rf"continuing from epoch (\d+) of {_EPOCHS} in", done.stdout)
    assert epoch, done.stdout
    assert f"Epoch {int(epoch[1]) + 1}/{_EPOCHS}" in done.stdout

    found, expected = (_arrays(folder / "last.weights.h5") for folder in (workdir, finished[0]))
    assert found.keys() == expected.keys()
    moments = [name for name in expected if name.startswith("optimizer/vars/")]
    assert len(moments) > 20
    assert int(found["optimizer/vars/0"]) == _EPOCHS * _STEPS
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5, err_msg=name)
    assert load_config(workdir) == load_config(finished[0])


# Other stems, tracks and weights.


@pytest.mark.slow
def test_accompaniment_is_the_sum_of_the_other_stems(data_dir, tmp_path):
    train.train(_config("small_2stems", epochs=1), data_dir, tmp_path / "run")
    config = load_config(tmp_path / "run")
    assert config.model.stems == ("vocals", "accompaniment")
    # Independent noises: energies add.
    accompaniment = np.sqrt(sum(_LEVELS[stem] ** 2 for stem in ("drums", "bass", "other")))
    vocals, other = config.loss_weights
    assert vocals / other == pytest.approx(accompaniment / _LEVELS["vocals"], rel=0.02)


@pytest.mark.slow
def test_fine_tuning_on_named_tracks_starts_from_the_runs_best_weights(
    finished, data_dir, program, tmp_path
):
    changes = {"epochs": 1, "learning_rate": 1e-9}
    workdir, given = tmp_path / "run", _trainable(finished[0] / "best.weights.h5")
    done = program(
        "train",
        *_flags(data_dir, workdir, **changes),
        "--tracks=lone,check",
        f"--init_from={finished[0]}",
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(_trainable(workdir / "best.weights.h5"), given, atol=1e-6)
    data = json.loads((workdir / "data.json").read_text())
    assert _names(data["training"]) == _names(data["validation"]) == ["test/lone", "valid/check"]

    # A file of weights does the same. The seed's own would have been far off.
    source = finished[0] / "best.weights.h5"
    train.train(_config(**changes), data_dir, tmp_path / "file", init_from=source)
    np.testing.assert_allclose(_trainable(tmp_path / "file/best.weights.h5"), given, atol=1e-6)
    assert np.abs(_trainable() - given).max() > 0.01


@pytest.mark.slow
def test_weights_that_do_not_fit_are_refused(finished, data_dir, tmp_path):
    from sccunet import build_model
    from sccunet.checkpoints import save_whole

    other = tmp_path / "other"
    other.mkdir()
    save_whole(build_model(_config(model__filters=(4, 16))), other / "best.weights.h5")
    for source, path, reason in (
        (other, other / "best.weights.h5", "found weights that do not load"),
        (finished[0] / "last.weights.h5",) * 2 + ("found weights that do not load",),
        (finished[0] / "config.json",) * 2 + ("found weights that do not load",),
        (tmp_path / "none",) * 2 + ("found no such file, expected weights",),
        (data_dir, data_dir / "best.weights.h5", "found no such file, expected weights"),
    ):
        with pytest.raises(ConfigError) as caught:
            train.train(_config(), data_dir, tmp_path / "run", init_from=source)
        assert str(caught.value).startswith(f"{path}: {reason}")
        assert "\n" not in str(caught.value)
        assert not list(tmp_path.glob("run/*.h5"))


def _refused(data_dir, workdir, message, **changes):
    with pytest.raises(ConfigError) as caught:
        train.train(_config(**changes), data_dir, workdir)
    text = str(caught.value)
    assert "\n" not in text
    assert re.match(message, text), text
    return text


@pytest.mark.slow
def test_a_loss_that_is_no_number_ends_the_run_and_leaves_no_such_weights(data_dir, tmp_path):
    workdir = tmp_path / "run"
    text = _refused(
        data_dir,
        workdir,
        rf"{workdir}: the (loss|gradients) became NaN or infinite at step [12] \(epoch 1\);"
        rf" its batch is kept in {workdir}/bad_batch_[12].npz, with crops of (one|two|one, two);"
        r" a lower config.learning_rate",
        learning_rate=1e30,
    )
    assert not list(workdir.glob("*.h5"))
    # The batch is the one that the step had.
    step = int(re.search(r"at step (\d)", text)[1])
    training, *_ = splits.training_split(data_dir, _config())
    batches = dataset.training_dataset(training, load_config(workdir), step)
    kept = np.load(workdir / f"bad_batch_{step}.npz")
    np.testing.assert_array_equal(kept["waveforms"], next(iter(batches)))
    for files, starts in zip(kept["files"], kept["starts"], strict=True):
        assert [Path(file).name for file in files] == [f"{stem}.wav" for stem in _LEVELS]
        assert all(0 <= start <= 2 * 44_100 - 16_384 for start in starts)


@pytest.mark.slow
def test_a_file_that_turns_to_nan_while_training_is_named(data_dir, tmp_path, monkeypatch):
    data, workdir = shutil.copytree(data_dir, tmp_path / "data"), tmp_path / "run"
    for stem in _LEVELS:
        _rewrite(data / "train" / "two" / f"{stem}.wav", encoding="float32")
    first = train.train(_config(epochs=1), data, workdir)
    assert first is None
    before = _arrays(workdir / "last.weights.h5")

    def spoil(_):  # behind the look at the files that comes before training
        path = data / "train" / "two" / "bass.wav"
        content = bytearray(path.read_bytes())
        content[-(2**18) :] = np.full(2**16, np.nan, "<f4").tobytes()
        path.write_bytes(content)

    monkeypatch.setattr(tracks, "check_finite", spoil)
    _refused(
        data,
        workdir,
        rf"{workdir}: the loss became NaN or infinite at step \d+ \(epoch \d\); its batch is kept"
        rf" in {workdir}/bad_batch_\d+.npz, with NaN or infinity in crops of (one, )?two$",
    )
    after = _arrays(workdir / "last.weights.h5")
    assert int(after["optimizer/vars/0"]) >= int(before["optimizer/vars/0"])
    assert all(np.isfinite(value).all() for name, value in after.items() if "best_loss" not in name)


# Stopped and killed, by a script that people can run as well.


@pytest.mark.slow
def test_killed_at_random_moments():
    """Three times by SIGKILL, once by SIGTERM; the weights are those of a run left alone."""
    signals = "--signals=SIGKILL,SIGTERM,SIGKILL,SIGKILL"
    script = [sys.executable, "tests/kill_training.py", "--kills=4", signals]
    done = subprocess.run(script, cwd=_ROOT, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all as it should be" in done.stdout


def _stopped(line, signal_number, moment):
    """Exit code and output of a training that gets a signal when a line shows up."""
    process = subprocess.Popen(
        line, cwd=_ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    text = ""
    for printed in process.stdout:
        text += printed
        if re.search(moment, printed):
            process.send_signal(signal_number)
            break
    text += process.communicate(timeout=300)[0]
    return process.returncode, text


@pytest.mark.slow
def test_sigterm_saves_within_an_epoch_and_the_run_goes_on(data_dir, program, tmp_path):
    workdir = tmp_path / "run"
    line = ["train", *_flags(data_dir, workdir, epochs=2, steps_per_epoch=100)]
    command = [sys.executable, "-m", "experiments.train", *line[1:]]
    code, text = _stopped(command, signal.SIGTERM, "Epoch 1/2")
    assert code == 75, text
    found = re.search(
        rf"stopped after step (\d+), and saved; run it again to go on: {workdir}", text
    )
    assert found, text
    assert "Traceback" not in text
    assert _iterations(workdir) == int(found[1])
    assert 0 < int(found[1]) < 100

    done = program(*line)
    assert done.returncode == 0, done.stderr
    note = f"continuing from epoch 0 of 2 and {found[1]} of 100 steps"
    assert f"{note} in {workdir}/last.weights.h5" in done.stdout
    assert _iterations(workdir) == 200

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(workdir / "tensorboard" / "validation"), {"tensors": 0}).Reload()
    (event,) = events.Tensors("run")
    assert event.tensor_proto.string_val[0].decode() == note


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: path.unlink(), "cannot be read any more (No such file or directory)"),
        (lambda path: os.truncate(path, 20_000), "found 4989 samples, expected 88200 as before"),
    ],
    ids=["deleted", "cut short"],
)
def test_a_file_that_turns_bad_while_training_is_named(
    data_dir, refusal, program, tmp_path, spoil, reason
):
    data, workdir = shutil.copytree(data_dir, tmp_path / "data"), tmp_path / "run"
    line = [sys.executable, "-m", "experiments.train", *_flags(data, workdir, epochs=1000)]
    process = subprocess.Popen(
        line, cwd=_ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        _await(workdir / "last.weights.h5", process)
        path = data / "train" / "two" / "bass.wav"
        spoil(path)
        out, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    done = subprocess.CompletedProcess(line, process.returncode, out, errors)
    assert refusal(done).startswith(f"{path}: {reason}")
    steps = _iterations(workdir)
    assert steps > 0
    assert steps % _STEPS == 0
    shutil.copytree(data_dir, data, dirs_exist_ok=True)
    done = program("train", *_flags(data, workdir, epochs=steps // _STEPS + 1))
    assert done.returncode == 0, done.stderr
    assert _iterations(workdir) == steps + _STEPS


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_the_checkpoint_stays(data_dir, refusal, program, tmp_path):
    workdir = tmp_path / "run"

    def flags(epochs):  # a network whose checkpoint is larger than the logs, which would fail first
        changes = {"model.filters": (32, 64, 96), "epochs": epochs, "steps_per_epoch": 1}
        return _flags(data_dir, workdir, **changes)

    done = program("train", *flags(1))
    assert done.returncode == 0, done.stderr
    before = _arrays(workdir / "last.weights.h5")
    size = (workdir / "last.weights.h5").stat().st_size - 100

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    message = refusal(program("train", *flags(2), preexec_fn=limit))
    assert message == f"{workdir}/last.weights.h5: cannot be written (File too large)"
    after = _arrays(workdir / "last.weights.h5")
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert not list(workdir.glob(".*.h5"))
    done = program("train", *flags(2))
    assert done.returncode == 0, done.stderr
    assert _iterations(workdir) == 2


# Silence.


def test_silent_stems(data_dir, write_track, tmp_path, monkeypatch, caplog):
    data = shutil.copytree(data_dir, tmp_path / "data")
    write_track(data / "train" / "two", {"bass": 0})
    monkeypatch.setattr(train, "_fit", lambda config, *_: configs.append(config))
    configs = []
    train.train(_config(), data, tmp_path / "run")
    (config,) = configs
    # Half as loud over both tracks, hence twice the weight.
    vocals, _, bass, _ = config.loss_weights
    assert bass / vocals == pytest.approx(2 * _LEVELS["vocals"] / _LEVELS["bass"], rel=0.03)
    assert "two: stem 'bass' is silent throughout, expected sound in it" in caplog.text

    write_track(data / "train" / "one", {"bass": 0})
    with pytest.raises(AudioError) as caught:
        train.train(_config(), data, tmp_path / "silent")
    assert str(caught.value) == (
        "stem 'bass': found silence in all 2 training tracks, expected sound in one at least"
    )
    assert len(configs) == 1


# Bad tracks, found before anything is written. `a`, `check` and the rest are good.


@pytest.fixture
def bad_dir(write_track, tmp_path):
    for place in ("train/a", "train/bad", "valid/check"):
        write_track(tmp_path / "data" / place, _LEVELS, seconds=0.4)
    return tmp_path / "data"


def _truncate(path):
    path.write_bytes(path.read_bytes()[:-400])


def _rewrite(path, rate=44_100, keep=None, encoding="pcm16", nan_at=None):
    samples = read_wav(path)[:keep]
    if nan_at is not None:
        samples[nan_at] = np.nan
    subtype = {"pcm16": "PCM_16", "float32": "FLOAT"}[encoding]
    soundfile.write(path, samples, rate, subtype=subtype)


_BAD_FILES = {
    "missing": (
        lambda path: path.unlink(),
        "{folder}: found drums.wav, other.wav, vocals.wav, expected bass.wav for the stem 'bass'",
    ),
    "empty": (
        lambda path: path.write_bytes(b""),
        "{path}: found an empty file (0 bytes), expected a WAV file",
    ),
    "unreadable": (
        lambda path: path.write_text("words"),
        "{path}: found no WAV header, expected a WAV file",
    ),
    "truncated": (
        _truncate,
        "{path}: found 17540 samples (truncated), expected the 17640 samples that its header"
        " promises",
    ),
    "rate": (
        lambda path: _rewrite(path, rate=48_000),
        "{path}: found 48000 Hz, expected 44100 Hz (experiments.prepare converts)",
    ),
    "length": (
        lambda path: _rewrite(path, keep=17_000),
        "{path}: found 17000 samples, expected 17640 as in vocals.wav",
    ),
    "NaN": (
        lambda path: _rewrite(path, encoding="float32", nan_at=11_025),
        "{path}: found NaN or infinity at sample 11025 (0.25 s), expected finite samples",
    ),
}


@pytest.mark.parametrize("kind", _BAD_FILES)
def test_a_bad_file_stops_before_training_starts(bad_dir, tmp_path, kind):
    spoil, message = _BAD_FILES[kind]
    path = bad_dir / "train" / "bad" / "bass.wav"
    spoil(path)
    with pytest.raises(AudioError) as caught:
        train.train(_config(), bad_dir, tmp_path / "run")
    assert str(caught.value) == message.format(path=path, folder=path.parent)
    assert not (tmp_path / "run").exists()


def test_a_bad_track_that_is_not_named_does_not_matter(bad_dir):
    (bad_dir / "train" / "bad" / "bass.wav").unlink()
    training, *_ = splits.training_split(bad_dir, _config(), ["a"])
    assert [segment.track.name for segment in training] == ["a"]


def test_a_bad_validation_track_stops_before_training_starts(bad_dir, tmp_path):
    path = bad_dir / "valid" / "check" / "bass.wav"
    _rewrite(path, encoding="float32", nan_at=0)
    with pytest.raises(AudioError, match=re.escape(f"{path}: found NaN or infinity at sample 0")):
        train.train(_config(), bad_dir, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_track_shorter_than_a_patch(bad_dir, write_track, tmp_path):
    write_track(bad_dir / "train" / "bad", _LEVELS, seconds=0.2)
    with pytest.raises(AudioError) as caught:
        train.train(_config(), bad_dir, tmp_path / "run")
    assert str(caught.value) == (
        f"{bad_dir}/train/bad: found 8820 samples, expected at least 16384"
    )


def test_no_tracks_and_unknown_names(bad_dir, tmp_path):
    def refused(message, data_dir=bad_dir, config=None, names=()):
        with pytest.raises(AudioError) as caught:
            train.train(config or _config(), data_dir, tmp_path / "run", names)
        assert str(caught.value) == message
        assert not (tmp_path / "run").exists()

    layout = "<split>/<track>/<file>.wav, split being train, valid or test"
    empty, none = tmp_path / "empty", tmp_path / "none"
    empty.mkdir()
    refused(f"{none}: found no such directory, expected tracks in {layout}", none)
    refused(f"{empty}/train: found no tracks, expected {layout}", empty)
    refused(
        f"{bad_dir}: found no track named 'c', expected one of 'a', 'bad', 'check'",
        names=["a", "c"],
    )
    refused(
        f"{bad_dir}/train/a: found bass.wav, drums.wav, other.wav, vocals.wav,"
        " expected piano.wav for the stem 'piano'\n"
        f"{bad_dir}/train/bad: found bass.wav, drums.wav, other.wav, vocals.wav,"
        " expected piano.wav for the stem 'piano'",
        config=_config(model__stems=("vocals", "piano")),
    )


# Mistakes on the command line.


def test_one_bad_track_among_good_ones_is_one_line(bad_dir, program, refusal, tmp_path):
    path = bad_dir / "train" / "bad" / "bass.wav"
    _rewrite(path, encoding="float32", nan_at=11_025)
    message = refusal(program("train", *_flags(bad_dir, tmp_path / "run")))
    assert message.startswith(f"{path}: found NaN or infinity at sample 11025")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("batch_size", 0, "config.batch_size: found 0, expected a whole number, 1 or more"),
        ("batch_size", "many", "flag --config.batch_size=many: invalid literal"),
        ("learning_rate", -1, "config.learning_rate: found -1.0, expected a number over 0"),
        ("decay", "never", "config.decay: found 'never', expected 'step' or 'cosine'"),
        ("model.hop_length", 500, "config.model.hop_length: found 500, expected a divisor of"),
        ("model.patch_samples", 4096, "config.model.patch_samples: found 4096, expected at least"),
        ("model.stems", "('vocals',)", "config.model.stems: found ('vocals',), expected at least"),
        ("loss_weights", "(0.9, 0.1)", "config.loss_weights: found (0.9, 0.1), expected nothing"),
        ("patience", 3, "--config: found AttributeError: \"'patience'\", expected a config file"),
        ("model.patience", 3, "--config: found AttributeError: \"'patience'\", expected a config"),
    ],
)
def test_config_that_cannot_work(data_dir, program, refusal, tmp_path, field, value, message):
    done = program("train", *_flags(data_dir, tmp_path / "run", **{field: value}))
    assert refusal(done).startswith(message)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "OSError: [Errno 2] No such file or directory: '{path}'"),
        ("def get_config(:", "SyntaxError: invalid syntax (mine.py, line 1)"),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("def get_config():\n    return width", "NameError: name 'width' is not defined"),
        ("WIDTH = 3", "AttributeError: module 'config_config' has no attribute 'get_config'"),
    ],
)
def test_config_file_that_cannot_be_read(data_dir, program, refusal, tmp_path, text, reason):
    path = tmp_path / "mine.py"
    if text:
        path.write_text(text)
    flags = [f"--config={path}", f"--data_dir={data_dir}", f"--workdir={tmp_path / 'run'}"]
    message = refusal(program("train", *flags))
    assert message.startswith(f"--config: found {reason.format(path=path)}, expected a config file")


def test_devices_that_are_not_there(data_dir, program, refusal, tmp_path):
    def refused(*arguments, **environment):
        done = program(
            "train",
            *_flags(data_dir, tmp_path / "run"),
            *arguments,
            env={**os.environ, **environment},
        )
        assert not (tmp_path / "run").exists()
        return refusal(done)

    assert refused("--strategy=tpu").startswith("--strategy=tpu: found no TPU 'local' (")
    assert refused("--tpu=local", "--strategy=cpu") == (
        "--tpu: found --strategy=cpu, expected --strategy=tpu"
    )
    assert refused("--strategy=multiworker").startswith(
        "--strategy=multiworker: found no TF_CONFIG in the environment, expected JSON such as"
    )
    assert refused("--strategy=multiworker", TF_CONFIG="{").startswith(
        "TF_CONFIG: found '{', expected JSON with cluster.worker and task"
    )
    message = "--strategy=gpu: found no GPU, expected one (--strategy=auto takes any)"
    assert refused("--strategy=gpu", CUDA_VISIBLE_DEVICES="") == message
    assert "flag --strategy=cloud: value should be one of" in refused("--strategy=cloud")


def test_flags_that_are_missing_or_unknown(data_dir, program, refusal, tmp_path):
    config, data, work = _flags(data_dir, tmp_path / "run")[:3]
    assert refusal(program("train", data, work)) == (
        "--config: missing, expected a file such as experiments/configs/small_4stems.py"
    )
    assert "--data_dir: not given, expected a value" in refusal(program("train", config, work))
    assert refusal(program("train", config, data, work, "--trakcs=one")).startswith(
        "Unknown command line flag 'trakcs'"
    )
    assert refusal(program("train", config, data, work, "one")) == (
        "found the argument 'one', expected only --flags"
    )
    assert not (tmp_path / "run").exists()


def test_workdir_that_is_a_file(data_dir, program, refusal, tmp_path):
    workdir = tmp_path / "file"
    workdir.write_text("in the way")
    message = refusal(program("train", *_flags(data_dir, workdir)))
    assert message == f"{workdir}: cannot be read or written (File exists)"
