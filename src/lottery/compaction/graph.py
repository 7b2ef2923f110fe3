"""A network as a value: layers with their arrays, to be rewritten and built again.

The *channels* of a tensor are its last axis, whatever a layer calls it.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Any

import keras
import numpy as np

from lottery.errors import ConfigError

Array = np.ndarray[Any, Any]


class Kind(Enum):
    """What a layer does to the channels of its inputs."""

    INPUT = auto()
    """An image."""
    MIXING = auto()
    """Conv2D, Dense: every output is a weighted sum of all channels."""
    DEPTHWISE = auto()
    """m outputs for each channel, side by side."""
    CHANNELWISE = auto()
    """Each channel by itself: activations, pooling, spatial padding, BatchNorm."""
    MERGE = auto()
    """Channel i of all inputs: additions, multiplications."""
    CONCATENATE = auto()
    """Channels of the first input, then those of the next."""
    FLATTEN = auto()
    """All positions become channels, the channels of the first position first."""
    RESHAPE = auto()
    """Other positions, same channels."""
    CHANNEL_PADDING = auto()
    """More channels, all of them zero."""
    OPAQUE = auto()
    """Unknown, or mixing channels without a kernel, as LayerNormalization does."""


@dataclass(frozen=True)
class Slot:
    """The place of the i-th input in the arguments of a call."""

    index: int


@dataclass(frozen=True)
class Node:
    """One call of a layer (or a ``keras.ops`` operation), with the layer's own arrays."""

    name: str
    """Also names its output."""
    kind: Kind
    type: Any
    """Class of the Keras layer or operation."""
    config: Mapping[str, Any]
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    """Of the output, without the batch."""
    arrays: Mapping[str, Array] = field(default_factory=dict)
    """float64, by variable name, in the layer's order."""
    args: Any = (Slot(0),)
    """Arguments of the call, with a :class:`Slot` for each input."""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    built: Mapping[str, Any] = field(default_factory=dict)
    """What Keras builds a layer with weights and several inputs from."""
    paths: Mapping[str, str] = field(default_factory=dict)
    """Paths of the layer's variables in the Keras model, by the names that the layer gave them."""
    source: Any = field(default=None, compare=False, repr=False)
    """The layer or operation of the Keras model that this was read from."""

    @property
    def channels(self) -> int:
        """Size of the last axis."""
        return self.shape[-1]


@dataclass(frozen=True)
class Graph:
    """Nodes by name, each after its inputs."""

    name: str
    nodes: dict[str, Node]
    outputs: tuple[str, ...]

    def consumers(self) -> Counter[str]:
        """How often each node's output is used; being an output of the network counts once."""
        used = (name for node in self.nodes.values() for name in node.inputs)
        return Counter([*used, *self.outputs])

    def with_nodes(self, *changed: Node) -> "Graph":
        """The graph with nodes of the same names replaced."""
        return replace(self, nodes={**self.nodes, **{node.name: node for node in changed}})

    def without(self, name: str, stand_in: str) -> "Graph":
        """The graph without one node; what used its output uses that of ``stand_in``."""

        def renamed(names: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(stand_in if n == name else n for n in names)

        nodes = {
            n: replace(node, inputs=renamed(node.inputs))
            for n, node in self.nodes.items()
            if n != name
        }
        return replace(self, nodes=nodes, outputs=renamed(self.outputs))

    def reachable(self) -> "Graph":
        """The graph without nodes that no output depends on; the network's inputs stay."""
        used = set(self.outputs)
        for name in reversed(self.nodes):
            if name in used:
                used.update(self.nodes[name].inputs)
        nodes = {n: node for n, node in self.nodes.items() if n in used or node.kind is Kind.INPUT}
        return replace(self, nodes=nodes)


def elements(shape: tuple[int, ...]) -> int:
    """Positions of a tensor: the product of all axes but the last."""
    return int(np.prod(shape[:-1], dtype=int))


def build(graph: Graph) -> keras.Model:
    """The network in float32."""
    inputs = [
        keras.Input(node.shape, name=node.name, dtype=node.config.get("dtype"))
        for node in graph.nodes.values()
        if node.kind is Kind.INPUT
    ]
    tensors = dict(_run(graph, iter(inputs), "float32"))
    outputs = [tensors[name] for name in graph.outputs]
    return keras.Model(
        inputs[0] if len(inputs) == 1 else inputs,
        outputs[0] if len(outputs) == 1 else outputs,
        name=graph.name,
    )


def values(graph: Graph, seed: int, batch: int) -> Iterator[tuple[Node, Array]]:
    """Outputs of all nodes, in order, in float64 and for random inputs."""
    generator = np.random.default_rng(seed)
    inputs = (
        keras.ops.convert_to_tensor(generator.normal(size=(batch, *node.shape)), dtype="float64")
        for node in graph.nodes.values()
        if node.kind is Kind.INPUT
    )
    for name, tensor in _run(graph, inputs, "float64"):
        yield graph.nodes[name], keras.ops.convert_to_numpy(tensor)


def _run(graph: Graph, inputs: Iterator[Any], dtype: str) -> Iterator[tuple[str, Any]]:
    tensors: dict[str, Any] = {}
    left = graph.consumers()
    for name, node in graph.nodes.items():
        if node.kind is Kind.INPUT:
            tensors[name] = next(inputs)
        else:
            shapes = [graph.nodes[i].shape for i in node.inputs]
            with _precision(dtype):  # of what a layer makes for itself
                tensors[name] = _call(node, [tensors[i] for i in node.inputs], shapes, dtype)
        yield name, tensors[name]
        left.subtract(node.inputs)
        for done in {i for i in node.inputs if not left[i]}:
            del tensors[done]


def called(node: Node, inputs: Any) -> Any:
    """What a node of one input makes of an array (batch, *positions, channels), in float64."""
    tensor = keras.ops.convert_to_tensor(inputs, dtype="float64")
    with _precision("float64"):
        return _call(node, [tensor], [tuple(inputs.shape[1:])], "float64")


@contextmanager
def _precision(dtype: str) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _call(node: Node, tensors: list[Any], shapes: list[tuple[int, ...]], dtype: str) -> Any:
    is_layer = issubclass(node.type, keras.layers.Layer)
    config = {**node.config, "name": node.name, **({"dtype": dtype} if is_layer else {})}
    for key in config:  # arrays are set anyhow, and random numbers would move the global state
        if key.endswith("_initializer") and node.kind in (Kind.MIXING, Kind.DEPTHWISE):
            config[key] = "zeros"
    try:
        operation = node.type.from_config(config)
    except (TypeError, ValueError) as error:
        message = str(error).splitlines()[0]
        raise ConfigError(
            f"{node.name} ({node.type.__name__}) cannot be exported: {message}"
        ) from error
    if node.arrays:
        if node.built:
            operation.build_from_config(node.built)
        else:
            operation.build((None, *shapes[0]))
        operation.set_weights(list(node.arrays.values()))
    args, kwargs = keras.tree.map_structure(
        lambda a: tensors[a.index] if isinstance(a, Slot) else a, (node.args, dict(node.kwargs))
    )
    return operation(*args, **kwargs)
