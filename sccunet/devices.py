"""TensorFlow's devices: which of them a process uses; and how many patches suit those of Keras."""

from sccunet import keras_settings
from sccunet.checks import ConfigError

# In a call of the network. Not measured on a GPU.
PATCHES_ON_GPU = 8


def use(device: str | None = None, gpu_memory_mb: int | None = None) -> None:
    """Makes TensorFlow use one device, and take a GPU's memory only as it needs it.

    By default, TensorFlow takes nearly all memory of all GPUs. It cannot change what it uses once
    it has computed anything; if nothing is asked for, that is left as it is.

    Args:
      device: "cpu", "gpu" or, of several, "gpu:1"; by default what TensorFlow may use already: a
        GPU if there is one.
      gpu_memory_mb: the most memory that it takes of a GPU; by default all that it needs.

    Raises:
      ConfigError: if there is no such device, or it is too late to choose it, or Keras does not run
        on TensorFlow.
    """
    keras_settings.check()
    import keras

    asked = f"gpu_memory_mb: found {gpu_memory_mb}" if gpu_memory_mb else ""
    if device:
        asked = f"device: found {device!r}"
    if (backend := keras.backend.backend()) != "tensorflow":
        if asked:
            raise ConfigError(f"{asked}, expected none: Keras runs on {backend}, which has its own")
        return
    import tensorflow as tf

    gpus, chosen = tf.config.list_physical_devices("GPU"), tf.config.get_visible_devices("GPU")
    if device:
        there = {"cpu": [], **({"gpu": gpus[:1]} if gpus else {})}
        there |= {f"gpu:{i}": [gpu] for i, gpu in enumerate(gpus)}
        if device.lower() not in there:
            names = ", ".join(there)
            raise ConfigError(f"{asked}, expected one that TensorFlow finds here: {names}")
        chosen = there[device.lower()]
    if gpu_memory_mb and not chosen:
        raise ConfigError(f"gpu_memory_mb: found {gpu_memory_mb}, expected none without a GPU")
    try:
        if tf.config.get_visible_devices("GPU") != chosen:
            tf.config.set_visible_devices(chosen, "GPU")
        for gpu in chosen:
            if gpu_memory_mb:
                limit = tf.config.LogicalDeviceConfiguration(memory_limit=gpu_memory_mb)
                tf.config.set_logical_device_configuration(gpu, [limit])
            else:
                tf.config.experimental.set_memory_growth(gpu, True)
    except (RuntimeError, ValueError) as error:  # TensorFlow has computed something
        if asked:
            raise ConfigError(
                f"{asked}, expected it before TensorFlow computes ({error})"
            ) from error


def on_gpu() -> bool:
    """Returns whether Keras computes on something else than the CPU."""
    import keras

    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return bool(tf.config.get_visible_devices("GPU"))
    if backend == "jax":
        import jax

        return jax.default_backend() != "cpu"
    if backend == "torch":
        import torch

        return torch.cuda.is_available()
    return False


def patches_per_call() -> int:
    """Returns how many patches the network should separate in a call.

    One on a CPU: two took more memory and saved no time (results/benchmark).
    """
    return PATCHES_ON_GPU if on_gpu() else 1
