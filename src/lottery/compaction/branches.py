"""Additions to which a branch contributes the same number everywhere, whatever the image."""

from dataclasses import replace

import numpy as np
from keras import layers

from lottery.compaction.constants import Constants
from lottery.compaction.folding import after, as_affine, is_linear
from lottery.compaction.graph import Array, Graph, Kind, Node, Slot
from lottery.compaction.liveness import is_unpadded


def without_constant_branches(graph: Graph, known: Constants) -> Graph:
    """``graph`` itself, or one whose constant branches no addition reads.

    What a branch contributed becomes a shift of channels, which moves into the layers that read the
    sum where all of them can take it, and is a BatchNorm of its own where they cannot.
    """
    for name in list(graph.nodes):
        graph = _without_constants(graph, graph.nodes[name], known)
    for name in list(graph.nodes):
        graph = _with_shift_moved(graph, graph.nodes[name])
    return graph


def _without_constants(graph: Graph, node: Node, known: Constants) -> Graph:
    if node.type is not layers.Add or node.kind is not Kind.MERGE:
        return graph
    shift = np.zeros(node.channels)
    varying = []
    for name in node.inputs:
        number = _uniform(known, name)
        if number is None:
            varying.append(name)
        else:
            shift += number
    if len(varying) == len(node.inputs) or len(varying) != 1:
        return graph
    (rest,) = varying
    if graph.nodes[rest].shape != node.shape:
        return graph
    if not shift.any():
        return graph.without(node.name, rest)
    return graph.with_nodes(_shift(node, rest, shift))


def _uniform(known: Constants, name: str) -> Array | None:
    """(channels,) numbers of a tensor that is constant over images and positions, else None."""
    if not known.flags[name].all():
        return None
    maps = known.maps[name]
    same = np.isclose(maps, maps[0], rtol=1e-12, atol=0).all()
    return maps[0] if same else None


def _shift(node: Node, source: str, shift: Array) -> Node:
    arrays = {
        "beta": shift,
        "moving_mean": np.zeros(node.channels),
        "moving_variance": np.ones(node.channels),
    }
    return replace(
        node,
        kind=Kind.CHANNELWISE,
        type=layers.BatchNormalization,
        config={"scale": False, "epsilon": 0.0},
        inputs=(source,),
        arrays=arrays,
        args=(Slot(0),),
    )


def _with_shift_moved(graph: Graph, node: Node) -> Graph:
    affine = as_affine(node)
    if affine is None or (affine[0] != 1).any() or node.name in graph.outputs:
        return graph
    consumers = graph.consumers()
    changed = []
    for reader in graph.nodes.values():
        if uses := reader.inputs.count(node.name):
            takes = _taking(graph, reader, node, affine[1], consumers)
            if takes is None or uses > 1:
                return graph
            changed.append(takes)
    names = [takes.name for takes in changed]
    if len(set(names)) < len(names):
        return graph
    return graph.with_nodes(*changed).without(node.name, node.inputs[0])


def _taking(
    graph: Graph, reader: Node, source: Node, shift: Array, consumers: dict[str, int]
) -> Node | None:
    """The node that makes up for a shift that ``reader`` no longer reads, if there is one."""
    ones = np.ones(reader.channels)
    if reader.kind is Kind.MIXING and is_unpadded(reader):
        kernel = reader.arrays["kernel"]
        summed = kernel.sum(axis=tuple(range(kernel.ndim - 2)))
        return after(reader, ones, shift @ summed)
    if as_affine(reader) is not None and reader.type is layers.BatchNormalization:
        mean = reader.arrays["moving_mean"] - shift
        return replace(reader, arrays={**reader.arrays, "moving_mean": mean})
    if reader.kind is Kind.MERGE and reader.type is layers.Add:
        for name in reader.inputs:
            other = graph.nodes[name]
            if is_linear(other) and consumers[name] == 1 and other.shape == reader.shape:
                return after(other, ones, shift)
    return None
