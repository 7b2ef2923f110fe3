import functools

import cv2
import keras
import numpy as np
import pytest
from conftest import THOROUGH
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers
from sklearn.datasets import load_digits, load_sample_images

from lottery import models
from lottery.compaction.basis import basis, coefficients
from lottery.compaction.folding import fold
from lottery.compaction.graph import values
from lottery.compaction.inference import compact, compacted, removed
from lottery.compaction.reading import read
from lottery.errors import ConfigError
from lottery.models import cost, kernels

OWN = {
    "lenet": ("lenet_300_100", (8, 8, 1), 1.0),
    "conv_2": ("conv_2", (16, 16, 3), 0.25),
    "conv_4": ("conv_4", (16, 16, 3), 0.25),
    "conv_6": ("conv_6", (16, 16, 3), 0.25),
    "resnet20": ("resnet20", (32, 32, 3), 0.5),
    "mobilenet_8": ("mobilenet_v2", (8, 8, 1), 0.35),
    "mobilenet_32": ("mobilenet_v2", (32, 32, 3), 0.35),
    "mobilenet_96": ("mobilenet_v2", (96, 96, 3), 0.35),
}
LARGE = ("mobilenet_8", "mobilenet_32", "mobilenet_96")


@functools.cache
def images(shape):
    """Five real images, normalised: photographs in colour, digits in grey."""
    height, width, channels = shape
    if channels == 3:
        corners = ((0, 0), (27, 240), (13, 120))
        photos = [p[y : y + 400, x : x + 400] for p in load_sample_images().images
                  for y, x in corners][:5]  # fmt: skip
    else:
        photos = list(load_digits().images[:5])
    small = [
        cv2.resize(np.float32(p), (width, height), interpolation=cv2.INTER_AREA) for p in photos
    ]
    batch = np.stack(small).reshape(-1, *shape)
    return (batch - batch.mean()) / batch.std()


def outputs(model):
    return np.asarray(model(images(model.input_shape[1:]), training=False))


def randomise(model, mask=None, seed=0):
    """Random weights, zero where ``mask(kernel, generator)`` is, logits of size 1.

    Statistics and shifts of BatchNorm are random, so that dead channels hold numbers, positive and
    negative; kernels are scaled to what the mask leaves, so that any depth tells images apart.
    Depthwise kernels and the last one are not pruned.
    """
    generator = np.random.default_rng(seed)
    found = [pair for layer in kernels.flat_layers(model) for pair in kernels.layer_kernels(layer)]
    for kernel, kind in found:
        weights = generator.normal(size=kernel.shape)
        if mask is not None and kind != "depthwise" and kernel is not found[-1][0]:
            weights *= mask(weights, generator)
        inputs = np.prod(kernel.shape[:2]) if kind == "depthwise" else (
            np.count_nonzero(weights) / kernel.shape[-1])  # fmt: skip
        kernel.assign(weights * np.sqrt(2 / max(1, inputs)))
    for v in model.variables:
        name = v.path.rpartition("/")[2]
        if name in ("gamma", "moving_variance"):
            v.assign(generator.uniform(0.5, 1.5, v.shape))
        elif name in ("beta", "bias", "moving_mean"):
            v.assign(generator.normal(size=v.shape) * 0.3)
    norms = [x for x in kernels.flat_layers(model) if isinstance(x, layers.BatchNormalization)]
    for norm in norms:
        norm.momentum = 0.5
    if norms:
        model(images(model.input_shape[1:]), training=True)
    last, size = found[-1][0], np.abs(outputs(model)).max()
    for v in model.variables:
        if v.path.rpartition("/")[0] == last.path.rpartition("/")[0]:
            v.assign(v / size)
    return model


def weights_pruned(share):
    return lambda kernel, generator: np.abs(kernel) > np.quantile(np.abs(kernel), share)


def channels_pruned(out, into=0.0, weights=0.0):
    """Shares of whole output channels, whole input channels, and weights."""

    def mask(kernel, generator):
        keep = generator.random(kernel.shape) >= weights
        keep[..., generator.random(kernel.shape[-1]) < out] = False
        if kernel.shape[-2] > 3:
            keep[..., generator.random(kernel.shape[-2]) < into, :] = False
        return keep

    return mask


MASKS = {
    "weights_80": weights_pruned(0.8),
    "weights_95": weights_pruned(0.95),
    "weights_99": weights_pruned(0.99),
    "channels_50": channels_pruned(0.5, 0.2),
    "everything": lambda kernel, generator: np.zeros(kernel.shape),
}


def assert_same_function(model, smaller):
    """Within 1e-4 for logits of size 1, absolutely and so relatively; shapes and all."""
    assert smaller.input_shape == model.input_shape
    assert smaller.output_shape == model.output_shape
    expected, found = outputs(model), outputs(smaller)
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def assert_tells_images_apart(model):
    assert outputs(model).std(axis=0).max() > 3e-3


def assert_same_in_float64(model):
    """Nothing but rounding: as graphs in double precision, on images of pure noise."""
    graph = read(model)
    expected, found = (
        next(y for node, y in values(g, seed=1, batch=2) if node.name == g.outputs[0])
        for g in (graph, compacted(graph))
    )
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def assert_plain(model):
    for operation in model.operations:
        assert type(operation).__module__.startswith(("keras.src.layers.", "keras.src.ops."))
    assert {v.dtype for v in model.variables} == {"float32"}


def size(model):
    return cost.parameters(model), cost.multiply_adds(model)


def zoo(*case):
    return pytest.param(*case, marks=pytest.mark.zoo)


def network(case):
    name, shape, width = OWN[case]
    return models.build(name, shape, 10, width=width, dropout=0.1)


@pytest.mark.parametrize(
    ("case", "mask"),
    [
        *((case, "channels_50") for case in OWN if case not in LARGE),
        *((case, "weights_95") for case in ("lenet", "conv_2", "conv_6")),
        *((case, mask) for case in ("lenet", "conv_6", "resnet20")
          for mask in ("weights_80", "weights_99", "everything")),
        *(zoo(case, "channels_50") for case in LARGE),
        *(zoo(case, "weights_95") for case in ("resnet20", "mobilenet_8", "mobilenet_32")),
    ],
)  # fmt: skip
def test_own_networks_keep_their_function(case, mask):
    model = randomise(network(case), MASKS[mask])
    before = model.get_weights()
    smaller = compact(model)
    assert_same_function(model, smaller)
    if mask in ("weights_80", "channels_50"):
        assert_tells_images_apart(model)
    if mask == "channels_50":
        # In a chain a quarter is left; a residual sum keeps a channel that one of its terms needs.
        assert cost.multiply_adds(smaller) < 0.6 * cost.multiply_adds(model)
    assert_plain(smaller)
    assert not any(isinstance(x, layers.Dropout) for x in smaller.layers)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(
    ("case", "mask"),
    [("conv_6", "weights_99"), ("resnet20", "weights_99"), zoo("mobilenet_8", "channels_50")],
)
def test_compaction_is_exact_but_for_rounding_and_leaves_nothing_to_do(case, mask):
    model = randomise(network(case), MASKS[mask])
    assert_same_in_float64(model)
    smaller = compact(model)
    assert size(compact(smaller)) == size(smaller)


@pytest.mark.parametrize("case", ["lenet", "conv_2", "resnet20", zoo("mobilenet_8")])
def test_a_network_with_nothing_pruned_only_loses_what_inference_does_not_need(case):
    model = randomise(network(case))
    smaller = compact(model)
    assert_same_function(model, smaller)
    assert all(before == after for before, after in removed(model, smaller).values())
    assert cost.multiply_adds(smaller) == cost.multiply_adds(model)
    lost = {x.name for x in model.layers} - {x.name for x in smaller.layers}
    idle = layers.BatchNormalization | layers.Dropout
    assert lost == {x.name for x in model.layers if isinstance(x, idle)}


APPLICATIONS = (
    zoo("VGG16", 32, {}),
    zoo("ResNet50", 32, {}),
    zoo("ResNet50V2", 32, {}),
    zoo("MobileNet", 32, {"width": 0.5}),
    zoo("MobileNetV2", 64, {"width": 0.35}),
    zoo("MobileNetV3Small", 32, {"width": 1.0}),
    zoo("EfficientNetB0", 32, {}),
    zoo("EfficientNetV2B0", 32, {}),
    zoo("DenseNet121", 32, {}),
    zoo("Xception", 71, {}),
    zoo("InceptionV3", 75, {}),
    zoo("InceptionResNetV2", 75, {}),
    zoo("NASNetMobile", 32, {}),
    zoo("ConvNeXtTiny", 32, {}),
)


@pytest.mark.parametrize(
    ("name", "pixels", "options"), APPLICATIONS, ids=[c.values[0] for c in APPLICATIONS]
)
def test_networks_of_keras_keep_their_function(name, pixels, options):
    model = models.build(name, (pixels, pixels, 3), 5, **options)
    randomise(model, channels_pruned(0.4, 0.2, 0.3))
    smaller = compact(model)
    assert_same_function(model, smaller)
    assert_tells_images_apart(model)
    assert_plain(smaller)
    assert cost.multiply_adds(smaller) < 0.7 * cost.multiply_adds(model)


# By hand.


def emptied(model, layer, out=(), into=()):
    kernel = model.get_layer(layer).kernel
    weights = np.asarray(kernel).copy()
    weights[..., list(out)] = 0
    weights[..., list(into), :] = 0
    kernel.assign(weights)


def chain(*, filters, strides=1):
    """Convolution, ReLU, padded depthwise convolution, ReLU, 1x1 convolution, head."""
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(filters, 3, padding="same", activation="relu", name="first")(image)
    x = layers.DepthwiseConv2D(3, strides, "same", name="filter")(x)
    x = layers.ReLU(name="relu")(x)
    x = layers.Conv2D(4, 1, name="project")(x)
    x = layers.ReLU(name="project_relu")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return randomise(keras.Model(image, layers.Dense(2, name="head")(x), name="chain"))


def test_expected_channels_of_a_small_network():
    model = chain(filters=6)
    emptied(model, "first", out=[0, 1, 2])
    emptied(model, "project", out=[3], into=[4])
    model.get_layer("first").bias.assign([0.5, -0.5, 0.0, 0.1, 0.1, 0.1])
    smaller = compact(model)
    # 0 is a constant with a border, and the only one; 1 and 2 are zero; 4 has no reader.
    assert removed(model, smaller) == {
        "first": (6, 3), "filter": (6, 3), "project": (4, 3), "head": (2, 2),
    }  # fmt: skip
    assert_same_function(model, smaller)


@pytest.mark.parametrize("strides", [1, 2])
def test_constants_with_borders_need_no_more_channels_than_borders_have_values(strides):
    model = chain(filters=40, strides=strides)
    emptied(model, "first", out=range(30))
    model.get_layer("first").bias.assign(np.linspace(0.5, 1.5, 40))
    smaller = compact(model)
    # At stride 1 nine values: corners, edges, interior. At stride 2 the padding lies on two sides
    # only: four. One of them is the bias of the next layer.
    constant = {1: 8, 2: 3}[strides]
    assert removed(model, smaller)["filter"] == (40, 10 + constant)
    assert_same_function(model, smaller)
    assert size(compact(smaller)) == size(smaller)


@pytest.mark.parametrize(("padding", "kept"), [("valid", 0), ("same", 1)])
def test_a_constant_that_a_padded_convolution_reads_takes_one_channel(padding, kept):
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(9, 3, padding="same", name="first")(image)
    x = layers.Conv2D(4, 3, 2, padding, activation="relu", name="second")(x)
    x = layers.Dense(2, name="head")(layers.Flatten(name="flatten")(x))
    model = randomise(keras.Model(image, x, name="padded"))
    emptied(model, "first", out=range(5))
    smaller = compact(model)
    assert removed(model, smaller)["first"] == (9, 4 + kept)
    assert_same_function(model, smaller)


@pytest.mark.zoo
def test_a_dead_residual_branch_disappears():
    model = randomise(network("mobilenet_8"))
    emptied(
        model, "block_2_project_conv", out=range(model.get_layer("block_2_add").output.shape[-1])
    )
    smaller = compact(model)
    assert_same_function(model, smaller)
    gone = {name for name, (_, after) in removed(model, smaller).items() if not after}
    assert gone == {f"block_2_{x}_conv" for x in ("expand", "depthwise", "project")}
    names = {x.name for x in smaller.layers}
    assert "block_2_add" not in names
    # What the branch added has moved on: no layer takes its place.
    assert not any(isinstance(x, layers.BatchNormalization) for x in smaller.layers)


def test_a_dead_branch_before_a_rectifier_leaves_a_shift():
    model = randomise(network("resnet20"))
    emptied(model, "stage_1_block_1_b_conv", out=range(8))
    smaller = compact(model)
    assert_same_function(model, smaller)
    assert removed(model, smaller)["stage_1_block_1_a_conv"] == (8, 0)
    assert isinstance(smaller.get_layer("stage_1_block_1_add"), layers.BatchNormalization)


def test_a_shift_does_not_move_into_a_layer_that_others_read():
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, activation="relu", name="trunk")(image)
    dead = layers.Conv2D(4, 1, name="dead")(x)
    shared = layers.Conv2D(4, 1, name="shared")(x)
    x = layers.Add(name="first")([x, dead])
    x = layers.Add(name="second")([x, shared])
    x = layers.Concatenate(name="both")([x, shared])
    x = layers.Dense(2, name="head")(layers.Flatten(name="flatten")(x))
    model = randomise(keras.Model(image, x, name="shared"))
    emptied(model, "dead", out=range(4))
    smaller = compact(model)
    assert_same_function(model, smaller)
    assert removed(model, smaller)["dead"] == (4, 0)


@pytest.mark.slow
def test_half_of_the_channels_is_less_than_half_of_the_work():
    model = models.build("mobilenet_v2", (32, 32, 3), 10)
    randomise(model)
    for layer in model.layers:
        if type(layer) is layers.Conv2D:
            emptied(model, layer.name, out=range(layer.filters // 2))
    smaller = compact(model)
    assert_same_function(model, smaller)
    assert cost.multiply_adds(smaller) <= 0.4 * cost.multiply_adds(model)
    assert cost.parameters(smaller) <= 0.35 * cost.parameters(model)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.Lambda(lambda x: x - keras.ops.mean(x, -1, keepdims=True), name="own"),
        lambda: layers.LayerNormalization(name="own"),
        lambda: layers.Softmax(name="own"),
        lambda: layers.Conv2DTranspose(6, 3, name="own"),
        lambda: layers.Conv2D(6, 1, groups=2, name="own"),
    ],
)
def test_what_mixes_channels_keeps_all_of_them(layer):
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(6, 3, activation="relu", name="first")(image)
    x = layers.Conv2D(6, 3, activation="relu", name="second")(x)
    x = layers.Dense(2, name="head")(layers.Flatten(name="flatten")(layer()(x)))
    model = randomise(keras.Model(image, x, name="mixed"))
    emptied(model, "first", out=[0, 1])
    emptied(model, "second", out=[0, 1])
    if isinstance(model.get_layer("own"), layers.Lambda):
        with pytest.raises(ConfigError, match=r"^own \(Lambda\) cannot be exported: "):
            compact(model)
        return
    smaller = compact(model)
    assert_same_function(model, smaller)
    assert removed(model, smaller)["first"] == (6, 4)
    assert removed(model, smaller)["second"] == (6, 6)


def test_mixed_precision_becomes_float32():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = randomise(network("resnet20"), MASKS["channels_50"])
        smaller = compact(model)
    finally:
        keras.config.set_dtype_policy(before)
    assert_plain(smaller)
    assert {x.compute_dtype for x in smaller.layers[1:]} == {"float32"}
    np.testing.assert_allclose(outputs(smaller), outputs(model), atol=0.1)


def test_what_is_no_functional_model_of_fixed_size_is_refused():
    class Own(keras.Model):
        pass

    with pytest.raises(ConfigError, match=r"^own is not a functional Keras model"):
        compact(Own(name="own"))
    image = keras.Input((None, None, 3))
    with pytest.raises(ConfigError, match=r"^any has no fixed image size"):
        compact(keras.Model(image, layers.Conv2D(2, 3)(image), name="any"))


# Folding.


@pytest.mark.parametrize("case", ["resnet20", zoo("mobilenet_8")])
def test_folding_removes_batch_norm_and_keeps_every_zero(case):
    model = randomise(network(case), MASKS["weights_80"])
    folded = fold(model)
    assert_same_function(model, folded)
    assert not any(isinstance(x, layers.BatchNormalization) for x in folded.layers)
    assert cost.multiply_adds(folded) == cost.multiply_adds(model)
    assert cost.surviving_multiply_adds(folded) == cost.surviving_multiply_adds(model)
    assert cost.surviving_multiply_adds(model) < 0.3 * cost.multiply_adds(model)


def test_batch_norm_stays_where_it_cannot_be_folded():
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, name="padded_later")(image)
    x = layers.ZeroPadding2D(name="pad")(x)
    x = layers.BatchNormalization(name="after_padding")(x)
    x = layers.Conv2D(4, 3, activation="relu", name="activated")(x)
    x = layers.BatchNormalization(name="after_activation")(x)
    shared = layers.Conv2D(4, 1, name="shared")(x)
    x = layers.BatchNormalization(name="of_one_of_two")(shared)
    x = layers.Add(name="add")([x, shared])
    x = layers.BatchNormalization(name="after_addition")(x)
    x = layers.Conv2D(4, 3, name="alone")(x)
    x = layers.BatchNormalization(name="folded")(x)
    x = layers.Dense(2, name="head")(layers.Flatten(name="flatten")(x))
    model = randomise(keras.Model(image, x, name="awkward"))
    folded = fold(model)
    assert_same_function(model, folded)
    assert {x.name for x in model.layers} - {x.name for x in folded.layers} == {"folded"}


# Properties.


def drawn(draw):
    """Small graphs of all that can happen to channels."""
    image = keras.Input((7, 8, 3), name="image")
    tensors = [image]
    seed = draw(st.integers(0, 2**16))
    for _ in range(draw(st.integers(2, 9))):
        x = draw(st.sampled_from(tensors[-3:]))
        kind = draw(st.sampled_from(
            ["conv", "conv", "strided", "depthwise", "depthwise", "separable", "norm", "add",
             "multiply", "concatenate", "pool", "pad", "widen", "squeeze"]))  # fmt: skip
        padding = draw(st.sampled_from(["same", "valid"])) if min(x.shape[1:3]) > 3 else "same"
        activation = draw(st.sampled_from([None, "relu", "sigmoid"]))
        alike = [t for t in tensors if t.shape == x.shape]
        match kind:
            case "conv":
                channels = draw(st.sampled_from([3, 5]))
                window = draw(st.sampled_from([1, 3]))
                x = layers.Conv2D(channels, window, 1, padding, activation=activation)(x)
            case "strided":
                x = layers.Conv2D(5, 3, 2, padding, activation=activation)(x)
            case "depthwise":
                strides, m = draw(st.sampled_from([(1, 1), (2, 1), (1, 2)]))
                x = layers.DepthwiseConv2D(3, strides, padding, m, activation=activation)(x)
            case "separable":
                x = layers.SeparableConv2D(4, 3, padding=padding, activation=activation)(x)
            case "norm":
                x = layers.BatchNormalization()(x)
            case "add":
                x = layers.Add()([x, draw(st.sampled_from(alike))])
            case "multiply":
                x = layers.Multiply()([x, draw(st.sampled_from(alike))])
            case "concatenate":
                same = [t for t in tensors if t.shape[1:3] == x.shape[1:3]]
                x = layers.Concatenate()([x, draw(st.sampled_from(same))])
            case "pool":
                pool = draw(st.sampled_from([layers.MaxPooling2D, layers.AveragePooling2D]))
                x = pool(3, draw(st.sampled_from([1, 2])), "same")(x)
            case "pad":
                x = layers.ZeroPadding2D(1)(x)
            case "widen":
                x = layers.ZeroPadding2D(((0, 0), (1, 2)), data_format="channels_first")(x)
            case "squeeze":
                gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
                gate = layers.Conv2D(x.shape[-1], 1, activation="sigmoid")(gate)
                x = layers.Multiply()([x, gate])
        tensors.append(x)
    head = draw(st.sampled_from([layers.Flatten, layers.GlobalAveragePooling2D]))()
    model = keras.Model(image, layers.Dense(2)(head(x)), name="drawn")
    out, into = draw(st.sampled_from([(0.0, 0.0), (0.5, 0.0), (0.5, 0.3), (0.9, 0.0), (0.0, 0.6)]))
    return randomise(model, channels_pruned(out, into), seed)


@settings(max_examples=30 if THOROUGH else 10, deadline=None, derandomize=True)
@given(st.data())
def test_any_network_keeps_its_function(data):
    model = drawn(data.draw)
    smaller = compact(model)
    assert_same_function(model, smaller)
    assert cost.multiply_adds(smaller) <= cost.multiply_adds(model)
    assert all(after <= before for before, after in removed(model, smaller).values())
    assert size(compact(smaller)) == size(smaller)


@settings(deadline=None)
@given(
    rank=st.integers(0, 6), count=st.integers(1, 20), ones=st.booleans(), seed=st.integers(0, 999)
)
def test_a_basis_spans_and_is_no_larger_than_the_rank(rank, count, ones, seed):
    generator = np.random.default_rng(seed)
    maps = generator.normal(size=(30, rank)) @ generator.normal(size=(rank, count))
    if ones:
        maps += generator.normal(size=count)
    candidates = generator.random(count) < 0.7
    present = ~candidates & (generator.random(count) < 0.5)
    chosen = basis(maps, candidates, present, with_ones=ones)
    assert len(chosen) <= rank
    assert (candidates | present)[chosen].all()
    parts, rest = coefficients(maps, candidates, chosen, with_ones=ones)
    np.testing.assert_allclose(maps[:, chosen] @ parts.T + rest, maps[:, candidates], atol=1e-6)
    assert np.abs(parts).max(initial=0) < 100
