"""How far a training run is: a bar on a terminal, a line for each epoch, and the time left."""

import shutil
import sys
import textwrap
import time
from collections.abc import Sequence

import keras
from tqdm import tqdm

# An estimate is made after this many steps and seconds; the first step, which compiles the network,
# does not count.
_STEPS, _SECONDS = 3, 5.0


class Progress(keras.callbacks.Callback):
    """Shows a run's progress; keeps redirected output free of bars.

    Args:
      stems: names of the stems, in the model's order.
      epochs: the run's number of epochs.
      steps: training steps per epoch.
      step: number of steps done before.
      every: steps after which the bar shows a new loss, for which the host waits.
    """

    def __init__(
        self, stems: Sequence[str], epochs: int, steps: int, step: int = 0, every: int = 1
    ):
        super().__init__()
        self._every, self._shown, self._begun = min(every, steps), 0, 0  # steps of the epoch
        self._stems, self._epochs, self._steps = stems, epochs, steps
        self._step = self._first = step
        self._started = time.monotonic()
        self._timed: tuple[int, float] | None = None  # step and time after the first step
        self._estimated = False
        self._bar = tqdm(disable=True)

    def on_epoch_begin(self, epoch, logs=None):
        self._shown = 0
        self._epoch_started = time.monotonic()
        self._bar = tqdm(
            desc=f"epoch {epoch + 1}/{self._epochs}",
            initial=self._step - epoch * self._steps,
            total=self._steps,
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}"
            " [{remaining} left{postfix}]",
            disable=None,  # where it is not a terminal
            leave=False,
            dynamic_ncols=True,
        )

    def on_train_batch_begin(self, batch, logs=None):
        self._begun = batch

    def on_train_batch_end(self, batch, logs=None):
        steps = batch + 1 - self._begun
        self._step += steps
        if not self._bar.disable and batch + 1 - self._shown >= self._every:
            self._shown = batch + 1
            self._bar.set_postfix_str(f"loss {float(logs['loss']):.4g}", refresh=False)
        self._bar.update(steps)
        now = time.monotonic()
        if self._timed is None:
            self._timed = self._step, now
        steps, seconds = self._step - self._timed[0], now - self._timed[1]
        if not self._estimated and steps >= _STEPS and seconds >= _SECONDS:
            self._estimated = True
            left = duration(seconds / steps * (self._epochs * self._steps - self._step))
            self._print(f"{seconds / steps:.3g} s per step: about {left} left, without validation")

    def on_test_begin(self, logs=None):
        self._bar.set_postfix_str("validating")

    def on_epoch_end(self, epoch, logs=None):
        now = time.monotonic()
        parts = [
            f"{name} {logs[key]:.4g}"
            for name, key in (("loss", "loss"), ("validation", "val_loss"))
            if key in logs  # the loss is missing if only the validation had to be repeated
        ]
        stems = (f"{stem} {logs[f'val_{stem}_loss']:.4g}" for stem in self._stems)
        parts[-1] += f" ({', '.join(stems)})"
        stems = (f"{stem} {logs[f'val_{stem}_sdr']:.2f}" for stem in self._stems)
        parts.append(f"SDR {logs['val_sdr']:.2f} dB ({', '.join(stems)})")
        parts.append(duration(now - self._epoch_started))
        if (done := self._step - self._first) and epoch + 1 < self._epochs:
            left = (now - self._started) / done * (self._epochs * self._steps - self._step)
            parts.append(f"about {duration(left)} left")
        self.close()
        self._print(f"epoch {epoch + 1}/{self._epochs}: {', '.join(parts)}")

    def close(self) -> None:
        """Removes the bar of an epoch that does not end."""
        self._bar.close()

    def _print(self, line: str) -> None:
        """Prints a line above the bar; wraps it on a terminal."""
        self._bar.clear()
        if sys.stdout.isatty():
            width = shutil.get_terminal_size().columns
            line = textwrap.fill(line, width, subsequent_indent="  ")
        print(line, flush=True)
        self._bar.refresh()


def duration(seconds: float) -> str:
    """Returns a time in s, min or h, with two digits or three."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
