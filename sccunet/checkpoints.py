"""Saves and loads weights, whole and checked, with the state that a run resumes from."""

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
from sccunet.files import file_written_whole, flush
from sccunet.runs import BEST as BEST
from sccunet.runs import CHECKPOINT as CHECKPOINT

PREVIOUS = "previous.weights.h5"
_DIGEST = "sha256"


def save_whole(
    model: keras.Model, path: str | os.PathLike, previous: str | os.PathLike | None = None
) -> None:
    """Saves a model's weights with a checksum; the file appears whole or not at all.

    Args:
      model: any Keras model.
      path: the file, `*.weights.h5`.
      previous: path that keeps the file that `path` replaces.

    Raises:
      OSError: if `path` cannot be written; the error names it. The old file is kept, at `path` or
        `previous`.
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
                if previous and path.exists():
                    flush(partial)  # the time without a file at `path` stays short
                    os.replace(path, previous)
        except (OSError, RuntimeError) as error:  # HDF5 raises either
            told = re.search(r"errno = (\d+)", str(error))
            reason = getattr(error, "errno", 0) or (int(told[1]) if told else errno.EIO)
    if reason:
        raise OSError(reason, os.strerror(reason), str(path))


def _check_room(model: keras.Model, path: Path) -> None:
    """Raises OSError if the disk is full: HDF5 may crash the process when a write fails."""
    if not hasattr(os, "posix_fallocate"):
        return
    variables = [*model.variables, *getattr(getattr(model, "optimizer", None), "variables", ())]
    content = sum(4 * math.prod(variable.shape) for variable in variables)
    with open(path, "wb") as file:
        # HDF5 adds up to a few kilobytes per array.
        os.posix_fallocate(file.fileno(), 0, content + 8192 * len(variables) + 2**16)


@contextlib.contextmanager
def _without_complaints() -> Iterator[None]:
    """Silences HDF5, which prints a traceback for each handle of a file that it cannot write."""
    before = sys.unraisablehook
    sys.unraisablehook = lambda _: None
    try:
        yield
        gc.collect(0)  # frees the handles that an error holds
    finally:
        sys.unraisablehook = before


def load_weights(model: keras.Model, path: str | os.PathLike) -> None:
    """Loads a model's weights; an error is one line.

    Raises:
      ConfigError: if the file is missing, damaged, from another network, or may not be read.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{path}: found no such file, expected weights")
    try:
        with h5py.File(path) as file:
            # Files from other programs have no checksum.
            if file.attrs.get(_DIGEST, whole := _digest(file)) != whole:
                raise OSError("its checksum does not match its content")
        with warnings.catch_warnings():
            # Keras warns of every layer that does not fit, before the error that says the same.
            warnings.filterwarnings("ignore", message="Skipping nested container")
            model.load_weights(path)
    except PermissionError as error:
        raise ConfigError(f"{path}: cannot be read ({os.strerror(error.errno)})") from error
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(f"{path}: found weights that do not load ({reason})") from error


def _digest(file: h5py.File) -> str:
    """Computes the checksum of all arrays in a file, with their names and shapes."""
    digest = hashlib.sha256()

    def add(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            array = np.ascontiguousarray(item[()])
            digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
            digest.update(array.data if array.size else b"")

    file.visititems(add)
    return digest.hexdigest()


def has_checkpoint(workdir: str | os.PathLike) -> bool:
    """Whether `load_newest` would load a checkpoint, or find a damaged one."""
    return any((Path(workdir) / name).exists() for name in (CHECKPOINT, PREVIOUS))


def load_newest(
    trainer: keras.Model, workdir: str | os.PathLike, report: Callable[[str], None] = print
) -> Path | None:
    """Loads a workdir's last checkpoint, or the one before if the last is damaged or missing.

    A damaged file gets the ending `.damaged`, so that the next save does not move it over the
    intact one.

    Args:
      trainer: a compiled `sccunet.training.Trainer`.
      workdir: the run's folder.
      report: called with one line about each damaged file.

    Returns:
      The file that was loaded; None if there is no checkpoint.

    Raises:
      ConfigError: if no checkpoint loads, or permission to read one is missing.
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
                raise  # it need not be damaged
            damaged.append((path, str(error)))
            continue
        for bad, reason in damaged:
            with contextlib.suppress(FileNotFoundError):  # another worker was first
                os.replace(bad, f"{bad}.damaged")
            report(
                f"{reason}; continuing from {name}; keeping the damaged file as {bad.name}.damaged"
            )
        return path
    if damaged:
        raise ConfigError(
            "; ".join(reason for _, reason in damaged)
            + f"; expected an intact checkpoint, or a --workdir other than {workdir}"
        )
    return None


class PreemptedError(Exception):
    """The run was asked to stop; it can resume from its last checkpoint."""


class Checkpoint(keras.callbacks.Callback):
    """Saves the best and the last weights of a run in its workdir.

    The last weights come with all the state that a run resumes from: the optimizer's state, the
    number of steps and epochs done, and the states of the random generators. They are saved after
    every epoch. Within an epoch they are saved after the first step that ends `minutes` or more
    after the previous save, and after the step during which `preempt` was called; where the device
    makes several steps on its own, after the last of them. The previous checkpoint is kept beside
    the last. Nothing is saved after a step that was not finite.

    Args:
      workdir: the run's folder.
      minutes: time between saves within an epoch; None saves after epochs only.
      writes: whether this process writes the files.
      best_by: see `Config`.

    Attributes:
      agree: function that takes this process's (stop requested, save due) and returns the same for
        all processes of the run together: they must stop at the same step.
      agree_steps: number of steps after which they agree again; it makes all of them wait.
    """

    def __init__(
        self,
        workdir: str | os.PathLike,
        minutes: float | None = None,
        writes: bool = True,
        best_by: str = "loss",
    ):
        super().__init__()
        self.workdir = Path(workdir)
        self.agree: Callable[[tuple[bool, bool]], tuple[bool, bool]] = lambda mine: mine
        self.agree_steps, self._agreed = 1, 0  # _agreed: at so many steps of the epoch
        self._seconds = math.inf if minutes is None else 60 * minutes
        self._writes = writes
        self._best_by = best_by
        self._asked = False
        self._written = time.monotonic()

    def preempt(self) -> None:
        """Asks the run to save and stop after the current step."""
        self._asked = True

    def on_epoch_begin(self, epoch, logs=None):
        self._agreed = 0

    def on_train_batch_end(self, batch, logs=None):
        """Saves when due; raises `PreemptedError` after saving if the run must stop."""
        if batch + 1 - self._agreed < self.agree_steps:
            return
        self._agreed = batch + 1
        stop, due = self.agree((self._asked, time.monotonic() - self._written >= self._seconds))
        if stop or due:
            self._save_last()
        if stop:
            self._stop()

    def on_test_batch_end(self, batch, logs=None):
        """Saves and stops on request; a resumed run repeats the validation."""
        stop, _ = self.agree((self._asked, False))
        if stop:
            self._save_last()
            self._stop()

    def on_epoch_end(self, epoch, logs=None):
        self.model.check_finite()
        sign = -1 if self._best_by == "sdr" else 1
        loss = sign * (logs or {}).get(f"val_{self._best_by}", sign * math.inf)
        self.model.epochs_done.assign(epoch + 1)
        if loss < float(self.model.best_loss.numpy()):
            self.model.best_loss.assign(loss)
            self.model.best_epoch.assign(epoch + 1)
            if self._writes:
                save_whole(self.model.validated, self.workdir / BEST)
        self._save_last()

    def _stop(self) -> None:
        raise PreemptedError(f"stopped after step {self.model.steps_done}, and saved")

    def _save_last(self) -> None:
        self.model.check_finite()
        if self._writes:
            save_whole(self.model, self.workdir / CHECKPOINT, self.workdir / PREVIOUS)
        self._written = time.monotonic()
