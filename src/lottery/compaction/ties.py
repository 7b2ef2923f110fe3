"""Which channels of a Keras network's kernels are tied, as compaction sees them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from lottery.compaction.channels import classes
from lottery.compaction.folding import folded
from lottery.compaction.graph import Array, Kind, Node
from lottery.compaction.reading import read
from lottery.pruning.units import Ties

if TYPE_CHECKING:
    import keras

_KERNELS = {
    Kind.MIXING: ("kernel", "pointwise_kernel"),
    Kind.DEPTHWISE: ("kernel", "depthwise_kernel"),
}


def ties(model: "keras.Model") -> Ties:
    """The classes of all outputs of the kernels of ``model``, numbered from 0 in order.

    -1 are channels that must stay. Kernels of layers that compaction does not know are left out; so
    are none of their channels removed. A layer that is used several times keeps channels that do
    not mean the same each time.

    Raises :class:`ConfigError` if ``model`` is no functional Keras model.
    """
    graph = folded(read(model)).reachable()
    groups = classes(graph)
    fixed = groups.fixed.copy()
    found: dict[Kind, dict[str, Array]] = {Kind.MIXING: {}, Kind.DEPTHWISE: {}}
    for node in graph.nodes.values():
        path = _kernel(node)
        if path is None:
            continue
        label = groups.of[node.name]
        before = found[node.kind].setdefault(path, label)
        differ = before != label
        fixed[np.concatenate([before[differ], label[differ]])] = True
    numbers = np.full(groups.count, -1)
    made = [label for kernels in found.values() for label in kernels.values()]
    used = np.unique(np.concatenate(made)) if made else np.empty(0, int)
    free = used[~fixed[used]]
    numbers[free] = np.arange(len(free))

    def plain(kernels: Mapping[str, Array]) -> dict[str, list[int]]:
        return {path: numbers[label].tolist() for path, label in kernels.items()}

    return Ties(plain(found[Kind.MIXING]), plain(found[Kind.DEPTHWISE]))


def _kernel(node: Node) -> str | None:
    names = _KERNELS.get(node.kind, ())
    return next((node.paths[name] for name in names if name in node.paths), None)
