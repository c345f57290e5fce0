"""Kills trainings at random moments and looks at what is left, as pre-empted machines do it.

  python tests/kill_training.py --kills=20
  python tests/kill_training.py --kills=5 --signals=SIGKILL,SIGTERM

A small network is trained on noise. The run is killed after a random time and started again, until
it has ended; then another run is begun, until there were so many kills. After every kill the
checkpoint must be whole, and every run must end with all epochs and steps done, with the weights of
a run that nobody stopped, to the bit.
"""

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

from data_pipeline import audio

EPOCHS, STEPS = 3, 20
_ROOT = Path(__file__).parents[1]
_STEMS = ("vocals", "drums", "bass", "other")


def make_data(folder: Path) -> Path:
    """Noise: two tracks to train on, one to validate on."""
    rng = np.random.default_rng(0)
    for track in ("train/one", "train/two", "valid/check"):
        for stem in _STEMS:
            noise = 0.1 * rng.standard_normal((2 * 44_100, 2))
            audio.write_wav(folder / track / f"{stem}.wav", noise, 44_100)
    return folder


def command(data_dir: Path, workdir: Path) -> list[str]:
    """Of the training, with checkpoints after every other step or so."""
    return [
        *(sys.executable, "-m", "experiments.train"),
        "--config=experiments/configs/small_4stems.py",
        f"--data_dir={data_dir}",
        f"--workdir={workdir}",
        "--config.model.filters=(4, 8)",
        "--config.model.patch_samples=16384",
        "--config.batch_size=2",
        f"--config.epochs={EPOCHS}",
        f"--config.steps_per_epoch={STEPS}",
        "--config.validation_crops=4",
        "--checkpoint_minutes=0.01",
        "--deterministic",
    ]


def arrays(path: Path) -> dict[str, np.ndarray]:
    """Every array of a weights file, by its place there."""
    found = {}

    def visit(name, item):
        if isinstance(item, h5py.Dataset):
            found[name] = np.asarray(item)

    with h5py.File(path) as file:
        file.visititems(visit)
    return found


def _start(line: list[str]) -> subprocess.Popen:
    return subprocess.Popen(
        line, cwd=_ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def run(kills: int, signals: list[signal.Signals], seed: int, folder: Path) -> list[str]:
    """Kills so many times, by the signals in turn; what was not as it should be."""
    data_dir, whole = make_data(folder / "data"), folder / "whole"
    rng, wrong = np.random.default_rng(seed), []
    began = time.monotonic()
    done = _start(command(data_dir, whole))
    text = done.communicate()[0]
    if done.returncode:
        return [f"the run that nobody stopped: exit code {done.returncode}\n{text}"]
    seconds = time.monotonic() - began
    hits = runs = within = 0
    while hits < kills:
        workdir = folder / f"run{runs}"
        runs += 1
        while True:
            process = _start(command(data_dir, workdir))
            number = signals[hits % len(signals)]
            if hits < kills:
                # From the first imports to the last steps.
                delay = rng.uniform(0.3, 1) * seconds
                try:
                    text = process.communicate(timeout=delay)[0]
                except subprocess.TimeoutExpired:
                    process.send_signal(number)
                    text = process.communicate()[0]
            else:
                text = process.communicate()[0]
            last = workdir / "last.weights.h5"
            steps = int(arrays(last)["optimizer/vars/0"]) if last.exists() else 0
            print(f"exit code {process.returncode}, {steps} of {EPOCHS * STEPS} steps", flush=True)
            if "damaged" in text or "Traceback" in text:
                wrong.append(text)
            if process.returncode == 0:
                break
            hits += 1
            within += 0 < steps < EPOCHS * STEPS
            # SIGTERM ends it as it is until there is something to save.
            if process.returncode not in {-number, *([75] if number == signal.SIGTERM else [])}:
                wrong.append(f"exit code {process.returncode}\n{text}")
                break
        wrong += differences(workdir, whole)
    print(f"{hits} kills of {runs} runs, {within} of them between the first step and the last")
    return wrong


def differences(workdir: Path, whole: Path) -> list[str]:
    """What is not as in the workdir of the run that nobody stopped."""
    for name in ("previous.weights.h5", "best.weights.h5"):
        arrays(workdir / name)  # opens
    found, truth = (arrays(f / "last.weights.h5") for f in (workdir, whole))
    wrong = []
    if int(found["optimizer/vars/0"]) != EPOCHS * STEPS:
        wrong.append(f"{found['optimizer/vars/0']} steps, expected {EPOCHS * STEPS}")
    different = [name for name in truth if not np.array_equal(found.get(name), truth[name])]
    if different:
        wrong.append(f"{len(different)} of {len(truth)} arrays differ, such as {different[:3]}")
    return wrong


def main() -> None:
    """Says what was wrong, and exits with 1 if anything was."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--signals", default="SIGKILL", help="such as SIGKILL,SIGTERM: in turn")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        signals = [signal.Signals[name] for name in given.signals.split(",")]
        wrong = run(given.kills, signals, given.seed, Path(folder))
    print("\n".join(wrong) or "all as it should be")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
