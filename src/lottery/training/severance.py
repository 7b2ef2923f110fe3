"""What a mask has cut off while it trains: held at zero, or left out of the network altogether.

Both ways of training give the same numbers but for rounding, and the same states: in those all
variables have the shapes of the whole network, and what is cut off is zero. So which way is taken
may change between two attempts at a training.

What follows from a mask beyond its own zeros has a name in the literature: the weights that survive
and still matter make up its *effective* density (Vysogorets & Kempe 2023, arXiv:2107.02306).
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import keras
import numpy as np

from lottery.compaction import constants
from lottery.compaction import severed as cutting
from lottery.compaction.graph import Graph, Kind
from lottery.compaction.levels import is_batch_norm, kernel_path
from lottery.compaction.reading import read
from lottery.compaction.resizing import (
    Parts,
    ResizingError,
    remaining,
    resized,
    share_of_multiply_adds,
)
from lottery.compaction.severed import Severed
from lottery.errors import ConfigError
from lottery.models.cost import multiply_adds
from lottery.pruning.masks import Mask
from lottery.rewinding import owner
from lottery.training.checkpoints import State
from lottery.training.recipe import PAYS

log = logging.getLogger(__name__)

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Severance:
    """What a mask has cut off from a network, and which part of the network is trained."""

    mask: Mask
    """Of trainable variables, by path: what survives and is not cut off. No variable is listed of
    which everything does."""
    statistics: Mask = field(default_factory=dict)
    """The same of other variables: moving statistics."""
    parts: Parts = field(default_factory=Parts)
    """The part of each variable that the network that is trained has; all of each if it is the
    whole one."""
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Of all variables of the whole network, by path."""
    cut: Severed | None = None
    """None: nothing is known of the network beyond the mask's own zeros."""
    share: float = 1.0
    """Of the multiply-adds of the whole network, those of what is trained."""
    _owned: dict[tuple[str, ...], Mapping[str, str | None]] = field(default_factory=dict)

    @property
    def compact(self) -> bool:
        """Whether a smaller network than the whole one is trained."""
        return bool(self.parts.of)

    def mask_of_part(self) -> dict[str, Array]:
        """:attr:`mask` in the shapes of the network that is trained, where anything is pruned."""
        own = {path: self.parts.of_array(path, kept) for path, kept in self.mask.items()}
        return {path: kept for path, kept in own.items() if not kept.all()}

    def closed(self, state: State) -> State:
        """A state of the whole network with what is cut off at zero, which computes the same.

        Constants that vanish are taken from the moving means that held them: so the network answers
        the same before its first step, too.
        """
        every = {**self.mask, **self.statistics}
        owners = self._owners(tuple(state))

        def zeroed(state: State) -> State:
            return {
                name: np.where(every[path], array, np.zeros((), array.dtype))
                for name, array in state.items()
                if (path := owners[name]) in every and array.shape == every[path].shape
            }

        if all(np.array_equal(state[name], array) for name, array in zeroed(state).items()):
            return state
        shifted = {**state, **self._shifted(state)}
        return {**shifted, **zeroed(shifted)}

    def part(self, state: State) -> State:
        """The part of a state of the whole network that is trained."""
        owners = self._owners(tuple(state))
        return {
            name: self.parts.of_array(path, array)
            if (path := owners[name]) and array.shape == self.shapes[path]
            else array
            for name, array in state.items()
        }

    def whole(self, state: State) -> State:
        """A state of the whole network from that of the part; zeros elsewhere."""
        owners = self._owners(tuple(state))
        return {
            name: self.parts.whole(path, array, self.shapes[path])
            if (path := owners[name])
            and array.shape == self.parts.of_array(path, np.empty(self.shapes[path], bool)).shape
            else array
            for name, array in state.items()
        }

    def _owners(self, names: tuple[str, ...]) -> Mapping[str, str | None]:
        """The variable that each entry of a state is, or is a slot of."""
        if names not in self._owned:
            paths = frozenset(self.shapes)
            self._owned[names] = {name: owner(name, paths) for name in names}
        return self._owned[names]

    def _shifted(self, state: State) -> State:
        """The moving means that held constants which are cut off, without them."""
        if self.cut is None or not self.cut.cancelled:
            return {}
        pruned = remaining(self.cut, self.cut.pruned)
        weights = {
            path: np.where(pruned.marked(path, shape), state[f"model/{path}"], 0.0)
            if path in pruned.of
            else state[f"model/{path}"]
            for path, shape in self.shapes.items()
        }
        graph = _with_weights(self.cut.graph, weights)
        known = constants.constants(_before(graph, self.cut.cancelled))
        shifted = {}
        for name, inputs in self.cut.cancelled.items():
            node = graph.nodes[name]
            flags, maps = (part[node.inputs[0]] for part in (known.flags, known.maps))
            held = np.zeros(len(flags))
            held[flags] = maps[0]
            summed = node.arrays["kernel"].sum(axis=tuple(range(node.arrays["kernel"].ndim - 2)))
            shift = np.where(inputs, held, 0.0) @ summed
            for reader in graph.nodes.values():
                if name in reader.inputs and is_batch_norm(reader):
                    entry = f"model/{reader.paths['moving_mean']}"
                    shifted[entry] = (state[entry] - shift).astype(state[entry].dtype)
        return shifted


def nothing(model: keras.Model) -> Severance:
    """Of a network without a mask, or with one that changes."""
    return Severance({}, shapes={v.path: tuple(v.shape) for v in model.variables})


def severed(
    model: keras.Model,
    mask: Mask,
    *,
    whole_channels: bool,
    compact: bool | None,
    elementwise: bool = True,
) -> tuple[Severance, keras.Model]:
    """What ``mask`` cuts off from a fresh network, and the network to train.

    That is ``model``, or with ``compact`` a smaller one, freshly initialised; None: where that
    pays. With ``whole_channels`` the mask prunes channels (:func:`~.severed.severed`). If the
    optimizer is not ``elementwise``, nothing else is cut off, and the network stays whole: there
    weights matter to others although nothing reads them.

    Raises :class:`ConfigError` if ``compact`` is asked for and the network cannot be taken apart.
    """
    pruned = {path: kept for path, kept in mask.items() if not kept.all()}
    plain = replace(nothing(model), mask=pruned)
    if not plain.mask:
        return plain, model
    try:
        cut = _cut(model, mask, whole_channels=whole_channels, connections=elementwise)
    except Exception as error:  # whatever a layer of somebody's own makes of being taken apart
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        reason = first.removesuffix(": it cannot be exported")
        if compact:
            raise ConfigError(f"trainer.compact=true cannot be had: {reason}") from error
        log.info("the network is trained at its full size: %s", reason)
        return plain, model
    _say(cut)
    found = replace(_closure(model, mask, cut), shapes=plain.shapes, cut=_without_layers(cut))
    if compact is False or not elementwise or not cut.gone.any():
        return found, model
    if compact is None and share_of_multiply_adds(cut) > PAYS:
        return found, model
    try:
        smaller, parts = resized(model, cut)
    except ResizingError as error:
        if compact:
            raise ConfigError(f"trainer.compact=true cannot be had: {error}") from error
        log.info("the network is trained at its full size: %s", error)
        return found, model
    share = multiply_adds(smaller) / multiply_adds(model)
    if compact is None and share > PAYS:
        return found, model
    log.info(
        "trained without what the mask has cut off: %.3g %% of the multiply-adds are left",
        100 * share,
    )
    return replace(found, parts=parts, share=share), smaller


def _cut(
    model: keras.Model, mask: Mask, *, whole_channels: bool, connections: bool = True
) -> Severed:
    """What a mask cuts off from a network; constants only if their values can be computed."""
    cut = partial(
        cutting.severed, read(model), mask, whole_channels=whole_channels, connections=connections
    )
    found = cut()
    if found.cancelled:
        try:
            constants.constants(_before(found.graph, found.cancelled))
        except Exception as error:  # a layer that cannot be called from its config
            log.debug("constants stay: %s", error)
            return cut(constants=False)
    return found


def _before(graph: Graph, nodes: Iterable[str]) -> Graph:
    """The part of a graph that makes what these nodes read."""
    inputs = (source for name in nodes for source in graph.nodes[name].inputs)
    return replace(graph, outputs=tuple(dict.fromkeys(inputs))).reachable()


def share_of_channels(model: keras.Model, mask: Mask) -> float:
    """Of the multiply-adds of a network, those that are left without the channels of a mask.

    1 where the network would be trained at its full size.
    """
    try:
        smaller, _ = resized(model, _cut(model, mask, whole_channels=True))
    except Exception as error:  # as in severed, which says it when such a network is trained
        log.debug("no smaller network: %s", error)
        return 1.0
    share = multiply_adds(smaller) / multiply_adds(model)
    return share if share <= PAYS else 1.0


def _closure(model: keras.Model, mask: Mask, cut: Severed) -> Severance:
    left = remaining(cut, cut.gone)
    kept = {
        v.path: left.marked(v.path, tuple(v.shape)) & mask.get(v.path, np.True_)
        if v.path in left.of
        else mask[v.path]
        for v in model.variables
        if v.path in left.of or v.path in mask
    }
    trained = {v.path for v in model.trainable_variables} | set(mask)
    return Severance(
        {path: m for path, m in kept.items() if path in trained and not m.all()},
        {path: m for path, m in kept.items() if path not in trained},
    )


def _without_layers(cut: Severed) -> Severed:
    """The same without what holds the whole network in memory: its layers and their weights."""
    nodes = (
        replace(
            node,
            source=None,
            arrays={
                name: array
                if _path(node, name) is None
                else np.broadcast_to(np.float64(0), array.shape)
                for name, array in node.arrays.items()
            },
        )
        for node in cut.graph.nodes.values()
    )
    return replace(cut, graph=cut.graph.with_nodes(*nodes))


def _path(node: Any, name: str) -> str | None:
    """Path of the variable that an array of a node holds the values of."""
    if name == "kernel" and node.kind in (Kind.MIXING, Kind.DEPTHWISE):
        return kernel_path(node)
    path: str | None = node.paths.get(name)
    return path


def _with_weights(graph: Graph, weights: Mapping[str, Array]) -> Graph:
    """The graph with other values in its layers, by the path of a variable."""

    def value(node: Any, name: str, array: Array) -> Array:
        path = _path(node, name)
        return array if path is None else weights[path].astype("float64").reshape(array.shape)

    return graph.with_nodes(
        *(
            replace(node, arrays={n: value(node, n, a) for n, a in node.arrays.items()})
            for node in graph.nodes.values()
            if node.paths
        )
    )


def _say(cut: Severed) -> None:
    """Warn of what the mask has emptied, and of what holds it back."""
    if not cut.sees:
        log.warning(
            "the mask leaves no way from the image to the output, so the network answers the same "
            "for every image: prune less, or try mask.scope=layer, mask.rate=20 or "
            "mask.skip_last=true"
        )
    elif cut.emptied:
        log.warning(
            "the mask leaves no channel in %s: nothing of the image passes there",
            ", ".join(cut.emptied),
        )
    if cut.held:
        layers = ", ".join(f"{name} ({count})" for name, count in cut.held.items())
        log.info(
            "nothing is known of how some layers use their channels, so they keep all, also those "
            "that the mask has emptied: %s",
            layers,
        )
