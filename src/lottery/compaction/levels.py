"""What each channel of a network can hold as it trains, and which channels its outputs depend on.

By the mask and the kinds of layers alone, whatever the weights are.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import keras
import numpy as np
from keras import layers
from keras.src.applications.convnext import StochasticDepth

from lottery.compaction.channels import Classes
from lottery.compaction.graph import Array, Graph, Kind, Node, called, elements
from lottery.compaction.liveness import is_unpadded

DROPOUTS = (
    layers.Dropout, layers.SpatialDropout1D, layers.SpatialDropout2D, layers.SpatialDropout3D,
    layers.GaussianDropout,
)  # fmt: skip
"""Layers that draw a number for each channel, by which it is multiplied, so zero stays zero."""
DRAWING = (*DROPOUTS, StochasticDepth)
"""And those that draw one for each image."""
KERNELS = (Kind.MIXING, Kind.DEPTHWISE)


class Level(IntEnum):
    """What a channel can hold, of one image after another."""

    ZERO = 0
    """Nothing but zeros."""
    EVEN = 1
    """The same number for every image and at every position."""
    UNEVEN = 2
    """The same map for every image: as even ones become at borders that are padded."""
    VARYING = 3
    """What depends on the image, or on chance."""


def kernel_path(node: Node) -> str:
    """Path of the kernel of a node that has one."""
    names = ("kernel", "pointwise_kernel" if node.kind is Kind.MIXING else "depthwise_kernel")
    return next(node.paths[name] for name in names if name in node.paths)


def is_batch_norm(node: Node) -> bool:
    """Whether a node is a BatchNorm of the network, with statistics of its own."""
    return node.type is layers.BatchNormalization and "moving_mean" in node.paths


def uses(graph: Graph) -> Counter[tuple[int, Kind]]:
    """How often a layer of the network is called, by its id and what it is in the graph."""
    return Counter((id(node.source), node.kind) for node in graph.nodes.values())


def edges(node: Node, mask: Mapping[str, Array]) -> Array:
    """Where a kernel has weights left: (inputs, outputs), or (inputs, multiplier) of a depthwise
    one, booleans."""
    kernel = node.arrays["kernel"]
    kept = mask.get(kernel_path(node))
    if kept is None:
        return np.ones(kernel.shape[-2:], bool)
    return np.asarray(kept.reshape(-1, *kernel.shape[-2:]).any(axis=0))


class Flow:
    """What reaches the channels of a graph, and from which ones the outputs can be reached."""

    def __init__(
        self, graph: Graph, groups: Classes, edges: Mapping[str, Array], *, constants: bool
    ) -> None:
        self._graph, self._groups, self._edges = graph, groups, edges
        self._constants, self._uses = constants, uses(graph)
        self._lifted = {
            n.name for n in graph.nodes.values() if n.kind in KERNELS and _lifts(n.config)
        }
        self._readers: dict[str, list[Node]] = {name: [] for name in graph.nodes}
        for node in graph.nodes.values():
            for name in dict.fromkeys(node.inputs):
                self._readers[name].append(node)
        known: dict[str, _Keeps] = {}
        self._keeps = {
            n.name: _kept_by(graph, n, known)
            for n in graph.nodes.values()
            if n.kind is Kind.CHANNELWISE and not is_batch_norm(n)
        }

    def cancels(self, node: Node) -> bool:
        """Whether an even channel that a node reads makes no difference to anything.

        Its contribution is the same at every position, and a BatchNorm that trains subtracts it.
        """
        readers = self._readers[node.name]
        return (
            self._constants
            and node.kind is Kind.MIXING
            and node.config["activation"] in (None, "linear")
            and is_unpadded(node)
            and node.name not in self._graph.outputs
            and bool(readers)
            and all(is_batch_norm(r) and r.source.trainable for r in readers)
            and all(self._uses[id(r.source), r.kind] == 1 for r in readers)
        )

    def levels(self, gone: Array, *, chance: bool = True) -> dict[str, Array]:
        """(channels,) levels of the output of every node, when classes that are gone are zero.

        Without ``chance`` nothing is drawn.
        """
        levels: dict[str, Array] = {}
        for name, node in self._graph.nodes.items():
            own = self._level(node, [levels[i] for i in node.inputs], chance)
            if node.kind in KERNELS or is_batch_norm(node):  # their parameters are zero there
                own = np.where(gone[self._groups.of[name]], Level.ZERO, own)
            if name in self._lifted:
                own = np.maximum(own, Level.EVEN)
            levels[name] = own
        return levels

    def _level(self, node: Node, inputs: list[Array], chance: bool) -> Array:
        if node.kind is Kind.MIXING:
            read = np.where(self._edges[node.name], inputs[0][:, None], Level.ZERO)
            own = self._at_borders(node, read.max(axis=0))
            return np.maximum(own, Level.EVEN) if _has_bias(node) else own
        if node.kind is Kind.DEPTHWISE:
            read = np.where(self._edges[node.name], inputs[0][:, None], Level.ZERO)
            own = self._at_borders(node, read.ravel())
            return np.maximum(own, Level.EVEN) if _has_bias(node) else own
        if is_batch_norm(node):
            # Its shift; and moving statistics that it has not yet forgotten.
            return np.maximum(inputs[0], Level.EVEN)
        if node.kind is Kind.CHANNELWISE:
            keeps, own = self._keeps[node.name], inputs[0]
            if keeps.draws and chance:
                own = np.where(own > Level.ZERO, Level.VARYING, own)
            if not keeps.even:
                own = np.where(own == Level.EVEN, Level.UNEVEN, own)
            return _at_one_position(node, own if keeps.zero else np.maximum(own, Level.EVEN))
        if node.kind is Kind.MERGE:
            most: Array = np.maximum.reduce(inputs)
            if node.type is layers.Multiply:
                return np.where(np.minimum.reduce(inputs) == Level.ZERO, Level.ZERO, most)
            if node.type is layers.Concatenate:  # of positions, each with a number of its own
                return np.where(most == Level.EVEN, Level.UNEVEN, most)
            return most
        if node.kind is Kind.CONCATENATE:
            return np.concatenate(inputs)
        if node.kind is Kind.FLATTEN:
            tiled = np.tile(inputs[0], node.channels // inputs[0].size)
            return np.where(tiled == Level.UNEVEN, Level.EVEN, tiled)
        if node.kind is Kind.RESHAPE:
            return inputs[0]
        if node.kind is Kind.CHANNEL_PADDING:
            positions, sides = node.config["padding"]
            own = np.pad(inputs[0], sides, constant_values=Level.ZERO)
            return np.where(own == Level.EVEN, Level.UNEVEN, own) if np.any(positions) else own
        return np.full(node.channels, Level.VARYING)

    def _at_borders(self, node: Node, own: Array) -> Array:
        if not is_unpadded(node):
            own = np.where(own == Level.EVEN, Level.UNEVEN, own)
        return _at_one_position(node, own)

    def needed(self, gone: Array, levels: Mapping[str, Array]) -> dict[str, Array]:
        """(channels,) booleans for every node: whether an output of the network depends on it."""
        needed = {
            name: np.full(node.channels, name in self._graph.outputs)
            for name, node in self._graph.nodes.items()
        }
        for name in reversed(self._graph.nodes):
            node = self._graph.nodes[name]
            needed[name] &= levels[name] > Level.ZERO
            for place, source in enumerate(node.inputs):
                needed[source] |= self._asked(node, place, needed[name], levels)
        return needed

    def _asked(self, node: Node, place: int, own: Array, levels: Mapping[str, Array]) -> Array:
        """(channels,) booleans: what a node needs of an input, if so much of its output is."""
        level = levels[node.inputs[place]]
        if node.kind is Kind.MIXING:
            asked = (self._edges[node.name] & own).any(axis=1)
            return np.asarray(asked & (level != Level.EVEN) if self.cancels(node) else asked)
        if node.kind is Kind.DEPTHWISE:
            asked = self._edges[node.name] & own.reshape(level.size, -1)
            return np.asarray(asked.any(axis=1))
        if node.kind is Kind.CONCATENATE:
            start = sum(self._graph.nodes[i].channels for i in node.inputs[:place])
            return own[start : start + level.size]
        if node.kind is Kind.FLATTEN:
            return np.asarray(own.reshape(-1, level.size).any(axis=0))
        if node.kind is Kind.CHANNEL_PADDING:
            left = node.config["padding"][1][0]
            return own[left : left + level.size]
        if node.kind is Kind.OPAQUE:
            return np.ones(level.size, bool)
        return own

    def erasable(self, gone: Array, more: Array) -> Array:
        """(classes,) booleans: ``gone``, and those of ``more`` that zero parameters make zero.

        Wherever a kernel reads them, and wherever BatchNorm would keep statistics of them.
        """
        while True:
            levels = self.levels(gone | more)
            stay = np.zeros(self._groups.count, bool)
            for node in self._graph.nodes.values():
                if node.kind is Kind.MIXING:
                    source = node.inputs[0]
                    label = self._groups.of[source]
                    lost = (gone | more)[self._groups.of[node.name]]
                    read = (self._edges[node.name] & ~lost).any(axis=1)
                    stay[label[read & (levels[source] > Level.ZERO)]] = True
                elif is_batch_norm(node):
                    source = node.inputs[0]
                    stay[self._groups.of[source][levels[source] > Level.ZERO]] = True
            if not (more & stay).any():
                return np.asarray(gone | more)
            more = more & ~stay


def _lifts(config: Mapping[str, Any]) -> bool:
    """Whether the activation of a layer makes another number of zero."""
    activation = keras.activations.get(config.get("activation"))
    return bool(np.any(keras.ops.convert_to_numpy(activation(keras.ops.zeros(1))) != 0))


def _has_bias(node: Node) -> bool:
    return "bias" in node.arrays


def _at_one_position(node: Node, own: Array) -> Array:
    """A map of one position is even."""
    if elements(node.shape) == 1:
        return np.where(own == Level.UNEVEN, Level.EVEN, own)
    return own


@dataclass(frozen=True)
class _Keeps:
    """What a layer that treats channels one by one does to them."""

    zero: bool
    """Whether zero stays zero."""
    even: bool
    """Whether even channels stay even."""
    draws: bool
    """Whether chance decides."""


def _kept_by(graph: Graph, node: Node, known: dict[str, _Keeps]) -> _Keeps:
    (source,) = node.inputs
    shape = graph.nodes[source].shape
    config = {key: value for key, value in node.config.items() if key != "name"}
    like = f"{node.type} {config} {shape} {node.args}" if not node.arrays else node.name
    if like not in known:
        tried = np.broadcast_to(np.reshape([0, 1, -1, 0.3], (4, *(1 for _ in shape))), (4, *shape))
        found = np.asarray(keras.ops.convert_to_numpy(called(node, tried)))
        maps = found.reshape(len(tried), -1, node.channels)
        same = np.isclose(maps, maps[:, :1], rtol=1e-9, atol=0).all()
        # Weights for each position, as a PReLU may have, differ once they are trained.
        same &= all(array.size == array.shape[-1] for array in node.arrays.values())
        draws = isinstance(node.type, type) and issubclass(node.type, DRAWING)
        known[like] = _Keeps(not found[0].any(), bool(same), draws)
    return known[like]
