"""Steps whose loss or gradients are not finite: noted on the device, and looked for now and then.

A look waits for the device. Between two looks, steps follow each other without the host.
"""

import math

import keras
from keras import ops

KINDS = ("loss", "gradients")
NONE = -1  # in place of a step's index


class NotFiniteError(Exception):
    """The loss or a gradient of a step became NaN or infinite.

    Attributes:
      step: index of the step in the run, from 0.
      what: one of `KINDS`, or "validation loss" for the validation after the step.
    """

    def __init__(self, step: int, what: str):
        super().__init__(f"{what} of step {step}")
        self.step, self.what = step, what


def first_bad(before, step, finite):
    """Returns the index of the first bad step and of its kind, int [2]; on the device.

    Args:
      before: the same before this step; the index is `NONE` if there was no bad step.
      step: index of this step, int [].
      finite: whether each of `KINDS` is finite, bool [2].
    """
    before = ops.convert_to_tensor(before)
    kind = ops.where(finite[0], 1, 0)
    is_first = ops.logical_and(before[0] == NONE, ops.logical_not(ops.all(finite)))
    found = ops.stack([ops.cast(step, before.dtype), ops.cast(kind, before.dtype)])
    return ops.where(is_first, found, before)


class FiniteGuard(keras.callbacks.Callback):
    """Raises `NotFiniteError` for a step whose loss or gradients are not finite.

    It looks every `steps` steps, and before each validation.
    """

    def __init__(self, steps: int = 1):
        super().__init__()
        self._steps = steps
        self._looked = 0  # at so many steps of the epoch

    def on_epoch_begin(self, epoch, logs=None):
        self._looked = 0

    def on_train_batch_end(self, batch, logs=None):
        if batch + 1 - self._looked >= self._steps:
            self._looked = batch + 1
            self.model.check_finite()

    def on_test_begin(self, logs=None):
        self.model.check_finite()

    def on_test_end(self, logs=None):
        if not math.isfinite(logs["loss"]):
            raise NotFiniteError(self.model.steps_done - 1, "validation loss")
