"""Zero channels between those of layers that a mask has left nearly dense."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers
from test_litert import images, network, saved

from lottery.export import litert
from lottery.export.interpreter import predict
from lottery.export.spacing import is_crowded, space
from lottery.models.kernels import flat_layers, layer_kernels

EARLY = ("block_0_project_conv", "block_1_expand_conv", "block_2_project_conv")


def mobilenet(dense=EARLY, share=0.95):
    """A pruned MobileNetV2 with some layers that have all of their weights."""
    whole, pruned = (network("mobilenet_v2", s) for s in (0.0, share))
    for name in dense:
        pruned.get_layer(name).kernel.assign(whole.get_layer(name).kernel)
    return pruned


def pointwise(model):
    return {
        layer.name: np.asarray(kernel)[0, 0]
        for layer in flat_layers(model)
        for kernel, kind in layer_kernels(layer)
        if kind == "conv" and kernel.shape[:2] == (1, 1)
    }


@pytest.mark.slow
def test_crowded_layers_get_zeros_and_the_network_computes_the_same():
    model, x = mobilenet(), images(2)
    before, after = pointwise(model), pointwise(spaced := space(model))
    assert {name for name, kernel in before.items() if is_crowded(kernel)} == set(EARLY)
    assert not any(map(is_crowded, after.values()))
    for name, kernel in before.items():
        assert np.count_nonzero(after[name]) == np.count_nonzero(kernel)
    # What an addition joins got its channels in the same places; the rest is as it was.
    assert after["block_1_project_conv"].shape[1] == after["block_2_project_conv"].shape[1]
    assert after["block_9_project_conv"].shape == before["block_9_project_conv"].shape
    expected = np.asarray(model(x))
    assert np.abs(np.asarray(spaced(x)) - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.slow
def test_a_file_has_the_zeros(tmp_path):
    """Seen in its size: three crowded layers, and all their readers, are a little larger."""
    model, x = mobilenet(), images(2)
    expected = np.asarray(model(x))
    got = predict(saved(tmp_path, litert.convert(model)), x)
    assert np.abs(got - expected).max() < 1e-4 * np.abs(expected).max()
    assert litert.convert(model) == litert.convert(space(model))


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_networks_that_are_not_computed_sparsely_stay(share):
    model = mobilenet(share=share)
    assert space(model) is model


@pytest.mark.slow
def test_networks_without_crowded_layers_stay():
    model = mobilenet(dense=())
    assert space(model) is model


def test_channels_that_something_else_sees_stay():
    image = keras.Input((4, 4, 64))
    seen = layers.Conv2D(16, 1)(image)
    empty = layers.Conv2D(2000, 1, kernel_initializer="zeros")(seen)
    model = keras.Model(image, [seen, empty])
    assert space(model) is model


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 64), st.integers(1, 6), st.floats(0.5, 1.0), st.integers(0, 2**32 - 1))
def test_any_layer_can_be_spaced(outputs, inputs, density, seed):
    from lottery.export.spacing import _gathered, _layout

    kernel = (np.random.default_rng(seed).random((inputs, outputs)) < density).astype(float)
    if is_crowded(kernel):
        layout = _layout([kernel])
        assert layout is not None
        np.testing.assert_array_equal(layout[layout >= 0], np.arange(outputs))
        assert not is_crowded(_gathered(kernel, layout, 1))
        assert len(layout) <= 2 * outputs


def test_a_dense_kernel_is_crowded_from_nine_tenths_on():
    rng = np.random.default_rng(0)
    draws = rng.random((500, 64))
    assert is_crowded(draws < 0.93)
    assert not is_crowded(draws < 0.87)
    assert is_crowded(np.repeat(draws[:, :16] < 0.05, 4, axis=1))  # blocks of four
    assert not is_crowded(np.zeros((500, 64)))
