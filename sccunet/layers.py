"""Keras's layers where the network needs them faster: the same names, weights and results.

Under JAX, XLA's GPU compiler takes some gradients of convolutions for forward convolutions with
kernels as large as a spectrogram, which made 0.7 of a training step (docs/performance.md).
"""

import functools

import keras
from keras import layers, ops


def _on_jax() -> bool:
    return keras.backend.backend() == "jax"


@keras.saving.register_keras_serializable(package="sccunet")
class BatchNormalization(layers.BatchNormalization):
    """Normalises in training by TensorFlow's fused kernel, or by JAX in one pass.

    Keras computes the moments, the normalisation and all their gradients op by op. On two CPU cores
    that was 0.4 of a small network's training step; the fused kernel saved 0.3 of the step.
    """

    def call(self, inputs, training=None, mask=None):
        """Normalises over all axes but the last; [batch, bins, frames, filters]."""
        batch = training and self.trainable and not self.synchronized
        if batch and _on_jax():
            normalised, mean, variance = self._one_pass(inputs)
        # In bfloat16 the kernel works on vectors of 16 channels, and is slow for other numbers.
        elif (
            batch
            and keras.backend.backend() == "tensorflow"
            and (self.compute_dtype == "float32" or inputs.shape[-1] % 16 == 0)
        ):
            normalised, mean, variance = self._fused(inputs)
        else:
            return super().call(inputs, training=training, mask=mask)
        for moving, new in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + new * (1 - self.momentum))
        return normalised

    def _fused(self, inputs):
        import tensorflow as tf

        return tf.compat.v1.nn.fused_batch_norm(
            inputs,
            ops.convert_to_tensor(self.gamma),
            ops.convert_to_tensor(self.beta),
            epsilon=self.epsilon,
            is_training=True,
        )

    def _one_pass(self, inputs):
        """Sums values and squares in float32; Keras takes the variance in a pass of its own."""
        x = ops.cast(inputs, "float32")
        mean = ops.mean(x, axis=(0, 1, 2))
        variance = ops.maximum(ops.mean(ops.square(x), axis=(0, 1, 2)) - ops.square(mean), 0.0)
        scale = ops.cast(self.gamma, "float32") * ops.rsqrt(variance + self.epsilon)
        normalised = x * scale + (ops.cast(self.beta, "float32") - mean * scale)
        return ops.cast(normalised, self.compute_dtype), mean, variance


@keras.saving.register_keras_serializable(package="sccunet")
class Conv2DTranspose(layers.Conv2DTranspose):
    """Keras's layer; under JAX, the gradient of its kernel is that of a strided convolution.

    It supports what the network has: padding "same", channels last, a bias and an activation.
    """

    def call(self, inputs):
        """Convolves [batch, bins, frames, channels]; the output is `strides` times as large."""
        if not _on_jax() or self.strides == (1, 1):
            return super().call(inputs)
        x = _conv_transpose()(inputs, ops.convert_to_tensor(self.kernel), self.strides)
        return self.activation(x + ops.convert_to_tensor(self.bias))


@functools.cache
def _conv_transpose():
    """Returns a function of x, kernel [height, width, outputs, inputs] and strides, padding "same".

    It is the adjoint of the strided convolution with the same kernel, and so are its gradients.
    """
    import jax

    def strided(y, kernel, strides):  # [batch, bins, frames, outputs] -> [.., inputs], smaller
        form = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(y, kernel, strides, "SAME", dimension_numbers=form)

    @functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
    def transposed(x, kernel, strides):
        batch, *sizes, _ = x.shape
        sizes = [size * stride for size, stride in zip(sizes, strides, strict=True)]
        y = jax.ShapeDtypeStruct((batch, *sizes, kernel.shape[2]), x.dtype)
        return jax.linear_transpose(lambda y: strided(y, kernel, strides), y)(x)[0]

    def forward(x, kernel, strides):
        return transposed(x, kernel, strides), (x, kernel)

    def backward(strides, kept, gradient):
        x, kernel = kept
        to_kernel = jax.linear_transpose(lambda k: strided(gradient, k, strides), kernel)
        return strided(gradient, kernel, strides), to_kernel(x)[0]

    transposed.defvjp(forward, backward)
    return transposed


@keras.saving.register_keras_serializable(package="sccunet")
class ZeroPadding2D(layers.ZeroPadding2D):
    """Keras's layer; under JAX, XLA must not fold it into the convolution that follows."""

    def call(self, inputs):
        """Pads [batch, bins, frames, channels]."""
        padded = super().call(inputs)
        return _barrier()(padded) if _on_jax() else padded


@functools.cache
def _barrier():
    import jax

    # Older versions of JAX have no gradient of their own for it.
    barrier = jax.custom_vjp(jax.lax.optimization_barrier)
    barrier.defvjp(lambda x: (barrier(x), None), lambda _, gradient: (gradient,))
    return barrier
