"""The Spectrogram-Channels U-Net: mixture magnitudes in, one channel of magnitudes per stem out."""

import functools
from typing import Any

import keras
from keras import layers, ops

from sccunet import keras_settings
from sccunet.config import ModelConfig, model_config
from sccunet.layers import BatchNormalization, Conv2DTranspose, ZeroPadding2D

_FORMAT = "channels_last"  # whatever the user's keras.json says

# PyTorch's default (0.1 there). Keras's 0.99 takes hundreds of steps to forget its initial values.
_MOMENTUM = 0.9


# Enough to revive a dead channel within an epoch, too little to affect a live one.
_LEAK = 0.05


@keras.saving.register_keras_serializable(package="sccunet")
def output_relu(x):
    """ReLU with a small gradient where its output is 0.

    Most bins of a quiet or rare stem are nearly 0, so at the start of training a channel of zeros
    has the least L1 loss. After a plain ReLU that channel would have no gradient and never change.

    Args:
      x: any shape.

    Returns:
      max(x, 0). Its gradient is 1 where x > 0, `_LEAK` elsewhere.
    """
    leaky = ops.leaky_relu(x, _LEAK)
    return leaky + ops.stop_gradient(ops.relu(x) - leaky)


# Names of the last layer with weights, by `ModelConfig.output`.
_OUTPUTS = {"magnitude": "stem_magnitudes", "mask": "stem_masks"}


def output_layer(unet: keras.Model) -> layers.Conv2D:
    """Returns the last layer with weights; the last axis of each is stems * channels."""
    return next(layer for layer in unet.layers if layer.name in _OUTPUTS.values())


def _convolution(x, kind, filters, kernel, name, dtype, synchronized_norm, strides=1):
    """Applies a convolution layer of the class `kind`, ReLU and batch normalisation."""
    x = kind(
        filters,
        kernel,
        strides=strides,
        padding="same",
        data_format=_FORMAT,
        activation="relu",
        kernel_initializer="he_uniform",
        dtype=dtype,
        name=name,
    )(x)
    return BatchNormalization(
        momentum=_MOMENTUM, synchronized=synchronized_norm, dtype=dtype, name=f"{name}_norm"
    )(x)


def build_model(
    config: Any, dtype: str = "float32", synchronized_norm: bool = False
) -> keras.Model:
    """Builds the network of the paper (Oh, Kim, Yun 2018), with any depth and width.

    An encoder level is two 3x3 convolutions and 2x2 max-pooling. The bottom is two 3x3
    convolutions. A decoder level is a 5x5 transposed convolution of stride 2, dropout,
    concatenation with the encoder's features, and two 3x3 transposed convolutions of stride 1. ReLU
    and batch normalisation follow each convolution. The last layer is a 1x1 convolution to each
    stem's magnitudes, with ReLU; or, with `output = "mask"`, to the logits of masks, whose softmax
    over the stems is multiplied by the mixture's magnitudes.

    Args:
      config: the result of a config file's `get_config()`, or its `.model` part.
      dtype: Keras dtype policy of the layers; the last convolution is always float32.
      synchronized_norm: see `Config`; TensorFlow backend only.

    Returns:
      Functional model, [batch, bins, frames, channels] -> [batch, bins, frames, stems * channels],
      both linear magnitudes of `sccunet.spectral.stft`; all channels of a stem follow each other.

    Raises:
      ConfigError: if the configuration cannot work, or Keras's default precision is not float32.
    """
    keras_settings.check()
    model = model_config(config)
    *encoder_filters, bottom_filters = model.filters

    convolution = functools.partial(_convolution, dtype=dtype, synchronized_norm=synchronized_norm)
    # Each pooling halves both axes: zeros are added at the end so that no bin or frame is lost.
    multiple = 2 ** len(encoder_filters)
    more = ((0, -model.bins % multiple), (0, -model.frames % multiple))

    shape = (model.bins, model.frames, model.channels)
    mixture = keras.Input(shape, name="mixture_magnitudes")
    x = ops.sqrt(mixture) if model.input_power == 0.5 else mixture
    x = ZeroPadding2D(more, _FORMAT, dtype=dtype, name="pad")(x)
    skips = []
    for level, filters in enumerate(encoder_filters, 1):
        x = convolution(x, layers.Conv2D, filters, 3, f"encoder{level}_conv1")
        x = convolution(x, layers.Conv2D, filters, 3, f"encoder{level}_conv2")
        skips.append(x)
        x = layers.MaxPooling2D(2, data_format=_FORMAT, dtype=dtype, name=f"encoder{level}_pool")(x)
    x = convolution(x, layers.Conv2D, bottom_filters, 3, "bottom_conv1")
    x = convolution(x, layers.Conv2D, bottom_filters, 3, "bottom_conv2")
    for level, filters in reversed(list(enumerate(encoder_filters, 1))):
        x = convolution(x, Conv2DTranspose, filters, 5, f"decoder{level}_up", strides=2)
        x = layers.Dropout(model.dropout, dtype=dtype, name=f"decoder{level}_dropout")(x)
        x = layers.Concatenate(dtype=dtype, name=f"decoder{level}_skip")([x, skips.pop()])
        x = convolution(x, Conv2DTranspose, filters, 3, f"decoder{level}_conv1")
        x = convolution(x, Conv2DTranspose, filters, 3, f"decoder{level}_conv2")
    x = _output(x, mixture, model, more)
    return keras.Model(mixture, x, name="spectrogram_channels_unet")


def _output(x, mixture, model: ModelConfig, more):
    """Turns the last features into the stems' magnitudes; `more` is the padding to cut off."""
    masks = model.output == "mask"
    x = layers.Conv2D(
        len(model.stems) * model.channels,
        1,
        data_format=_FORMAT,
        activation=None if masks else output_relu,
        dtype="float32",
        name=_OUTPUTS[model.output],
    )(x)
    x = layers.Cropping2D(more, _FORMAT, dtype="float32", name="crop")(x)
    if not masks:
        return x
    bins_and_frames = x.shape[1:3]
    x = ops.reshape(x, (-1, *bins_and_frames, len(model.stems), model.channels))
    x = ops.softmax(x, axis=-2) * mixture[..., None, :]  # shares of the mixture
    return ops.reshape(x, (-1, *bins_and_frames, len(model.stems) * model.channels))
