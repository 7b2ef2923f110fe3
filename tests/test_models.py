import functools
import inspect
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from lottery import choices, models
from lottery.choices import library
from lottery.errors import ConfigError
from lottery.models import cost, kernels
from lottery.models.networks import _library
from lottery.models.networks._mobilenet_v2 import divisible, strides

OWN = ("conv_2", "conv_4", "conv_6", "lenet_300_100", "mobilenet_v2", "resnet20")
APPLICATIONS = _library.names()


def zoo(*values):
    return [pytest.param(value, marks=pytest.mark.zoo) for value in values]


# The larger siblings of conv_2 are made by the same code.
EACH = [*zoo("conv_4", "conv_6"), *(name for name in OWN if name not in ("conv_4", "conv_6"))]
# For tests that build several times: MobileNetV2 takes seconds.
BUILT = [*zoo("conv_4", "conv_6", "mobilenet_v2"), "conv_2", "lenet_300_100", "resnet20"]


@functools.cache
def network(name):
    """A network that a test only looks at."""
    keras.utils.set_random_seed(0)
    return models.build(name, (32, 32, 3), 10)


def trainable(model):
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


def initial(name, seed):
    keras.utils.set_random_seed(seed)
    return [np.array(v) for v in models.build(name, (32, 32, 3), 10, dropout=0.1).variables]


# Sizes, against the papers and against arithmetic.


def test_mobilenet_v2_has_the_published_size():
    model = models.build("mobilenet_v2", (224, 224, 3), 1000)
    assert cost.parameters(model) == 3_538_984
    assert cost.multiply_adds(model) == 300_774_272  # 300 M in the paper
    assert model.get_layer("last_relu").output.shape == (None, 7, 7, 1280)


@pytest.mark.parametrize("width", zoo(0.35, 0.75, 1.0, 1.4))
def test_mobilenet_v2_has_the_kernels_of_keras_at_any_width(width):
    ours = models.build("mobilenet_v2", (96, 96, 3), 10, width=width)
    theirs = keras.applications.MobileNetV2((96, 96, 3), width, weights=None, classes=10)
    assert [k.shape for k in kernels.kernels(ours)] == [k.shape for k in kernels.kernels(theirs)]
    assert cost.parameters(ours) == cost.parameters(theirs)
    assert cost.multiply_adds(ours) == cost.multiply_adds(theirs)


def test_lenet_has_the_published_size():
    model = models.build("lenet_300_100", (28, 28, 1), 10)
    assert cost.parameters(model) == 266_610
    assert cost.multiply_adds(model) == 784 * 300 + 300 * 100 + 100 * 10


def test_resnet20_has_the_published_size():
    model = network("resnet20")
    assert trainable(model) == 269_722
    assert len(kernels.kernels(model)) == 20
    stem, first = 32**2 * 27 * 16, 6 * 32**2 * 9 * 16**2
    halving = 16**2 * 9 * 16 * 32 + 8**2 * 9 * 32 * 64
    rest = 5 * (16**2 * 9 * 32**2 + 8**2 * 9 * 64**2)
    assert cost.multiply_adds(model) == stem + first + halving + rest + 64 * 10


@pytest.mark.parametrize(
    ("depth", "parameters", "pooled"),
    [(2, 4_301_642, 16**2 * 64), (4, 2_425_930, 8**2 * 128), (6, 2_262_602, 4**2 * 256)],
)
def test_conv_networks_have_the_published_size(depth, parameters, pooled):
    model = models.build(f"conv_{depth}", (32, 32, 3), 10)
    assert cost.parameters(model) == parameters
    channels = [3, 64, 64, 128, 128, 256, 256][: depth + 1]
    sides = [32, 32, 16, 16, 8, 8]
    convs = sum(s**2 * 9 * a * b for s, (a, b) in zip(sides, pairwise(channels), strict=False))
    assert cost.multiply_adds(model) == convs + pooled * 256 + 256 * 256 + 256 * 10


@pytest.mark.parametrize("name", BUILT)
def test_width_scales_every_hidden_layer(name):
    whole, half = network(name), models.build(name, (32, 32, 3), 10, width=0.5)
    assert 0.2 < cost.multiply_adds(half) / cost.multiply_adds(whole) < 0.55
    assert half.output.shape == whole.output.shape
    assert models.build(name, (32, 32, 3), 10, width=0.001).output.shape == (None, 10)


# MobileNetV2 on small images.


@pytest.mark.parametrize("size", [8, 28, *zoo(16, 32, 64)])
@pytest.mark.parametrize("width", [0.1, *zoo(1.0)])
def test_small_images_keep_4x4_features(size, width):
    model = models.build("mobilenet_v2", (size, size, 3), 10, width=width)
    _, height, breadth, channels = model.get_layer("last_relu").output.shape
    assert min(height, breadth) == 4
    assert channels == 1280


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (3, [1, 1, 1, 1, 1]),
        (8, [1, 1, 1, 1, 2]),
        (32, [1, 1, 2, 2, 2]),
        (64, [1, 2, 2, 2, 2]),
        (95, [1, 2, 2, 2, 2]),
        (96, [2, 2, 2, 2, 2]),
        (224, [2, 2, 2, 2, 2]),
    ],
)
def test_the_first_halvings_are_skipped(size, expected):
    assert strides(size) == expected


@settings(deadline=None)
@given(st.integers(1, 95))
def test_small_images_are_halved_as_often_as_4x4_features_allow(size):
    sides = [size]
    for stride in strides(size):
        sides.append((sides[-1] - 1) // stride + 1)
    assert sides[-1] >= min(4, size)
    assert strides(size)[0] == 1
    assert (sides[-1] + 1) // 2 < 4


def test_the_shorter_side_decides_the_strides():
    model = models.build("mobilenet_v2", (8, 64, 3), 10)
    assert model.get_layer("last_relu").output.shape == (None, 4, 32, 1280)


@settings(deadline=None)
@given(st.floats(0.01, 4), st.sampled_from([16, 24, 32, 96, 160, 320, 1280]))
def test_channels_are_multiples_of_8_near_what_was_asked(width, channels):
    got = divisible(channels * width)
    assert got % 8 == 0
    assert got >= 8
    assert got >= 0.9 * channels * width
    assert got == 8 or got <= channels * width + 8


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet20"])
def test_a_halving_convolution_is_padded_alike_on_all_sides(name):
    # The form XNNPACK's sparse kernels accept; "same" would pad right and bottom only.
    model = models.build(name, (96, 96, 3), 10)
    halving = [x for x in model.layers if getattr(x, "strides", (1, 1)) == (2, 2)]
    halving = [x for x in halving if "conv" in type(x).__name__.lower()]
    assert len(halving) == (5 if name == "mobilenet_v2" else 2)
    for layer in halving:
        pad = layer.input._keras_history.operation
        assert isinstance(pad, layers.ZeroPadding2D)
        assert pad.padding == ((1, 1), (1, 1))
        assert layer.padding == "valid"


def test_mobilenet_v2_is_the_form_that_sparse_inference_accepts():
    model = network("mobilenet_v2")
    assert [type(x) for x in model.layers[-2:]] == [layers.GlobalAveragePooling2D, layers.Dense]
    assert {x.max_value for x in model.layers if isinstance(x, layers.ReLU)} == {6.0}
    convs = [x for x in model.layers if isinstance(x, layers.Conv2D | layers.DepthwiseConv2D)]
    assert not any(x.use_bias for x in convs)
    assert {x.epsilon for x in model.layers if isinstance(x, layers.BatchNormalization)} == {1e-3}
    assert sum(isinstance(x, layers.Add) for x in model.layers) == 10


def test_resnet20_shortcut_subsamples_and_adds_zero_channels():
    model = models.build("resnet20", (9, 8, 3), 10)
    before = model.get_layer("stage_1_block_2_relu").output
    after = model.get_layer("stage_2_block_0_pad_channels").output
    x = np.random.default_rng(0).normal(size=(2, 9, 8, 16)).astype("float32")
    y = np.array(keras.Model(before, after)(x))
    np.testing.assert_array_equal(y[..., :16], x[:, ::2, ::2])
    np.testing.assert_array_equal(y[..., 16:], np.zeros((2, 5, 4, 16)))


# What every network promises.


@pytest.mark.parametrize("name", [*BUILT, "MobileNet", *zoo("ConvNeXtTiny", "MobileNetV3Small")])
def test_outputs_are_logits(name):
    keras.utils.set_random_seed(0)
    model = models.build(name, (32, 32, 3), 7)
    assert model.output.shape == (None, 7)
    last = [x for x in model.layers if hasattr(x, "activation")][-1]
    assert last.activation is keras.activations.linear
    if name in OWN:
        x = 5 * np.random.default_rng(0).normal(size=(4, 32, 32, 3)).astype("float32")
        y = np.array(model(x))
        assert (y < 0).any()
        assert y.std(axis=0).min() > 0, "every image looks the same"


@pytest.mark.parametrize("name", [*BUILT, "MobileNet", *zoo("InceptionV3")])
def test_variable_paths_do_not_depend_on_what_was_built_before(name):
    size = 75 if name == "InceptionV3" else 32
    arguments = {} if name == "InceptionV3" else {"dropout": 0.5}
    keras.Sequential([keras.Input((4,)), layers.Dense(2), layers.Dropout(0.5)])
    first, second = (models.build(name, (size, size, 3), 10, **arguments) for _ in range(2))
    assert [v.path for v in first.variables] == [v.path for v in second.variables]
    assert [x.name for x in first.layers] == [x.name for x in second.layers]
    assert first.name == second.name
    assert len({v.path for v in first.variables}) == len(first.variables)


@pytest.mark.parametrize("name", BUILT)
def test_every_layer_is_named_by_us(name, monkeypatch):
    # Automatic names carry on counting if nobody resets them, so they differ between two builds.
    import keras.src.utils.naming as naming

    monkeypatch.setattr(naming, "reset_uids", lambda: None)
    first, second = (models.build(name, (32, 32, 3), 10) for _ in range(2))
    assert [x.name for x in first.layers] == [x.name for x in second.layers]
    assert first.name == second.name == name


@pytest.mark.parametrize("name", BUILT)
def test_weights_follow_from_the_seed(name):
    first, again, other = initial(name, 1), initial(name, 1), initial(name, 2)
    for a, b, c in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.ndim == 1 or (a != c).any()


@pytest.mark.parametrize("name", EACH)
def test_no_two_kernels_start_alike(name):
    # A Keras initializer object used for two layers gives both the same weights.
    weights = [np.array(w) for w in network(name).variables if len(w.shape) > 1]
    assert len({w.tobytes() for w in weights}) == len(weights)


@pytest.mark.parametrize("name", EACH)
def test_initial_kernels_have_the_scale_they_should(name):
    model = network(name)
    for layer in kernels.flat_layers(model):
        for variable, kind in kernels.layer_kernels(layer):
            *window, a, b = variable.shape
            inputs = np.prod(window) * (1 if kind == "depthwise" else a)
            glorot = inputs + np.prod(window) * b
            expected = np.sqrt(2 / (inputs if name == "resnet20" else glorot))
            if name == "mobilenet_v2":  # one scale for all layers; cut at two standard deviations
                expected = 0.09 * 0.8796
            np.testing.assert_allclose(np.std(variable), expected, rtol=0.2, err_msg=variable.path)


@pytest.mark.parametrize("name", [*zoo("mobilenet_v2"), "resnet20", "MobileNet"])
def test_batch_norm_momentum_reaches_every_batch_norm(name):
    model = models.build(name, (32, 32, 3), 10, batch_norm_momentum=0.9)
    norms = [x for x in model.layers if isinstance(x, layers.BatchNormalization)]
    assert norms
    assert {x.momentum for x in norms} == {0.9}


@pytest.mark.parametrize("name", BUILT)
def test_dropout_is_there_only_if_asked_and_right_before_the_classifier(name):
    def dropouts(model):
        return [i for i, x in enumerate(model.layers) if isinstance(x, layers.Dropout)]

    assert dropouts(network(name)) == []
    model = models.build(name, (32, 32, 3), 10, dropout=0.3)
    assert dropouts(model) == [len(model.layers) - 2]
    assert model.layers[-2].rate == 0.3


@pytest.mark.parametrize("name", BUILT)
def test_logits_stay_float32_in_mixed_precision(name):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = models.build(name, (32, 32, 3), 10)
    finally:
        keras.config.set_dtype_policy(before)
    assert model(np.zeros((1, *model.input_shape[1:]))).dtype == "float32"
    assert model.layers[1].compute_dtype == "float16"


@pytest.mark.parametrize("name", [*zoo("mobilenet_v2"), "resnet20"])
def test_a_network_survives_its_config(name):
    model = network(name)
    copy = keras.Model.from_config(model.get_config())
    copy.set_weights(model.get_weights())
    x = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")
    np.testing.assert_array_equal(model(x), copy(x))


# Kernels and cost.


def awkward():
    """A network whose names lie about its layers, with a nested model in the middle."""
    inner_image = keras.Input((8, 8, 4), name="inner_image")
    x = layers.Conv2D(6, 3, padding="same", groups=2, name="dense")(inner_image)
    x = layers.DepthwiseConv2D(3, 2, "same", depth_multiplier=2, name="conv")(x)
    inner = keras.Model(inner_image, x, name="inner")
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 1, name="depthwise")(image)
    x = layers.BatchNormalization(name="conv_kernel")(x)
    x = inner(x)
    x = layers.SeparableConv2D(5, 3, name="separable")(x)
    x = layers.Conv2DTranspose(2, 3, 2, name="transpose")(x)
    x = layers.Conv2D(4, 3, groups=2, name="grouped")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(3, name="depthwise_kernel")(x)
    return keras.Model(image, x, name="awkward")


def test_kernels_are_told_by_layer_and_come_in_model_order():
    found = [(k.path, k.shape, k.kind) for k in kernels.kernels(awkward())]
    assert found == [
        ("depthwise/kernel", (1, 1, 3, 4), "conv"),
        ("dense/kernel", (3, 3, 2, 6), "conv"),
        ("conv/kernel", (3, 3, 6, 2), "depthwise"),
        ("separable/depthwise_kernel", (3, 3, 12, 1), "depthwise"),
        ("separable/pointwise_kernel", (1, 1, 12, 5), "conv"),
        ("transpose/kernel", (3, 3, 2, 5), "conv"),
        ("grouped/kernel", (3, 3, 1, 4), "depthwise"),
        ("depthwise_kernel/kernel", (36, 3), "dense"),
    ]


def test_multiply_adds_of_every_kind_of_layer():
    assert cost.multiply_adds(awkward()) == (
        8 * 8 * 3 * 4  # 1x1
        + 8 * 8 * 9 * 2 * 6  # grouped: 2 of 4 inputs each
        + 4 * 4 * 9 * 12  # depthwise at stride 2
        + 2 * 2 * (9 * 12 + 12 * 5)  # separable
        + 2 * 2 * 9 * 5 * 2  # transposed: per pixel of its input
        + 3 * 3 * 9 * 4  # one input per group
        + 36 * 3
    )


def test_a_training_step_has_a_gradient_of_each_kernel_and_of_each_input_but_the_image():
    model = models.build("lenet_300_100", (28, 28, 1), 10)
    first, second, head = 784 * 300, 300 * 100, 100 * 10
    whole = first + second + head
    assert cost.training_multiply_adds(model) == 2 * first + 3 * second + 3 * head
    for layer in model.layers[:-1]:
        layer.trainable = False
    assert cost.training_multiply_adds(model) == whole + head
    model.layers[-1].trainable = False
    assert cost.training_multiply_adds(model) == whole


def test_a_masks_survivors_are_used_as_often_as_their_kernels():
    model = awkward()
    mask = {
        "dense/kernel": np.zeros((3, 3, 2, 6), bool), "conv/kernel": np.ones((3, 3, 6, 2), bool)
    }  # fmt: skip
    mask["dense/kernel"][0, 1, 1, :5] = True
    whole = cost.multiply_adds(model)
    assert cost.of_training(cost.Anatomy.of(model), mask, model) == {
        "network": whole, "surviving": whole - 8 * 8 * (9 * 2 * 6 - 5), "computed": whole,
        "training": cost.training_multiply_adds(model),
    }  # fmt: skip


def test_a_layer_that_is_called_twice_multiplies_twice():
    image = keras.Input((5,), name="image")
    shared = keras.layers.Dense(5, name="shared")
    model = keras.Model(image, keras.layers.Dense(3, name="head")(shared(shared(image))))
    assert cost.multiply_adds(model) == 2 * 5 * 5 + 5 * 3


def test_kernels_leave_out_biases_and_batch_norm():
    model = network("mobilenet_v2")
    found = kernels.kernels(model)
    kinds = [k.kind for k in found]
    assert [kinds.count(k) for k in ("conv", "depthwise", "dense")] == [35, 17, 1]
    others = {v.path for v in model.variables} - {k.path for k in found}
    assert {p.split("/")[1] for p in others} == {
        "beta", "bias", "gamma", "moving_mean", "moving_variance",
    }  # fmt: skip
    by_path = {v.path: tuple(v.shape) for v in model.variables}
    assert all(by_path[k.path] == k.shape and k.size == np.prod(k.shape) for k in found)


def test_depthwise_convolutions_stay_depthwise():
    # A peer loses `groups` on the way and trains full convolutions.
    for k in kernels.kernels(network("mobilenet_v2")):
        assert (k.kind == "depthwise") == ("depthwise" in k.path)
        if k.kind == "depthwise":
            assert k.shape[:2] == (3, 3)
            assert k.shape[3] == 1


@pytest.mark.zoo
def test_depthwise_kernels_of_convnext_are_seen_though_keras_uses_conv2d():
    kinds = [k.kind for k in kernels.kernels(network("ConvNeXtTiny"))]
    assert kinds.count("depthwise") == 3 + 3 + 9 + 3


def test_two_variables_of_one_path_are_an_error():
    def inner(name):
        image = keras.Input((4, 4, 2))
        return keras.Model(image, layers.Conv2D(2, 1, name="twin")(image), name=name)

    image = keras.Input((4, 4, 2))
    model = keras.Model(image, inner("a")(inner("b")(image)), name="outer")
    with pytest.raises(ConfigError, match=r"outer has several variables called twin/bias, twin/k"):
        kernels.kernels(model)


# Names, options and the networks of Keras.


def test_application_names_are_those_of_keras():
    public = {
        n for n in dir(keras.applications)
        if n[0].isupper() and inspect.isfunction(getattr(keras.applications, n))
    }  # fmt: skip
    assert set(APPLICATIONS) == public
    needed = {"include_top", "weights", "input_shape", "classes", "classifier_activation"}
    for name in public:
        assert needed <= set(inspect.signature(getattr(keras.applications, name)).parameters), name


@pytest.mark.parametrize("name", APPLICATIONS)
def test_arguments_read_from_the_source_are_those_of_the_function(name):
    taken = inspect.signature(getattr(keras.applications, name)).parameters
    read = library.functions("applications")[name]
    assert dict(read) == {a: p.default for a, p in taken.items()}


def test_known_names_are_modules_that_build():
    assert choices.model.names() == tuple(sorted((*OWN, *APPLICATIONS, "given")))


@pytest.mark.parametrize(
    ("name", "near"),
    [("mobilenetv2", "mobilenet_v2"), ("resnet50", "ResNet50"), ("conv2", "conv_2")],
)
def test_an_unknown_name_is_answered_with_near_ones(name, near):
    with pytest.raises(ConfigError, match=rf"^model={name} is unknown; did you mean .*{near}"):
        models.build(name, (32, 32, 3), 10)


@pytest.mark.parametrize("name", ["kernels", "cost", "_library", "_conv", "os"])
def test_helpers_are_no_networks(name):
    with pytest.raises(ConfigError, match="is unknown"):
        models.build(name, (32, 32, 3), 10)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("resnet20", {"depth": 3}, "option model.depth is unknown to model=resnet20"),
        ("MobileNet", {"depth_multiplyer": 2}, "did you mean depth_multiplier"),
        ("MobileNet", {"include_top": False}, "option model.include_top is unknown to"),
        ("MobileNet", {"alpha": 0.5}, "option model.alpha is unknown to model=MobileNet"),
        ("VGG16", {"width": 0.5}, r"unknown to model=VGG16; did you mean weights\?"),
        (
            "MobileNet",
            {"depth_multiplier": "abc"},
            r"^MobileNet cannot be built for 32x32x3 [^\n]+$",
        ),
    ],
)
def test_an_unknown_option_is_named(name, options, words):
    with pytest.raises(ConfigError, match=words):
        models.build(name, (32, 32, 3), 10, **options)


def test_options_reach_the_network():
    plain, double = (models.build("MobileNet", (32, 32, 3), 10, depth_multiplier=m) for m in (1, 2))
    assert cost.parameters(double) > cost.parameters(plain)


@pytest.mark.parametrize(
    ("name", "size", "words"),
    [
        ("ResNet50", 8, r"^ResNet50 cannot .* 8x8x3 images: Input size must be at least 32x32"),
        ("conv_6", 4, r"^conv_6 cannot .* output size would be zero or negative[^\x1b]*$"),
    ],
)
def test_too_small_images_are_refused_in_kerass_words(name, size, words):
    with pytest.raises(ConfigError, match=words):
        models.build(name, (size, size, 3), 10)


def test_width_and_dropout_of_applications():
    model = models.build("MobileNetV2", (32, 32, 3), 10, width=0.5)
    assert cost.parameters(model) == 719_034
    model = models.build("MobileNetV3Small", (32, 32, 3), 10, dropout=0.4)
    assert [x.rate for x in model.layers if isinstance(x, layers.Dropout)] == [0.4]


@pytest.mark.parametrize("name", zoo("EfficientNetB0", "MobileNetV3Small", "ConvNeXtTiny"))
def test_applications_do_not_normalise_again(name):
    model = network(name)
    first_conv = next(x for x in kernels.flat_layers(model) if isinstance(x, layers.Conv2D))
    before = [x for x in model.layers if isinstance(x, layers.Rescaling | layers.Normalization)]
    x = np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype("float32")
    y = x
    for layer in before:
        y = layer(y)
    assert first_conv.kernel.shape[-2] == 3
    np.testing.assert_allclose(y, x, atol=1e-6)


def test_importing_models_does_not_import_tensorflow():
    code = (
        "import sys, lottery.models, lottery.models.kernels, lottery.models.cost; "
        "from lottery import choices; choices.model.names(); "
        "choices.model.of({'name': 'MobileNet', 'width': 0.5, 'depth_multiplier': 1}); "
        "choices.model.of({'name': 'conv_2'}); "
        "sys.exit(' '.join({'keras', 'tensorflow'} & set(sys.modules)) or 0)"
    )
    source = str(Path(models.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": source},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_synchronised_batch_norm_is_a_matter_of_layers_not_of_names():
    plain, synced = (
        models.build("resnet20", (8, 8, 1), 10, width=0.25, sync_batch_norm=s)
        for s in (False, True)
    )
    assert [v.path for v in plain.variables] == [v.path for v in synced.variables]
    for model, expected in ((plain, False), (synced, True)):
        norms = [a for a in model.layers if isinstance(a, keras.layers.BatchNormalization)]
        assert norms
        assert {layer.synchronized for layer in norms} == {expected}


@pytest.mark.parametrize("name", OWN)
def test_our_networks_lack_the_parts_that_they_are_said_to_lack(name):
    model = network(name)
    norms = [a for a in model.layers if isinstance(a, keras.layers.BatchNormalization)]
    depthwise = [k for k in kernels.kernels(model) if k.kind == "depthwise"]
    assert models.lacks(choices.model.find(name), "batch_norm") == (not norms)
    assert models.lacks(choices.model.find(name), "depthwise") == (not depthwise)


def test_networks_of_keras_lack_the_parts_that_they_are_said_to_lack():
    """By their source: to build them all takes minutes, and gigabytes."""
    for name in APPLICATIONS:
        source = inspect.getsource(inspect.getmodule(getattr(keras.applications, name)))
        if "resnet." in source:  # ResNetV2 is made of the functions of ResNet
            source += inspect.getsource(keras.src.applications.resnet)
        separable = any(w in source for w in ("DepthwiseConv", "SeparableConv", "groups="))
        assert models.lacks(choices.model.find(name), "batch_norm") == (
            "BatchNormalization" not in source
        ), name
        assert models.lacks(choices.model.find(name), "depthwise") == (not separable), name


def test_batch_norm_is_synchronised_only_where_there_is_something_to_synchronise():
    """With a single replica it must be the same to the last bit, since its key is the same."""
    from conftest import composed

    from lottery.data import describe
    from lottery.training import run

    config = composed("model=resnet20", "model.width=0.25", "trainer.sync_batch_norm=true")
    model = run.network(config, describe(config.data))
    norms = [a for a in model.layers if isinstance(a, keras.layers.BatchNormalization)]
    assert norms
    assert not any(layer.synchronized for layer in norms)
