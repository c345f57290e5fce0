"""Folds batch normalisation into the convolutions, for inference."""

import keras
import numpy as np
from keras import layers, ops

from sccunet.layers import BatchNormalization


class Affine(layers.Layer):
    """The remainder of batch normalisation after a folded convolution: x * sign + shift.

    Args:
      channels: size of the last axis of x, and of sign and shift.
      signed: whether there is a sign; otherwise the layer computes x + shift.
    """

    def __init__(self, channels: int, signed: bool, **kwargs):
        super().__init__(**kwargs)
        self.channels, self.signed = channels, signed

    def build(self, _):
        """Creates the weights; `fold` sets them."""
        self.shift = self.add_weight(name="shift", shape=(self.channels,), trainable=False)
        if self.signed:
            self.sign = self.add_weight(name="sign", shape=(self.channels,), trainable=False)

    def call(self, x, training=None, mask=None):  # called like normalisation
        """Transforms x [..., channels]."""
        if self.signed:
            x = x * ops.convert_to_tensor(self.sign)
        return x + ops.convert_to_tensor(self.shift)


def fold(unet: keras.Model) -> keras.Model:
    """Returns a network that computes the same as `unet(training=False)` with less arithmetic.

    Each convolution is followed by ReLU and normalisation, y = a relu(x) + b. Since
    a relu(x) = sign(a) relu(|a| x), kernel and bias absorb |a|. The shift b remains after the ReLU:
    in the next convolution it would be wrong where the padding is zero. A transposed convolution of
    stride 1 becomes a convolution with the mirrored kernel, which TensorFlow computes together with
    bias and ReLU.

    Args:
      unet: from `sccunet.build_model`. Later changes to its weights have no effect. Any other model
        is returned unchanged.

    Returns:
      Model with the inputs of `unet`. Its outputs equal those of `unet` up to float32 rounding; its
      layers have the same names and dtypes.
    """
    scales = {
        layer.name: _value(layer.gamma) / np.sqrt(_value(layer.moving_variance) + layer.epsilon)
        for layer in unet.layers
        if isinstance(layer, BatchNormalization)  # ours, named after its convolution
    }

    if not scales:
        return unet

    def replacement(layer):
        config = layer.get_config()
        if layer.name in scales:
            scale = scales[layer.name]
            return Affine(
                len(scale), bool((scale < 0).any()), name=layer.name, dtype=config["dtype"]
            )
        if _is_mirrored(layer):
            config.pop("output_padding", None)
            return layers.Conv2D.from_config(config)
        return type(layer).from_config(config)

    folded = keras.models.clone_model(unet, clone_function=replacement)
    for layer in unet.layers:
        target, scale = folded.get_layer(layer.name), scales.get(f"{layer.name}_norm")
        if layer.name in scales:
            scale = scales[layer.name]
            target.shift.assign(_value(layer.beta) - _value(layer.moving_mean) * scale)
            if target.signed:
                target.sign.assign(np.where(scale < 0, -1, 1))
        elif hasattr(layer, "kernel"):
            scale = 1 if scale is None else np.abs(scale)  # the last layer has no normalisation
            kernel = _value(layer.kernel)  # [height, width, in, out], transposed [.., out, in]
            if isinstance(layer, layers.Conv2DTranspose):
                kernel = kernel.swapaxes(2, 3) * scale
                kernel = kernel[::-1, ::-1] if _is_mirrored(layer) else kernel.swapaxes(2, 3)
            else:
                kernel = kernel * scale
            target.kernel.assign(kernel)
            target.bias.assign(_value(layer.bias) * scale)
    return folded


def _is_mirrored(layer: layers.Layer) -> bool:
    return isinstance(layer, layers.Conv2DTranspose) and layer.strides == (1, 1)


def _value(variable: keras.Variable) -> np.ndarray:
    return ops.convert_to_numpy(variable).astype(np.float64)
