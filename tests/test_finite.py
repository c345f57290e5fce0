"""Steps without the host: what it looks at, and when; several of them in one execution."""

import dataclasses
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from sccunet import build_model
from sccunet.checkpoints import Checkpoint, PreemptedError, load_newest
from sccunet.config import Config, ModelConfig
from sccunet.finite import FiniteGuard, NotFiniteError
from sccunet.loop import callbacks_of, run_epochs
from sccunet.training import compile_trainer

_CONFIG = Config(
    model=ModelConfig(
        stems=("a", "b"), frame_length=512, hop_length=128, patch_samples=4096, filters=(2, 4)
    ),
    loss_weights=(0.7, 0.3),
    batch_size=2,
    epochs=2,
    ema_momentum=0.7,
)
_STEPS = 20


def _trainer(**changes):
    config = dataclasses.replace(_CONFIG, **changes)
    keras.utils.set_random_seed(0)
    return compile_trainer(build_model(config), config, config.loss_weights, _STEPS)


def _batches(first=0, bad=None):
    """An epoch's batches, noise that depends only on the step; NaN in that of the step `bad`."""
    shape = (2 * _STEPS, 2, 2, 1, _CONFIG.model.patch_samples)
    noise = 0.2 * np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    if bad is not None:
        noise[bad, 1, 0, 0, 99] = math.nan
    return tf.data.Dataset.from_tensor_slices(noise[first:])


_VALIDATION = _batches().take(1)


def _fit(trainer, batches, callbacks, epochs=1, validation=None):
    trainer.fit(
        batches,
        steps_per_epoch=_STEPS,
        initial_epoch=epochs - 1,
        epochs=epochs,
        validation_data=validation,
        shuffle=False,
        callbacks=callbacks_of(trainer, callbacks, epochs, _STEPS),
        verbose=0,
    )


class _Watch(keras.callbacks.Callback):
    """Notes the types of the steps' logs, and the steps at which the host looks at the device."""

    def __init__(self, trainer):
        super().__init__()
        self.types, self.looks, self.batch = set(), [], -1
        look = trainer.check_finite
        trainer.check_finite = lambda: self.looks.append(self.batch + 1) or look()

    def on_train_batch_begin(self, batch, logs=None):
        self.batch = batch

    def on_train_batch_end(self, batch, logs=None):
        self.types |= set(map(type, logs.values()))

    on_test_batch_end = on_train_batch_end


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What was noted of an epoch of single steps, and the variables after it, by their names."""
    trainer = _trainer()
    watch = _Watch(trainer)
    workdir = tmp_path_factory.mktemp("whole")
    _fit(trainer, _batches(), [watch, FiniteGuard(20), Checkpoint(workdir)], 1, _VALIDATION)
    return watch, _state(trainer)


def _state(trainer):
    variables = [*trainer.variables, *trainer.optimizer.variables]
    return [variable.numpy() for variable in variables]


def test_logs_stay_on_the_device_and_the_host_looks_once_in_twenty_steps(whole):
    watch, _ = whole
    assert all(issubclass(kind, tf.Tensor) for kind in watch.types), watch.types
    assert set(watch.looks) == {_STEPS}  # also before the validation and before saving


def test_several_steps_per_execution_give_the_weights_of_single_ones(whole, tmp_path):
    """Also of a run that is stopped, after whole executions, and continues within the epoch."""
    trainer, checkpoint = _trainer(steps_per_execution=10), Checkpoint(tmp_path)
    stop = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda *_, **__: checkpoint.preempt()
    )
    with pytest.raises(PreemptedError, match="stopped after step 10, and saved"):
        _fit(trainer, _batches(), [stop, FiniteGuard(20), checkpoint])

    trainer.unet.set_weights([weight * 0 for weight in trainer.unet.get_weights()])
    load_newest(trainer, tmp_path)
    strategy, callbacks = tf.distribute.get_strategy(), [FiniteGuard(20), Checkpoint(tmp_path)]
    run_epochs(trainer, strategy, _batches(10), _VALIDATION, _STEPS, 1, callbacks)
    for found, expected in zip(_state(trainer), whole[1], strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)

    # The second epoch has a bad step; the host sees that later, and names the step.
    with pytest.raises(NotFiniteError) as caught:
        _fit(trainer, _batches(_STEPS, bad=33), [FiniteGuard(20)], 2)
    assert (caught.value.step, caught.value.what) == (33, "loss")
    assert trainer.steps_done == 2 * _STEPS


@pytest.mark.parametrize(("together", "expected"), [(1, [3, 6, 3, 6]), (2, [4, 8, 4, 8])])
def test_workers_agree_once_in_so_many_steps_of_an_epoch(tmp_path, together, expected):
    checkpoint, agreed = Checkpoint(tmp_path), []
    checkpoint.agree_steps = 3
    for epoch in range(2):
        checkpoint.on_epoch_begin(epoch)
        for done in range(together, 8 + 1, together):
            checkpoint.agree = lambda mine, done=done: agreed.append(done) or mine
            checkpoint.on_train_batch_end(done - 1)
    assert agreed == expected


def test_gradients_that_are_not_finite_stop_the_run(tmp_path):
    """The loss of such a step can be finite. Nothing is saved after it, though no look is due."""
    trainer = _trainer()
    trainer.run_eagerly = True  # one step, without a graph
    call = trainer.call

    @tf.custom_gradient
    def broken(x):
        return x, lambda upstream: upstream * math.inf

    def called(waveforms, training=False):
        estimates, spectra = call(waveforms, training)
        return broken(estimates), spectra

    trainer.call = called
    with pytest.raises(NotFiniteError) as caught:
        _fit(trainer, _batches(), [FiniteGuard(20), Checkpoint(tmp_path, minutes=0)])
    assert (caught.value.what, caught.value.step) == ("gradients", 0)
    assert not list(tmp_path.iterdir())


def test_a_validation_loss_that_is_not_finite_stops_the_run():
    trainer = _trainer()
    trainer.run_eagerly = True
    trainer.optimizer.iterations.assign(6)
    callback = FiniteGuard()
    callback.set_model(trainer)
    callbacks = callbacks_of(trainer, [callback], 1, _STEPS)
    with pytest.raises(NotFiniteError) as caught:
        trainer.evaluate(_batches(bad=1).take(2), callbacks=callbacks, verbose=0)
    assert (caught.value.step, caught.value.what) == (5, "validation loss")
