"""A Keras network at fewer channels, with the layers, names and behaviour of the one it is made of.

What was removed is in :mod:`lottery.compaction.severed`. Here a network is built that has only the
rest, to be trained: nothing is folded, BatchNorm and dropout stay what they are.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import layers
from keras.src.applications.convnext import LayerScale

from lottery.compaction.graph import Array, Kind, Node, elements
from lottery.compaction.levels import DROPOUTS, kernel_path
from lottery.compaction.reading import calls, function_of
from lottery.compaction.severed import Severed


class ResizingError(Exception):
    """A network cannot be built at fewer channels."""


@dataclass(frozen=True, eq=False)
class Parts:
    """Which part of each variable of the whole network a smaller one has.

    By path, for each axis from the last one on (the last, then the last but one), (size,) booleans;
    None where all of it is there. Variables that are not listed are there as a whole.
    """

    of: Mapping[str, tuple[Array | None, ...]] = field(default_factory=dict)

    def of_array(self, path: str, array: Array) -> Array:
        """The part of an array of the shape of that variable."""
        return array[self.places(path, array.shape)] if path in self.of else array

    def whole(self, path: str, part: Array, shape: tuple[int, ...]) -> Array:
        """An array of that shape which has this part, and zeros elsewhere."""
        if path not in self.of:
            return part
        array = np.zeros(shape, part.dtype)
        array[self.places(path, shape)] = part
        return array

    def places(self, path: str, shape: tuple[int, ...]) -> tuple[Array, ...]:
        """An index of the part in an array of that shape."""
        kept = [np.arange(size) for size in shape]
        for axis, there in enumerate(self.of[path], start=1):
            if there is not None:
                kept[-axis] = np.flatnonzero(there)
        return np.ix_(*kept)

    def marked(self, path: str, shape: tuple[int, ...]) -> Array:
        """Booleans of that shape: what belongs to the part."""
        return self.whole(path, self.of_array(path, np.ones(shape, bool)), shape)


def remaining(cut: Severed, gone: Array) -> Parts:
    """The variables without classes of channels that are gone."""
    return _parts(cut, ~gone)


def buildable(cut: Severed) -> Array:
    """(classes,) booleans: what is not cut off, and one channel where a layer would have none."""
    kept = ~cut.gone
    before = None
    while before is None or (before != kept).any():
        before = kept.copy()
        for name in cut.graph.nodes:
            label = cut.channels.of[name]
            if not kept[label].any():
                kept[label[0]] = True
    return kept


def resized(model: keras.Model, cut: Severed) -> tuple[keras.Model, Parts]:
    """``model`` without what is cut off, freshly initialised, and the parts that it has.

    Layers and variables have the same names. A layer keeps one channel at least. What dropout draws
    for a channel is what it would draw in ``model``.

    Raises :class:`ResizingError` where the layers cannot be built so.
    """
    kept = buildable(cut)
    parts = _parts(cut, kept)
    changes = {
        id(node.source): change
        for node in cut.graph.nodes.values()
        if node.source is not None and (change := _change(cut, node, kept)) is not None
    }

    clones: list[tuple[Any, Any]] = []

    def clone(operation: Any) -> Any:
        change = changes.get(id(operation), _Change())
        kind = change.type or type(operation)
        made = kind.from_config({**operation.get_config(), **change.config})
        clones.append((operation, made))
        return made

    try:
        smaller = _rebuilt(model, clone)
    except Exception as error:  # whatever a layer makes of other options or inputs
        reason = (str(error).splitlines() or [""])[0]
        raise ResizingError(f"{type(error).__name__}: {reason}") from error
    for layer, made in clones:
        if isinstance(layer, layers.Layer):
            # Names that Keras counts, as of random states, depend on what was built before.
            for v, own in zip(layer.variables, made.variables, strict=False):
                own._path = v.path
    empty = {v.path: np.empty(v.shape, bool) for v in model.variables}
    expected = {path: parts.of_array(path, array).shape for path, array in empty.items()}
    found = {v.path: tuple(v.shape) for v in smaller.variables}
    if odd := [path for path in expected if found.get(path) != expected[path]]:
        raise ResizingError(f"{odd[0]} would not have the shape that is left of it")
    return smaller, parts


def _rebuilt(model: keras.Model, clone: Callable[[Any], Any]) -> keras.Model:
    """The network with a clone of each layer, models inside it unfolded."""
    clones: dict[int, Any] = {}

    def cloned(operation: Any) -> Any:
        if id(operation) not in clones:
            clones[id(operation)] = clone(operation)
        return clones[id(operation)]

    def walk(function: Any, inputs: list[Any]) -> list[Any]:
        tensors = {id(t): own for t, own in zip(function.inputs, inputs, strict=True)}
        for node in calls(function):
            used = [tensors[id(t)] for t in node.arguments.keras_tensors]
            if (inner := function_of(node.operation)) is not None:
                outputs = walk(inner, used)
            else:
                given = (node.arguments.args, dict(node.arguments.kwargs))
                replaced = partial(_replaced, tensors)
                args, kwargs = keras.tree.map_structure(replaced, given)
                outputs = keras.tree.flatten(cloned(node.operation)(*args, **kwargs))
            tensors |= {id(t): own for t, own in zip(node.outputs, outputs, strict=True)}
        return [tensors[id(t)] for t in function.outputs]

    function = function_of(model)
    inputs = [
        keras.Input(batch_shape=t.shape, dtype=t.dtype, name=t._keras_history.operation.name)
        for t in function.inputs
    ]
    outputs = walk(function, inputs)
    return keras.Model(
        inputs[0] if len(inputs) == 1 else inputs,
        outputs[0] if len(outputs) == 1 else outputs,
        name=model.name,
    )


def _replaced(tensors: Mapping[int, Any], argument: Any) -> Any:
    return tensors.get(id(argument), argument)


@dataclass(frozen=True)
class _Change:
    """What makes a layer of one that has fewer channels."""

    config: Mapping[str, Any] = field(default_factory=dict)
    type: Any = None
    """None: that of the layer."""


def _change(cut: Severed, node: Node, kept: Array) -> _Change | None:
    """None where the layer takes its size from its input."""
    own = kept[cut.channels.of[node.name]]
    if own.all():
        return None
    count, source = int(np.count_nonzero(own)), node.source
    if node.kind is Kind.MIXING:
        return _Change({"units" if isinstance(source, layers.Dense) else "filters": count})
    if node.kind is Kind.DEPTHWISE:
        if isinstance(source, layers.SeparableConv2D | layers.DepthwiseConv2D):
            return None
        inputs = kept[cut.channels.of[node.inputs[0]]]  # a convolution with a group for each
        return _Change({"filters": count, "groups": int(np.count_nonzero(inputs))})
    if node.kind is Kind.CHANNEL_PADDING:
        rows, (left, right) = node.config["padding"]
        sides = np.count_nonzero(own[:left]), np.count_nonzero(own[own.size - right :])
        return _Change({"padding": (rows, tuple(map(int, sides)))})
    if isinstance(source, layers.Reshape):
        return _Change({"target_shape": (*node.shape[:-1], count)})
    if isinstance(source, LayerScale):
        return _Change({"projection_dim": count})
    if isinstance(source, DROPOUTS):
        return _Change(type=_drawing(type(source), own))
    return None


def _drawing(kind: Any, own: Array) -> Any:
    """A kind of dropout that draws for all channels, and uses what it draws for ``own``."""
    places = np.flatnonzero(own)

    class OfWhole(kind):  # type: ignore[misc]
        def call(self, inputs: Any, training: bool = False) -> Any:
            if not training or not self.rate:
                return inputs
            shape = (*keras.ops.shape(inputs)[:-1], own.size)
            drawn = super().call(keras.ops.ones(shape, inputs.dtype), training=training)
            return inputs * keras.ops.take(drawn, places, axis=-1)

    return OfWhole


def _parts(cut: Severed, kept: Array) -> Parts:
    found: dict[str, tuple[Array | None, ...]] = {}
    for node in cut.graph.nodes.values():
        if not node.paths:
            continue
        own = kept[cut.channels.of[node.name]]
        read = [kept[cut.channels.of[name]] for name in node.inputs]
        if node.kind is Kind.MIXING:
            found[kernel_path(node)] = (own, read[0])
            if "bias" in node.arrays:
                found[node.paths["bias"]] = (own,)
        elif node.kind is Kind.DEPTHWISE:
            one_each = isinstance(node.source, layers.SeparableConv2D | layers.DepthwiseConv2D)
            found[kernel_path(node)] = (None, read[0]) if one_each else (own,)
            if "bias" in node.arrays:
                found[node.paths["bias"]] = (own,)
        elif node.kind is Kind.CHANNELWISE:
            for name, path in node.paths.items():
                array = node.arrays.get(name)
                if array is not None and array.shape[-1] == own.size:
                    found[path] = (own,)
    return Parts({path: axes for path, axes in found.items() if _any_gone(axes)})


def _any_gone(axes: tuple[Array | None, ...]) -> bool:
    return any(there is not None and not there.all() for there in axes)


def share_of_multiply_adds(cut: Severed) -> float:
    """What the layers that compaction knows multiply at the channels that :func:`resized` leaves.

    As a share of what they multiply at all; 1 where it knows none.
    """
    kept, of = buildable(cut), cut.channels.of
    whole = left = 0
    for node in cut.graph.nodes.values():
        if node.kind not in (Kind.MIXING, Kind.DEPTHWISE):
            continue
        every = node.arrays["kernel"].size * elements(node.shape)
        own, read = kept[of[node.name]].mean(), kept[of[node.inputs[0]]].mean()
        whole += every
        left += every * (own * read if node.kind is Kind.MIXING else read)
    return float(left / whole) if whole else 1.0
