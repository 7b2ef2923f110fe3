"""Which channels no image can change, and what they hold.

A filter whose weights are all zero yields its bias; one that reads only such channels is constant
too. The value is a map rather than a number: a constant channel that a later layer pads with zeros
is another one at the borders.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from keras import layers

from lottery.compaction.graph import Array, Graph, Kind, Node, values


@dataclass(frozen=True)
class Constants:
    """For the output of every node: which channels are constant, and their values."""

    flags: Mapping[str, Array]
    """(channels,) booleans."""
    maps: Mapping[str, Array]
    """(positions, constant channels) float64."""


def constants(graph: Graph) -> Constants:
    """Constant channels by the weights' zeros, values from two random images that must agree."""
    flags: dict[str, Array] = {}
    maps: dict[str, Array] = {}
    for node, outputs in values(graph, seed=0, batch=2):
        flag = _flags(node, [flags[i] for i in node.inputs], [maps[i] for i in node.inputs])
        first, second = outputs.reshape(2, -1, node.channels)
        # They disagree, or are no numbers, where infinities meet the zeros of a kernel.
        agree = np.isclose(first, second, rtol=1e-12, atol=0) & np.isfinite(first)
        flag = flag & agree.all(axis=0)
        flags[node.name], maps[node.name] = flag, first[:, flag]
    return Constants(flags, maps)


def _flags(node: Node, inputs: list[Array], maps: list[Array]) -> Array:
    flags: Array
    if node.kind is Kind.MIXING:
        flags = np.logical_not(reads(node)[~inputs[0]].any(axis=0))
    elif node.kind is Kind.DEPTHWISE:
        kernel = node.arrays["kernel"]
        flags = np.repeat(inputs[0], kernel.shape[-1]) | ~kernel.any(axis=(0, 1)).ravel()
    elif node.kind is Kind.CHANNELWISE and node.type is layers.BatchNormalization:
        flags = inputs[0] | (node.arrays.get("gamma", np.ones(1)) == 0)
    elif node.kind in (Kind.CHANNELWISE, Kind.RESHAPE):
        flags = inputs[0]
    elif node.kind is Kind.MERGE:
        flags = np.logical_and.reduce(inputs)
        if node.type is layers.Multiply:
            for flag, own in zip(inputs, maps, strict=True):
                flags[np.flatnonzero(flag)[~own.any(axis=0)]] = True
    elif node.kind is Kind.CONCATENATE:
        flags = np.concatenate(inputs)
    elif node.kind is Kind.FLATTEN:
        flags = np.tile(inputs[0], node.channels // inputs[0].size)
    elif node.kind is Kind.CHANNEL_PADDING:
        flags = np.pad(inputs[0], node.config["padding"][1], constant_values=True)
    else:
        flags = np.zeros(node.channels, bool)
    return flags


def reads(node: Node) -> Array:
    """(inputs, outputs) booleans: where a mixing node has a weight that is not zero."""
    kernel = node.arrays["kernel"]
    return np.asarray(kernel.reshape(-1, *kernel.shape[-2:]).any(axis=0))
