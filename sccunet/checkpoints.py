"""Weights on the disk: whole or not at all, checked when loaded, and what a run continues from."""

import contextlib
import errno
import gc
import hashlib
import math
import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import keras
import numpy as np

from sccunet.config import ConfigError
from sccunet.files import file_written_whole

CHECKPOINT, PREVIOUS = "last.weights.h5", "previous.weights.h5"
BEST = "best.weights.h5"
_DIGEST = "sha256"


def save_whole(
    model: keras.Model, path: str | os.PathLike, previous: str | os.PathLike | None = None
) -> None:
    """`model.save_weights`, with a checksum, the file being there whole or not at all.

    Args:
      model: any.
      path: of the file, `*.weights.h5`.
      previous: where the file that was there is kept.

    Raises:
      OSError: naming `path` if it cannot be written; what was there before is there, or `previous`.
    """
    path = Path(path)
    reason = 0
    with _without_complaints():
        try:
            with file_written_whole(path, alone=True) as partial:
                _check_room(model, partial)
                model.save_weights(partial, overwrite=True)
                with h5py.File(partial, "r+") as file:
                    file.attrs[_DIGEST] = _digest(file)
                with open(partial, "rb") as file:
                    os.fsync(file.fileno())  # else a crash could leave the name without the content
                if previous and path.exists():
                    os.replace(path, previous)
        except (OSError, RuntimeError) as error:  # HDF5 raises either
            told = re.search(r"errno = (\d+)", str(error))
            reason = getattr(error, "errno", 0) or (int(told[1]) if told else errno.EIO)
    if reason:
        raise OSError(reason, os.strerror(reason), str(path))


def _check_room(model: keras.Model, path: Path) -> None:
    """Raises OSError where the disk has no room: HDF5 may crash the process when a write fails."""
    if not hasattr(os, "posix_fallocate"):
        return
    variables = [*model.variables, *getattr(getattr(model, "optimizer", None), "variables", ())]
    content = sum(4 * math.prod(variable.shape) for variable in variables)
    with open(path, "wb") as file:
        # HDF5's own takes up to some kilobytes an array.
        os.posix_fallocate(file.fileno(), 0, content + 8192 * len(variables) + 2**16)


@contextlib.contextmanager
def _without_complaints() -> Iterator[None]:
    """HDF5 prints a traceback for each handle of a file that it could not write."""
    before = sys.unraisablehook
    sys.unraisablehook = lambda _: None
    try:
        yield
        gc.collect(0)  # the handles that an error held
    finally:
        sys.unraisablehook = before


def load_weights(model: keras.Model, path: str | os.PathLike) -> None:
    """`model.load_weights`, with one line where it fails.

    Raises:
      ConfigError: if the file is missing, damaged or another network's.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{path}: found no such file, expected weights")
    try:
        with h5py.File(path) as file:
            # Files that others wrote have none.
            if file.attrs.get(_DIGEST, whole := _digest(file)) != whole:
                raise OSError("its content is not what was written")
        with warnings.catch_warnings():
            # One for every layer that does not fit, ahead of the error that says so.
            warnings.filterwarnings("ignore", message="Skipping nested container")
            model.load_weights(path)
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(f"{path}: found weights that do not load ({reason})") from error


def _digest(file: h5py.File) -> str:
    """The checksum of every array in a file, names and shapes included."""
    digest = hashlib.sha256()

    def add(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            array = np.ascontiguousarray(item[()])
            digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
            digest.update(array.data if array.size else b"")

    file.visititems(add)
    return digest.hexdigest()


def load_newest(
    trainer: keras.Model, workdir: str | os.PathLike, report: Callable[[str], None] = print
) -> Path | None:
    """Loads the last checkpoint of a workdir; where it is damaged or missing, the one before.

    A damaged one gets the ending `.damaged`, so that the next checkpoint finds the good one.

    Args:
      trainer: a compiled `sccunet.training.Trainer`.
      workdir: of the run.
      report: called with one line about each damaged one.

    Returns:
      What was loaded; None where there is no checkpoint.

    Raises:
      ConfigError: if none of them can be loaded, or one may not be read.
    """
    damaged = []
    for name in (CHECKPOINT, PREVIOUS):
        path = Path(workdir) / name
        if not path.exists():
            continue
        try:
            load_weights(trainer, path)
        except ConfigError as error:
            if isinstance(error.__cause__, PermissionError):
                raise  # nothing is known of what is in it
            damaged.append((path, str(error)))
            continue
        for bad, reason in damaged:
            with contextlib.suppress(FileNotFoundError):  # another worker was first
                os.replace(bad, f"{bad}.damaged")
            report(f"{reason}; continuing from {name}, and keeping it as {bad.name}.damaged")
        return path
    if damaged:
        raise ConfigError(
            "; ".join(reason for _, reason in damaged)
            + f"; expected a whole checkpoint, or another --workdir than {workdir}"
        )
    return None


class PreemptedError(Exception):
    """The run had to stop, and can go on from its last checkpoint."""


class Checkpoint(keras.callbacks.Callback):
    """Writes the best and the last weights into a workdir.

    The last ones come with everything that a run continues from: the optimizer's state, the number
    of steps and epochs done and the state of the random generators. They are written after every
    epoch, and within one after the step that ends `minutes` later than they were written before, or
    during which `preempt` was called. The checkpoint before the last is kept beside it.

    Args:
      workdir: of the run.
      minutes: after which a checkpoint is written; None writes them after epochs alone.
      writes: whether this process is the one that writes.

    Attributes:
      agree: function of (asked to stop, due) of this process that tells whether any process of the
        run is: all of them must stop at the same step.
    """

    def __init__(
        self, workdir: str | os.PathLike, minutes: float | None = None, writes: bool = True
    ):
        super().__init__()
        self.workdir = Path(workdir)
        self.agree: Callable[[tuple[bool, bool]], tuple[bool, bool]] = lambda mine: mine
        self._seconds = math.inf if minutes is None else 60 * minutes
        self._writes = writes
        self._asked = False
        self._written = time.monotonic()

    def preempt(self) -> None:
        """Asks for a checkpoint and the end of the run, after the step that is being done."""
        self._asked = True

    def on_train_batch_end(self, batch, logs=None):
        """Raises `PreemptedError` when all is saved."""
        stop, due = self.agree((self._asked, time.monotonic() - self._written >= self._seconds))
        if stop or due:
            self._save_last()
        if stop:
            self._stop()

    def on_test_batch_end(self, batch, logs=None):
        """As `on_train_batch_end`: the epoch's steps are done, its validation will be repeated."""
        stop, _ = self.agree((self._asked, False))
        if stop:
            self._save_last()
            self._stop()

    def on_epoch_end(self, epoch, logs=None):
        loss = (logs or {}).get("val_loss", math.inf)
        self.model.epochs_done.assign(epoch + 1)
        if loss < float(self.model.best_loss.numpy()):
            self.model.best_loss.assign(loss)
            if self._writes:
                save_whole(self.model.unet, self.workdir / BEST)
        self._save_last()

    def _stop(self) -> None:
        raise PreemptedError(
            f"stopped after step {int(self.model.optimizer.iterations.numpy())}, and saved"
        )

    def _save_last(self) -> None:
        if self._writes:
            save_whole(self.model, self.workdir / CHECKPOINT, self.workdir / PREVIOUS)
        self._written = time.monotonic()
