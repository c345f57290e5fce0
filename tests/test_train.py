"""The program train: what it writes, and how it continues."""

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import time
import zipfile
from pathlib import Path

import h5py
import numpy as np
import process
import pytest
from kill_training import EPOCHS, STEPS, arrays, differences, flags, kill
from tiny_training import LEVELS, config_of, rewrite, train

from data_pipeline import dataset, mmap_reader, readers, splits, tracks, volumes
from data_pipeline.errors import AudioError
from experiments.training import fit as training_fit
from experiments.training import run
from experiments.training.options import TrainOptions
from sccunet.config import Config, ConfigError, UserError
from sccunet.files import lock_folder
from sccunet.runs import load_config


def _names(segments):
    return [f"{split}/{name}" for split, name, *_ in segments]


def _iterations(workdir):
    """Returns the optimizer steps of a workdir's checkpoint."""
    return int(arrays(workdir / "last.weights.h5")["optimizer/vars/0"])


def _assert_same_arrays(found, expected):
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


def _trainable(path=None):
    """Returns trainable weights, without statistics, of a file or of the seed's new U-Net."""
    import keras

    from sccunet import build_model
    from sccunet.checkpoints import load_weights

    config = config_of()
    keras.utils.set_random_seed(config.seed)
    unet = build_model(config)
    if path:
        load_weights(unet, path)
    return _values(unet)


def _values(unet):
    return np.concatenate([weight.numpy().ravel() for weight in unet.trainable_weights])


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory, write_track):
    """Noise: two training tracks, a validation track, and one in test/ that is not used."""
    folder = tmp_path_factory.mktemp("train") / "data"
    for seed, place in enumerate(("train/one", "train/two", "valid/check", "test/lone")):
        write_track(folder / place, LEVELS, seed=seed)
    for stem in LEVELS:  # floats, which can be NaN
        rewrite(folder / "train" / "two" / f"{stem}.wav", encoding="float32")
    return folder


@pytest.fixture(scope="module")
def finished(data_dir, program):
    """A whole run: its workdir and its output."""
    workdir = data_dir.parent / "finished"
    done = program("train", *flags(data_dir, workdir))
    assert done.returncode == 0, done.stderr
    return workdir, done.stdout


@pytest.fixture
def copy(finished, tmp_path):
    """A copy of the finished run's workdir."""
    return shutil.copytree(finished[0], tmp_path / "copy")


# A workdir of version 0.1.0 (commit f83ed78): one epoch of two steps on such tracks as below.
_OLD = Path(__file__).parent / "data" / "old_training.zip"


@pytest.mark.slow
def test_a_workdir_of_before_continues(tmp_path, write_track, capsys):
    data, workdir = tmp_path / "data", tmp_path / "run"
    for seed, place in enumerate(("train/one", "valid/check")):
        write_track(data / place, {"vocals": 0.2, "drums": 0.1}, seed=seed, rate=8000)
    with zipfile.ZipFile(_OLD) as old:
        old.extractall(workdir)
    assert _iterations(workdir) == 2
    before = json.loads((workdir / "config.json").read_text())
    run.train(Config.from_dict({**before, "epochs": 2}), TrainOptions(data, workdir))
    assert "continuing from epoch 1 of 2" in capsys.readouterr().out
    assert _iterations(workdir) == 4
    assert load_config(workdir) == Config.from_dict({**before, "epochs": 2})


# A whole run.


@pytest.mark.slow
def test_a_run_writes_config_data_and_weights(finished):
    workdir, printed = finished
    names = {".lock", "config.json", "data.json", "tensorboard"}
    names |= {f"{name}.weights.h5" for name in ("best", "last", "previous")}
    assert {entry.name for entry in workdir.iterdir()} == names
    assert "training on 2 tracks, validating on 1 track: the tracks in valid/" in printed
    assert f"training: {EPOCHS} epochs of {STEPS} steps, each with 2 crops of 0.372 s" in printed
    assert re.findall(r"^epoch (\d)/3: loss [\d.]+, validation", printed, re.M) == ["1", "2", "3"]
    assert "\r" not in printed
    assert _iterations(workdir) == EPOCHS * STEPS

    config = load_config(workdir)
    assert config.model == config_of().model
    # Volumes of noise are proportional to its levels, and the weights balance the volumes.
    balanced = np.array([1 / LEVELS[stem] for stem in config.model.stems])
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
    losses = {"epoch_loss", *(f"epoch_{stem}_loss" for stem in LEVELS)}
    sdrs = {"epoch_sdr", *(f"epoch_{stem}_sdr" for stem in LEVELS)}
    assert sdrs <= set(seen["validation"])
    assert not sdrs & set(seen["train"])
    for part in ("train", "validation"):
        assert losses <= set(seen[part])
        assert all(seen[part][tag] == list(range(EPOCHS)) for tag in losses)
    assert seen["train"]["epoch_learning_rate"] == list(range(EPOCHS))
    later = list(range(1, EPOCHS + 1))
    for group in ("mixture", *LEVELS):
        for what, steps in (("truth", [0]), ("estimate", later), ("spectrogram", later)):
            assert seen["validation"][f"{group}/{what}"] == steps


@pytest.mark.slow
def test_a_finished_run_says_so_and_continues_for_more_epochs(copy, data_dir, capsys, monkeypatch):
    before = arrays(copy / "last.weights.h5")
    train(data_dir, copy)
    assert f"nothing is left to train, {EPOCHS} epochs done: {copy}" in capsys.readouterr().out
    _assert_same_arrays(arrays(copy / "last.weights.h5"), before)

    # The chosen reader reads training and validation.
    asked, opened = [], []

    def reader_named(name):
        asked.append(name)
        return lambda files, samples: opened.append(1) or mmap_reader.mmap_reader(files, samples)

    monkeypatch.setattr(readers, "reader_named", reader_named)
    free = {"epochs": EPOCHS + 1, "steps_per_execution": 5, "check_steps": 3}
    train(data_dir, copy, config_of(**free), reader="tfio")
    assert (asked, len(opened)) == (["tfio"], 2)
    printed = capsys.readouterr().out
    assert f"continuing from epoch {EPOCHS} of {EPOCHS + 1} in {copy}" in printed
    assert _iterations(copy) == (EPOCHS + 1) * STEPS
    assert {field: load_config(copy).to_dict()[field] for field in free} == free


@pytest.mark.slow
def test_a_run_without_a_better_validation_ends_early(copy, data_dir, capsys):
    """It counts the epochs of before it was interrupted, too."""
    config = config_of(patience=EPOCHS, epochs=99)
    (copy / "config.json").write_text(config.to_json())
    with h5py.File(copy / "last.weights.h5", "r+") as file:
        file["vars/best_epoch"][()], file["vars/best_loss"][()] = 1, -1  # none is better
        del file.attrs["sha256"]
    train(data_dir, copy, config)
    done = _iterations(copy) // STEPS
    assert done == 1 + EPOCHS
    why = f"{done} epochs done and no better validation in the last {EPOCHS} epochs"
    assert f"\nended early, {why}; best and last weights" in capsys.readouterr().out
    train(data_dir, copy, config)
    assert f"nothing is left to train, {why}: {copy}\n" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": 0.5}, "found a run with learning_rate = 0.005, expected 0.5;"),
        ({"seed": 1}, "found a run with seed = 0, expected 1;"),
        ({"model__filters": (4, 16)}, "'filters': (4, 8)"),
        ({"loss_balance": "equal"}, "found a run with loss_balance = volume, expected equal;"),
        ({"loss_weights": (0.25,) * 4}, "found a run with loss_weights = ("),
        ({"name": "small_2stems"}, "('vocals', 'accompaniment')"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_workdir_of_another_config_is_refused(copy, data_dir, change, message):
    with pytest.raises(ConfigError) as caught:
        train(data_dir, copy, config_of(**change))
    assert str(caught.value).startswith(f"{copy}/config.json: found a run with ")
    assert message in str(caught.value)
    assert str(caught.value).endswith("; choose another --workdir")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_workdir_of_other_tracks_is_refused(copy, data_dir):
    with pytest.raises(ConfigError, match=r"data\.json: found a run with other training or"):
        train(data_dir, copy, tracks=("one",))
    (copy / "data.json").write_text("")
    with pytest.raises(UserError, match=r"data\.json: found an empty file, expected the JSON"):
        train(data_dir, copy)


# Two runs at once.


def _unused(workdir):
    return f"{workdir}: found another run that trains in it, expected a --workdir that no run uses"


def test_a_second_run_in_a_workdir_is_refused_at_once(data_dir, tmp_path, monkeypatch):
    """Before it looks at the data, or after that if the first run began meanwhile."""
    workdir = tmp_path / "run"
    monkeypatch.setattr(training_fit, "fit", lambda *_: pytest.fail("it trains"))
    with contextlib.ExitStack() as first:

        def begin(_):
            workdir.mkdir()
            assert first.enter_context(lock_folder(workdir))

        with monkeypatch.context() as patch:
            patch.setattr(tracks, "check_finite", begin)
            assert _refused(data_dir, workdir) == _unused(workdir)
        assert _refused(tmp_path / "no data", workdir) == _unused(workdir)
        assert [path.name for path in workdir.iterdir()] == [".lock"]
    # A killed process leaves the lock's file. File systems without locks have none.
    trained = []
    monkeypatch.setattr(training_fit, "fit", lambda *_: trained.append(1))
    train(data_dir, workdir)
    monkeypatch.setattr(run, "lock_folder", lambda *_: contextlib.nullcontext(None))
    train(data_dir, workdir)
    assert len(trained) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"decay": "cosine", "warmup_steps": EPOCHS * STEPS},
            "config.warmup_steps: found 60, expected less than the 60 steps of the run",
        ),
        (
            {"steps_per_execution": 15},
            "config.steps_per_execution: found 15, expected a divisor of the 20 steps of an epoch",
        ),
    ],
)
def test_numbers_of_steps_that_do_not_suit_the_run(data_dir, tmp_path, changes, message):
    assert _refused(data_dir, tmp_path / "run", config_of(**changes)) == message
    assert not (tmp_path / "run").exists()


def test_workers_share_a_workdir_and_exclude_another_run(tmp_path, monkeypatch):
    def lock(held, index=0, strategy="auto"):
        task = {"type": "worker", "index": index}
        cluster = {"cluster": {"worker": ["a:1", "b:1"]}, "task": task}
        monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))
        run._lock(TrainOptions("DATA", tmp_path, strategy=strategy), held)

    with contextlib.ExitStack() as held:
        for index in (0, 1):
            lock(held, index)
        for other in ((0,), (1,), (1, "cpu"), (1, "multiworker")):
            with pytest.raises(ConfigError, match="found another run"):
                lock(held, *other)


# Killed and stopped.


def _until(happened, running):
    """Waits while a program runs."""
    while not happened():
        assert running.process.exitcode is None, running.read("stdout") + running.read("stderr")
        time.sleep(0.01)


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_weights(finished, data_dir, tmp_path, capsys):
    """Killed by SIGKILL after a checkpoint within an epoch; the weights are bit-identical."""

    def wait(running, workdir):
        _until((workdir / "last.weights.h5").exists, running)

    assert not kill([signal.SIGKILL], wait, data_dir, finished[0], tmp_path)
    assert "1 kills of 1 runs, 1 of them between the first step" in capsys.readouterr().out
    assert _iterations(tmp_path / "run0") == EPOCHS * STEPS
    assert load_config(tmp_path / "run0") == load_config(finished[0])


@pytest.mark.slow
def test_ctrl_c_and_sigterm_save_within_an_epoch_and_the_run_continues(
    finished, data_dir, program, tmp_path
):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    workdir, notes = tmp_path / "run", []
    for number in (signal.SIGINT, signal.SIGTERM):
        running = process.start("train", *flags(data_dir, workdir))
        _until(lambda running=running: "training: " in running.read("stdout"), running)
        os.kill(running.process.pid, number)
        done = running.wait()
        assert done.returncode == 75, done.stderr
        found = re.fullmatch(
            rf"stopped after step (\d+), and saved; run again to continue: {workdir}",
            done.stderr.splitlines()[-1],
        )
        assert found, done.stderr
        assert "Traceback" not in done.stderr
        assert _iterations(workdir) == int(found[1])
        assert 0 < int(found[1]) < STEPS
        notes.append(f"continuing from epoch 0 of {EPOCHS} and {found[1]} of {STEPS} steps")

    done = program("train", *flags(data_dir, workdir))
    assert done.returncode == 0, done.stderr
    assert f"{notes[-1]} in {workdir}/last.weights.h5" in done.stdout
    assert not differences(workdir, finished[0])
    events = EventAccumulator(str(workdir / "tensorboard" / "validation"), {"tensors": 0}).Reload()
    logged = [event.tensor_proto.string_val[0].decode() for event in events.Tensors("run")]
    assert logged == notes


def test_ctrl_c_before_the_first_step(data_dir, tmp_path, monkeypatch, capsys):
    """In the pass over the data, for example; handlers are as before then."""
    # Ignored in a shell's background jobs.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(
        volumes, "training_volumes", lambda *_: os.kill(os.getpid(), signal.SIGINT) or time.sleep(9)
    )
    with pytest.raises(SystemExit, match="75"):
        train(data_dir, tmp_path / "run")
    told = capsys.readouterr().err
    assert f"stopped before the first step; run again to continue: {tmp_path / 'run'}\n" in told
    assert signal.signal(signal.SIGINT, before) == signal.default_int_handler


# Other tracks and weights.


@pytest.mark.slow
def test_fine_tuning_on_named_tracks_starts_from_the_runs_best_weights(
    finished, data_dir, program, tmp_path, monkeypatch
):
    """The seed's initial weights would be far off."""
    workdir, given = tmp_path / "run", _trainable(finished[0] / "best.weights.h5")
    done = program(
        "train",
        *flags(data_dir, workdir, {"epochs": 1, "steps_per_epoch": 2, "learning_rate": 1e-9}),
        "--tracks=lone,check",
        f"--init_from={finished[0]}",
    )
    assert done.returncode == 0, done.stderr
    loaded = f"initial weights: {finished[0]}/best.weights.h5, stems {', '.join(LEVELS)}"
    assert loaded in done.stdout.splitlines()
    np.testing.assert_allclose(_trainable(workdir / "best.weights.h5"), given, atol=1e-6)
    data = json.loads((workdir / "data.json").read_text())
    assert _names(data["training"]) == _names(data["validation"]) == ["test/lone", "valid/check"]
    assert np.abs(_trainable() - given).max() > 0.01

    # A file of weights does the same.
    loaded = []
    monkeypatch.setattr(
        training_fit, "_run", lambda trainer, *_: loaded.append(_values(trainer.unet))
    )
    train(data_dir, tmp_path / "file", init_from=finished[0] / "best.weights.h5")
    np.testing.assert_array_equal(loaded, [given])


def _refused(data_dir, workdir, config=None, **options):
    with pytest.raises(ConfigError) as caught:
        train(data_dir, workdir, config, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# NaN and infinity, files that become unreadable, and a full disk.


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_the_run_and_leaves_no_such_weights(data_dir, tmp_path):
    workdir = tmp_path / "run"
    text = _refused(
        data_dir, workdir, config_of("small_2stems", learning_rate=1e30, accumulation_steps=1)
    )
    found = re.fullmatch(
        rf"{workdir}: the (?:loss|gradients) became NaN or infinite at step ([12]) \(epoch 1\);"
        rf" its batch is saved in {workdir}/bad_batch_\1.npz, with crops of (one|two|one, two);"
        r" a lower config.learning_rate in another --workdir may help",
        text,
    )
    assert found, text
    assert not list(workdir.glob("*.h5"))
    # The saved batch is that of the step; sums of three files are rounded in another order.
    step = int(found[1])
    training, *_ = splits.training_split(data_dir, load_config(workdir))
    batches = dataset.training_dataset(training, load_config(workdir), step)
    kept = np.load(workdir / f"bad_batch_{step}.npz")
    np.testing.assert_allclose(kept["waveforms"], next(iter(batches)), rtol=0, atol=1e-7)
    for files, starts in zip(kept["files"], kept["starts"], strict=True):
        assert [Path(file).name for file in files] == [f"{stem}.wav" for stem in LEVELS]
        assert all(0 <= start <= 2 * 44_100 - 16_384 for start in starts)


@pytest.mark.slow
def test_a_file_that_is_deleted_before_it_is_read_is_named(data_dir, copy, tmp_path, monkeypatch):
    data = shutil.copytree(data_dir, tmp_path / "data")
    path = data / "train" / "two" / "bass.wav"

    def loaded(*arguments):  # all that comes before the first step has looked at the files
        path.unlink()
        return load(*arguments)

    load = training_fit._load
    monkeypatch.setattr(training_fit, "_load", loaded)
    with pytest.raises(AudioError) as caught:
        train(data, copy, config_of(epochs=EPOCHS + 1))
    assert str(caught.value) == f"{path}: cannot be read any more (No such file or directory)"
    assert _iterations(copy) == EPOCHS * STEPS


@pytest.mark.slow
def test_a_file_that_turns_to_nan_while_training_is_named(data_dir, copy, tmp_path, monkeypatch):
    data = shutil.copytree(data_dir, tmp_path / "data")
    before = arrays(copy / "last.weights.h5")

    def spoil(_):  # after the check of the files before training
        path = data / "train" / "two" / "bass.wav"
        content = bytearray(path.read_bytes())
        content[-(2**18) :] = np.full(2**16, np.nan, "<f4").tobytes()
        path.write_bytes(content)

    monkeypatch.setattr(tracks, "check_finite", spoil)
    text = _refused(data, copy, config_of(epochs=EPOCHS + 1))
    assert re.fullmatch(
        rf"{copy}: the loss became NaN or infinite at step \d+ \(epoch {EPOCHS + 1}\); its batch is"
        rf" saved in {copy}/bad_batch_\d+.npz, with NaN or infinity in crops of (one, )?two",
        text,
    )
    _assert_same_arrays(arrays(copy / "last.weights.h5"), before)


@pytest.mark.slow
def test_a_file_that_is_cut_short_while_training_is_named(data_dir, copy, refusal, tmp_path):
    data = shutil.copytree(data_dir, tmp_path / "data")
    running = process.start("train", *flags(data, copy, {"epochs": 1000}))
    last = copy / "last.weights.h5"
    began = last.stat().st_mtime
    _until(lambda: last.exists() and last.stat().st_mtime > began, running)
    path = data / "train" / "two" / "bass.wav"
    os.truncate(path, 20_000)
    message = refusal(running.wait(timeout=120))
    assert re.match(rf"{path}: found \d+ samples, expected 88200 as before: it was cut", message)
    assert _iterations(copy) > EPOCHS * STEPS


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_the_run_goes_on(data_dir, refusal, tmp_path):
    workdir = tmp_path / "run"
    # A network whose checkpoint is larger than the logs, which would fail first.
    changes = {"model.filters": (2, 2, 160), "epochs": 1, "steps_per_epoch": 1, "warmup_steps": 0}
    train(data_dir, workdir, config_of(**changes))
    before = arrays(workdir / "last.weights.h5")
    size = (workdir / "last.weights.h5").stat().st_size - 100
    changes |= {"epochs": 2}
    running = process.start("train", *flags(data_dir, workdir, changes))
    resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE, (size, size))
    message = refusal(running.wait())
    assert message == f"{workdir}/last.weights.h5: cannot be written (File too large)"
    _assert_same_arrays(arrays(workdir / "last.weights.h5"), before)
    assert not list(workdir.glob(".*.h5"))
    train(data_dir, workdir, config_of(**changes))
    assert _iterations(workdir) == 2


# Loss weights.


def _weights(monkeypatch, data, workdir, config=None):
    """Returns the loss weights that a run would use."""
    configs = []
    monkeypatch.setattr(training_fit, "fit", lambda config, *_: configs.append(config))
    train(data, workdir, config)
    return dict(zip(configs[0].model.stems, configs[0].loss_weights, strict=True))


def test_accompaniment_is_the_sum_of_the_other_stems(data_dir, tmp_path, monkeypatch):
    found = _weights(monkeypatch, data_dir, tmp_path / "run", config_of("small_2stems"))
    # Independent noises: energies add.
    accompaniment = np.sqrt(sum(LEVELS[stem] ** 2 for stem in ("drums", "bass", "other")))
    ratio = found["vocals"] / found["accompaniment"]
    assert ratio == pytest.approx(accompaniment / LEVELS["vocals"], rel=0.02)


def test_equal_weights_take_no_pass_over_the_data(data_dir, tmp_path, monkeypatch):
    data = shutil.copytree(data_dir, tmp_path / "data", ignore=shutil.ignore_patterns("volumes.*"))
    found = _weights(monkeypatch, data, tmp_path / "run", config_of(loss_balance="equal"))
    assert found == dict.fromkeys(LEVELS, 0.25)
    assert not list(data.glob("volumes.*"))


def test_silent_stems(data_dir, write_track, tmp_path, monkeypatch, caplog):
    data = shutil.copytree(data_dir, tmp_path / "data")
    write_track(data / "train" / "two", {"bass": 0})
    found = _weights(monkeypatch, data, tmp_path / "run")
    # Half as loud over both tracks, so twice the weight.
    expected = 2 * LEVELS["vocals"] / LEVELS["bass"]
    assert found["bass"] / found["vocals"] == pytest.approx(expected, rel=0.03)
    assert "two: stem 'bass' is silent throughout, expected sound in it" in caplog.text

    write_track(data / "train" / "one", {"bass": 0})
    with pytest.raises(AudioError) as caught:
        train(data, tmp_path / "silent")
    assert str(caught.value) == (
        "stem 'bass': found only silence in 2 training tracks, expected sound in at least one"
    )


# Several directories, and tracks that have only some of the stems.


@pytest.mark.slow
def test_a_cappellas_and_instrumentals_train_and_continue(program, write_track, tmp_path):
    """A run of two directories that was stopped ends with the weights of one that was not."""
    choirs, bands = tmp_path / "choirs", tmp_path / "bands"
    rest = {stem: level for stem, level in LEVELS.items() if stem != "vocals"}
    for seed, name in enumerate("ab"):
        write_track(choirs / "train" / name, {"vocals": 0.2, "mixture": 0.1}, seed=seed)
        write_track(bands / "train" / name, rest, seed=9 + seed)
    changes = {
        **{"augment.mix_tracks": 1.0, "augment.silent_share": 0.1, "data_weights": (1, 3)},
        **{"epochs": 1, "steps_per_epoch": STEPS},
    }

    def line(workdir):
        return flags(f"{choirs},{bands}", workdir, changes)

    workdir, whole = tmp_path / "run", tmp_path / "whole"
    running = process.start("train", *line(workdir))
    _until(lambda: "training: " in running.read("stdout"), running)
    os.kill(running.process.pid, signal.SIGTERM)
    done = running.wait()
    assert done.returncode == 75, done.stderr
    assert f"{bands}: training on 2 tracks, validating on the last tenth of 2" in done.stdout
    config = load_config(workdir)
    with pytest.raises(ConfigError, match="found a run with other training or validation tracks"):
        train([bands, choirs], workdir, config)
    for out in (workdir, whole):
        done = program("train", *line(out))
        assert done.returncode == 0, done.stderr
    _assert_same_arrays(*(arrays(out / "last.weights.h5") for out in (workdir, whole)))
    data = json.loads((workdir / "data.json").read_text())
    assert data["data_dir"] == [str(choirs), str(bands)]
    assert data["training"][1:3] == [
        ["train", "b", 0, 71_816, ["vocals"]],
        ["train", "a", 0, 71_816, 1, ["drums", "bass", "other"]],
    ]
    assert len(list(tmp_path.glob("*/volumes.*.json"))) == 2
