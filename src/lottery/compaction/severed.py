"""What a mask has cut off for training: channels that could vanish without anyone noticing.

Exact in training mode, where BatchNorm normalises by its batch and dropout draws, so this is not
:mod:`lottery.compaction.inference`, which moves constants to other weights: those would train
otherwise. Which channels these are follows from the mask and the layers alone, not from weights.

A channel here is a class of tied ones (:mod:`lottery.compaction.channels`): what an addition or a
depthwise convolution links goes together or not at all.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras import layers

from lottery.compaction.channels import Classes, classes
from lottery.compaction.graph import Array, Graph, Kind
from lottery.compaction.levels import DRAWING, KERNELS, Flow, Level, edges, uses

_PASSING = (layers.Identity,)
# What they add to the loss, or allow, depends on no other weight, and leaves zero as it is.
_HARMLESS = (
    keras.regularizers.L1, keras.regularizers.L2, keras.regularizers.L1L2,
    keras.constraints.NonNeg,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Severed:
    """The channels that a mask has cut off, and what holds others back."""

    graph: Graph
    """As it trains: dropout treats channels one by one, too."""
    channels: Classes
    pruned: Array
    """(classes,) booleans: the channels that the mask prunes as such."""
    gone: Array
    """(classes,) booleans: all that is cut off, those among it."""
    cancelled: Mapping[str, Array]
    """By name of a node, (inputs,) booleans: the cut-off ones that gave the same number to every
    image, which the BatchNorm that follows subtracts again."""
    empty: Array
    """(classes,) booleans: what kernels make, none of which has a weight left for it."""
    sees: bool
    """Whether any output of the network depends on the image."""

    def lost(self, name: str) -> Array:
        """(channels,) booleans of the output of a node."""
        return np.asarray(self.gone[self.channels.of[name]])

    @property
    def emptied(self) -> tuple[str, ...]:
        """Nodes that make or add channels and have none left, in order."""
        kinds = (Kind.MIXING, Kind.MERGE)
        made = (n.name for n in self.graph.nodes.values() if n.kind in kinds)
        return tuple(name for name in made if self.lost(name).all())

    @property
    def held(self) -> dict[str, int]:
        """Channels that no kernel has a weight left for, and that stay nevertheless: how many of
        them layers hold of which nothing is known, by the layers' names."""
        found = {}
        for node in self.graph.nodes.values():
            if node.kind is Kind.OPAQUE:
                label = np.unique(np.concatenate([self.channels.of[i] for i in node.inputs]))
                if count := int(np.count_nonzero(self.empty[label] & ~self.gone[label])):
                    found[node.name] = count
        return found


def severed(
    graph: Graph,
    mask: Mapping[str, Array],
    *,
    whole_channels: bool,
    connections: bool = True,
    constants: bool = True,
) -> Severed:
    """What ``mask``, booleans by the path of a kernel, has cut off from ``graph``.

    Namely, in this order and until nothing more is found:

    * with ``whole_channels`` every channel of which no kernel that makes it has a weight left: the
      mask prunes channels, so what a bias or BatchNorm would put there is pruned too;
    * what has no way to an output of the network;
    * what has no way from the image and holds the same number everywhere, if each convolution that
      reads it is followed by a BatchNorm, which subtracts that number again.

    They can be set to zero, with biases, BatchNorm and optimizer slots, and stay so as others
    train; or be left out. Channels that an activation would not leave at zero stay, and so do those
    that an opaque node reads or makes, and those of layers that are used several times or have
    regularizers or constraints that look at several weights.

    Without ``connections`` only the first is looked for, and without ``constants`` the third is
    not.
    """
    graph = _as_trained(graph)
    groups = classes(graph)
    fixed = groups.fixed | _held(graph, groups)
    channels = replace(groups, fixed=fixed)
    left = {n.name: edges(n, mask) for n in graph.nodes.values() if n.kind in KERNELS}
    flow = Flow(graph, channels, left, constants=constants)
    pruned = np.zeros(groups.count, bool)
    empty = _made_of_nothing(graph, channels, left)
    if whole_channels:
        pruned = flow.erasable(pruned, empty & ~fixed)
    gone = pruned
    cancelled = {name: np.zeros(len(e), bool) for name, e in left.items()}
    while True:
        levels = flow.levels(gone)
        needed = flow.needed(gone, levels)
        idle = _everywhere(graph, channels, {name: ~need for name, need in needed.items()})
        grown = flow.erasable(gone, idle & ~fixed) if connections else gone
        if (grown == gone).all():
            cancelled = {name: c for name, c in cancelled.items() if c.any()}
            sees = _sees(graph, flow.levels(gone, chance=False))
            return Severed(graph, channels, pruned, gone, cancelled, empty, sees)
        for node in graph.nodes.values():
            if flow.cancels(node):
                label = channels.of[node.inputs[0]]
                was_even = levels[node.inputs[0]] == Level.EVEN
                cancelled[node.name] |= was_even & grown[label] & ~gone[label]
        gone = grown


def _as_trained(graph: Graph) -> Graph:
    """The graph with what only chance makes opaque taken for what it is."""
    known = (*DRAWING, *_PASSING)
    changed = [
        replace(node, kind=Kind.CHANNELWISE)
        for node in graph.nodes.values()
        if node.kind is Kind.OPAQUE and node.type in known
    ]
    # Its numbers for each channel are options, not variables.
    changed += [
        replace(node, kind=Kind.OPAQUE)
        for node in graph.nodes.values()
        if isinstance(node.source, layers.Rescaling)
        and (np.ndim(node.source.scale) or np.ndim(node.source.offset))
    ]
    return graph.with_nodes(*changed).reachable()


def _held(graph: Graph, groups: Classes) -> Array:
    """(classes,) booleans: channels that stay for the sake of a layer that reads or makes them."""
    calls = uses(graph)
    marks = np.zeros(groups.count, bool)
    for node in graph.nodes.values():
        sized = bool(node.paths) or node.type in (*DRAWING, layers.Reshape, layers.ZeroPadding2D)
        if (sized and calls[id(node.source), node.kind] > 1) or _looks_around(node.source):
            for name in (node.name, *node.inputs):
                marks[groups.of[name]] = True
    return marks


def _looks_around(layer: Any) -> bool:
    """Whether what a layer adds to the loss, or allows, looks at several weights or at outputs."""
    own = [
        value
        for name, value in getattr(layer, "__dict__", {}).items()
        if name.endswith(("_regularizer", "_constraint"))
    ]
    if getattr(layer, "activity_regularizer", None) is not None:
        return True
    return any(value is not None and type(value) not in _HARMLESS for value in own)


def _made_of_nothing(graph: Graph, groups: Classes, edges: Mapping[str, Array]) -> Array:
    """(classes,) booleans: those that kernels make, none of which has a weight left for them."""
    made, left = np.zeros(groups.count, bool), np.zeros(groups.count, bool)
    for node in graph.nodes.values():
        if node.kind is Kind.MIXING:
            label = groups.of[node.name]
            made[label] = True
            left[label[edges[node.name].any(axis=0)]] = True
    return made & ~left


def _sees(graph: Graph, levels: Mapping[str, Array]) -> bool:
    return any((levels[name] == Level.VARYING).any() for name in graph.outputs)


def _everywhere(graph: Graph, groups: Classes, marked: Mapping[str, Array]) -> Array:
    """(classes,) booleans: those that are marked wherever they occur."""
    marks = np.ones(groups.count, bool)
    for name in graph.nodes:
        marks[groups.of[name][~marked[name]]] = False
    return marks
