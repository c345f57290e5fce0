"""Compares `sccunet.layers` with Keras's own under JAX: outputs, new statistics and gradients.

The last line of standard output is JSON: the largest difference of each layer's results, and
whether XLA takes the gradient of an up-convolution's kernel for a convolution with a kernel as
large as its input, by ours and by Keras's layer.
"""

import json

import jax
import keras
import numpy as np

from sccunet import layers

_INPUT = np.random.default_rng(0).standard_normal((2, 7, 6, 3)).astype(np.float32)
_LAYERS = {
    "up": lambda library: library.Conv2DTranspose(
        4, 5, strides=2, padding="same", activation="relu", data_format="channels_last"
    ),
    "norm": lambda library: library.BatchNormalization(momentum=0.9),
    "pad": lambda library: library.ZeroPadding2D(((0, 2), (1, 0)), "channels_last"),
}


def _gradients(layer):
    """Returns a function of the layer's variables and input, and these variables."""
    kind = {"training": True} if isinstance(layer, keras.layers.BatchNormalization) else {}

    def loss(trainable, other, x):
        output, other = layer.stateless_call(trainable, other, x, **kind)
        weights = np.random.default_rng(1).standard_normal(output.shape).astype(np.float32)
        return (output * weights).sum(), (output, other)

    groups = layer.trainable_variables, layer.non_trainable_variables
    variables = [[variable.value for variable in group] for group in groups]
    return jax.jit(jax.value_and_grad(loss, (0, 2), has_aux=True)), variables


def _difference(make):
    ours, keras_own = make(layers), make(keras.layers)
    rng = np.random.default_rng(2)
    for layer in (ours, keras_own):
        layer.build(_INPUT.shape)
    ours.set_weights([rng.uniform(0.5, 1, weight.shape) for weight in ours.weights])
    keras_own.set_weights(ours.get_weights())
    found = []
    for layer in (ours, keras_own):
        function, variables = _gradients(layer)
        found.append(jax.tree.leaves(function(*variables, _INPUT)))
    pairs = zip(*found, strict=True)
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)


def _is_swapped(library):
    layer = _LAYERS["up"](library)
    layer.build(_INPUT.shape)
    function, variables = _gradients(layer)
    return "rhs_reversal" in function.lower(*variables, _INPUT).compile().as_text()


print(
    json.dumps(
        {
            **{name: _difference(make) for name, make in _LAYERS.items()},
            "swapped": _is_swapped(layers),
            "swapped_by_keras": _is_swapped(keras.layers),
        }
    )
)
