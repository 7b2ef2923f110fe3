"""Physical removal, for inference, of what a mask has disconnected, exactly.

A channel can go if nothing that is needed reads it, or if it is constant and what it contributes
can be moved elsewhere: to the bias of the layer that reads it, or to the weights that read other
constant channels (see :mod:`lottery.compaction.basis`). Which channels these are follows from the
zeros of the kernels alone.
"""

import keras
import numpy as np

from lottery.compaction.branches import without_constant_branches
from lottery.compaction.constants import constants
from lottery.compaction.folding import folded
from lottery.compaction.graph import Graph, build
from lottery.compaction.liveness import survivors
from lottery.compaction.reading import read
from lottery.compaction.slicing import sliced
from lottery.models.kernels import flat_layers, layer_kernels


def compact(model: keras.Model) -> keras.Model:
    """A smaller float32 network that computes what ``model`` does in inference mode.

    ``model`` is functional and its pruned weights are exact zeros: they are the mask. BatchNorm is
    folded (:func:`lottery.compaction.folding.fold`); channels that the zeros have left without
    varying inputs or without readers are removed, with their constant contribution moved to what
    reads them; branches that add nothing disappear. Inputs and outputs keep their shapes, layers
    that remain their names. A layer keeps one channel at least. What is no convolution, dense
    layer, or layer that treats channels one by one keeps all its inputs and outputs. ``model`` is
    not changed.

    Raises :class:`ConfigError` where ``model`` cannot be exported.
    """
    return build(compacted(read(model)))


def compacted(graph: Graph) -> Graph:
    """:func:`compact` for a graph."""
    graph = folded(graph).reachable()
    while True:
        known = constants(graph)
        simpler = without_constant_branches(graph, known)
        if simpler is not graph:
            graph = folded(simpler).reachable()
            continue
        smaller = folded(sliced(graph, known, survivors(graph, known))).reachable()
        if _size(smaller) == _size(graph):
            return smaller
        graph = smaller


def _size(graph: Graph) -> tuple[int, int]:
    return len(graph.nodes), sum(node.channels for node in graph.nodes.values())


def removed(model: keras.Model, smaller: keras.Model) -> dict[str, tuple[int, int]]:
    """Output channels of each convolution and dense layer, before and after compaction.

    A layer that is gone has 0 channels after. Layers that others call (the projections of
    attention) are not listed: what holds them is opaque, so they keep their channels.
    """
    after = _channels(smaller)
    return {name: (count, after.get(name, 0)) for name, count in _channels(model).items()}


def _channels(model: keras.Model) -> dict[str, int]:
    return {
        layer.name: int(np.shape(layer.output)[-1])
        for layer in flat_layers(model)
        if layer_kernels(layer) and layer._inbound_nodes
    }
