"""Exports only the network, as a TFLite (LiteRT) file for runtimes without TensorFlow."""

import os
import tempfile

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from sccunet.config import Config, ConfigError
from sccunet.export_check import checked_fold, difference
from sccunet.files import write_whole
from sccunet.signatures import estimate_magnitudes

# Difference that float16 weights may make, relative to the largest value. They made 4e-4 to 6e-3 in
# seven trained networks.
_HALF = 2e-2


def export_tflite(
    unet: keras.Model, config: Config, path: str | os.PathLike, half: bool = False
) -> None:
    """Writes the network as a TFLite (LiteRT) file: a patch's magnitudes in, each stem's out.

    The file uses builtin operators only, in float32. Its signature is `magnitudes` with batch 1;
    the caller computes the STFT.

    Args:
      unet: from `build_model`, with its weights.
      config: config of the run that trained it.
      path: the file, replaced if it exists; written whole or not at all.
      half: whether the weights are float16, in half of the space; runtimes compute in float32.

    Raises:
      ConfigError: if the converted network computes something else, or cannot be written.
    """
    content = _converted(unet, config, path, half)
    try:
        write_whole(path, content)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror})") from error


def _converted(unet: keras.Model, config: Config, path: str | os.PathLike, half: bool) -> bytes:
    """Returns the content of the file, checked in TensorFlow's interpreter."""
    model, folded = config.model, _without_fused_relu(checked_fold(unet, config.model))
    shape = [1, *model.magnitudes_shape]

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.float32, name="mixture_magnitudes")])
    def magnitudes(mixture_magnitudes):
        return estimate_magnitudes(mixture_magnitudes, folded, model)

    with tempfile.TemporaryDirectory() as folder:
        module = tf.Module()
        module.weights = [weight.value for weight in folded.weights]
        module.magnitudes = magnitudes
        tf.saved_model.save(module, folder, signatures={"magnitudes": magnitudes})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, ["magnitudes"])
        if half:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.target_spec.supported_types = [tf.float16]
        content = converter.convert()
    noise = np.abs(np.random.default_rng(0).standard_normal(shape)).astype(np.float32)
    run = tf.lite.Interpreter(model_content=content).get_signature_runner("magnitudes")
    expected = {stem: x.numpy() for stem, x in magnitudes(tf.constant(noise)).items()}
    found = run(mixture_magnitudes=noise)
    if reason := difference(found, expected, *([_HALF] if half else [])):
        raise ConfigError(f"{path}: {reason}")
    return content


def _without_fused_relu(unet: keras.Model) -> keras.Model:
    """Returns the same network, whose transposed convolutions keep their ReLU as an operator.

    TensorFlow's converter fuses bias and ReLU into a transposed convolution, and OpenVINO (2026.4
    and before) ignores that ReLU. A leaky ReLU of slope 0 computes the same and is not fused.
    """

    def replacement(layer):
        config = layer.get_config()
        if isinstance(layer, layers.Conv2DTranspose) and config["activation"] == "relu":
            config["activation"] = _relu
        return type(layer).from_config(config)

    copy = keras.models.clone_model(unet, clone_function=replacement)
    copy.set_weights(unet.get_weights())
    return copy


def _relu(x):
    return ops.leaky_relu(x, negative_slope=0.0)
