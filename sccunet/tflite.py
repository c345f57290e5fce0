"""Exports only the network, as a TFLite (LiteRT) file for runtimes without TensorFlow."""

import os
import tempfile

import keras
import numpy as np
import tensorflow as tf

from sccunet.config import Config, ConfigError
from sccunet.export_check import checked_fold, difference
from sccunet.files import write_whole
from sccunet.signatures import estimate_magnitudes, magnitudes_shape


def export_tflite(unet: keras.Model, config: Config, path: str | os.PathLike) -> None:
    """Writes the network as a TFLite (LiteRT) file: a patch's magnitudes in, each stem's out.

    The file uses builtin operators only, in float32. Its signature is `magnitudes` with batch 1;
    the caller computes the STFT.

    Args:
      unet: from `build_model`, with its weights.
      config: config of the run that trained it.
      path: the file, replaced if it exists; written whole or not at all.

    Raises:
      ConfigError: if the converted network computes something else, or cannot be written.
    """
    model, folded = config.model, checked_fold(unet, config.model)
    shape = [1, *magnitudes_shape(model)]

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.float32, name="mixture_magnitudes")])
    def magnitudes(mixture_magnitudes):
        return estimate_magnitudes(mixture_magnitudes, folded, model)

    with tempfile.TemporaryDirectory() as folder:
        module = tf.Module()
        module.weights = [weight.value for weight in folded.weights]
        module.magnitudes = magnitudes
        tf.saved_model.save(module, folder, signatures={"magnitudes": magnitudes})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, ["magnitudes"])
        content = converter.convert()
    noise = np.abs(np.random.default_rng(0).standard_normal(shape)).astype(np.float32)
    run = tf.lite.Interpreter(model_content=content).get_signature_runner("magnitudes")
    expected = {stem: x.numpy() for stem, x in magnitudes(tf.constant(noise)).items()}
    if reason := difference(run(mixture_magnitudes=noise), expected):
        raise ConfigError(f"{path}: {reason}")
    try:
        write_whole(path, content)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror})") from error
