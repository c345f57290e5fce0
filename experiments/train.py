r"""Trains a network on a data directory.

Examples:
  python -m experiments.train --config=experiments/configs/paper_4stems.py \
      --data_dir=DATA --workdir=RUN
  python -m experiments.train --config=experiments/configs/small_2stems.py \
      --data_dir=DATA --workdir=RUN --config.batch_size=2 --tracks=one,two
  python -m experiments.train --config=experiments/configs/paper_4stems.py \
      --data_dir=MY_STEMS --workdir=TUNED --init_from=RUN

  TF_CONFIG='{"cluster": {"worker": ["host1:2222", "host2:2222"]},
              "task": {"type": "worker", "index": 0}}' \
      python -m experiments.train --strategy=multiworker --config=... --data_dir=... --workdir=...

Run again with the same flags, it continues from the last checkpoint in the workdir. SIGTERM saves
one and ends it with exit code 75: run it again.
"""

import dataclasses
import io
import json
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from absl import flags, logging
from ml_collections import config_flags

from experiments import cli
from sccunet.config import STRATEGIES, Config, ConfigError
from sccunet.files import write_whole
from sccunet.runs import load_config

# EX_TEMPFAIL of sysexits.h: saved, and worth running again.
PREEMPTED = 75


def train(
    config: Config,
    data_dir: str,
    workdir: str,
    names: Sequence[str] = (),
    init_from: str | None = None,
    strategy: str = "auto",
    tpu: str | None = None,
    deterministic: bool = False,
    checkpoint_minutes: float | None = None,
) -> None:
    """Trains until `config.epochs` epochs are done, continuing where the workdir has a checkpoint.

    Args:
      config: the run's.
      data_dir: tracks in the MUSDB18-HQ layout.
      workdir: where config, weights and logs are written.
      names: of the tracks to train on; without them the training split.
      init_from: start from these weights, of a workdir or a file.
      strategy, tpu: as `sccunet.distribution.make_strategy` has them.
      deterministic: the same run gives the same weights, to the bit.
      checkpoint_minutes: see `sccunet.checkpoints.Checkpoint`.

    Raises:
      AudioError: for data that cannot be trained on, before training starts; for a file that turns
        bad while it runs.
      ConfigError: for a workdir of another run, weights that do not fit, devices that are not
        there, or a loss or gradients that are no finite numbers.
      SystemExit: with `PREEMPTED`, when SIGTERM has stopped it and all is saved, or another worker
        has vanished.
    """
    workdir = Path(workdir)
    before = signal.signal(
        signal.SIGTERM, lambda *_: _leave("stopped before the first step", workdir)
    )
    try:
        _train(
            *(config, data_dir, workdir, names, init_from),
            *(strategy, tpu, deterministic, checkpoint_minutes),
        )
    except Exception as error:
        if not _is_of_workers(error, strategy):
            raise
        reason = re.sub(r"{{.*?}} ", "", str(error).splitlines()[0])[:200]
        _leave(f"another worker is gone ({reason})", workdir)
    finally:
        signal.signal(signal.SIGTERM, before)


def _is_of_workers(error: Exception, strategy: str) -> bool:
    """Whether it is what those see whose fellow worker has vanished."""
    if not os.environ.get("TF_CONFIG") or strategy not in ("auto", "multiworker"):
        return False
    import tensorflow as tf

    kinds = ("Unavailable", "Aborted", "Cancelled", "DeadlineExceeded", "Internal")
    return isinstance(error, tuple(getattr(tf.errors, f"{kind}Error") for kind in kinds))


def _train(
    config, data_dir, workdir, names, init_from, strategy, tpu, deterministic, checkpoint_minutes
) -> None:
    from data_pipeline import splits, tracks

    if len(config.model.stems) < 2:
        raise ConfigError(
            f"config.model.stems: found {config.model.stems}, expected at least two to train on:"
            " the mixture is their sum"
        )
    training, validation, how = splits.training_split(data_dir, config, names)
    print(how)
    tracks.check_finite([segment.track for segment in training + validation])
    devices = _devices(config, strategy, tpu, deterministic)
    config = _resolve(config, workdir, data_dir, training, validation, how)
    if not config.loss_weights:
        from data_pipeline.volumes import training_volumes
        from sccunet.losses import balancing_weights

        weights = balancing_weights(training_volumes(training, config, data_dir))
        config = dataclasses.replace(config, loss_weights=tuple(weights.tolist()))
    weights = zip(config.model.stems, config.loss_weights, strict=True)
    print("loss weights:", ", ".join(f"{stem} {alpha:.3f}" for stem, alpha in weights))
    _fit(config, workdir, training, validation, init_from, devices, checkpoint_minutes)


def _devices(config: Config, name: str, tpu: str | None, deterministic: bool):
    """The strategy, made before TensorFlow computes anything."""
    import tensorflow as tf

    from sccunet.distribution import make_strategy

    if deterministic:
        tf.config.experimental.enable_op_determinism()
    strategy, about = make_strategy(name, tpu)
    print(f"strategy: {about}")
    replicas = strategy.num_replicas_in_sync
    if config.batch_size % replicas:
        raise ConfigError(
            f"config.batch_size: found {config.batch_size}, expected a multiple of the {replicas}"
            " replicas that share it"
        )
    if (
        config.jit_compile
        and replicas > 1
        and all("CPU" in device for device in strategy.extended.worker_devices)
    ):
        raise ConfigError(
            f"config.jit_compile: found True with {replicas} replicas on CPUs, expected False: XLA"
            " cannot add up gradients between CPUs"
        )
    return strategy


def _fit(config, workdir, training, validation, init_from, strategy, checkpoint_minutes) -> None:
    import keras
    import numpy as np
    import tensorflow as tf

    from data_pipeline import dataset, readers
    from sccunet import checkpoints, distribution
    from sccunet.loop import FiniteGuard, NotFiniteError, run_epochs
    from sccunet.tensorboard import TensorBoard
    from sccunet.training import compile_trainer
    from sccunet.unet import build_model

    keras.utils.set_random_seed(config.seed)
    steps = dataset.steps_per_epoch(training, config)
    with strategy.scope():
        unet = build_model(config.model, config.precision, config.synchronized_norm)
        trainer = compile_trainer(unet, config, config.loss_weights, steps)
    loaded = checkpoints.load_newest(trainer, workdir, lambda line: logging.warning("%s", line))
    if init_from and not loaded:
        path = Path(init_from)
        checkpoints.load_weights(unet, path / checkpoints.BEST if path.is_dir() else path)
    first_step, epoch = int(trainer.optimizer.iterations.numpy()), int(trainer.epochs_done.numpy())
    several = distribution.is_multiworker(strategy)
    if several and not distribution.same_everywhere(strategy, (first_step, epoch)):
        raise ConfigError(
            f"{workdir}: found step {first_step} here and another one on another worker, expected a"
            " folder that all of them see"
        )
    note = ""
    if loaded:
        note = f"continuing from epoch {epoch} of {config.epochs}"
        if within := first_step - epoch * steps:
            note += f" and {within} of {steps} steps"
        print(f"{note} in {loaded}", flush=True)
    chief = distribution.is_chief(strategy)
    if chief:
        write_whole(workdir / "config.json", config.to_json())
    if epoch >= config.epochs:
        print(f"all {config.epochs} epochs are done: {workdir}")
        return

    crops = dataset.fixed_crops(validation, config, config.validation_crops)
    replicas = strategy.num_replicas_in_sync
    # Whole batches alone, divided among the replicas: the compiled step knows one shape.
    batch_size = min(config.batch_size, len(crops)) // replicas * replicas
    if not batch_size:
        raise ConfigError(
            f"--strategy: found {replicas} replicas, expected no more than the {len(crops)}"
            " validation crops"
        )
    crops = crops[: len(crops) // batch_size * batch_size]
    shown = [crops[i] for i in np.unique(np.linspace(0, len(crops) - 1, 3).round().astype(int))]
    shown = next(iter(dataset.fixed_dataset(validation, config, shown, len(shown)))).numpy()

    def batches(context=None):
        return dataset.training_dataset(
            training, config, int(trainer.optimizer.iterations.numpy()), context=context
        )

    def validation_batches(context=None):
        return dataset.fixed_dataset(validation, config, crops, batch_size, context=context)

    checkpoint = checkpoints.Checkpoint(workdir, checkpoint_minutes, writes=chief)
    if several:
        checkpoint.agree = distribution.agree(strategy)

    def callbacks(epoch: int, note: str = "") -> list:
        board = TensorBoard(str(workdir / "tensorboard"), shown, epoch, note)
        # The guard comes first: what it refuses is not saved.
        return [FiniteGuard(), checkpoint, *([board] if chief else [])]

    verbose = 0 if not chief else 1 if sys.stdout.isatty() else 2
    signal.signal(signal.SIGTERM, lambda *_: checkpoint.preempt())
    try:
        if several or first_step > epoch * steps:
            distribute = strategy.distribute_datasets_from_function
            until = config.epochs if several else epoch + 1
            run_epochs(
                *(trainer, strategy, distribute(batches), distribute(validation_batches)),
                *(steps, until, callbacks(epoch, note), verbose),
            )
            epoch, note = until, ""
        if epoch < config.epochs:
            trainer.fit(
                batches(),
                steps_per_epoch=steps,
                shuffle=False,  # the stream has its order
                initial_epoch=epoch,
                epochs=config.epochs,
                validation_data=validation_batches(),
                callbacks=callbacks(epoch, note),
                verbose=verbose,
            )
    except NotFiniteError as error:
        line = (
            f"{workdir}: the {error.what} became NaN or infinite at step {error.step}"
            f" (epoch {error.step // steps + 1})"
        )
        if chief and error.what != "validation loss":
            line += _bad_batch(workdir, training, config, error.step)
        raise ConfigError(line) from error
    except tf.errors.OpError as error:
        if found := readers.error_of(error):
            raise found from error
        raise
    except checkpoints.PreemptedError as error:
        _leave(str(error), workdir)
    print(f"best and last weights, config and TensorBoard logs: {workdir}")


def _leave(why: str, workdir: Path) -> NoReturn:
    print(f"{why}; run it again to go on: {workdir}", file=sys.stderr, flush=True)
    sys.exit(PREEMPTED)


def _bad_batch(workdir: Path, training, config: Config, step: int) -> str:
    """Keeps the batch of a step beside the run; the rest of the line that tells of it."""
    import numpy as np
    import tensorflow as tf

    from data_pipeline import readers
    from data_pipeline.dataset import training_batch

    try:
        waveforms, origins = training_batch(training, config, step)
    except tf.errors.OpError as error:
        return f"; its batch cannot be read again ({readers.error_of(error) or error})"
    files = [[path for path, _ in crop] for crop in origins]
    starts = [[start for _, start in crop] for crop in origins]
    content = io.BytesIO()
    np.savez(content, waveforms=waveforms, files=files, starts=starts)
    path = workdir / f"bad_batch_{step}.npz"
    try:
        write_whole(path, content.getvalue())
        kept = f"is kept in {path}"
    except OSError as error:
        kept = f"cannot be kept ({error.strerror})"
    bad = [not np.isfinite(crop).all() for crop in waveforms]
    concerned = [crop for crop, is_bad in zip(files, bad, strict=True) if is_bad or not any(bad)]
    tracks = sorted({Path(file).parent.name for crop in concerned for file in crop})
    return (
        f"; its batch {kept}"
        + (", with NaN or infinity in crops of " if any(bad) else ", with crops of ")
        + ", ".join(tracks)
        + ("" if any(bad) else "; a lower config.learning_rate, in another --workdir, may help")
    )


def _resolve(config: Config, workdir: Path, data_dir, training, validation, how) -> Config:
    """The config of the run in `workdir`, if there is one and it is the same run."""
    data = {
        "data_dir": str(Path(data_dir).resolve()),
        "split": how,
        "training": [[s.track.split, s.track.name, s.start, s.frames] for s in training],
        "validation": [[s.track.split, s.track.name, s.start, s.frames] for s in validation],
    }
    config_path, data_path = workdir / "config.json", workdir / "data.json"
    if config_path.exists():
        before = load_config(workdir)
        given = config.to_dict()
        for field, was in before.to_dict().items():
            same = given[field] == was or (field == "loss_weights" and not config.loss_weights)
            if not same and field != "epochs":
                raise ConfigError(
                    f"{config_path}: the run there has {field} = {was}, found {given[field]};"
                    " expected the same, or another --workdir"
                )
        was = json.loads(data_path.read_text())
        if (was["training"], was["validation"]) != (data["training"], data["validation"]):
            raise ConfigError(
                f"{data_path}: the run there has other training or validation tracks;"
                " expected the same, or another --workdir"
            )
        return dataclasses.replace(before, epochs=config.epochs)
    write_whole(data_path, json.dumps(data, indent=1) + "\n")
    return config


def main(_: Sequence[str]) -> None:
    """Checks the flags and trains."""
    if _CONFIG.value is None:
        raise ConfigError(
            "--config: missing, expected a file such as experiments/configs/small_4stems.py"
        )
    train(
        Config.from_dict(_CONFIG.value),
        _DATA_DIR.value,
        _WORKDIR.value,
        names=_TRACKS.value,
        init_from=_INIT_FROM.value,
        strategy=_STRATEGY.value,
        tpu=_TPU.value,
        deterministic=_DETERMINISTIC.value,
        checkpoint_minutes=_CHECKPOINT_MINUTES.value,
    )


if __name__ == "__main__":
    _CONFIG = config_flags.DEFINE_config_file("config", None, "What to train: a file of configs/.")
    _DATA_DIR = flags.DEFINE_string(
        "data_dir", None, "Tracks in the MUSDB18-HQ layout: train/<track>/<stem>.wav", required=True
    )
    _WORKDIR = flags.DEFINE_string(
        "workdir", None, "Where config, weights and TensorBoard logs are written.", required=True
    )
    _TRACKS = flags.DEFINE_list("tracks", [], "Train on these tracks alone, wherever they lie.")
    _INIT_FROM = flags.DEFINE_string(
        "init_from", None, "Start from the weights of a workdir or of a .weights.h5 file."
    )
    _STRATEGY = flags.DEFINE_enum(
        "strategy",
        "auto",
        STRATEGIES,
        "Where to compute. auto: several workers if TF_CONFIG names them, a TPU if --tpu is given,"
        " all GPUs, or the CPU. mirrored: all GPUs of this machine. multiworker: all machines of"
        " TF_CONFIG.",
    )
    _TPU = flags.DEFINE_string("tpu", None, "Name or address of a TPU; local on a TPU VM.")
    _DETERMINISTIC = flags.DEFINE_boolean(
        "deterministic", False, "Give the same weights to the bit each time; slower."
    )
    _CHECKPOINT_MINUTES = flags.DEFINE_float(
        "checkpoint_minutes",
        10.0,
        "Write a checkpoint within epochs, too: what a killed run loses at most.",
        lower_bound=0.0,
    )
    cli.run(main)
