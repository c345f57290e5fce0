"""Chooses the devices of a run under Keras's JAX backend: one, or all of one machine."""

import contextlib
import dataclasses
import importlib.util

from sccunet import cluster
from sccunet.checks import counted
from sccunet.config import ConfigError


@dataclasses.dataclass(frozen=True)
class JaxDevices:
    """In place of a `tf.distribute` strategy.

    Attributes:
      num_replicas_in_sync: number of devices, each with a part of every batch.
    """

    num_replicas_in_sync: int

    def scope(self) -> contextlib.AbstractContextManager:
        """Does nothing: Keras knows the distribution of the whole process."""
        return contextlib.nullcontext()


def make_devices(name: str, tpu: str | None = None) -> tuple[JaxDevices, str]:
    """Makes Keras compute on the devices, and describes them for the log.

    Nothing may have been computed before this call. Keras distributes each batch over the devices,
    and copies the weights to all: a step is that of one device, batch normalisation included.

    Args:
      name: "cpu" or "gpu" for one device, "mirrored" for all GPUs (all logical CPUs, without GPUs),
        "tpu" for all cores of the TPU, "auto" for all GPUs, all cores, or a CPU.
      tpu: "local", or None.

    Raises:
      ConfigError: for another name, or devices that are not there.
    """
    import jax
    from keras import distribution

    if name == "multiworker" or cluster.spans(name):
        raise ConfigError(
            f"--strategy={name}: found KERAS_BACKEND=jax and several workers, expected the devices"
            " of one machine"
        )
    if tpu not in (None, "local"):
        raise ConfigError(f"--tpu: found {tpu!r}, expected local: KERAS_BACKEND=jax has no others")
    if importlib.util.find_spec("tensorflow"):  # it reads the files, and must leave the GPUs alone
        import tensorflow as tf

        tf.config.set_visible_devices([], "GPU")
    kind = {"cpu": "cpu", "gpu": "gpu", "tpu": "tpu"}.get(name) or jax.default_backend()
    if tpu and kind != "tpu":
        raise ConfigError(f"--tpu: found --strategy={name} and no TPU, expected one")
    try:
        devices = jax.devices(kind)
    except RuntimeError as error:
        reason = str(error).splitlines()[0][:200]
        raise ConfigError(f"--strategy={name}: found no {kind.upper()} ({reason})") from error
    if name in ("cpu", "gpu") or (name == "auto" and kind == "cpu"):
        devices = devices[:1]
        distribution.set_distribution(None)
        jax.config.update("jax_default_device", devices[0])
    else:
        names = [f"{kind}:{device.id}" for device in devices]
        jax.config.update("jax_default_device", None)
        distribution.set_distribution(distribution.DataParallel(devices=names))
    found = counted(len(devices), "replica")
    return JaxDevices(len(devices)), f"{name} ({kind}, JAX), {found}"
