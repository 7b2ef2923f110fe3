"""Zero channels that keep XNNPACK on its fast sparse kernels in a browser.

Where XNNPACK computes 1x1 convolutions sparsely, it takes four (or two) outputs at once if nine
tenths of the weights in the blocks of four (two) that are not empty are not zero. For WebAssembly
these kernels do not use SIMD: a single early layer that a mask has left nearly dense costs more
time than all others together. A channel of zeros among its outputs every few channels undoes that,
and costs next to nothing: sparse kernels skip it, and only a depthwise convolution works on it.
"""

from collections.abc import Iterator
from dataclasses import replace

import keras
import numpy as np

from lottery.compaction.graph import Array, Graph, Kind, Node, build
from lottery.compaction.reading import read

_ZERO = -1  # in a layout: a new channel
_SPARSE = 2 / 3  # share of zeros above which XNNPACK computes sparsely
_ENOUGH = (4, 18 / 5), (2, 9 / 5)  # outputs at once, weights per block from which on it does so
_TIED = (Kind.CHANNELWISE, Kind.DEPTHWISE, Kind.MERGE)


def space(model: keras.Model) -> keras.Model:
    """``model`` with zero channels where XNNPACK would be slow otherwise; else ``model`` itself.

    It computes the same. Nothing changes where XNNPACK does not compute sparsely at all. Raises
    :class:`ConfigError` where ``model`` cannot be exported.
    """
    graph = read(model)
    wider = spaced(graph)
    return model if wider is graph else build(wider)


def spaced(graph: Graph) -> Graph:
    """:func:`space` for a graph."""
    kernels = [_pointwise(node) for node in graph.nodes.values()]
    weights = sum(k.size for k in kernels if k is not None)
    if sum(np.count_nonzero(k == 0) for k in kernels if k is not None) <= _SPARSE * weights:
        return graph
    layouts: dict[str, Array] = {}
    for names in _tied(graph):
        crowded = [
            kernel for name in names
            if (kernel := _pointwise(graph.nodes[name])) is not None and is_crowded(kernel)
        ]  # fmt: skip
        layout = _layout(crowded) if crowded else None
        if layout is not None:
            layouts |= dict.fromkeys(names, layout)
    if not layouts:
        return graph
    return graph.with_nodes(*(_widened(node, layouts) for node in graph.nodes.values()))


def is_crowded(kernel: Array) -> bool:
    """Whether XNNPACK would compute several outputs of ``kernel`` (inputs, outputs) at once."""
    for side, enough in _ENOUGH:
        outputs = kernel.shape[1] // side * side
        blocks = (kernel[:, :outputs] != 0).reshape(len(kernel), -1, side)
        if blocks.any() and blocks.sum() >= enough * blocks.any(axis=2).sum():
            return True
    return False


def _layout(kernels: list[Array]) -> Array | None:
    """Sources of channels, and where zeros go, as few as make none of ``kernels`` crowded."""
    channels = kernels[0].shape[1]
    for run in range(7, 0, -1):
        places = np.arange(run, channels + 1, run)
        layout = np.insert(np.arange(channels), places, _ZERO)
        if not any(is_crowded(_gathered(kernel, layout, 1)) for kernel in kernels):
            return layout
    return None


def _pointwise(node: Node) -> Array | None:
    """The kernel (inputs, outputs) of a 1x1 convolution."""
    kernel = node.arrays.get("kernel") if node.kind is Kind.MIXING else None
    if kernel is None or kernel.shape[:-2] != (1, 1):
        return None
    return np.asarray(kernel[0, 0])


def _tied(graph: Graph) -> Iterator[list[str]]:
    """Nodes whose outputs must have the same channels, where these can change."""
    groups = {name: [name] for name in graph.nodes}
    fixed = set(graph.outputs)
    for name, node in graph.nodes.items():
        same = all(graph.nodes[i].channels == node.channels for i in node.inputs)
        if node.kind in _TIED and same:
            for other in node.inputs:
                if groups[other] is not groups[name]:
                    groups[other] += groups[name]
                    groups |= dict.fromkeys(groups[name], groups[other])
        elif node.kind is not Kind.MIXING:
            fixed |= {name, *node.inputs}
    for members in {id(group): group for group in groups.values()}.values():
        if fixed.isdisjoint(members):
            yield members


def _widened(node: Node, layouts: dict[str, Array]) -> Node:
    own = layouts.get(node.name)
    arrays, config, shape = dict(node.arrays), dict(node.config), node.shape
    if node.kind is Kind.MIXING:
        source = layouts.get(node.inputs[0])
        if source is not None:
            arrays["kernel"] = _gathered(arrays["kernel"], source, -2)
    if own is not None:
        shape = (*shape[:-1], len(own))
        if node.kind is Kind.MIXING:
            arrays["kernel"] = _gathered(arrays["kernel"], own, -1)
            config["units" if "units" in config else "filters"] = len(own)
        elif node.kind is Kind.DEPTHWISE:
            arrays["kernel"] = _gathered(arrays["kernel"], own, -2)
        if "bias" in arrays:
            arrays["bias"] = _gathered(arrays["bias"], own, -1)
        if node.kind is Kind.CHANNELWISE:  # ones: no statistic may be zero
            arrays = {key: _gathered(array, own, -1, fill=1) for key, array in arrays.items()}
    return replace(node, arrays=arrays, config=config, shape=shape)


def _gathered(array: Array, layout: Array, axis: int, fill: float = 0) -> Array:
    padded = np.concatenate([array, np.full_like(array.take([0], axis), fill)], axis)
    return padded.take(layout, axis)
