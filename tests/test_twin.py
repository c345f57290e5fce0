"""The PyTorch twin: outputs, gradients and statistics against Keras; weights there and back."""

import dataclasses
import io
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf

from sccunet import build_model, spectral
from sccunet.config import Config, ConfigError, ModelConfig
from sccunet.patching import Patching

torch = pytest.importorskip("torch")

from experiments import twin  # noqa: E402

# Threads of small networks wait for each other, above all next to another test worker.
torch.set_num_threads(1)


def _model(frame_length, hop_length, patch_samples, filters, stems, dropout=0.0):
    return ModelConfig(
        stems=tuple(f"stem{i}" for i in range(stems)),
        frame_length=frame_length,
        hop_length=hop_length,
        patch_samples=patch_samples,
        filters=filters,
        dropout=dropout,
    )


_SMALL = _model(64, 16, 600, (4, 6, 8), 3)  # 33 x 38
_CONFIG = Config(model=_SMALL, loss_weights=(0.5, 0.25, 0.25), seed=7)
_MODELS = [
    _SMALL,
    _model(64, 16, 256, (2, 3, 4, 5, 6, 7), 1),  # 33 x 17, padded to multiples of 32
    _model(60, 15, 1300, (3, 3, 3), 5),  # 31 x 87
    _model(126, 21, 504, (5, 1, 2), 2),  # 64 bins: no padding
]
_IDS = ["33x38", "33x17", "31x87", "64x25"]
_OPTIONS = dataclasses.replace(_SMALL, channels=2, input_power=0.5, output="mask")


def _twin(unet, model):
    network = twin.SpectrogramChannelsUNet(model)
    network.load_state_dict(twin.to_torch(unet, model))
    return network.eval()


def _magnitudes(model, batch=2, seed=2):
    rng = np.random.default_rng(seed)
    shape = (batch, model.bins, model.frames, model.channels)
    return np.abs(rng.standard_normal(shape)).astype(np.float32)


def _first(x):
    """Keras's [batch, bins, frames, channels] as PyTorch's [batch, channels, bins, frames]."""
    return torch.from_numpy(x).permute(0, 3, 1, 2).contiguous()


def _last(x):
    """The inverse of `_first`."""
    return x.detach().permute(0, 2, 3, 1).numpy()


def _bits(unet):
    return {weight.path: weight.numpy().tobytes() for weight in unet.weights}


def _assert_parity(found, truth):
    assert found.shape == truth.shape
    for i in range(truth.shape[-1]):
        scale = np.abs(truth[..., i]).max()
        # A channel that is nearly constant or mostly zero would prove nothing.
        assert truth[..., i].std() > 0.02 * scale
        assert np.mean(truth[..., i] > 0) > 0.3
        assert np.abs(found[..., i] - truth[..., i]).max() < 1e-4 * scale


@pytest.fixture(scope="module")
def small(randomise):
    return randomise(build_model(_SMALL))


@pytest.fixture
def checkpoint(small, tmp_path):
    """The small network's checkpoint file."""
    twin.write_checkpoint(tmp_path / "twin.pt", twin.to_torch(small, _CONFIG), _CONFIG)
    return tmp_path / "twin.pt"


# Outputs, gradients and statistics.


@pytest.mark.parametrize("model", [*_MODELS, _OPTIONS], ids=[*_IDS, "options"])
def test_output_equals_keras(model, randomise):
    unet = build_model(model)
    for seed in range(2):
        randomise(unet, seed)
        x = _magnitudes(model)
        with torch.inference_mode():
            found = _last(_twin(unet, model)(_first(x)))
        _assert_parity(found, unet(x, training=False).numpy())


@pytest.mark.slow
def test_output_of_the_papers_network_equals_keras(randomise):
    model = ModelConfig()
    unet = randomise(build_model(model), seed=1)
    x = _magnitudes(model, batch=1)
    with torch.inference_mode():
        found = _last(_twin(unet, model)(_first(x)))
    _assert_parity(found, unet(x, training=False).numpy())


def _training_step(model, unet, after, slopes):
    """Returns the largest relative differences of a step's outputs, statistics and gradients.

    `after` and `slopes` are models like `unet` that receive the twin's values.
    """
    x = _magnitudes(model, batch=3)
    # Half of the outputs are over 0: gradients pass both sides of the last ReLU.
    bias = unet.get_layer("stem_magnitudes").bias
    bias.assign(bias.numpy() + 10)
    raw = _last(_twin(unet, model).train()(_first(x)))
    bias.assign(bias.numpy() - raw.mean(axis=(0, 1, 2)))
    toward = np.random.default_rng(4).standard_normal(raw.shape).astype(np.float32)

    network = _twin(unet, model).train()
    found = network(_first(x))
    (found * _first(toward)).mean().backward()
    with tf.GradientTape() as tape:
        truth = unet(x, training=True)
        loss = tf.reduce_mean(truth * toward)
    gradients = tape.gradient(loss, unet.trainable_variables)
    assert 0.1 < np.mean(truth > 0) < 0.9

    def worst(pairs):
        return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)

    state = network.state_dict()
    twin.to_keras(state, after)
    twin.to_keras(state | {name: x.grad for name, x in network.named_parameters()}, slopes)
    moved = [
        (mine.numpy(), theirs.numpy())
        for mine, theirs in zip(after.weights, unet.weights, strict=True)
        if theirs.name in ("moving_mean", "moving_variance")
    ]
    slopes = [variable.numpy() for variable in slopes.trainable_variables]
    return (
        worst([(_last(found), truth.numpy())]),
        worst(moved),
        worst(zip(slopes, map(np.asarray, gradients), strict=True)),
    )


def test_a_training_step_equals_keras(randomise):
    unet, *others = (build_model(_SMALL) for _ in range(3))
    slopes = []
    # Rounding may put an activation on the other side of a ReLU, or select another maximum in
    # a pool, and gradients jump by percents. A mistake would change all of them.
    for seed in range(16):
        outputs, statistics, gradients = _training_step(_SMALL, randomise(unet, seed), *others)
        assert outputs < 2e-4  # 8e-5 seen on a processor without AVX-512
        assert statistics < 2e-5
        slopes.append(gradients)
        if seed and gradients < 2e-4:
            break
    assert min(slopes) < 2e-4


def test_a_training_step_moves_the_statistics(small):
    network = _twin(small, _SMALL).train()
    before = {name: x.clone() for name, x in network.named_buffers()}
    network(_first(_magnitudes(_SMALL)))
    after = dict(network.named_buffers())
    assert len(after) == 3 * 12  # two statistics and a counter per normalisation
    assert not any(torch.equal(after[name], was) for name, was in before.items())


def test_output_relu_is_relu_with_the_gradient_of_keras():
    x = torch.tensor([-2.0, -1e-3, 0.5, 3.0], requires_grad=True)
    y = twin.output_relu(x)
    y.sum().backward()
    np.testing.assert_array_equal(y.detach(), [0, 0, 0.5, 3])
    np.testing.assert_allclose(x.grad, [0.05, 0.05, 1, 1])


def test_dropout_is_for_training_only():
    model = _model(64, 16, 600, (4, 6, 8), 3, dropout=0.4)
    network = twin.SpectrogramChannelsUNet(model)
    x = _first(_magnitudes(model))
    seen = []
    network.dropout.register_forward_hook(lambda _, inputs, y: seen.append((inputs[0], y)))
    with torch.inference_mode():
        network.train()(x)
        assert len(seen) == 2  # two decoder levels
        for before, after in seen:
            assert torch.mean((after == 0).float()) == pytest.approx(0.4, abs=0.05)
            kept = after != 0
            torch.testing.assert_close(after[kept], before[kept] / 0.6)
        torch.testing.assert_close(network.eval()(x), network(x), rtol=0, atol=0)


def test_initial_weights_are_distributed_as_in_keras():
    model = _model(64, 16, 600, (16, 24, 32), 8)
    torch.manual_seed(0)
    keras.utils.set_random_seed(0)
    fresh, theirs = build_model(model), build_model(model)
    twin.to_keras(twin.SpectrogramChannelsUNet(model).state_dict(), fresh)
    for variable, other in zip(fresh.weights, theirs.weights, strict=True):
        mine, other = variable.numpy(), other.numpy()
        if variable.name == "kernel":
            mine, other = np.abs(mine), np.abs(other)
            assert mine.max() == pytest.approx(other.max(), rel=0.1)
            assert mine.mean() == pytest.approx(other.mean(), rel=0.2)
        else:
            np.testing.assert_array_equal(mine, other)


def test_channels_last_and_autocast(small):
    network = _twin(small, _SMALL).to(memory_format=torch.channels_last)
    x = _first(_magnitudes(_SMALL))
    with torch.inference_mode():
        truth = _twin(small, _SMALL)(x)
        found = network(x.to(memory_format=torch.channels_last))
        torch.testing.assert_close(found, truth, rtol=1e-5, atol=1e-5)
        with torch.autocast("cpu", torch.bfloat16):
            rough = network(x)
    assert rough.dtype == torch.float32
    assert 0 < (rough - truth).abs().max() < 0.1 * truth.max()


@pytest.mark.parametrize(
    "model", [_MODELS[0], _MODELS[2], _OPTIONS], ids=[_IDS[0], _IDS[2], "options"]
)
def test_separated_patches_equal_keras(model, randomise):
    unet = randomise(build_model(model))
    shape = (2, model.channels, model.patch_samples)
    waveforms = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    waveforms[1, :, : model.patch_samples // 2] = 0  # silence has no phase
    truth = spectral.separate_patches(waveforms, unet, model).numpy()
    with torch.inference_mode():
        found = twin.separate_patches(torch.from_numpy(waveforms), _twin(unet, model), model)
    assert found.shape == truth.shape == (2, len(model.stems), *shape[1:])
    patching = Patching.of(model)
    kept = slice(patching.margin, patching.margin + patching.keep)
    scale = np.abs(truth[..., kept]).max()
    assert np.abs(found.numpy() - truth)[..., kept].max() < 1e-4 * scale


# Weights there and back.


@pytest.mark.parametrize("model", _MODELS, ids=_IDS)
def test_keras_to_torch_to_keras_is_exact(model, randomise):
    unet, back = randomise(build_model(model), seed=5), build_model(model)
    state = twin.to_torch(unet, model)
    # Through a twin and a change of memory layout, as in use.
    network = twin.SpectrogramChannelsUNet(model)
    network.load_state_dict(state)
    twin.to_keras(network.to(memory_format=torch.channels_last).state_dict(), back)
    assert _bits(back) == _bits(unet)
    again = twin.to_torch(back, model)
    assert list(again) == list(state)
    assert all(torch.equal(again[name], x) for name, x in state.items())


def test_every_weight_has_its_own_place():
    network = twin.SpectrogramChannelsUNet(_SMALL)
    unet = build_model(_SMALL)
    state = twin.to_torch(unet, _SMALL)
    assert set(state) == set(network.state_dict())
    counters = [name for name in state if name.endswith("num_batches_tracked")]
    assert sum(x.numel() for x in state.values()) - len(counters) == unet.count_params()
    # A copy: changes of the twin do not reach Keras.
    before = _bits(unet)
    for x in state.values():
        x.zero_()
    assert _bits(unet) == before


def test_config_may_be_of_any_kind(small):
    for config in (_SMALL, _CONFIG, _CONFIG.to_dict()):
        state = twin.to_torch(small, config)
        twin.SpectrogramChannelsUNet(config).load_state_dict(state)


def test_a_network_of_another_config_is_refused(small):
    other = _model(64, 16, 600, (4, 6, 9), 3)
    with pytest.raises(
        ConfigError,
        match=r"weights: found float32 \[8, 6, 3, 3\] as bottom_conv1\.weight,"
        r" expected float32 \[9, 6, 3, 3\]",
    ):
        twin.to_torch(small, other)
    deeper = _model(64, 16, 600, (4, 6, 8, 8), 3)
    with pytest.raises(ConfigError, match=r"weights: found no \w+\.weight, expected"):
        twin.to_torch(small, deeper)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda s: s.pop("decoder1_up.bias"), r"found no decoder1_up\.bias, expected 74 of this"),
        (lambda s: s.update(extra=torch.zeros(1)), r"found 'extra', expected none but this"),
        (
            lambda s: s.update({"stem_magnitudes.bias": torch.zeros(2)}),
            r"found float32 \[2\] as stem_magnitudes\.bias, expected float32 \[3\]",
        ),
        (
            lambda s: s.update({"stem_magnitudes.bias": torch.zeros(3, dtype=torch.float64)}),
            r"found float64 \[3\] as stem_magnitudes\.bias, expected float32 \[3\]",
        ),
        (
            lambda s: s.update({"stem_magnitudes.bias": [0.0] * 3}),
            r"found list as stem_magnitudes\.bias, expected a tensor",
        ),
    ],
    ids=["missing", "unknown", "shape", "dtype", "no tensor"],
)
def test_wrong_weights_are_refused_and_nothing_is_changed(small, checkpoint, change, reason):
    state = twin.to_torch(small, _SMALL)
    state = {name: torch.full_like(x, 1) for name, x in state.items()}
    change(state)
    before = _bits(small)
    with pytest.raises(ConfigError, match=f"weights: {reason}"):
        twin.to_keras(state, small)
    assert _bits(small) == before
    twin.write_checkpoint(checkpoint, state, _CONFIG)
    with pytest.raises(ConfigError, match=rf"twin\.pt: weights: {reason}"):
        twin.read_checkpoint(checkpoint)


# Checkpoint files.


def test_a_checkpoint_is_weights_and_config_for_plain_torch(small, checkpoint):
    content = torch.load(checkpoint, weights_only=True)
    assert set(content) == {"state_dict", "config"}
    assert Config.from_json(content["config"]) == _CONFIG
    state, config = twin.read_checkpoint(checkpoint)
    assert config == _CONFIG
    truth = twin.to_torch(small, _SMALL)
    assert all(torch.equal(state[name], x) for name, x in truth.items())
    assert [entry.name for entry in checkpoint.parent.iterdir()] == ["twin.pt"]


def test_a_checkpoint_that_cannot_be_written_leaves_nothing(small, checkpoint):
    before = checkpoint.read_bytes()
    with pytest.raises(AttributeError):  # a local function cannot be pickled
        twin.write_checkpoint(checkpoint, {"weight": lambda: None}, _CONFIG)
    assert [entry.name for entry in checkpoint.parent.iterdir()] == ["twin.pt"]
    assert checkpoint.read_bytes() == before


class _Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit('run')",)


def _saved(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "found no PyTorch checkpoint"),
        (b"not one\n", "found no PyTorch checkpoint"),
        (pickle.dumps(_Evil(), protocol=2), "found no PyTorch checkpoint"),
        (_saved({"state_dict": {}, "config": _Evil()}), "found no PyTorch checkpoint"),
        (_saved({"weight": torch.zeros(3)}), "found another checkpoint, expected 'state_dict' and"),
        (_saved([1, 2]), "found another checkpoint, expected 'state_dict' and"),
        (_saved({"state_dict": {}, "config": "{"}), "config: found text that is not JSON"),
        (_saved({"state_dict": {}, "config": "{}"}), "weights: found no"),
    ],
    ids=["empty", "text", "pickle", "code", "plain state_dict", "list", "no JSON", "no weights"],
)
def test_a_file_that_is_not_a_checkpoint_is_refused_in_one_line(tmp_path, content, reason):
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"x.pt: {reason}") as error:
        twin.read_checkpoint(path)
    assert "\n" not in str(error.value)


def test_a_cut_or_missing_checkpoint_is_refused(checkpoint):
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConfigError, match=r"twin\.pt: found no PyTorch checkpoint"):
        twin.read_checkpoint(checkpoint)
    checkpoint.unlink()
    with pytest.raises(ConfigError, match=r"twin\.pt: found no such file, expected a checkpoint"):
        twin.read_checkpoint(checkpoint)
