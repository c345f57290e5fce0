"""Weights on the disk: damage, full disks, and what a run continues from."""

import errno
import functools
import math
import resource
import shutil
import signal

import h5py
import keras
import numpy as np
import pytest

from sccunet import build_model
from sccunet.checkpoints import (
    BEST,
    CHECKPOINT,
    PREVIOUS,
    Checkpoint,
    PreemptedError,
    load_newest,
    load_weights,
    save_whole,
)
from sccunet.config import Config, ConfigError, ModelConfig
from sccunet.training import compile_trainer

_CONFIG = Config(
    model=ModelConfig(
        stems=("a", "b"), frame_length=512, hop_length=128, patch_samples=8192, filters=(4, 8)
    ),
    loss_weights=(0.7, 0.3),
)


@functools.cache
def _built(seed):
    keras.utils.set_random_seed(seed)
    trainer = compile_trainer(build_model(_CONFIG), _CONFIG, _CONFIG.loss_weights, 3)
    return trainer, [variable.numpy() for variable in _state(trainer)]


def _state(trainer):
    return [*trainer.variables, *trainer.optimizer.variables]


def _trainer(seed=0):
    """A new trainer; each seed's is built once."""
    trainer, start = _built(seed)
    for variable, value in zip(_state(trainer), start, strict=True):
        variable.assign(value)
    return trainer


def _steps(trainer):
    return int(trainer.optimizer.iterations)


def _cut(path):
    path.write_bytes(path.read_bytes()[:-4000])


def _zero(path):
    """Damages a file as a disk block in the middle of a large array that was never written."""
    content = bytearray(path.read_bytes())
    with h5py.File(path) as file:
        arrays = []
        file.visititems(lambda _, item: arrays.append(item) if hasattr(item, "id") else None)
        largest = max((a for a in arrays if isinstance(a, h5py.Dataset)), key=lambda a: a.nbytes)
        start, size = largest.id.get_offset(), largest.nbytes
    assert any(content[start : start + size])
    content[start : start + size] = bytes(size)
    path.write_bytes(content)


_DAMAGE = {
    "cut": _cut,
    "zeroed": _zero,
    "empty": lambda path: path.write_bytes(b""),
    "all zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("workdir")
    trainer = _trainer()
    callback = Checkpoint(workdir)
    callback.set_model(trainer)
    for epoch in range(2):
        trainer.optimizer.iterations.assign(3 * (epoch + 1))
        for weight in trainer.trainable_weights:
            weight.assign(np.full(weight.shape, epoch + 1))
        callback.on_epoch_end(epoch, {"val_loss": 2.0 - epoch})
    return workdir


@pytest.fixture
def workdir(written, tmp_path):
    """A workdir with checkpoints of steps 3 (previous) and 6 (last)."""
    return shutil.copytree(written, tmp_path, dirs_exist_ok=True)


def test_the_newest_is_loaded(workdir):
    lines = []
    trainer = _trainer(1)
    assert load_newest(trainer, workdir, lines.append) == workdir / CHECKPOINT
    assert (_steps(trainer), int(trainer.epochs_done), lines) == (6, 2, [])
    assert load_newest(trainer, workdir / "none", lines.append) is None


@pytest.mark.parametrize("damage", _DAMAGE)
def test_a_damaged_one_is_named_and_the_previous_one_is_loaded(workdir, damage):
    _DAMAGE[damage](workdir / CHECKPOINT)
    lines, trainer = [], _trainer(1)
    assert load_newest(trainer, workdir, lines.append) == workdir / PREVIOUS
    assert (_steps(trainer), int(trainer.epochs_done), float(trainer.best_loss)) == (3, 1, 2.0)
    assert all((weight.numpy() == 1).all() for weight in trainer.trainable_weights)
    (line,) = lines
    assert line.startswith(f"{workdir / CHECKPOINT}: found weights that do not load (")
    assert line.endswith(
        f"continuing from {PREVIOUS}; keeping the damaged file as {CHECKPOINT}.damaged"
    )
    assert not (workdir / CHECKPOINT).exists()

    # The next checkpoint does not replace the good one with the bad one.
    callback = Checkpoint(workdir)
    callback.set_model(trainer)
    callback.on_epoch_end(1, {"val_loss": 1.0})
    assert load_newest(_trainer(2), workdir, lines.append) == workdir / CHECKPOINT
    assert load_weights(_trainer(2), workdir / PREVIOUS) is None
    assert len(lines) == 1


def test_a_missing_one_as_between_two_renames(workdir):
    (workdir / CHECKPOINT).unlink()
    trainer, lines = _trainer(1), []
    assert load_newest(trainer, workdir, lines.append) == workdir / PREVIOUS
    assert (_steps(trainer), lines) == (3, [])


def test_no_good_one_is_an_error_and_not_a_new_start(workdir):
    _cut(workdir / CHECKPOINT)
    (workdir / PREVIOUS).write_bytes(b"")
    with pytest.raises(ConfigError) as caught:
        load_newest(_trainer(1), workdir)
    for name in (CHECKPOINT, PREVIOUS):
        assert f"{workdir / name}: found weights that do not load" in str(caught.value)
        assert (workdir / name).exists()
    assert "\n" not in str(caught.value)


def test_one_without_permission_to_read_is_not_called_damaged(workdir, monkeypatch):
    file = h5py.File

    def refuse(path, *args, **kwargs):  # tests may run as root, who can read everything
        if str(path) == str(workdir / CHECKPOINT):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return file(path, *args, **kwargs)

    monkeypatch.setattr(h5py, "File", refuse)
    with pytest.raises(ConfigError) as caught:
        load_newest(_trainer(1), workdir)
    assert str(caught.value) == f"{workdir / CHECKPOINT}: cannot be read (Permission denied)"
    assert (workdir / CHECKPOINT).exists()


@pytest.mark.parametrize("damage", _DAMAGE)
def test_damaged_weights_are_not_loaded(workdir, damage):
    _DAMAGE[damage](workdir / BEST)
    with pytest.raises(ConfigError) as caught:
        load_weights(build_model(_CONFIG), workdir / BEST)
    assert str(caught.value).startswith(f"{workdir / BEST}: found weights that do not load (")


def test_weights_without_a_checksum_are_loaded(tmp_path):
    unet, other = build_model(_CONFIG), build_model(_CONFIG)
    unet.save_weights(tmp_path / BEST)
    load_weights(other, tmp_path / BEST)
    for found, expected in zip(other.weights, unet.weights, strict=True):
        np.testing.assert_array_equal(found.numpy(), expected.numpy())


@pytest.fixture
def full_disk():
    """Function that limits the bytes of a file that this process writes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("part", [0.01, 0.5, 0.95, 0.999])
def test_a_disk_that_fills_up_leaves_the_checkpoints(workdir, full_disk, part):
    before = {path.name: path.read_bytes() for path in workdir.iterdir()}
    trainer = _trainer(1)
    full_disk(int(part * len(before[CHECKPOINT])))
    with pytest.raises(OSError, match=rf"{CHECKPOINT}") as caught:
        save_whole(trainer, workdir / CHECKPOINT, workdir / PREVIOUS)
    assert (caught.value.filename, caught.value.errno) == (str(workdir / CHECKPOINT), errno.EFBIG)
    full_disk(resource.RLIM_INFINITY)
    assert {path.name: path.read_bytes() for path in workdir.iterdir()} == before
    save_whole(trainer, workdir / CHECKPOINT, workdir / PREVIOUS)
    load_weights(_trainer(2), workdir / CHECKPOINT)


def test_leftovers_of_a_killed_write_are_removed_by_the_next(workdir):
    names = sorted(path.name for path in workdir.iterdir())
    for name in (CHECKPOINT, BEST):
        (workdir / f".{name}").write_bytes(b"half")
    callback = Checkpoint(workdir)
    callback.set_model(_trainer())
    callback.on_epoch_end(2, {"val_loss": 0.5})
    assert sorted(path.name for path in workdir.iterdir()) == names


def test_asked_to_stop_it_saves_and_stops_after_the_step(tmp_path):
    trainer = _trainer()
    callback = Checkpoint(tmp_path)
    callback.set_model(trainer)
    trainer.optimizer.iterations.assign(7)
    callback.on_train_batch_end(0)
    assert not list(tmp_path.iterdir())
    callback.preempt()
    with pytest.raises(PreemptedError, match="stopped after step 7, and saved"):
        callback.on_train_batch_end(1)
    other = _trainer(1)
    assert load_newest(other, tmp_path) == tmp_path / CHECKPOINT
    assert (_steps(other), int(other.epochs_done), float(other.best_loss)) == (7, 0, math.inf)


def test_checkpoints_within_an_epoch(tmp_path, monkeypatch):
    from sccunet import checkpoints

    now = [100.0]
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now[0])
    callback = Checkpoint(tmp_path, minutes=2)
    trainer = _trainer()
    callback.set_model(trainer)
    written = []
    for step in range(1, 8):
        trainer.optimizer.iterations.assign(step)
        now[0] += 50
        callback.on_train_batch_end(step)
        if (tmp_path / CHECKPOINT).exists():
            other = _trainer(1)
            load_newest(other, tmp_path)
            written.append(_steps(other))
    assert written == [3, 3, 3, 6, 6]
