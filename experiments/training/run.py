"""A training run as a process: checks, devices, signals, and the exit code of an unfinished run.

Nothing here imports TensorFlow before data and config have been checked.
"""

import contextlib
import dataclasses
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from data_pipeline.tracks import Segment
from experiments.training import records, stopping
from experiments.training.options import TrainOptions
from sccunet import cluster
from sccunet.checks import counted
from sccunet.config import Config, ConfigError
from sccunet.files import lock_folder

# EX_TEMPFAIL of sysexits.h: all is saved, and the run can be continued.
PREEMPTED = 75


def train(config: Config, options: TrainOptions) -> None:
    """Trains until `config.epochs` epochs are done, continuing from a checkpoint in the workdir.

    Raises:
      AudioError: before training starts, for data that cannot be trained on; later, for a file that
        becomes unreadable.
      ConfigError: for a workdir of another run or in use, weights that do not fit, missing devices
        or a missing reader, or a loss or gradients that are not finite.
      SystemExit: with `PREEMPTED`, when SIGTERM or Ctrl-C has stopped the run and everything is
        saved, or when another worker has disappeared.
    """
    try:
        with stopping.stoppable(), contextlib.ExitStack() as held:
            stopping.on_signal(lambda: _leave("stopped before the first step", options.workdir))
            _train(config, options, held)
    except Exception as error:
        if not _is_of_workers(error, options.strategy):
            raise
        reason = re.sub(r"{{.*?}} ", "", str(error).splitlines()[0])[:200]
        _leave(f"another worker is gone ({reason})", options.workdir)


def _leave(why: str, workdir: Path) -> NoReturn:
    print(f"{why}; run again to continue: {workdir}", file=sys.stderr, flush=True)
    sys.exit(PREEMPTED)


def _is_of_workers(error: Exception, strategy: str) -> bool:
    """Whether an error is of the kinds that are raised when another worker has disappeared."""
    if not cluster.spans(strategy):
        return False
    import tensorflow as tf

    kinds = ("Unavailable", "Aborted", "Cancelled", "DeadlineExceeded", "Internal")
    return isinstance(error, tuple(getattr(tf.errors, f"{kind}Error") for kind in kinds))


def _lock(options: TrainOptions, held: contextlib.ExitStack) -> None:
    """Locks the workdir, or refuses it; each worker of a run has a lock of its own."""
    worker = cluster.later_worker() if cluster.spans(options.strategy) else ""
    ours = held.enter_context(lock_folder(options.workdir, f".lock{'-' * bool(worker)}{worker}"))
    if ours is False:  # None: the file system has no locks
        raise ConfigError(
            f"{options.workdir}: found another run that trains in it, expected a --workdir that no"
            " run uses"
        )


def _train(config: Config, options: TrainOptions, held: contextlib.ExitStack) -> None:
    """Trains; `held` keeps the workdir's lock."""
    from data_pipeline import splits, tracks

    if len(config.model.stems) < 2:
        raise ConfigError(
            f"config.model.stems: found {config.model.stems}, expected at least two to train on:"
            " the mixture is their sum"
        )
    workdir, data_dirs = options.workdir, options.data_dirs
    if there := workdir.is_dir():  # otherwise it is made when data and devices have been checked
        _lock(options, held)
    training, validation, how = splits.training_split(data_dirs, config, options.tracks)
    print(how)
    tracks.check_finite([segment.track for segment in training + validation])
    # TensorFlow or JAX are imported from here on.
    reader = _reader(config, options)
    strategy = devices(config, options)
    _check_steps(config, training)
    initial = _initial_weights(config, options)
    if not there:
        workdir.mkdir(parents=True, exist_ok=True)
        _lock(options, held)
    config = records.resolve(config, workdir, data_dirs, training, validation, how)

    from data_pipeline import volumes
    from experiments.training.fit import fit
    from sccunet.checkpoints import PreemptedError
    from sccunet.losses import loss_weights

    weights = loss_weights(config, lambda: volumes.training_volumes(training, config, data_dirs))
    training = volumes.with_silence(training, config, data_dirs)
    config = dataclasses.replace(config, loss_weights=weights)
    named = zip(config.model.stems, weights, strict=True)
    print("loss weights:", ", ".join(f"{stem} {alpha:.3f}" for stem, alpha in named))
    try:
        fit(config, options, strategy, reader, training, validation, initial)
    except PreemptedError as error:
        _leave(str(error), workdir)


def _check_steps(config: Config, training: Sequence[Segment]) -> None:
    """Raises ConfigError for numbers of steps that do not suit those of the run."""
    from data_pipeline.places import steps_per_epoch

    of_epoch = steps_per_epoch(training, config)
    if of_epoch % config.steps_per_execution:
        raise ConfigError(
            f"config.steps_per_execution: found {config.steps_per_execution}, expected a divisor of"
            f" the {counted(of_epoch, 'step')} of an epoch"
        )
    steps = config.epochs * of_epoch
    if config.warmup_steps >= steps:
        raise ConfigError(
            f"config.warmup_steps: found {config.warmup_steps}, expected less than the"
            f" {counted(steps, 'step')} of the run"
        )


def _initial_weights(config: Config, options: TrainOptions):
    """Returns the weights of --init_from; None without it, or if the run has a checkpoint."""
    from experiments.training.initial import initial_weights
    from sccunet.checkpoints import has_checkpoint

    if not options.init_from or has_checkpoint(options.workdir):
        return None
    initial, told = initial_weights(config, options.init_from)
    print(told)
    return initial


def _reader(config: Config, options: TrainOptions):
    """Returns the reader of WAV files for tf.data; None where TensorFlow is not installed."""
    from data_pipeline import loader, readers

    if loader.has_tensorflow():
        return readers.reader_named(options.reader)
    if options.reader != "mmap":
        raise ConfigError(f"--reader={options.reader}: given, expected mmap without TensorFlow")
    return None


def devices(config: Config, options: TrainOptions):
    """Makes the run's strategy, which must happen before anything is computed.

    Returns:
      A `tf.distribute.Strategy` or, with KERAS_BACKEND=jax, `sccunet.jax_devices.JaxDevices`.

    Raises:
      ConfigError: if its devices are missing, or the config does not suit it.
    """
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    if backend == "jax":
        if options.deterministic:
            flags = os.environ.get("XLA_FLAGS", "")
            os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_deterministic_ops=true".strip()
        from sccunet.jax_devices import make_devices as make
    elif backend == "tensorflow":
        from sccunet.distribution import make_strategy as make

        if options.deterministic:
            import tensorflow as tf

            tf.config.experimental.enable_op_determinism()
    else:
        raise ConfigError(f"KERAS_BACKEND: found {backend}, expected tensorflow or jax")
    strategy, about = make(options.strategy, options.tpu)
    print(f"strategy: {about}")
    _check_replicas(config, strategy)
    return strategy


def _check_replicas(config: Config, strategy) -> None:
    """Raises ConfigError if a config does not suit the number of replicas."""
    replicas = strategy.num_replicas_in_sync
    if config.batch_size % replicas:
        raise ConfigError(
            f"config.batch_size: found {config.batch_size}, expected a multiple of the {replicas}"
            " replicas that share a batch"
        )
    if not hasattr(strategy, "extended"):  # JAX's have no other limits
        return
    if config.accumulation_steps > 1 and replicas > 1:
        raise ConfigError(
            f"config.accumulation_steps: found {config.accumulation_steps} with {replicas}"
            " replicas, expected 1: Keras accumulates gradients on one device only"
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
