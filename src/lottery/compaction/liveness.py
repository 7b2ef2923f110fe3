"""Which channels have to stay."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lottery.compaction.basis import basis
from lottery.compaction.channels import Classes, classes
from lottery.compaction.constants import Constants, reads
from lottery.compaction.graph import Array, Graph, Kind, Node, elements


@dataclass(frozen=True)
class Survivors:
    """For the output of every node: (channels,) booleans."""

    needed: Mapping[str, Array]
    """What the network's outputs depend on."""
    kept: Mapping[str, Array]
    """What stays: what is needed, and one channel where a layer would be left without."""


def survivors(graph: Graph, known: Constants) -> Survivors:
    """The channels to keep, and the constant ones that must carry the others' contributions."""
    groups = classes(graph)
    needed = groups.fixed.copy()
    mixing = [n for n in reversed(list(graph.nodes.values())) if n.kind is Kind.MIXING]
    read = {node.name: reads(node) for node in mixing}
    # First what depends on the image, so that it is known which constants stay anyhow.
    for with_constants in (False, True):
        before = None
        while before is None or (before != needed).any():
            before = needed.copy()
            for node in mixing:
                _need_inputs(node, read[node.name], groups, needed, known, with_constants)
    kept = needed | _fillers(graph, groups, needed)
    return Survivors(
        {name: needed[label] for name, label in groups.of.items()},
        {name: kept[label] for name, label in groups.of.items()},
    )


def _need_inputs(
    node: Node, read: Array, groups: Classes, needed: Array, known: Constants,
    with_constants: bool,
) -> None:  # fmt: skip
    (source,) = node.inputs
    label, constant = groups.of[source], known.flags[source]
    used = read[:, needed[groups.of[node.name]]].any(axis=1)
    needed[label[used & ~constant]] = True
    if not with_constants or absorbs_all(node):
        return
    moved = used & constant & ~needed[label]
    if moved.any():
        present = constant & needed[label]
        chosen = basis(
            known.maps[source], moved[constant], present[constant], with_ones=is_unpadded(node)
        )
        needed[label[np.flatnonzero(constant)[chosen]]] = True


def absorbs_all(node: Node) -> bool:
    """Whether any constant input ends in the bias: where a mixing node has one output position."""
    return elements(node.shape) == 1


def is_unpadded(node: Node) -> bool:
    """Whether a mixing node turns an all-ones map into another, whatever its kernel."""
    window = node.arrays["kernel"].shape[:-2]
    return node.config.get("padding", "valid") == "valid" or set(window) <= {1}


def _fillers(graph: Graph, groups: Classes, needed: Array) -> Array:
    """Classes to keep so that no layer is left without channels."""
    fillers = np.zeros(groups.count, bool)

    def is_empty(name: str) -> bool:
        label = groups.of[name]
        return not (needed[label] | fillers[label]).any()

    before = None
    while before is None or (before != fillers).any():
        before = fillers.copy()
        used = set(graph.outputs)
        for name in reversed(graph.nodes):
            if name not in used:
                continue
            node = graph.nodes[name]
            if is_empty(name):
                fillers[groups.of[name][0]] = True
            # An empty input of a concatenation goes without leaving a trace.
            joins = node.kind is Kind.CONCATENATE
            used.update(i for i in node.inputs if not (joins and is_empty(i)))
    return fillers
