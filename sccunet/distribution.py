"""Chooses the devices of a run: from a flag's value to a `tf.distribute` strategy.

`sccunet.jax_devices` does it for Keras's JAX backend. TensorFlow is imported by the functions.
"""

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from sccunet import cluster
from sccunet.checks import counted
from sccunet.config import ConfigError

if TYPE_CHECKING:
    import tensorflow as tf


def make_strategy(name: str, tpu: str | None = None) -> "tuple[tf.distribute.Strategy, str]":
    """Makes a strategy, and a description of it for the log.

    TensorFlow must not have computed anything before this call.

    Args:
      name: one of `config.STRATEGIES`. "cpu" and "gpu" use one device. "mirrored" uses all GPUs of
        this machine or, if there are none, its logical CPUs; "multiworker" does the same on every
        machine in the environment's TF_CONFIG. "tpu" uses a TPU. "auto" chooses "tpu" if `tpu` is
        given, "multiworker" if TF_CONFIG names more than one worker, "mirrored" for several GPUs,
        "gpu" for one, and otherwise "cpu".
      tpu: name or address of the TPU; "local" is the TPU of a TPU VM.

    Raises:
      ConfigError: if there is no such device, or TF_CONFIG is invalid.
    """
    import tensorflow as tf

    gpus, workers, why = tf.config.list_physical_devices("GPU"), cluster.workers(), ""
    if tpu and name not in ("auto", "tpu"):
        raise ConfigError(f"--tpu: found --strategy={name}, expected --strategy=tpu")
    if name == "auto":
        name = (
            "tpu"
            if tpu
            else "multiworker"
            if workers > 1
            else "mirrored"
            if len(gpus) > 1
            else "gpu"
            if gpus
            else "cpu"
        )
        found = f"TF_CONFIG with {workers} workers" if workers > 1 else counted(len(gpus), "GPU")
        why = f" (auto: found {found})"
    strategy = _strategy_named(name, tpu, gpus, workers)
    replicas = strategy.num_replicas_in_sync
    return strategy, f"{name}{why}, {counted(replicas, 'replica')}"


def _strategy_named(
    name: str, tpu: str | None, gpus: Sequence["tf.config.PhysicalDevice"], workers: int
) -> "tf.distribute.Strategy":
    """A case for each of `config.STRATEGIES` but "auto"."""
    import tensorflow as tf

    if name == "multiworker" and not workers:
        raise ConfigError(
            "--strategy=multiworker: found no TF_CONFIG in the environment, expected JSON such as"
            ' {"cluster": {"worker": ["host1:2222", "host2:2222"]},'
            ' "task": {"type": "worker", "index": 0}}'
        )
    if name == "gpu" and not gpus:
        raise ConfigError(
            "--strategy=gpu: found no GPU, expected one (--strategy=auto uses any device)"
        )
    if name in ("cpu", "gpu"):
        tf.config.set_visible_devices(gpus[:1] if name == "gpu" else [], "GPU")
        return tf.distribute.get_strategy()
    if name == "mirrored":
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    if name == "multiworker":
        try:
            return tf.distribute.MultiWorkerMirroredStrategy()
        except (tf.errors.OpError, ValueError, RuntimeError) as error:
            raise ConfigError(f"TF_CONFIG: cannot be used ({_reason(error)})") from error
    return _tpu_strategy(tpu or "local")


def _tpu_strategy(tpu: str) -> "tf.distribute.Strategy":
    import tensorflow as tf

    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (tf.errors.OpError, ValueError, RuntimeError, OSError) as error:
        raise ConfigError(f"--strategy=tpu: found no TPU {tpu!r} ({_reason(error)})") from error
    return tf.distribute.TPUStrategy(resolver)


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def is_multiworker(strategy: "tf.distribute.Strategy") -> bool:
    """Whether other processes compute the same steps."""
    tf = sys.modules.get("tensorflow")
    return bool(tf) and isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def is_chief(strategy: "tf.distribute.Strategy") -> bool:
    """Whether this process writes the run's files."""
    if not is_multiworker(strategy):
        return True
    resolver = strategy.cluster_resolver
    has_chief = "chief" in resolver.cluster_spec().jobs
    first = ("chief", 0) if has_chief else ("worker", 0)
    return (resolver.task_type, resolver.task_id) == first


def same_everywhere(strategy: "tf.distribute.Strategy", numbers: Sequence[int]) -> bool:
    """Whether all workers give the same few numbers, each less than 2**31."""
    import tensorflow as tf

    mine = tf.cast(numbers, tf.int64)
    squares = tf.stack([mine, mine**2])

    @tf.function
    def mean():
        return strategy.reduce("SUM", strategy.run(tf.identity, args=(squares,)), axis=None)

    # The variance is 0 if all are the same.
    replicas = strategy.num_replicas_in_sync
    total, of_squares = mean().numpy()
    return bool((replicas * of_squares == total**2).all())


def agree(
    strategy: "tf.distribute.Strategy",
) -> Callable[[tuple[bool, ...]], tuple[bool, ...]]:
    """Returns a function from this worker's answers to whether any worker answers yes."""
    import tensorflow as tf

    @tf.function
    def count(answers):
        replicas = strategy.run(tf.identity, args=(answers,))
        return strategy.reduce("SUM", replicas, axis=None)

    def anywhere(mine: tuple[bool, ...]) -> tuple[bool, ...]:
        return tuple((count(tf.cast(mine, tf.float32)).numpy() > 0).tolist())

    return anywhere
