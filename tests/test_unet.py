"""The network: layers of the paper, sizes, and parity with an independent PyTorch model."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from experiments.configs import medium_4stems, paper_2stems, paper_4stems, small_4stems
from sccunet import build_model
from sccunet.config import Config, ConfigError, ModelConfig, model_config
from sccunet.unet import BatchNormalization, output_relu

_TINY = ModelConfig(
    stems=("a", "b", "c"), frame_length=64, hop_length=16, patch_samples=600, filters=(4, 6, 8)
)


@pytest.fixture(scope="module")
def paper():
    return build_model(paper_4stems.get_config())


@pytest.fixture(scope="module")
def paper_weights(paper, randomise):
    return randomise(paper, seed=1)


def _count(variables):
    return sum(int(np.prod(variable.shape)) for variable in variables)


def test_paper_has_11_428_996_parameters(paper):
    assert paper.count_params() == 11_428_996
    statistics = [v for v in paper.weights if v.name in ("moving_mean", "moving_variance")]
    assert _count(statistics) == 6_848
    assert _count(paper.trainable_variables) == 11_428_996 - 6_848


def _papers_layers(stems):
    """The paper's network as a list: kind, filters, kernel, stride of each layer in order."""
    conv = lambda filters: [("Conv2D", filters, 3, 1), "BatchNormalization"]  # noqa: E731
    up = lambda filters, kernel, stride: [  # noqa: E731
        ("Conv2DTranspose", filters, kernel, stride),
        "BatchNormalization",
    ]
    expected = []
    for filters in (32, 64, 128, 256):
        expected += [*conv(filters), *conv(filters), "MaxPooling2D"]
    expected += [*conv(512), *conv(512)]
    for filters in (256, 128, 64, 32):
        expected += [*up(filters, 5, 2), "Dropout", "Concatenate"]
        expected += [*up(filters, 3, 1), *up(filters, 3, 1)]
    return [*expected, ("Conv2D", stems, 1, 1)]


def _layers(model):
    """The same list for a Keras model, in the order of computation, without input and padding."""
    found = []
    for layer in model.layers:
        kind = type(layer).__name__
        if isinstance(layer, layers.Conv2D | layers.Conv2DTranspose):
            assert layer.kernel_size[0] == layer.kernel_size[1]
            assert layer.strides[0] == layer.strides[1]
            assert layer.padding == "same" or layer.kernel_size == (1, 1)
            last = layer.kernel_size == (1, 1)
            assert layer.activation is (output_relu if last else keras.activations.relu)
            assert layer.use_bias
            found.append((kind, layer.filters, layer.kernel_size[0], layer.strides[0]))
        elif kind not in ("InputLayer", "ZeroPadding2D", "Cropping2D"):
            found.append(kind)
    return found


def test_paper_has_the_layers_of_the_paper_in_order(paper):
    assert _layers(paper) == _papers_layers(4)
    # Keras lists a functional model's layers by depth: the main path is one chain.
    chain = [layer for layer in paper.layers if not isinstance(layer, layers.InputLayer)]
    for before, after in itertools.pairwise(chain):
        inputs = after.input if isinstance(after.input, list) else [after.input]
        assert inputs[0] is before.output, after.name


def test_paper_details(paper):
    assert {x.rate for x in paper.layers if isinstance(x, layers.Dropout)} == {0.4}
    for pool in (x for x in paper.layers if isinstance(x, layers.MaxPooling2D)):
        assert pool.pool_size == pool.strides == (2, 2)
    # Each skip joins a decoder level with the normalised second convolution of its encoder level.
    joins = [x for x in paper.layers if isinstance(x, layers.Concatenate)]
    assert [join.axis for join in joins] == [-1] * 4
    for join, level in zip(joins, (4, 3, 2, 1), strict=True):
        assert join.input[0] is paper.get_layer(f"decoder{level}_dropout").output
        assert join.input[1] is paper.get_layer(f"encoder{level}_conv2_norm").output
    assert paper.get_layer("pad").output.shape == (None, 1040, 176, 1)
    assert paper.input_shape == (None, 1025, 173, 1)
    assert paper.output_shape == (None, 1025, 173, 4)


def test_2_stems_differ_only_in_the_last_layer(paper):
    two = build_model(paper_2stems.get_config())
    assert _layers(two) == _papers_layers(2)
    assert two.count_params() == 11_428_996 - 2 * (32 + 1)
    assert [w.path for w in two.weights] == [w.path for w in paper.weights]
    shapes = [
        (mine.shape, other.shape) for mine, other in zip(two.weights, paper.weights, strict=True)
    ]
    assert [i for i, (mine, other) in enumerate(shapes) if mine != other] == [
        len(shapes) - 2,
        len(shapes) - 1,
    ]
    assert shapes[-2:] == [((1, 1, 32, 2), (1, 1, 32, 4)), ((2,), (4,))]


@pytest.mark.parametrize(
    ("frame_length", "patch_samples", "filters", "stems"),
    [
        (64, 600, (4, 6), 5),  # 33 x 38
        (64, 256, (2, 3, 4, 5, 6, 7), 1),  # 33 x 17, padded to multiples of 32
        (60, 1300, (3, 3, 3), 5),  # 31 x 87
        (126, 32 * 15, (5, 1, 2), 1),  # 64 bins: no padding
    ],
)
def test_any_size_depth_and_width(frame_length, patch_samples, filters, stems, randomise):
    model = ModelConfig(
        stems=tuple(f"stem{i}" for i in range(stems)),
        frame_length=frame_length,
        hop_length=frame_length // (6 if frame_length == 126 else 4),
        patch_samples=max(patch_samples, 4 * frame_length),
        filters=filters,
    )
    unet = randomise(build_model(model))
    x = np.random.default_rng(0).uniform(0, 1, (2, model.bins, model.frames, 1)).astype(np.float32)
    y = ops.convert_to_numpy(unet(x, training=False))
    assert y.shape == (2, model.bins, model.frames, stems)
    assert np.all(y >= 0)
    assert np.all(np.isfinite(y))
    assert y.std() > 0
    # A convolution's first and last filters are the config's.
    kinds = [type(layer).__name__ for layer in unet.layers]
    assert kinds.count("MaxPooling2D") == len(filters) - 1
    assert unet.get_layer("bottom_conv2").filters == filters[-1]


def test_last_layer_is_relu(randomise):
    unet = randomise(build_model(_TINY))
    kernel, bias = unet.get_layer("stem_magnitudes").weights
    kernel.assign(-kernel)
    bias.assign([-1.0, 0.0, 1.0])
    x = np.random.default_rng(0).uniform(0, 1, (1, _TINY.bins, _TINY.frames, 1))
    assert ops.convert_to_numpy(unet(x, training=False)).min() == 0


def test_output_relu_is_relu_with_a_gradient_everywhere():
    x = tf.constant([-2.0, -1e-3, 0.5, 3.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = output_relu(x)
    np.testing.assert_array_equal(y, [0, 0, 0.5, 3])
    np.testing.assert_allclose(tape.gradient(y, x), [0.05, 0.05, 1, 1])


def test_accepts_every_kind_of_config():
    values = small_4stems.get_config()
    values.model.filters = (2, 3)
    config = Config.from_dict(values)
    names = [
        [w.path for w in build_model(given).weights]
        for given in (values, values.model, values.to_dict(), config, config.model)
    ]
    assert all(name == names[0] for name in names)
    with pytest.raises(ConfigError, match=r"config\.model\.dropout: found 2"):
        build_model({"dropout": 2})


@pytest.mark.parametrize(
    ("config", "parameters"), [(small_4stems, 717_712), (medium_4stems, 2_861_848)]
)
def test_other_configs_have_0_7_and_2_9_million_parameters(config, parameters):
    unet = build_model(config.get_config())
    assert unet.count_params() == parameters
    assert _count(unet.trainable_variables) == model_config(config.get_config()).parameters


def test_dropout_is_for_training_only():
    unet = build_model(_TINY)
    x = np.random.default_rng(0).uniform(0, 1, (1, _TINY.bins, _TINY.frames, 1))
    first, second = (ops.convert_to_numpy(unet(x, training=False)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    first, second = (ops.convert_to_numpy(unet(x, training=True)) for _ in range(2))
    assert np.abs(first - second).max() > 1e-3


@pytest.mark.parametrize(
    ("dtype", "channels", "tolerance"),
    [("float32", 4, 1e-5), ("mixed_bfloat16", 16, 0.02), ("mixed_bfloat16", 4, 0.02)],
)
def test_normalisation_in_training_equals_keras(dtype, channels, tolerance):
    layer = BatchNormalization(momentum=0.9, dtype=dtype)
    plain = layers.BatchNormalization(momentum=layer.momentum, epsilon=layer.epsilon)
    rng = np.random.default_rng(0)
    x = tf.constant(rng.normal(3, 2, (2, 17, 19, channels)).astype(np.float32))
    toward = rng.standard_normal(x.shape).astype(np.float32)
    layer.build(x.shape)
    plain.build(x.shape)
    for variable, other in zip(layer.weights, plain.weights, strict=True):
        variable.assign(rng.uniform(0.5, 1.5, channels))
        other.assign(variable)
    results = []
    for normalise in (layer, plain):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.cast(normalise(x, training=True), tf.float32)
            loss = tf.reduce_sum(y * toward)
        variables = [x, *normalise.trainable_variables]
        results.append((y, *tape.gradient(loss, variables), normalise.moving_mean))
    for found, truth in zip(*results, strict=True):
        scale = float(ops.max(ops.abs(truth)))
        np.testing.assert_allclose(found, truth, rtol=0, atol=tolerance * scale)
    # Fused kernels divide the variance by n - 1.
    rtol = 1 / 645 + tolerance
    np.testing.assert_allclose(layer.moving_variance, plain.moving_variance, rtol=rtol)


def test_mixed_bfloat16_keeps_weights_and_last_layer_in_float32():
    unet = build_model(_TINY, dtype="mixed_bfloat16")
    assert {weight.dtype for weight in unet.trainable_variables} == {"float32"}
    last = unet.get_layer("stem_magnitudes")
    assert last.compute_dtype == "float32"
    assert last.output.dtype == unet.output.dtype == "float32"
    inner = [x for x in unet.layers if x.name not in ("mixture_magnitudes", last.name, "crop")]
    assert {layer.compute_dtype for layer in inner} == {"bfloat16"}


def _torch_model(unet, config):
    """The paper's network in PyTorch, written independently; weights by their names in Keras."""
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)  # threads of small networks wait for each other
    functional = torch.nn.functional
    weights = {
        layer.name: {w.name: torch.tensor(np.array(w.numpy())) for w in layer.weights}
        for layer in unet.layers
    }

    def normalised(x, name):
        w = weights[f"{name}_norm"]
        return functional.batch_norm(
            torch.relu(x), w["moving_mean"], w["moving_variance"], w["gamma"], w["beta"], eps=1e-3
        )

    def conv(x, name):
        w = weights[name]  # Keras [h, w, in, out]
        x = functional.conv2d(x, w["kernel"].permute(3, 2, 0, 1), w["bias"], padding=1)
        return normalised(x, name)

    def deconv(x, name):
        w = weights[name]  # Keras [h, w, out, in]
        kernel = w["kernel"].permute(3, 2, 0, 1)
        return normalised(functional.conv_transpose2d(x, kernel, w["bias"], padding=1), name)

    def up(x, name):
        w = weights[name]
        kernel = w["kernel"].permute(3, 2, 0, 1)
        x = functional.conv_transpose2d(x, kernel, w["bias"], stride=2)
        # [2n + 3] -> [2n]: TensorFlow's "same" crops 1 before and 2 after.
        return normalised(x[:, :, 1:-2, 1:-2], name)

    def forward(magnitudes):  # [batch, bins, frames, 1] -> [batch, bins, frames, stems]
        levels = len(config.filters) - 1
        x = torch.tensor(magnitudes).permute(0, 3, 1, 2)
        bins, frames = x.shape[2:]
        x = functional.pad(x, (0, -frames % 2**levels, 0, -bins % 2**levels))
        skips = {}
        for level in range(1, levels + 1):
            x = conv(conv(x, f"encoder{level}_conv1"), f"encoder{level}_conv2")
            skips[level] = x
            x = functional.max_pool2d(x, 2)
        x = conv(conv(x, "bottom_conv1"), "bottom_conv2")
        for level in range(levels, 0, -1):
            x = torch.cat([up(x, f"decoder{level}_up"), skips[level]], dim=1)
            x = deconv(deconv(x, f"decoder{level}_conv1"), f"decoder{level}_conv2")
        w = weights["stem_magnitudes"]
        x = functional.conv2d(x, w["kernel"].permute(3, 2, 0, 1), w["bias"])
        return torch.relu(x)[:, :, :bins, :frames].permute(0, 2, 3, 1).numpy()

    with torch.no_grad():
        return torch.no_grad()(forward)


def _assert_parity(unet, config, batch):
    x = np.abs(np.random.default_rng(2).standard_normal((batch, config.bins, config.frames, 1)))
    x = x.astype(np.float32)
    truth = _torch_model(unet, config)(x)
    found = ops.convert_to_numpy(unet(x, training=False))
    assert found.shape == truth.shape == (batch, config.bins, config.frames, len(config.stems))
    for i in range(len(config.stems)):
        scale = np.abs(truth[..., i]).max()
        # A channel that is nearly constant or mostly zero would prove nothing.
        assert truth[..., i].std() > 0.02 * scale
        assert np.mean(truth[..., i] > 0) > 0.3
        assert np.abs(found[..., i] - truth[..., i]).max() < 1e-4 * scale


def test_parity_with_torch_on_a_small_network(randomise):
    unet = build_model(_TINY)
    for seed in range(3):
        _assert_parity(randomise(unet, seed), _TINY, batch=2)


@pytest.mark.slow
def test_parity_with_torch_on_the_papers_network(paper_weights):
    _assert_parity(paper_weights, ModelConfig(), batch=1)
