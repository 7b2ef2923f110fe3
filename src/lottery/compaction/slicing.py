"""The graph with the channels that stay."""

from dataclasses import replace

import keras
import numpy as np

from lottery.compaction.basis import basis, coefficients
from lottery.compaction.constants import Constants, reads
from lottery.compaction.folding import with_arrays
from lottery.compaction.graph import Array, Graph, Kind, Node, Slot
from lottery.compaction.liveness import Survivors, absorbs_all, is_unpadded


def sliced(graph: Graph, known: Constants, survivors: Survivors) -> Graph:
    """``graph`` without the other channels, their constant contributions moved."""
    nodes = [_sliced(graph, node, known, survivors) for node in graph.nodes.values()]
    graph = graph.with_nodes(*nodes)
    for name, node in graph.nodes.items():
        joins_one = node.kind is Kind.CONCATENATE and len(node.inputs) == 1
        if joins_one or (node.kind is Kind.CHANNEL_PADDING and not np.any(node.config["padding"])):
            graph = graph.without(name, graph.nodes[name].inputs[0])
    return graph


def _sliced(graph: Graph, node: Node, known: Constants, survivors: Survivors) -> Node:
    kept = survivors.kept[node.name]
    if node.kind in (Kind.INPUT, Kind.OPAQUE):
        return node
    inputs = [survivors.kept[i] for i in node.inputs]
    config, arrays = dict(node.config), dict(node.arrays)
    shape = (*node.shape[:-1], int(np.count_nonzero(kept)))
    if node.kind is Kind.MIXING:
        node = _with_constants_moved(node, graph.nodes[node.inputs[0]].shape, known, survivors)
        config, arrays = dict(node.config), dict(node.arrays)
        config["units" if "units" in config else "filters"] = shape[-1]
        arrays["kernel"] = arrays["kernel"][..., inputs[0], :][..., kept]
        if "bias" in arrays:
            arrays["bias"] = arrays["bias"][kept]
    elif node.kind is Kind.DEPTHWISE:
        arrays["kernel"] = arrays["kernel"][..., inputs[0], :]
        if "bias" in arrays:
            arrays["bias"] = arrays["bias"][kept]
    elif node.kind is Kind.CONCATENATE:
        names = tuple(i for i in node.inputs if survivors.kept[i].any())
        return replace(
            node, inputs=names, shape=shape, args=([Slot(i) for i in range(len(names))],)
        )
    elif node.kind is Kind.CHANNEL_PADDING:
        rows, (left, right) = config["padding"]
        sides = np.count_nonzero(kept[:left]), np.count_nonzero(kept[kept.size - right :])
        config["padding"] = (rows, tuple(map(int, sides)))
    elif "target_shape" in config:
        config["target_shape"] = shape
    else:
        arrays = {key: array[..., kept] for key, array in arrays.items()}
    return replace(node, config=config, arrays=arrays, shape=shape)


def _with_constants_moved(
    node: Node, shape: tuple[int, ...], known: Constants, survivors: Survivors
) -> Node:
    (source,) = node.inputs
    needed, outputs = survivors.needed[source], survivors.needed[node.name]
    constant, maps = known.flags[source], known.maps[source]
    kernel = node.arrays["kernel"].copy()
    kernel[..., ~outputs] = 0
    moved = constant & ~needed & reads(node)[:, outputs].any(axis=1)
    bias = np.zeros(node.channels)
    if moved.any() and absorbs_all(node):
        bias += _response(node, shape, kernel[..., moved, :], maps[:, moved[constant]])
    elif moved.any():
        ones = is_unpadded(node)
        present = (constant & needed)[constant]
        chosen = basis(maps, moved[constant], present, with_ones=ones)
        parts, rest = coefficients(maps, moved[constant], chosen, with_ones=ones)
        places = np.flatnonzero(constant)[chosen]
        kernel[..., places, :] += np.einsum("...io,ib->...bo", kernel[..., moved, :], parts)
        window = tuple(range(kernel.ndim - 2))
        bias += rest @ kernel[..., moved, :].sum(axis=window)
    kernel[..., ~needed, :] = 0
    if "bias" in node.arrays or bias.any():
        own = node.arrays.get("bias", np.zeros(node.channels))
        return with_arrays(node, kernel, np.where(outputs, own + bias, 0))
    return replace(node, arrays={"kernel": kernel})


def _response(node: Node, shape: tuple[int, ...], kernel: Array, maps: Array) -> Array:
    """(outputs,) of a node with one output position to ``maps``, input channels of ``shape``."""
    if kernel.ndim == 2:
        return np.asarray(maps[0] @ kernel)
    outputs = keras.ops.conv(
        maps.reshape(1, *shape[:-1], -1),
        kernel,
        strides=node.config.get("strides", 1),
        padding=node.config.get("padding", "valid"),
        dilation_rate=node.config.get("dilation_rate", 1),
    )
    return np.asarray(outputs).ravel()
