"""Which variables of a network are kernels, and of what kind: what can be pruned at all."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lottery.errors import ConfigError

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Kernel:
    """A weight that multiplies features: no bias, no scale or statistic of BatchNorm."""

    path: str
    """``variable.path`` of the Keras variable."""
    shape: tuple[int, ...]
    """As Keras has it: (\\*window, inputs per group, outputs), (\\*window, channels, multiplier)
    of a depthwise one, (inputs, outputs) of a dense or recurrent one; the axes of its equation in
    an EinsumDense."""
    kind: str
    """``conv``, ``depthwise`` or ``dense``; ``other`` where nothing prunes it."""
    matrix: bool = True
    """Whether its last axes are inputs and outputs, as patterns of matrices take them."""

    @property
    def size(self) -> int:
        """How many weights."""
        return math.prod(self.shape)


def kernels(model: "keras.Model") -> list[Kernel]:
    """All kernels of ``model`` in the order of its layers, those of layers inside layers included.

    Layers are told apart by their type, never by their name. A convolution with one input channel
    per group is depthwise, whichever layer computes it; a separable one has a depthwise and a
    pointwise (``conv``) kernel. Attention has the kernels of its projections, a recurrent layer one
    for its inputs and one for its state; both are ``dense``. An Embedding has none: in a network
    for images it is a table of positions, which is added as a bias is.

    Raises :class:`ConfigError` if two variables of the model share a path, because masks
    and checkpoints refer to variables by it.
    """
    counts = Counter(v.path for v in model.variables)
    if twice := sorted(path for path, count in counts.items() if count > 1):
        raise ConfigError(
            f"{model.name} has several variables called {', '.join(twice)}; give its layers names"
        )
    return [
        Kernel(variable.path, tuple(variable.shape), kind, _is_matrix(layer, kind))
        for layer in flat_layers(model)
        for variable, kind in layer_kernels(layer)
    ]


def left_out(model: "keras.Model") -> list[Kernel]:
    """The trainable matrices (rank 2 and above) of ``model`` that are none of its kernels.

    They are of layers of no known kind, so nobody knows whether a zero in them removes anything.
    The biases of attention and of a GRU, which have two axes, do not belong to them.
    """
    known = {k.path for k in kernels(model)}
    biases = (getattr(x, "bias", None) for x in flat_layers(model) if layer_kernels(x))
    known |= {bias.path for bias in biases if bias is not None}
    return [
        Kernel(v.path, tuple(v.shape), "other")
        for v in model.trainable_variables
        if len(v.shape) > 1 and v.path not in known
    ]


def flat_layers(layer: Any) -> list[Any]:
    """The layers inside a model or layer in their order, each once, however deep they lie.

    Outer ones come before those inside them, as attention does before its projections.
    """
    return list({id(inner): inner for inner in _walk(layer)}.values())


def _walk(layer: Any) -> Iterator[Any]:
    # Not recursive=True: Keras then lists the layers of a nested model last to first.
    for inner in layer._flatten_layers(include_self=False, recursive=False):
        yield inner
        yield from _walk(inner)


def _is_matrix(layer: Any, kind: str) -> bool:
    from keras import layers

    other = (
        layers.EinsumDense,
        layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose,
    )  # fmt: skip
    return kind != "depthwise" and not isinstance(layer, other)


def layer_kernels(layer: Any) -> list[tuple[Any, str]]:
    """The kernels of one layer, without those of layers inside it, as (variable, kind)."""
    from keras import layers
    from keras.src.layers.rnn.conv_lstm import ConvLSTMCell

    convs = (
        layers.Conv1D, layers.Conv2D, layers.Conv3D,
        layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose,
    )  # fmt: skip
    if isinstance(layer, layers.SeparableConv1D | layers.SeparableConv2D):
        return [(layer.depthwise_kernel, "depthwise"), (layer.pointwise_kernel, "conv")]
    if isinstance(layer, layers.DepthwiseConv1D | layers.DepthwiseConv2D):
        return [(layer.kernel, "depthwise")]
    if isinstance(layer, layers.Dense | layers.EinsumDense):
        return [(layer.kernel, "dense")]
    if isinstance(layer, layers.SimpleRNNCell | layers.GRUCell | layers.LSTMCell):
        return [(layer.kernel, "dense"), (layer.recurrent_kernel, "dense")]
    if isinstance(layer, ConvLSTMCell):
        return [(layer.kernel, "conv"), (layer.recurrent_kernel, "conv")]
    if isinstance(layer, convs):
        one_input = getattr(layer, "groups", 1) > 1 and layer.kernel.shape[-2] == 1
        return [(layer.kernel, "depthwise" if one_input else "conv")]
    return []
