"""The optimizer of a run, and its learning rate's schedule."""

import math
import threading

import keras
from keras import ops

from sccunet.config import Config


def make_optimizer(config: Config, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """Returns Adam with the config's schedule, weight decay, clipping and accumulation.

    Its `finite` tells, within a training step, whether all gradients of the batch are finite.
    """
    return _Adam(
        learning_rate_schedule(config, steps_per_epoch),
        weight_decay=config.weight_decay or None,
        global_clipnorm=config.clip_norm or None,
        gradient_accumulation_steps=(
            config.accumulation_steps if config.accumulation_steps > 1 else None
        ),
    )


def learning_rate_schedule(config: Config, steps_per_epoch: int):
    """Returns the learning rate's schedule over steps, each a batch; see `Config.decay`.

    The steps of the run must be more than `Config.warmup_steps`.
    """
    steps, warmup = config.epochs * steps_per_epoch, config.warmup_steps
    if warmup:
        return keras.optimizers.schedules.CosineDecay(
            0.0, steps - warmup, warmup_target=config.learning_rate, warmup_steps=warmup
        )
    if config.decay == "late":
        return _Late(config.learning_rate, steps)
    if config.decay == "cosine":
        return keras.optimizers.schedules.CosineDecay(config.learning_rate, steps)
    # A boundary is the last step with the rate before it.
    return keras.optimizers.schedules.PiecewiseConstantDecay(
        [math.ceil(config.epochs / 2) * steps_per_epoch - 1],
        [config.learning_rate, config.learning_rate / 10],
    )


class _Late(keras.optimizers.schedules.LearningRateSchedule):
    """Keeps a rate for two fifths of the steps, then lowers it to 0 in a straight line."""

    def __init__(self, rate: float, steps: int):
        self.rate, self.steps = rate, steps

    def __call__(self, step):
        left = 1 - ops.cast(step, "float32") / self.steps
        return self.rate * ops.clip(left / 0.6, 0.0, 1.0)

    def get_config(self):
        return {"rate": self.rate, "steps": self.steps}


def sum_of_replicas(values, replicas: int):
    """Adds up values over a strategy's replicas, from within a step."""
    if replicas == 1:
        return values
    import tensorflow as tf

    return tf.distribute.get_replica_context().all_reduce("SUM", values)


class _Adam(keras.optimizers.Adam):
    """Keras's Adam that looks for gradients that are not finite, and clips those of all replicas.

    Attributes:
      replicas: number of the strategy's replicas.
      finite: see `make_optimizer`; of this replica.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, name="adam", **kwargs)
        strategy = getattr(self, "_distribution_strategy", None)  # TensorFlow only
        self.replicas = strategy.num_replicas_in_sync if strategy else 1
        # MirroredStrategy traces each replica in a thread of its own, and changes to the next in
        # the midst of `apply`: an attribute would be that of the last replica for all of them.
        self._of_replica = threading.local()

    @property
    def finite(self):
        """See above."""
        return self._of_replica.finite

    def apply(self, grads, trainable_variables=None):
        grads = list(grads)
        finite = ops.stack([ops.all(ops.isfinite(gradient)) for gradient in grads])
        self._of_replica.finite = ops.all(finite)
        return super().apply(grads, trainable_variables)

    def _clip_gradients(self, grads):
        """Clips the sum over all replicas, where Keras would clip each replica's part of it."""
        if self.replicas == 1 or not self.global_clipnorm:
            return super()._clip_gradients(grads)
        total = super()._clip_gradients(sum_of_replicas(grads, self.replicas))
        return [gradient / self.replicas for gradient in total]
