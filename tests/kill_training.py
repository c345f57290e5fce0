"""Kills trainings at random times, as pre-emption does, and checks the files that are left.

  python tests/kill_training.py --kills=20
  python tests/kill_training.py --kills=5 --signals=SIGKILL,SIGTERM

A small network is trained on noise. The run is killed after a random time and started again until
it is finished; then another run begins, until the number of kills is reached. After every kill the
checkpoint must be whole. Every run must finish all epochs and steps, with weights bit-identical to
those of a run that was not stopped. `test_train.py` does the same once.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np
import process

from data_pipeline.audio_writer import write_wav

EPOCHS, STEPS = 3, 20
# Fields of `small_4stems`: a tiny network, epochs of some hundred milliseconds, and all that a run
# which continues must repeat.
CHANGES = {
    "model.filters": (4, 8),
    "model.patch_samples": 16_384,
    "batch_size": 2,
    "epochs": EPOCHS,
    "steps_per_epoch": STEPS,
    "validation_crops": 4,
    "warmup_steps": 1,
    "clip_norm": 0.1,
    "accumulation_steps": 3,
    "ema_momentum": 0.9,
    "patience": 50,
    "best_by": "sdr",
}
_STEMS = ("vocals", "drums", "bass", "other")


def make_data(folder: Path) -> Path:
    """Writes noise: two training tracks and a validation track."""
    rng = np.random.default_rng(0)
    for track in ("train/one", "train/two", "valid/check"):
        for stem in _STEMS:
            noise = 0.1 * rng.standard_normal((2 * 44_100, 2))
            write_wav(folder / track / f"{stem}.wav", noise, 44_100)
    return folder


def flags(data_dir: Path, workdir: Path, changes: Mapping[str, object] = {}) -> list[str]:
    """Returns flags of the training, with `changes` and a checkpoint about every other step."""
    return [
        "--config=small_4stems",
        f"--data_dir={data_dir}",
        f"--workdir={workdir}",
        *(f"--config.{field}={value}" for field, value in {**CHANGES, **changes}.items()),
        "--checkpoint_minutes=0.01",
        "--deterministic",
    ]


def arrays(path: Path) -> dict[str, np.ndarray]:
    """Returns every array of a weights file, by its path in the file."""
    found = {}

    def visit(name, item):
        if isinstance(item, h5py.Dataset):
            found[name] = np.asarray(item)

    with h5py.File(path) as file:
        file.visititems(visit)
    return found


def kill(
    signals: Sequence[signal.Signals],
    wait: Callable[[process.Running, Path], None],
    data_dir: Path,
    whole: Path,
    folder: Path,
) -> list[str]:
    """Kills runs with these signals in turn; returns what went wrong.

    Args:
      signals: one signal per kill.
      wait: function of a program and its workdir that returns when the program is to be killed.
      data_dir: folder of the training tracks.
      whole: workdir of a run that was not stopped.
      folder: folder for the workdirs.
    """
    wrong, hits, runs, within = [], 0, 0, 0
    while hits < len(signals):
        workdir, ended = folder / f"run{runs}", False
        runs += 1
        while not ended:
            running, number = process.start("train", *flags(data_dir, workdir)), None
            if hits < len(signals):
                wait(running, workdir)
                if running.process.exitcode is None:
                    number = signals[hits]
                    os.kill(running.process.pid, number)
                    hits += 1
            done = running.wait()
            last = workdir / "last.weights.h5"
            steps = int(arrays(last)["optimizer/vars/0"]) if last.exists() else 0
            within += bool(number) and 0 < steps < EPOCHS * STEPS
            print(f"exit code {done.returncode}, {steps} of {EPOCHS * STEPS} steps", flush=True)
            text = done.stdout + done.stderr
            # Until there is something to save, SIGTERM just ends the run.
            expected = {-number, *([75] if number == signal.SIGTERM else [])} if number else {0}
            if done.returncode not in expected | {0} or "damaged" in text or "Traceback" in text:
                return [*wrong, f"exit code {done.returncode}\n{text}"]
            ended = done.returncode == 0
            if number and workdir.exists():  # leftovers of a kill during writing
                for name in (".last.weights.h5", ".best.weights.h5", ".0123456789abcdef.part"):
                    (workdir / name).write_text("half")
        wrong += differences(workdir, whole)
    print(f"{hits} kills of {runs} runs, {within} of them between the first step and the last")
    return wrong


def differences(workdir: Path, whole: Path) -> list[str]:
    """Returns differences from the workdir of a run that was not stopped."""
    for name in ("previous.weights.h5", "best.weights.h5"):
        arrays(workdir / name)  # can be opened
    found, truth = (arrays(f / "last.weights.h5") for f in (workdir, whole))
    wrong = []
    if int(found["optimizer/vars/0"]) != EPOCHS * STEPS:
        wrong.append(f"{found['optimizer/vars/0']} steps, expected {EPOCHS * STEPS}")
    different = [name for name in truth if not np.array_equal(found.get(name), truth[name])]
    if different:
        wrong.append(f"{len(different)} of {len(truth)} arrays differ, such as {different[:3]}")
    return wrong


def main() -> None:
    """Prints what went wrong; exits with 1 if anything did."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--signals", default="SIGKILL", help="such as SIGKILL,SIGTERM: in turn")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    names = given.signals.split(",")
    signals = [signal.Signals[names[i % len(names)]] for i in range(given.kills)]
    rng = np.random.default_rng(given.seed)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        data_dir, whole = make_data(folder / "data"), folder / "whole"
        began = time.monotonic()
        done = process.run("train", *flags(data_dir, whole))
        seconds = time.monotonic() - began
        if done.returncode:
            sys.exit(f"the run that nobody stopped: exit code {done.returncode}\n{done.stderr}")

        def wait(running: process.Running, _: Path) -> None:
            running.process.join(rng.uniform(0.1, 1) * seconds)

        wrong = kill(signals, wait, data_dir, whole, folder)
    print("\n".join(wrong) or "all as it should be")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
