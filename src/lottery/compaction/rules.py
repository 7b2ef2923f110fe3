"""What each type of layer does to channels: one rule per type, everything else is opaque."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from keras import layers
from keras.src.applications.convnext import LayerScale
from keras.src.applications.inception_resnet_v2 import CustomScaleLayer
from keras.src.ops import nn, numpy

from lottery.compaction.graph import Kind, Node, Slot, elements

Shape = tuple[int, ...]

_ELEMENTWISE = {
    "linear", "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "swish",
    "sigmoid", "hard_sigmoid", "hard_silu", "hard_swish", "tanh", "hard_tanh", "softplus",
    "softsign", "mish", "exponential", "log_sigmoid",
}  # fmt: skip


def normalised(node: Node, shapes: list[Shape]) -> list[Node]:
    """An opaque node as what it is, in as many nodes as that takes; the last one has its name.

    Separable and grouped one-to-one convolutions become depthwise ones, layers of Keras's own
    applications plain layers, an activation that mixes channels (softmax) a node of its own.
    """
    rule = _RULES.get(node.type)
    return rule(node, shapes) if rule else [node]


def _convolution(node: Node, shapes: list[Shape]) -> list[Node]:
    config = node.config
    if config["data_format"] != "channels_last":
        return [node]
    if config["groups"] == 1:
        return _with_activation(replace(node, kind=Kind.MIXING))
    kernel = node.arrays["kernel"]
    if kernel.shape[-2] > 1:
        return [node]
    # Outputs of a group lie side by side, as those of a depthwise convolution do.
    inputs = shapes[0][-1]
    kernel = kernel.reshape(*kernel.shape[:2], inputs, -1)
    keys = ("kernel_size", "strides", "padding", "data_format", "dilation_rate", "activation")
    return _with_activation(
        replace(
            node,
            kind=Kind.DEPTHWISE,
            type=layers.DepthwiseConv2D,
            config={
                **{key: config[key] for key in keys},
                "depth_multiplier": kernel.shape[-1],
                "use_bias": config["use_bias"],
            },
            arrays={**node.arrays, "kernel": kernel},
        )
    )


def _depthwise(node: Node, shapes: list[Shape]) -> list[Node]:
    if node.config["data_format"] != "channels_last":
        return [node]
    return _with_activation(replace(node, kind=Kind.DEPTHWISE))


def _separable(node: Node, shapes: list[Shape]) -> list[Node]:
    config = node.config
    if config["data_format"] != "channels_last":
        return [node]
    kernel = node.arrays["depthwise_kernel"]
    keys = ("kernel_size", "strides", "padding", "data_format", "dilation_rate")
    depthwise = replace(
        node,
        name=f"{node.name}_depthwise",
        kind=Kind.DEPTHWISE,
        type=layers.DepthwiseConv2D,
        config={
            **{key: config[key] for key in keys},
            "depth_multiplier": kernel.shape[-1],
            "use_bias": False,
        },
        shape=(*node.shape[:-1], kernel.shape[-2] * kernel.shape[-1]),
        arrays={"kernel": kernel},
    )
    arrays = {"kernel": node.arrays["pointwise_kernel"]}
    if config["use_bias"]:
        arrays["bias"] = node.arrays["bias"]
    pointwise = replace(
        node,
        kind=Kind.MIXING,
        type=layers.Conv2D,
        config={
            "filters": node.channels,
            "kernel_size": 1,
            "use_bias": config["use_bias"],
            "activation": config["activation"],
        },
        inputs=(depthwise.name,),
        arrays=arrays,
    )
    return [depthwise, *_with_activation(pointwise)]


def _dense(node: Node, shapes: list[Shape]) -> list[Node]:
    return _with_activation(replace(node, kind=Kind.MIXING))


def _with_activation(node: Node) -> list[Node]:
    if is_elementwise(node.config["activation"]):
        return [node]
    linear = replace(
        node, name=f"{node.name}_linear", config={**node.config, "activation": "linear"}
    )
    activation = Node(
        node.name, Kind.OPAQUE, layers.Activation, {"activation": node.config["activation"]},
        (linear.name,), node.shape,
    )  # fmt: skip
    return [linear, activation]


def is_elementwise(activation: Any) -> bool:
    """Whether an activation, as configs name it, treats each number by itself."""
    return activation is None or (isinstance(activation, str) and activation in _ELEMENTWISE)


def _activation(node: Node, shapes: list[Shape]) -> list[Node]:
    if not is_elementwise(node.config["activation"]):
        return [node]
    return [replace(node, kind=Kind.CHANNELWISE)]


def _channelwise(node: Node, shapes: list[Shape]) -> list[Node]:
    if node.config.get("data_format", "channels_last") != "channels_last":
        return [node]
    return [replace(node, kind=Kind.CHANNELWISE)]


def _batch_norm(node: Node, shapes: list[Shape]) -> list[Node]:
    if node.config["axis"] not in (-1, len(node.shape)):
        return [node]
    config = {k: v for k, v in node.config.items() if k != "synchronized"}
    return [replace(node, kind=Kind.CHANNELWISE, config=config)]


def _layer_scale(node: Node, shapes: list[Shape]) -> list[Node]:
    zeros, ones = np.zeros(node.channels), np.ones(node.channels)
    (gamma,) = node.arrays.values()
    return [
        replace(
            node,
            kind=Kind.CHANNELWISE,
            type=layers.BatchNormalization,
            config={"center": False, "epsilon": 0.0},
            arrays={"gamma": gamma, "moving_mean": zeros, "moving_variance": ones},
        )
    ]


def _normalization(node: Node, shapes: list[Shape]) -> list[Node]:
    if tuple(node.config["axis"]) not in ((-1,), (len(node.shape),)) or node.config["invert"]:
        return [node]
    arrays = node.arrays
    if "mean" not in arrays:
        return [node]
    deviation = np.maximum(np.sqrt(arrays["variance"].ravel()), keras.config.epsilon())
    return [
        replace(
            node,
            kind=Kind.CHANNELWISE,
            type=layers.BatchNormalization,
            config={"center": False, "scale": False, "epsilon": 0.0},
            arrays={"moving_mean": arrays["mean"].ravel(), "moving_variance": deviation**2},
        )
    ]


def _merge(node: Node, shapes: list[Shape]) -> list[Node]:
    ranks, channels = {len(s) for s in shapes}, {s[-1] for s in shapes}
    if len(ranks) > 1 or channels != {node.channels}:
        return [node]
    return [_merging(node, node.type, len(shapes))]


def _merging(node: Node, layer: Any, count: int) -> Node:
    args = ([Slot(i) for i in range(count)],)
    return replace(node, kind=Kind.MERGE, type=layer, args=args)


def _arithmetic(layer: Any) -> Callable[[Node, list[Shape]], list[Node]]:
    """``keras.ops`` of two tensors, or of a tensor and a number."""

    def rule(node: Node, shapes: list[Shape]) -> list[Node]:
        if len(shapes) == 2 and layer is not None and not node.kwargs:
            return [
                replace(n, config={}) if n.kind is Kind.MERGE else n
                for n in _merge(replace(node, type=layer), shapes)
            ]
        values = [a for a in node.args if not isinstance(a, Slot)]
        if len(shapes) == 1 and all(isinstance(v, int | float) for v in values):
            return [replace(node, kind=Kind.CHANNELWISE)]
        return [node]

    return rule


def _scaled_addition(node: Node, shapes: list[Shape]) -> list[Node]:
    first, second = node.inputs
    scale = Node(
        f"{node.name}_scale", Kind.CHANNELWISE, layers.Rescaling,
        {"scale": node.config["scale"], "offset": 0.0}, (second,), shapes[1],
    )  # fmt: skip
    total = replace(node, type=layers.Add, config={}, inputs=(first, scale.name))
    return [scale, *_merge(total, shapes)]


def _concatenate(node: Node, shapes: list[Shape]) -> list[Node]:
    if node.config["axis"] in (-1, len(node.shape)):
        return [replace(node, kind=Kind.CONCATENATE)]
    return _merge(node, shapes)


def _flatten(node: Node, shapes: list[Shape]) -> list[Node]:
    if node.config["data_format"] != "channels_last":
        return [node]
    return [replace(node, kind=Kind.FLATTEN)]


def _reshape(node: Node, shapes: list[Shape]) -> list[Node]:
    before, after = shapes[0], node.shape
    if before[-1] == after[-1]:
        kind = Kind.RESHAPE
    elif len(after) == 1 or elements(after) == 1:
        kind = Kind.FLATTEN
    else:
        return [node]
    return [replace(node, kind=kind, config={**node.config, "target_shape": after})]


def _zero_padding(node: Node, shapes: list[Shape]) -> list[Node]:
    if node.config["data_format"] == "channels_last":
        return [replace(node, kind=Kind.CHANNELWISE)]
    # The "columns" of channels first are our channels: how ResNet-20 widens its shortcut.
    return [replace(node, kind=Kind.CHANNEL_PADDING)]


_RULES: dict[Any, Callable[[Node, list[Shape]], list[Node]]] = {
    layers.Conv2D: _convolution,
    layers.DepthwiseConv2D: _depthwise,
    layers.SeparableConv2D: _separable,
    layers.Dense: _dense,
    layers.Activation: _activation,
    layers.BatchNormalization: _batch_norm,
    LayerScale: _layer_scale,
    layers.Normalization: _normalization,
    CustomScaleLayer: _scaled_addition,
    layers.Concatenate: _concatenate,
    layers.Flatten: _flatten,
    layers.Reshape: _reshape,
    layers.ZeroPadding2D: _zero_padding,
    numpy.Add: _arithmetic(layers.Add),
    numpy.Subtract: _arithmetic(layers.Subtract),
    numpy.Multiply: _arithmetic(layers.Multiply),
    numpy.Maximum: _arithmetic(layers.Maximum),
    numpy.Minimum: _arithmetic(layers.Minimum),
    numpy.TrueDivide: _arithmetic(None),
    numpy.Divide: _arithmetic(None),
    **dict.fromkeys(
        (
            layers.Add, layers.Subtract, layers.Multiply, layers.Average, layers.Maximum,
            layers.Minimum,
        ),
        _merge,
    ),
    **dict.fromkeys(
        (
            layers.ReLU, layers.LeakyReLU, layers.ELU, layers.PReLU, layers.Rescaling,
            layers.MaxPooling2D, layers.AveragePooling2D, layers.GlobalMaxPooling2D,
            layers.GlobalAveragePooling2D, layers.Cropping2D, layers.UpSampling2D,
            nn.Relu, nn.Relu6, nn.Sigmoid, nn.Silu, nn.Gelu, nn.HardSigmoid, nn.HardSilu,
        ),
        _channelwise,
    ),
}  # fmt: skip
