"""Folding BatchNorm into the convolution or dense layer before it."""

from dataclasses import replace

import keras
import numpy as np
from keras import layers
from keras.src.applications.convnext import StochasticDepth

from lottery.compaction.graph import Array, Graph, Kind, Node, build
from lottery.compaction.reading import read

_IDLE_IN_INFERENCE = (
    layers.Dropout, layers.SpatialDropout1D, layers.SpatialDropout2D, layers.SpatialDropout3D,
    layers.AlphaDropout, layers.GaussianDropout, layers.GaussianNoise,
    layers.ActivityRegularization, layers.Identity, StochasticDepth,
)  # fmt: skip


def fold(model: keras.Model) -> keras.Model:
    """A float32 network with the outputs of ``model`` in inference mode, and fewer layers.

    BatchNorm (and every other scaling of channels) goes into the convolution or dense layer whose
    output it alone reads; where an activation, an addition or padding lies between, it stays.
    Dropout and its kin disappear. Zeros of kernels remain zeros. ``model`` is not changed.

    Raises :class:`ConfigError` where ``model`` cannot be exported.
    """
    return build(folded(read(model)))


def folded(graph: Graph) -> Graph:
    """:func:`fold` for a graph."""
    for name in list(graph.nodes):
        if _does_nothing(graph.nodes[name]):
            graph = graph.without(name, graph.nodes[name].inputs[0])
    consumers = graph.consumers()
    for name in list(graph.nodes):
        node = graph.nodes[name]
        affine = as_affine(node)
        if affine is None:
            continue
        before = graph.nodes[node.inputs[0]]
        if is_linear(before) and consumers[before.name] == 1:
            graph = graph.with_nodes(after(before, *affine)).without(name, before.name)
            consumers[before.name] = consumers[name]
    return graph


def _does_nothing(node: Node) -> bool:
    if issubclass(node.type, _IDLE_IN_INFERENCE):
        return True
    if node.type is layers.Activation:
        return bool(node.config["activation"] == "linear")
    affine = as_affine(node)
    return affine is not None and bool((affine[0] == 1).all() and (affine[1] == 0).all())


def is_linear(node: Node) -> bool:
    """Whether a node is a convolution or dense layer without an activation."""
    return node.kind in (Kind.MIXING, Kind.DEPTHWISE) and node.config["activation"] in (
        None,
        "linear",
    )


def as_affine(node: Node) -> tuple[Array, Array] | None:
    """Scale and shift of each channel, if that is all the node does."""
    if node.kind is not Kind.CHANNELWISE:
        return None
    ones = np.ones(node.channels)
    if node.type is layers.Rescaling:
        return ones * node.config["scale"], ones * node.config["offset"]
    if node.type is not layers.BatchNormalization:
        return None
    arrays = node.arrays
    variance = arrays["moving_variance"] + node.config["epsilon"]
    scale = arrays.get("gamma", ones) / np.sqrt(variance)
    return scale, arrays.get("beta", 0 * ones) - arrays["moving_mean"] * scale


def after(node: Node, scale: Array, shift: Array) -> Node:
    """A linear node followed by ``scale`` and ``shift`` of its outputs, as one node."""
    kernel = node.arrays["kernel"]
    factors = scale.reshape(kernel.shape[2:]) if node.kind is Kind.DEPTHWISE else scale
    bias = node.arrays.get("bias", np.zeros_like(shift)) * scale + shift
    return with_arrays(node, kernel * factors, bias)


def with_arrays(node: Node, kernel: Array, bias: Array) -> Node:
    """A convolution or dense layer with another kernel and a bias."""
    return replace(
        node,
        config={**node.config, "use_bias": True},
        arrays={"kernel": kernel, "bias": bias},
    )
