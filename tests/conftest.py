"""What several test files share."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest


@pytest.fixture(scope="session")
def randomise():
    """Function that gives every weight of a model, batch-norm statistics too, a random value."""

    def assign(model, seed=0):
        rng = np.random.default_rng(seed)
        for layer in model.layers:
            for variable in layer.weights:
                shape, name = variable.shape, variable.name
                if name == "kernel":
                    *window, first, second = shape  # transposed: [h, w, out, in]
                    transposed = type(layer).__name__ == "Conv2DTranspose"
                    fan_in = np.prod(window) * (second if transposed else first)
                    value = rng.standard_normal(shape) * np.sqrt(2 / fan_in)
                elif name in ("gamma", "moving_variance"):
                    value = rng.uniform(0.5, 1.5, shape)
                elif name in ("beta", "moving_mean", "bias"):
                    value = rng.uniform(-0.3, 0.3, shape)
                else:
                    continue  # the state of a dropout layer's random generator
                variable.assign(value.astype(np.float32))
        # ReLU comes last: no stem may be silent by chance.
        bias = model.get_layer("stem_magnitudes").bias
        bias.assign(bias.numpy() + 1)
        return model

    return assign
