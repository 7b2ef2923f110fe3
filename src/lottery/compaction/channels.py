"""Which channels of different tensors stand or fall together."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lottery.compaction.graph import Array, Graph, Kind


@dataclass(frozen=True)
class Classes:
    """Channels by class: layers between them treat each channel by itself."""

    of: Mapping[str, Array]
    """For the output of every node: (channels,) numbers of their classes."""
    count: int
    fixed: Array
    """(classes,) booleans: inputs and outputs of the network and of opaque nodes, which stay."""


def classes(graph: Graph) -> Classes:
    """Classes of channels: one must be kept where another of its class is."""
    labels: dict[str, Array] = {}
    ties: list[tuple[Array, Array]] = []
    fixed: list[Array] = []
    count = 0

    def fresh(size: int) -> Array:
        nonlocal count
        count += size
        return np.arange(count - size, count)

    for name, node in graph.nodes.items():
        inputs = [labels[i] for i in node.inputs]
        if node.kind in (Kind.CHANNELWISE, Kind.RESHAPE):
            labels[name] = inputs[0]
        elif node.kind is Kind.MERGE:
            labels[name] = inputs[0]
            ties += pairwise(inputs)
        elif node.kind is Kind.DEPTHWISE:
            labels[name] = np.repeat(inputs[0], node.channels // inputs[0].size)
        elif node.kind is Kind.CONCATENATE:
            labels[name] = np.concatenate(inputs)
        elif node.kind is Kind.FLATTEN:
            labels[name] = np.tile(inputs[0], node.channels // inputs[0].size)
        elif node.kind is Kind.CHANNEL_PADDING:
            left, right = node.config["padding"][1]
            labels[name] = np.concatenate([fresh(left), inputs[0], fresh(right)])
        else:
            labels[name] = fresh(node.channels)
            if node.kind is not Kind.MIXING:
                fixed += [labels[name], *inputs]
    fixed += [labels[name] for name in graph.outputs]

    a = np.concatenate([*(first for first, _ in ties), np.empty(0, int)])
    b = np.concatenate([*(second for _, second in ties), np.empty(0, int)])
    links = coo_array((np.ones(len(a), bool), (a, b)), shape=(count, count))
    number, merged = connected_components(links, directed=False)
    marks = np.zeros(number, bool)
    marks[merged[np.concatenate(fixed)]] = True
    return Classes({name: merged[label] for name, label in labels.items()}, number, marks)
