"""The training step, its schedule, and what a run writes and continues from."""

import dataclasses
import math
import re
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from sccunet import build_model, spectral
from sccunet.checkpoints import (
    BEST,
    CHECKPOINT,
    PREVIOUS,
    Checkpoint,
    PreemptedError,
    load_newest,
    load_weights,
    save_whole,
)
from sccunet.config import Config, ConfigError, ModelConfig
from sccunet.finite import FiniteGuard
from sccunet.loop import Patience, out_of_patience, run_epochs
from sccunet.patching import Patching
from sccunet.reconstruction import Reconstruction, patch_separator
from sccunet.separation import Separator
from sccunet.tensorboard import TensorBoard
from sccunet.training import compile_trainer

_CONFIG = Config(
    model=ModelConfig(
        stems=("a", "b"), frame_length=512, hop_length=128, patch_samples=8192, filters=(4, 8)
    ),
    loss_weights=(0.7, 0.3),
    batch_size=2,
    epochs=4,
)
_STEPS = 3
_SDRS = {"a_sdr", "b_sdr", "sdr"}


def _with(config=_CONFIG, **changes):
    inner = {k: changes.pop(k) for k in ("dropout",) if k in changes}
    model = dataclasses.replace(config.model, **inner)
    return dataclasses.replace(config, model=model, **changes)


def _batch(config, batch=2, seed=0):
    """Returns different stems: tones with vibrato, and bursts of noise."""
    rng = np.random.default_rng(seed)
    stems, samples = len(config.model.stems), config.model.patch_samples
    time = np.arange(samples) / config.model.sample_rate
    waveforms = np.zeros((batch, stems, 1, samples), np.float32)
    for b in range(batch):
        for i in range(stems):
            if i % 2:
                waveforms[b, i, 0] = rng.standard_normal(samples) * (
                    np.sin(2 * np.pi * 9 * time) > 0
                )
            else:
                pitch = rng.uniform(200, 2000)
                waveforms[b, i, 0] = np.sin(2 * np.pi * pitch * time + np.sin(30 * time))
    return 0.2 * waveforms


def _trainer(config, seed=0, steps=_STEPS):
    keras.utils.set_random_seed(seed)
    unet = build_model(config, dtype=config.precision)
    return compile_trainer(unet, config, config.loss_weights, steps)


def _falls(trainer, batch, steps):
    losses = [float(trainer.train_on_batch(batch, return_dict=True)["loss"])]
    for _ in range(steps):
        trainer.reset_metrics()
        losses.append(float(trainer.train_on_batch(batch, return_dict=True)["loss"]))
    assert all(map(math.isfinite, losses))
    return losses


@pytest.mark.parametrize(
    ("precision", "jit_compile"),
    [
        ("float32", False),
        ("mixed_bfloat16", False),
        # `test_papers_network_trains_on_one_real_patch` compiles float32.
        pytest.param("mixed_bfloat16", True, marks=pytest.mark.slow),
    ],
)
def test_loss_on_one_repeated_batch_falls(precision, jit_compile):
    config = _with(precision=precision, jit_compile=jit_compile, learning_rate=5e-3)
    losses = _falls(_trainer(config, steps=100), _batch(_CONFIG), 15)
    assert min(losses[-3:]) < 0.7 * losses[0]


@pytest.fixture(scope="module")
def validated():
    """A network of two channels, the stems of two batches, and the logs of their validation."""
    model = dataclasses.replace(_CONFIG.model, channels=2)
    trainer = _trainer(dataclasses.replace(_CONFIG, model=model, downmix=False))
    stems = np.concatenate([_batch(_CONFIG, seed=seed) for seed in range(2)])
    stems = np.concatenate([stems, 0.5 * stems[::-1]], axis=2)
    logs = trainer.evaluate(stems, batch_size=2, return_dict=True, verbose=0)
    assert set(logs) == {"loss", "a_loss", "b_loss", *_SDRS}
    return trainer, stems, logs


def test_loss_is_the_weighted_sum_of_the_reported_stem_losses(validated):
    trainer, stems, logs = validated
    assert logs["loss"] == pytest.approx(0.7 * logs["a_loss"] + 0.3 * logs["b_loss"], rel=1e-5)
    # The stem losses are the means of |Y_i - Yhat_i| for the network's estimates.
    mixture, targets, *_ = spectral.training_spectra(stems, trainer.config)
    wrong = np.abs(ops.convert_to_numpy(targets) - ops.convert_to_numpy(trainer.unet(mixture)))
    expected = wrong.mean(axis=(0, 1, 2)).reshape(2, 2).mean(axis=1)  # over left and right
    np.testing.assert_allclose([logs["a_loss"], logs["b_loss"]], expected, rtol=1e-4)


def test_validation_reports_the_sdr_of_what_separation_gives(validated):
    """Pooled over patches and channels, on the samples that separation keeps of a patch."""
    trainer, stems, logs = validated
    separate = patch_separator(trainer.unet, trainer.config, Reconstruction())
    patching = Patching.of(trainer.config)
    kept = slice(patching.margin, patching.margin + patching.keep)
    truth, wrong = stems[..., kept], (stems - separate(stems.sum(axis=1)))[..., kept]
    energies = [np.square(x, dtype=np.float64).sum(axis=(0, 2, 3)) for x in (truth, wrong)]
    expected = 10 * np.log10(energies[0] / energies[1])
    np.testing.assert_allclose([logs["a_sdr"], logs["b_sdr"]], expected, atol=1e-4)
    assert logs["sdr"] == pytest.approx(expected.mean(), abs=1e-4)


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_spectrograms_are_float32_under_every_precision(precision):
    trainer = _trainer(_with(precision=precision))
    batch = _batch(_CONFIG)
    estimates, spectra = trainer(batch, training=True)
    assert {x.dtype for x in (estimates, *spectra)} == {tf.float32}
    assert trainer.unet.get_layer("encoder1_conv1").compute_dtype == precision.replace("mixed_", "")
    # bfloat16 has 8 bits: with it in the STFT, targets would differ by 1e-3 of their scale.
    truth = spectral.training_spectra(batch, _CONFIG.model).targets
    np.testing.assert_allclose(spectra.targets, truth, rtol=0, atol=1e-6 * float(ops.max(truth)))


def _data(config, first_step=0):
    """Batches that depend only on the step, as those of the pipeline."""
    batches = np.stack([_batch(config, seed=step) for step in range(config.epochs * _STEPS)])
    return tf.data.Dataset.from_tensor_slices(batches[first_step:])


def _fit(trainer, config, workdir, initial_epoch, epochs, callbacks=()):
    workdir.mkdir(exist_ok=True)
    return trainer.fit(
        _data(config, initial_epoch * _STEPS),
        steps_per_epoch=_STEPS,
        initial_epoch=initial_epoch,
        epochs=epochs,
        validation_data=tf.data.Dataset.from_tensors(_batch(config, seed=99)),
        shuffle=False,
        callbacks=[Checkpoint(workdir, best_by=config.best_by), *callbacks],
        verbose=0,
    )


def _state(trainer):
    """Names (without the numbers that Keras counts objects of the process by) and values."""
    averaged = trainer.averaged
    draws = {*map(id, averaged.variables)} - {*map(id, averaged.weights)} if averaged else ()
    variables = [v for v in trainer.variables if id(v) not in draws]  # it draws nothing
    variables += trainer.optimizer.variables
    return [re.sub(r"_\d+/", "/", v.path) for v in variables], [v.numpy() for v in variables]


@dataclasses.dataclass
class _Whole:
    """A run of four epochs without a stop.

    Attributes:
      config: its config, with everything that a resumed run must repeat.
      history: Keras's, of all epochs.
      steps: the network's weights after each step.
      checkpoints: the checkpoint after each epoch.
      names, states: names of all variables, and their values after each epoch.
    """

    config: Config
    history: dict[str, list[float]]
    steps: list[list[np.ndarray]]
    checkpoints: list[Path]
    names: list[str]
    states: list[list[np.ndarray]]

    def assert_same(self, trainer, epochs, but=(), rtol=0):
        """Compares a trainer with this run after that number of epochs."""
        names, found = _state(trainer)
        assert names == self.names
        for name, there, here in zip(names, self.states[epochs - 1], found, strict=True):
            if not any(part in name for part in but):
                np.testing.assert_allclose(here, there, rtol=rtol, atol=1e-6, err_msg=name)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    config = _with(
        dropout=0.4,
        decay="cosine",
        warmup_steps=2,
        clip_norm=0.5,
        accumulation_steps=2,  # the three steps of an epoch leave one
        ema_momentum=0.7,
        best_by="sdr",
    )
    trainer, steps, checkpoints, states = _trainer(config), [], [], []

    def keep_step(batch, logs):
        steps.append(trainer.unet.get_weights())

    def keep(epoch, logs):
        states.append(_state(trainer)[1])
        checkpoints.append(workdir / f"epoch{epoch + 1}" / CHECKPOINT)
        checkpoints[-1].parent.mkdir()
        shutil.copy(workdir / CHECKPOINT, checkpoints[-1])

    keeper = keras.callbacks.LambdaCallback(on_epoch_end=keep, on_train_batch_end=keep_step)
    history = _fit(trainer, config, workdir, 0, 4, [keeper]).history
    return _Whole(config, history, steps, checkpoints, _state(trainer)[0], states)


def test_training_reports_every_stem(whole):
    names = {"loss", "a_loss", "b_loss"}
    assert set(whole.history) == names | {f"val_{name}" for name in names | _SDRS}


def test_averaged_weights_are_validated_and_saved_as_the_best(whole, tmp_path):
    """The average over the updates, of which there is one every other step."""
    momentum = whole.config.ema_momentum
    average, *later = whole.steps[1::2]
    for weights in later:
        average = [momentum * a + (1 - momentum) * w for a, w in zip(average, weights, strict=True)]
    trainer, checkpoint = _trainer(whole.config, seed=1), Checkpoint(tmp_path, best_by="sdr")
    load_weights(trainer, whole.checkpoints[-1])
    checkpoint.set_model(trainer)
    checkpoint.on_epoch_end(4, {"val_loss": 0.0, "val_sdr": 99.0})
    unet = build_model(_CONFIG)
    load_weights(unet, tmp_path / BEST)
    for found, expected in zip(unet.weights, average, strict=True):
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-6)
    spectra = spectral.training_spectra(_batch(_CONFIG, seed=99), _CONFIG.model)
    wrong = np.abs(spectra.targets - unet(spectra.mixture)).mean(axis=(0, 1, 2))
    validated = [whole.history[f"val_{stem}_loss"][-1] for stem in _CONFIG.model.stems]
    np.testing.assert_allclose(wrong, validated, rtol=1e-4)


@pytest.mark.slow
def test_continued_training_is_the_same_training(whole, tmp_path):
    """The third and fourth epoch from a checkpoint: as in one go, dropout's draws included."""
    continued = _trainer(whole.config, seed=123)  # nothing may depend on the new start
    load_weights(continued, whole.checkpoints[1])
    assert continued.steps_done == 2 * _STEPS
    _fit(continued, whole.config, tmp_path, 2, 4)
    assert continued.steps_done == 4 * _STEPS
    whole.assert_same(continued, 4)
    assert any("momentum" in name for name in whole.names)
    assert any("seed_generator_state" in name for name in whole.names)
    assert float(continued.best_loss) < math.inf


def test_dropout_draws_matter_to_the_test_above(whole):
    """Another state of the random generators gives another result."""
    trainer, estimates = _trainer(whole.config), []
    for state in (None, [1, 0]):
        load_weights(trainer, whole.checkpoints[0])
        for variable in trainer.non_trainable_variables:
            if state and "seed_generator_state" in variable.path:
                variable.assign(state)
        estimates.append(trainer(_batch(whole.config), training=True)[0].numpy())
    assert np.abs(estimates[0] - estimates[1]).max() > 1e-3


def test_checkpoint_keeps_the_best_and_the_last(tmp_path):
    trainer = _trainer(_CONFIG)
    callback, patience = Checkpoint(tmp_path), Patience(2)
    callback.set_model(trainer)
    patience.set_model(trainer)
    kernel, bias = trainer.unet.get_layer("stem_magnitudes").weights
    for epoch, loss in enumerate((3.0, 2.0, 2.5, math.nan)):
        bias.assign([epoch, epoch])
        callback.on_epoch_end(epoch, {"val_loss": loss})
        patience.on_epoch_end(epoch)
        assert trainer.stop_training == (epoch == 3)
    assert float(trainer.best_loss) == 2.0
    assert sorted(path.name for path in tmp_path.iterdir()) == [BEST, CHECKPOINT, PREVIOUS]

    best = build_model(_CONFIG)
    load_weights(best, tmp_path / BEST)
    np.testing.assert_array_equal(best.get_layer("stem_magnitudes").bias.numpy(), [1, 1])
    last = _trainer(_CONFIG, seed=1)
    load_weights(last, tmp_path / CHECKPOINT)
    np.testing.assert_array_equal(last.unet.get_layer("stem_magnitudes").bias.numpy(), [3, 3])
    np.testing.assert_array_equal(
        last.unet.get_layer("stem_magnitudes").kernel.numpy(), kernel.numpy()
    )

    # A continued run knows the best loss so far and the epochs since.
    assert (last.epochs_since_best, out_of_patience(last, 2), out_of_patience(last, 0)) == (
        2,
        True,
        False,
    )
    callback = Checkpoint(tmp_path)
    callback.set_model(last)
    callback.on_epoch_end(4, {"val_loss": 2.2})
    assert last.epochs_since_best == 3
    load_weights(best, tmp_path / BEST)
    np.testing.assert_array_equal(best.get_layer("stem_magnitudes").bias.numpy(), [1, 1])


def test_interrupted_write_leaves_the_old_weights(tmp_path, monkeypatch):
    unet = build_model(_CONFIG)
    path = tmp_path / BEST
    save_whole(unet, path)
    before = path.read_bytes()

    def dies(filepath, **kwargs):
        filepath.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(unet, "save_weights", dies)
    with pytest.raises(KeyboardInterrupt):
        save_whole(unet, path)
    assert path.read_bytes() == before
    monkeypatch.undo()
    save_whole(unet, path)  # leftovers do not disturb
    assert [p.name for p in tmp_path.iterdir()] == [BEST]


def _ops(function):
    """Yields all operations of a traced function and of the functions that it calls."""
    graphs = [function.graph, *(f.graph for f in function.graph._functions.values())]
    return [op for graph in graphs for op in graph.get_operations()]


_OPTIONS = Config(
    model=ModelConfig(filters=(4, 8), channels=2, input_power=0.5, output="mask"),
    downmix=False,
    loss="complex",
    clip_norm=1.0,
    ema_momentum=0.9,
    accumulation_steps=2,
)


@pytest.mark.parametrize(
    "config",
    [Config(), Config(precision="mixed_bfloat16"), _OPTIONS],
    ids=["float32", "mixed_bfloat16", "options"],
)
def test_the_papers_step_has_static_shapes_and_nothing_of_the_host(config):
    """XLA, and so a TPU, requires this; also with the options that the paper has not."""
    config = dataclasses.replace(config, loss_weights=(0.25,) * 4)
    trainer = _trainer(config)
    channels, samples = config.model.channels, config.model.patch_samples
    batch = tf.TensorSpec((8, 4, channels, samples), tf.float32)
    step = tf.function(trainer.train_step, jit_compile=True).get_concrete_function(batch)
    ops = _ops(step)
    kinds = {op.type for op in ops}
    assert {"Conv2D", "Conv2DBackpropFilter", "RFFT", "AssignSubVariableOp"} <= kinds
    host = {k for k in kinds if re.search("PyFunc|Print|Summary|Iterator|Queue|Unique|Where$", k)}
    assert not host

    def of_the_gpu(tensor):
        """Whether a tensor, without a shape, is only for a GPU kernel's gradient; not in XLA."""
        return tensor.op.type == "FusedBatchNormV3" and tensor.value_index == 5

    dynamic = [
        (op.type, op.name, output.shape)
        for op in ops
        for output in op.outputs
        if output.dtype not in (tf.resource, tf.variant)
        and not output.shape.is_fully_defined()
        and not any(map(of_the_gpu, [output, *(op.inputs if op.type == "ZerosLike" else ())]))
    ]
    assert not dynamic, dynamic[:20]


def _loop(trainer, config, epochs, callbacks):
    """Trains with `run_epochs`, from the trainer's current step."""
    run_epochs(
        trainer,
        tf.distribute.get_strategy(),
        _data(config, trainer.steps_done),
        tf.data.Dataset.from_tensors(_batch(config, seed=99)),
        _STEPS,
        epochs,
        callbacks,
    )


def test_own_loop_equals_fit(whole):
    looped = _trainer(whole.config)

    def stop(epoch, logs):  # as `Patience` does
        looped.stop_training = epoch == 1

    stopper = keras.callbacks.LambdaCallback(on_epoch_end=stop)
    _loop(looped, whole.config, 4, [FiniteGuard(), stopper])
    written = ("best_loss", "best_epoch", "epochs_done")  # by `Checkpoint`
    whole.assert_same(looped, 2, but=written, rtol=1e-5)
    assert set(looped.history.history) == set(whole.history)
    for name, values in whole.history.items():
        found = looped.history.history[name]
        np.testing.assert_allclose(found, values[:2], rtol=1e-5, err_msg=name)


@pytest.mark.slow
def test_stopped_during_validation_it_validates_again(whole, tmp_path):
    """The second epoch's steps are not done twice, and its end is not forgotten."""

    class Stop(keras.callbacks.Callback):
        def __init__(self, checkpoint):
            super().__init__()
            self.on_test_batch_begin = lambda *_, **__: checkpoint.preempt()

    trainer, states = _trainer(whole.config), []
    for train in (
        lambda callbacks: _fit(trainer, whole.config, tmp_path, 1, 3, callbacks),
        lambda callbacks: _loop(trainer, whole.config, 3, callbacks),
    ):
        checkpoint = Checkpoint(tmp_path, best_by="sdr")
        load_weights(trainer, whole.checkpoints[0])
        with pytest.raises(PreemptedError, match=f"stopped after step {2 * _STEPS}, and saved"):
            train([Stop(checkpoint), checkpoint])
        load_newest(trainer, tmp_path)
        states.append(_state(trainer)[1])
    for here, there in zip(*states, strict=True):
        np.testing.assert_allclose(here, there, rtol=1e-5, atol=1e-6)

    trainer, checkpoint = _trainer(whole.config, seed=5), Checkpoint(tmp_path, best_by="sdr")
    load_newest(trainer, tmp_path)
    assert int(trainer.epochs_done.numpy()) == 1
    _loop(trainer, whole.config, 2, [checkpoint])
    assert trainer.steps_done == 2 * _STEPS
    names = {"loss", "a_loss", "b_loss"} | _SDRS
    assert set(trainer.history.history) == {f"val_{name}" for name in names}
    whole.assert_same(trainer, 2)


@pytest.mark.filterwarnings("error:Skipping nested container")  # one line, nothing ahead of it
def test_weights_of_a_network_are_not_a_checkpoint(tmp_path):
    trainer = _trainer(_CONFIG)
    save_whole(trainer.unet, tmp_path / CHECKPOINT)
    with pytest.raises(ConfigError, match="found weights that do not load") as caught:
        load_weights(trainer, tmp_path / CHECKPOINT)
    assert "\n" not in str(caught.value)


def test_tensorboard_shows_losses_pictures_and_sound(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    model = _CONFIG.model
    excerpt = np.concatenate(_batch(_CONFIG, 3)[:, :, 0], axis=1)  # of three patches
    time = np.arange(excerpt.shape[1]) / model.sample_rate
    excerpt[0] = 0.5 * np.sin(2 * np.pi * 1000 * time)
    trainer = _trainer(_with(ema_momentum=0.5))
    board = TensorBoard(str(tmp_path / "logs"), excerpt[..., None])
    _fit(trainer, _CONFIG, tmp_path / "run", 0, 2, [board])

    def events(folder):
        found = accumulator.EventAccumulator(
            str(tmp_path / "logs" / folder), size_guidance={"tensors": 0}
        )
        return found.Reload()

    train, validation = events("train"), events("validation")
    names = ("epoch_loss", "epoch_a_loss", "epoch_b_loss")
    assert {*names, "epoch_learning_rate"} <= set(train.Tags()["tensors"])
    assert set(names) <= set(validation.Tags()["tensors"])
    rate = [tf.make_ndarray(event.tensor_proto) for event in train.Tensors("epoch_learning_rate")]
    # Read after the epoch, so it is that of the next step: half of 4 epochs are done.
    np.testing.assert_allclose(rate, [1e-3, 1e-4], rtol=1e-6)

    def shown(tag, plugin):
        """Returns the encoded picture or sound of each step, all from one plugin."""
        assert validation.SummaryMetadata(tag).plugin_data.plugin_name == plugin
        found = {e.step: tf.make_ndarray(e.tensor_proto) for e in validation.Tensors(tag)}
        place = 2 if plugin == "images" else 0  # after width and height
        return {step: encoded.ravel()[place] for step, encoded in found.items()}

    # TensorBoard groups tags by their first part.
    for group in ("mixture", *model.stems):
        assert list(shown(f"{group}/spectrogram", "images")) == [1, 2]
        assert list(shown(f"{group}/truth", "audio")) == [0]
        assert list(shown(f"{group}/estimate", "audio")) == [1, 2]

    picture = tf.io.decode_png(shown("a/spectrogram", "images")[2]).numpy().astype(int)
    rows, columns, _ = picture.shape
    assert columns == 1 + excerpt.shape[1] // model.hop_length
    assert np.ptp(picture, axis=2).max() > 50  # not grey
    truth = picture[: rows // 2 - 2].sum(axis=2)
    octaves = np.log2([1000 / 20, model.sample_rate / 2 / 20])
    expected = len(truth) * (1 - octaves[0] / octaves[1])  # from the top
    assert np.median(truth[:, 5:-5].argmax(axis=0)) == pytest.approx(expected, abs=2)

    def sound(tag, step):
        waveform, rate = tf.audio.decode_wav(shown(tag, "audio")[step])
        assert int(rate) == model.sample_rate
        return waveform[:, 0]

    for group, waveform in (("b", excerpt[1]), ("mixture", excerpt.sum(axis=0))):
        heard = sound(f"{group}/truth", 0)
        np.testing.assert_allclose(heard, np.clip(waveform, -1, 1), rtol=0, atol=1e-4)
    separated = Separator.from_model(trainer.averaged, _CONFIG)(
        excerpt.sum(axis=0)[:, None], model.sample_rate
    )
    np.testing.assert_allclose(sound("b/estimate", 2), separated["b"][:, 0], rtol=0, atol=1e-3)


@pytest.mark.slow
def test_papers_network_trains_on_one_real_patch():
    """One step as it is, and then compiled by XLA."""
    config = Config(loss_weights=(0.297, 0.262, 0.232, 0.209), batch_size=1)
    plain, batch = _trainer(config, steps=100), _batch(config, batch=1)
    assert plain.unet.count_params() == 11_428_996
    losses = _falls(plain, batch, 0)
    compiled = dataclasses.replace(config, jit_compile=True)
    trainer = compile_trainer(plain.unet, compiled, config.loss_weights, 100)
    losses += _falls(trainer, batch, 1)
    assert losses[0] > losses[1] > losses[2]
    assert losses[2] < 0.95 * losses[0]
    assert int(trainer.optimizer.iterations) == 2


def test_a_log_that_cannot_be_written(tmp_path):
    (tmp_path / "logs").write_text("a file where the folder should be")
    board = TensorBoard(str(tmp_path / "logs"), _batch(_CONFIG, 1)[0], note="continued")
    board.set_model(_trainer(_CONFIG))
    with pytest.raises(OSError, match=r"logs'$"):
        board.on_train_begin()
