"""Synaptic flow of real networks, against the law that it has to obey."""

import logging
from dataclasses import dataclass
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from conftest import TINY, composed
from test_pruning_scores import evidence, score

from lottery import models, trainings
from lottery.choices import model
from lottery.errors import ConfigError
from lottery.models.kernels import kernels
from lottery.training import passes
from lottery.training.flow import Flow


def described(side, channels):
    return SimpleNamespace(input_shape=(side, side, channels), classes=tuple("0123456789"))


def trained(network, seed=0):
    """Weights of a fresh network, and BatchNorm's as if it had been trained."""
    generator = np.random.default_rng(seed)
    keras.utils.set_random_seed(seed)
    found = {v.path: v.numpy() for v in network.variables}
    for path, array in found.items():
        if path.endswith(("bias", "beta", "moving_mean", "gamma")):
            found[path] = generator.normal(size=array.shape).astype(np.float32)
        elif path.endswith("moving_variance"):
            found[path] = generator.uniform(0.5, 2, array.shape).astype(np.float32)
    return found


def flow_through(chosen, weights=None, side=16, channels=3):
    keras.utils.set_random_seed(0)
    if weights is None:
        shape = (side, side, channels)
        weights = trained(models.build_choice(chosen, shape, 10))
    return weights, Flow(chosen, described(side, channels))(weights)


def sums(weights, flow):
    """Synaptic flow of each kernel: the sum over its scores."""
    return {p: (np.abs(weights[p].astype(np.float64)) * g).sum() for p, g in flow.items()}


CHAINS = [("lenet_300_100", 0.1), ("conv_2", 0.1)]


@pytest.mark.parametrize(("name", "width"), CHAINS)
def test_every_layer_of_a_chain_passes_on_all_of_it(name, width):
    found = sums(*flow_through(model.of({"name": name, "width": width})))
    assert len(found) > 2
    np.testing.assert_allclose(list(found.values()), next(iter(found.values())), rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "branch"),
    [("resnet20", ("a", "b")), ("mobilenet_v2", ("expand", "depthwise", "project"))],
)
def test_what_a_branch_and_its_shortcut_pass_on_is_conserved(name, branch):
    """So kernels in a row have equal sums, and those that nothing goes around have all of it.

    Theorem 2 of Tanaka et al. is about cuts of a network: a shortcut belongs to the cut.
    """
    chosen = model.of({"name": name, "width": 0.25})
    found = sums(*flow_through(chosen))
    whole = found["classifier/kernel"]
    assert found["stem_conv/kernel"] == pytest.approx(whole, rel=1e-6)
    layers = {layer.name for layer in models.build_choice(chosen, (16, 16, 3), 10).layers}
    blocks = {path.rpartition(f"_{branch[-1]}_conv")[0] for path in found} - {""}
    assert len(blocks) in (9, 17)
    shares = {}
    for block in blocks:
        row = [v for p, v in found.items() if p.startswith(tuple(f"{block}_{b}_" for b in branch))]
        assert len(row) >= 2
        np.testing.assert_allclose(row, row[0], rtol=1e-6)
        shares[block] = row[0] / whole
    alone = [share for block, share in shares.items() if f"{block}_add" not in layers]
    assert len(alone) == (4 if name == "mobilenet_v2" else 0)  # ReLU6 caps nothing
    np.testing.assert_allclose(alone, 1, rtol=1e-6)
    beside = [share for block, share in shares.items() if f"{block}_add" in layers]
    assert all(0 < share < 1 for share in beside)


@dataclass(frozen=True)
class Own:
    """A choice of ``model`` that nobody has registered."""

    build_layers: object
    name: str = "own"

    def build(self, input_shape, classes):
        image = keras.Input(input_shape, name="image")
        x = self.build_layers(image)
        if len(x.shape) > 2:
            x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
        return keras.Model(image, keras.layers.Dense(classes, name="classifier")(x), name="own")


def test_the_flow_is_what_the_definition_says():
    """Absolute kernels and scales, nothing added, the deviation as it is; by hand, in numpy."""

    def build(image):
        x = keras.layers.Flatten(name="flatten")(image)
        x = keras.layers.Dense(5, name="a")(x)
        x = keras.layers.BatchNormalization(epsilon=1e-3, name="norm")(x)
        return keras.layers.ReLU(6.0, name="relu")(x)

    weights, found = flow_through(Own(build), side=4)
    a, c = (np.abs(weights[f"{p}/kernel"].astype(np.float64)) for p in ("a", "classifier"))
    scale = np.abs(weights["norm/gamma"].astype(np.float64))
    scale /= np.sqrt(weights["norm/moving_variance"].astype(np.float64) + 1e-3)
    hidden = scale * a.sum(axis=0)
    assert hidden.max() > 6
    np.testing.assert_allclose(found["classifier/kernel"], np.outer(hidden, np.ones(10)), rtol=1e-9)
    np.testing.assert_allclose(
        found["a/kernel"], np.outer(np.ones(48), scale * c.sum(axis=1)), rtol=1e-9
    )


def test_separable_convolutions_and_attention():
    def separable(image):
        return keras.layers.SeparableConv2D(6, 3, activation="relu6", name="separable")(image)

    found = sums(*flow_through(Own(separable), side=6))
    assert len(found) == 3
    np.testing.assert_allclose(list(found.values()), found["classifier/kernel"], rtol=1e-6)

    def attention(image):
        x = keras.layers.Reshape((-1, 3), name="tokens")(image)
        x = keras.layers.MultiHeadAttention(2, 4, name="attention")(x, x)
        return keras.layers.GlobalAveragePooling1D(name="mean")(x)

    found = sums(*flow_through(Own(attention), side=4))
    values = [v for p, v in found.items() if "query" not in p and "key" not in p]
    np.testing.assert_allclose(values, found["classifier/kernel"], rtol=1e-6)
    # All tokens are the same, so it does not matter which one is looked at.
    assert sum(found.values()) == pytest.approx(sum(values), rel=1e-6)


def test_what_has_no_flow_is_said(caplog):
    def normalised(image):
        x = keras.layers.Conv2D(4, 3, name="conv")(image)
        x = keras.layers.LayerNormalization(name="norm")(x)
        return keras.layers.Activation("gelu", name="gelu")(x)

    with pytest.raises(ConfigError, match=r"through own is negative .*LayerNorm"):
        flow_through(Own(normalised), side=6)

    def saturated(image):
        return keras.layers.Conv2D(4, 3, activation="tanh", name="conv")(image)

    caplog.clear()
    with caplog.at_level(logging.WARNING):
        flow_through(Own(saturated), side=6)
    assert "outputs of own are not proportional to its input" in caplog.text


def test_what_is_too_large_for_float64_is_divided(caplog):
    chosen = model.of({"name": "conv_6", "width": 0.05})
    weights, found = flow_through(chosen)
    huge = {p: w.astype(np.float64) for p, w in weights.items()}
    for path in found:
        huge[path] = huge[path] * 1e40  # nine of them
    _, divided = flow_through(chosen, huge)
    plain = sums(weights, found)
    assert np.log10(max(plain.values())) + 9 * 40 > 308
    for path in found:
        np.testing.assert_allclose(
            divided[path] / divided[path].max(), found[path] / found[path].max(), rtol=1e-9
        )
        assert divided[path].max() > 0
    np.testing.assert_allclose(
        list(sums(huge, divided).values()), sums(huge, divided)["fc1/kernel"], rtol=1e-6
    )
    for path in found:
        huge[path] = huge[path] * 1e200
    with pytest.raises(ConfigError, match="through conv_6 is not finite, even in float64"):
        flow_through(chosen, huge)


def test_keras_computes_as_before_afterwards():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        flow_through(model.of({"name": "lenet_300_100", "width": 0.02}), side=4)
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
        assert keras.config.floatx() == "float32"
    finally:
        keras.config.set_dtype_policy("float32")


def test_rounds_of_synflow_leave_every_layer_something(tmp_path):
    config = composed(*TINY, "model=resnet20", "model.width=0.25")

    def load(_):
        raise AssertionError("SynFlow takes no data")

    description = trainings.load_data(config.data).description
    network = models.build_choice(config.model, description.input_shape, 10)
    paths = [k.path for k in kernels(network)]
    known = evidence(
        passes.NetworkPasses(config, load, tmp_path),
        weights=trained(network), percentile=98.0,
    )  # fmt: skip
    known = type(known)(**{**vars(known), "paths": tuple(paths)})
    mask = known.prune(score("synflow", known, rounds=20), 98.0)
    assert list(mask) == paths
    assert all(m.any() for m in mask.values())
    once = known.prune(score("synflow", known, rounds=1), 98.0)
    assert not all(m.any() for m in once.values())
