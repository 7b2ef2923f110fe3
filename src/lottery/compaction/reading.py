"""From a Keras model to a graph."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import layers
from keras.src.models.functional import Functional

from lottery.compaction.graph import Graph, Kind, Node, Slot
from lottery.compaction.rules import normalised
from lottery.errors import ConfigError


def read(model: keras.Model) -> Graph:
    """``model`` as a graph. Models inside it are unfolded, a layer used twice becomes two.

    Raises :class:`ConfigError` where it is no functional (or sequential) model of fixed image
    size, or has a layer that cannot be expressed.
    """
    reader = _Reader(model.name)
    function = function_of(model)
    if function is None:
        raise ConfigError(f"{model.name} is not a functional Keras model: it cannot be exported")
    return reader.read(function)


def function_of(operation: Any) -> Any:
    """The functional model that a model or layer is; None if it is none."""
    if isinstance(operation, keras.Sequential):
        operation = operation._functional
    return operation if isinstance(operation, Functional) else None


def calls(function: Any) -> Iterator[Any]:
    """The calls of layers in a functional model, each after those it depends on."""
    by_depth = function._nodes_by_depth
    for depth in sorted(by_depth, reverse=True):
        yield from (node for node in by_depth[depth] if not node.is_input)


class _Reader:
    def __init__(self, model: str) -> None:
        self.model = model
        self.nodes: dict[str, Node] = {}

    def read(self, function: Any) -> Graph:
        names = []
        for tensor in function.inputs:
            name, shape = tensor._keras_history.operation.name, tensor.shape[1:]
            if None in shape:
                raise ConfigError(f"{self.model} has no fixed image size: it cannot be exported")
            config = {"dtype": tensor.dtype}
            self.nodes[name] = Node(name, Kind.INPUT, layers.InputLayer, config, (), tuple(shape))
            names.append(name)
        outputs = self._walk(function, names)
        return Graph(self.model, self.nodes, tuple(outputs))

    def _walk(self, function: Any, inputs: list[str]) -> list[str]:
        names = {id(t): n for t, n in zip(function.inputs, inputs, strict=True)}
        for node in calls(function):
            used = [names[id(t)] for t in node.arguments.keras_tensors]
            inner = function_of(node.operation)
            outputs = self._walk(inner, used) if inner else [self._add(node, used)]
            names |= {id(t): n for t, n in zip(node.outputs, outputs, strict=True)}
        return [names[id(t)] for t in function.outputs]

    def _add(self, call: Any, inputs: list[str]) -> str:
        operation = call.operation
        kind = type(operation).__name__
        if len(call.outputs) != 1:
            raise ConfigError(
                f"{operation.name} ({kind}) has several outputs: it cannot be exported"
            )
        arrays = _arrays(operation)
        several = bool(arrays) and len(inputs) > 1  # as attention has
        built = (operation.get_build_config() or {}) if several else {}
        if several and not built:
            raise ConfigError(
                f"{operation.name} ({kind}) has weights and several inputs, and does not say how "
                "it was built (get_build_config): it cannot be exported"
            )
        slots = {id(t): Slot(i) for i, t in enumerate(call.arguments.keras_tensors)}
        args, kwargs = keras.tree.map_structure(
            lambda a: slots.get(id(a), a), (call.arguments.args, dict(call.arguments.kwargs))
        )
        kwargs.pop("training", None)
        node = Node(
            self._free(operation.name), Kind.OPAQUE, type(operation), operation.get_config(),
            tuple(inputs), tuple(call.outputs[0].shape[1:]), arrays, args, kwargs, built,
            _paths(operation), operation,
        )  # fmt: skip
        shapes = [self.nodes[i].shape for i in inputs]
        for part in normalised(node, shapes):
            self.nodes[part.name] = part
        return part.name

    def _free(self, name: str) -> str:
        free, count = name, 1
        while free in self.nodes:
            free, count = f"{name}_{count}", count + 1
        return free


def _arrays(operation: Any) -> dict[str, Any]:
    if not isinstance(operation, layers.Layer):
        return {}
    arrays = (np.asarray(v, "float64") for v in operation.weights)
    return dict(zip(_paths(operation), arrays, strict=True))


def _paths(operation: Any) -> dict[str, str]:
    """Paths of the variables by their names, which are the paths where names are not unique."""
    if not isinstance(operation, layers.Layer):
        return {}
    paths = [v.path for v in operation.weights]
    names = [path.rpartition("/")[2] for path in paths]
    return dict(zip(names if len(set(names)) == len(names) else paths, paths, strict=True))
