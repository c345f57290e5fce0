"""Trains a small network on noise under any backend of Keras; `test_jax.py` runs it under JAX.

  PYTHONPATH=.:tests python tests/jax_training.py OUT
  KERAS_BACKEND=jax XLA_FLAGS=--xla_force_host_platform_device_count=4 \
      PYTHONPATH=.:tests python tests/jax_training.py OUT more

It prints JSON: the losses after each step (means since the start of the epoch), and validations.
With "more", also those of a run that is stopped and continues, and of one on all devices, the
steps after which the host has read from the device, and how patches were separated.
"""

import contextlib
import io
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np

from data_pipeline.audio_writer import write_wav
from experiments.training import run
from experiments.training.options import TrainOptions
from sccunet.config import AugmentConfig, Config, ModelConfig
from sccunet.patching import Patching

STEPS, EPOCHS, STOPPED = 5, 2, 7
CONFIG = Config(
    model=ModelConfig(
        stems=("vocals", "drums"),
        filters=(2, 4),
        patch_samples=4096,
        frame_length=512,
        hop_length=128,
        dropout=0.0,
    ),
    augment=AugmentConfig(gain_db=3.0, channel_swap=True, mix_tracks=0.5),
    downmix=False,
    loss_weights=(0.5, 0.5),
    batch_size=4,
    epochs=EPOCHS,
    steps_per_epoch=STEPS,
    validation_crops=4,
    learning_rate=2e-3,
    clip_norm=0.02,
    ema_momentum=0.5,
    check_steps=1,
)


def make_data(folder: Path) -> Path:
    """Writes noise: two training tracks and a validation track."""
    rng = np.random.default_rng(0)
    for track in ("train/one", "train/two", "valid/check"):
        for stem, level in (("vocals", 0.2), ("drums", 0.1)):
            noise = level * rng.standard_normal((22_050, 2))
            write_wav(folder / track / f"{stem}.wav", noise, 44_100)
    return folder


def write_initial(path: Path) -> Path:
    """Writes weights that do not depend on the backend's random numbers."""
    from sccunet import build_model
    from sccunet.checkpoints import save_whole

    unet, rng = build_model(CONFIG), np.random.default_rng(0)
    for weight in unet.trainable_weights:
        value = 0.3 * rng.standard_normal(weight.shape)
        weight.assign(1 + value if weight.path.endswith("gamma") else value)
    path.parent.mkdir(exist_ok=True)
    save_whole(unet, path)
    return path


def train(data: Path, workdir: Path, initial: Path, strategy: str, stop: int = 0) -> dict:
    """Trains; returns losses and validations. A number to stop at sends SIGTERM after that step."""
    from experiments.training import fit
    from sccunet import finite

    noted = {"losses": [], "val_loss": [], "val_sdr": []}

    class Noted(finite.FiniteGuard):
        def on_train_batch_end(self, batch, logs=None):
            super().on_train_batch_end(batch, logs)
            noted["losses"].append(float(logs["loss"]))
            if len(noted["losses"]) == stop:
                os.kill(os.getpid(), signal.SIGTERM)

        def on_epoch_end(self, epoch, logs=None):
            for name in ("val_loss", "val_sdr"):
                noted[name].append(float(logs[name]))

    fit.FiniteGuard = Noted
    printed = io.StringIO()
    options = TrainOptions(data, workdir, init_from=initial, strategy=strategy)
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(printed):
        run.train(CONFIG, options)
    return {**noted, "printed": printed.getvalue()}


def steps_without_the_host() -> list[int]:
    """Makes 40 steps under JAX's guard; returns after which of them the host read from a device."""
    import jax
    import keras
    from jax._src.array import ArrayImpl

    from sccunet import build_model, finite
    from sccunet.loop import callbacks_of
    from sccunet.training import compile_trainer

    trainer = compile_trainer(build_model(CONFIG), CONFIG, CONFIG.loss_weights, 40)
    read, reads, steps = ArrayImpl._value, [], [0]

    class Count(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            steps[0] += 1

    def noted(array):
        reads.append(steps[0])
        # The guard takes no notice of CPUs, but of GPUs and TPUs.
        with jax.transfer_guard_device_to_host("allow" if steps[0] % 20 == 0 else "disallow"):
            return read.fget(array)

    batch = np.zeros((4, 2, 1, CONFIG.model.patch_samples), np.float32)
    ArrayImpl._value = property(noted)
    try:
        with jax.transfer_guard_device_to_host("disallow"):
            callbacks = callbacks_of(trainer, [Count(), finite.FiniteGuard(20)], 1, 40)
            stream = ((batch,) for _ in range(99))
            trainer.fit(stream, steps_per_epoch=40, callbacks=callbacks, verbose=0)
    finally:
        ArrayImpl._value = read
    return sorted(set(reads))


def separate_in_batches() -> dict:
    """Separates patches compiled; returns how often, and how far they are from NumPy's."""
    from sccunet import build_model, reconstruction, spectral

    def noted(*arguments):
        compiled.append(1)
        return separate_patches(*arguments)

    compiled, separate_patches = [], spectral.separate_patches
    unet, how = build_model(CONFIG), reconstruction.Reconstruction()
    patches = np.random.default_rng(0).standard_normal((7, 1, CONFIG.model.patch_samples))
    patches = patches.astype(np.float32)
    by_numpy = reconstruction.numpy_patch_separator(
        lambda magnitudes, training: np.asarray(unet(magnitudes)), CONFIG.model, how
    )
    expected = by_numpy(patches)
    spectral.separate_patches = noted
    separate = reconstruction.patch_separator(unet, CONFIG.model, how, batch_size=5)
    found = [separate(patches), separate(patches[:1])]
    spectral.separate_patches = separate_patches
    kept = Patching.of(CONFIG.model).kept  # at the edges the inverse STFTs differ
    differences = [np.abs(x - expected[: len(x)])[..., kept].max() for x in found]
    largest = np.abs(expected).max()
    return {"compiled": len(compiled), "differences": [float(x / largest) for x in differences]}


def main(out: str, more: str = "") -> None:
    """Trains, and prints JSON."""
    out = Path(out)
    data, initial = make_data(out / "data"), write_initial(out / "start" / "best.weights.h5")
    found = {"whole": train(data, out / "whole", initial, "auto")}
    if more:
        for name, stop in (("stopped", STOPPED), ("continued", 0)):
            found[name] = train(data, out / "again", initial, "auto", stop)
        found["reads"] = steps_without_the_host()
        found["separation"] = separate_in_batches()
        found["shared"] = train(data, out / "shared", initial, "mirrored")
    found["modules"] = [name for name in ("tensorflow", "jax") if name in sys.modules]
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
