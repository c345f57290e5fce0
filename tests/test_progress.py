"""The progress that a training run shows, on a terminal and in a file."""

import functools
import io
import sys

import pytest
from tqdm import tqdm

from experiments.training import progress
from experiments.training.progress import Progress, duration

_STEMS = ("vocals", "drums", "bass", "other")
_EPOCH = {
    "loss": 0.061234,
    "val_loss": 0.070123,
    **{f"val_{stem}_loss": 0.05 + i / 100 for i, stem in reversed(list(enumerate(_STEMS)))},
    **{f"val_{stem}_sdr": 3.0 - 2 * i for i, stem in enumerate(_STEMS)},
    "val_sdr": 0.0,
}


class _Stream(io.StringIO):
    def __init__(self, terminal):
        super().__init__()
        self.isatty = lambda: terminal


@pytest.fixture
def shown(monkeypatch):
    """Function that shows a run with a clock of 2 s per step; returns both streams' texts.

    `together` steps are in one execution.
    """

    def show(terminal, steps=20, done=0, epochs=2, together=1):
        streams = [_Stream(terminal), _Stream(terminal)]
        now = [0.0]
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", streams[0])
            patch.setattr(sys, "stderr", streams[1])
            patch.setattr(progress.time, "monotonic", lambda: now[0])
            # Shows every step, however fast.
            patch.setattr(progress, "tqdm", functools.partial(tqdm, mininterval=0, miniters=1))
            for name, size in (("COLUMNS", "80"), ("LINES", "24")):
                patch.setenv(name, size)
            callback = Progress(_STEMS, epochs, steps, done)
            for epoch in range(done // steps, epochs):
                callback.on_epoch_begin(epoch)
                for step in range(done % steps, steps, together):
                    now[0] += 2 * together
                    callback.on_train_batch_begin(step)
                    callback.on_train_batch_end(step + together - 1, {"loss": 0.061234})
                done = 0
                callback.on_test_begin()
                callback.on_epoch_end(epoch, _EPOCH)
            callback.close()
        return [stream.getvalue() for stream in streams]

    return show


@pytest.mark.parametrize(("together", "left"), [(1, 72), (5, 60)])
def test_a_file_gets_a_line_for_each_epoch_and_no_bar(shown, together, left):
    losses = (
        "loss 0.06123, validation 0.07012 (vocals 0.05, drums 0.06, bass 0.07, other 0.08),"
        " SDR 0.00 dB (vocals 3.00, drums 1.00, bass -1.00, other -3.00)"
    )
    assert shown(terminal=False, together=together) == [
        f"2 s per step: about {left} s left, without validation\n"
        f"epoch 1/2: {losses}, 40 s, about 40 s left\n"
        f"epoch 2/2: {losses}, 40 s\n",
        "",
    ]


def test_a_terminal_of_80_columns_gets_a_bar_of_one_line(shown):
    printed, bar = shown(terminal=True)
    assert max(map(len, printed.splitlines())) <= 80
    assert printed.splitlines()[1].startswith("epoch 1/2: loss 0.06123, validation 0.07012 (vocals")
    assert "\n" not in bar
    frames = bar.split("\r")
    assert max(map(len, frames)) < 80
    assert any(f.startswith("epoch 2/2: ") and f.endswith("left, loss 0.06123]") for f in frames)
    assert not frames[-1].strip()  # nothing stays


def test_a_run_that_continues_counts_only_its_own_steps(shown):
    printed, _ = shown(terminal=False, done=30, epochs=3)
    assert printed.startswith("2 s per step: about 52 s left")
    assert "epoch 2/3: " in printed
    assert ", 20 s, about 40 s left\n" in printed


def test_an_epoch_of_which_only_the_validation_was_left(capsys):
    callback = Progress(_STEMS, 4, 20, 20)
    callback.on_epoch_begin(0)
    callback.on_epoch_end(0, {name: x for name, x in _EPOCH.items() if name.startswith("val_")})
    printed = capsys.readouterr().out
    assert printed.startswith("epoch 1/4: validation 0.07012 (vocals 0.05, drums 0.06")
    assert "left" not in printed


def test_durations():
    shown = {seconds: duration(seconds) for seconds in (0.4, 99, 100, 3600, 86_400)}
    assert list(shown.values()) == ["0 s", "99 s", "2 min", "60 min", "24.0 h"]
