"""What a network costs, to use and to train: multiplications and parameters."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lottery.models.kernels import Kernel, flat_layers, kernels, layer_kernels, left_out
from lottery.pruning.masks import Mask, Whole

if TYPE_CHECKING:
    import keras


def multiply_adds(model: "keras.Model") -> int:
    """Multiply-adds of ``model`` for one image.

    Counted are those by a kernel (:func:`lottery.models.kernels.kernels`): of convolutions
    (grouped, depthwise and separable ones too), dense layers, projections of attention, and
    recurrent layers at each step. What attention multiplies without a weight does not count,
    nor do biases, normalisation, activations, pooling and residual additions. One multiplication
    and the addition that goes with it count once, as in the MobileNet papers; FLOPs are about twice
    that. Weights that fall on padding count like the others. ``model`` must have a fixed image
    size.
    """
    return sum(work for _, work in _by_kernel(model, _size))


def surviving_multiply_adds(model: "keras.Model") -> int:
    """:func:`multiply_adds` of the weights that are not exactly zero.

    What a computer would do that skips every pruned weight; see its conditions.
    """
    import numpy as np

    return sum(work for _, work in _by_kernel(model, lambda k: int(np.count_nonzero(k))))


def training_multiply_adds(model: "keras.Model") -> int:
    """:func:`multiply_adds` of one image in training: forward, and backward to what is trained.

    The gradient of a kernel and that of its layer's input take as many as the layer itself, so a
    training step takes about three times the forward pass: the convention of Evci et al. 2020
    (RigL, arXiv:1911.11134), appendix H. The first trained layer needs no gradient of its input,
    and what lies before it no gradient at all, which are left out here. All weights count that the
    kernels of a dense computation multiply, zeros too; the optimizer's own work does not.
    """
    kernels = _by_kernel(model, _size)
    first = next((i for i, (kernel, _) in enumerate(kernels) if kernel.trainable), len(kernels))
    backward = sum(
        (bool(kernel.trainable) + (i > first)) * work
        for i, (kernel, work) in enumerate(kernels)
        if i >= first
    )
    return sum(work for _, work in kernels) + backward


@dataclass(frozen=True)
class Anatomy:
    """What a network consists of."""

    whole: Whole
    kernels: tuple[Kernel, ...]
    multiply_adds: Mapping[str, int]
    """For one image, by the path of the kernel that takes part in them."""

    @classmethod
    def of(cls, model: "keras.Model") -> "Anatomy":
        """That of ``model``."""
        work = {kernel.path: work for kernel, work in _by_kernel(model, _size)}
        return cls(whole(model), tuple(kernels(model)), work)


def of_training(network: Anatomy, mask: Mask, computed: "keras.Model") -> dict[str, int]:
    """What one image costs where ``network``, pruned by ``mask``, is trained as ``computed``.

    That is the network itself, or a smaller one that computes the same. Multiply-adds of a forward
    pass: ``network`` with all its weights, ``surviving`` without the zeros of ``mask``,
    ``computed`` with the dense kernels that really run; and of forward and backward pass of these,
    ``training`` (:func:`training_multiply_adds`).
    """

    def kept(path: str, work: int) -> int:
        return work // mask[path].size * int(mask[path].sum()) if path in mask else work

    return {
        "network": sum(network.multiply_adds.values()),
        "surviving": sum(kept(path, work) for path, work in network.multiply_adds.items()),
        "computed": multiply_adds(computed),
        "training": training_multiply_adds(computed),
    }


def _size(kernel: Any) -> int:
    return math.prod(kernel.shape)


def _by_kernel(model: "keras.Model", weights: Callable[[Any], int]) -> list[tuple[Any, int]]:
    """The kernels in order, and multiply-adds of each for one image, if it has ``weights``."""
    layers = [layer for layer in flat_layers(model) if layer_kernels(layer)]
    uses = _uses(model, layers)
    return [
        (kernel, weights(kernel) * uses[id(layer)])
        for layer in layers
        for kernel, _ in layer_kernels(layer)
    ]


def _uses(model: "keras.Model", layers: list[Any]) -> Counter[int]:
    """How often each weight of a layer is used for one image, by the layer's id."""
    uses: Counter[int] = Counter()
    inner = []
    for layer in layers:
        if len(layer._inbound_nodes) == 1 and None not in layer.output.shape[1:]:
            uses[id(layer)] = _positions(layer, layer.input.shape, layer.output.shape)
        else:  # called several times, or by another layer for shapes that only a call tells
            inner.append(layer)
    if inner:
        uses.update(_seen(model, inner))
    return uses


def _seen(model: "keras.Model", layers: list[Any]) -> Counter[int]:
    """:func:`_uses` by calling ``model`` for one image."""
    import numpy as np
    from keras.layers import RNN

    recurrent = [layer for layer in flat_layers(model) if isinstance(layer, RNN)]
    cells = {id(cell) for layer in recurrent for cell in flat_layers(layer)}
    uses: Counter[int] = Counter()
    at_a_step = dict.fromkeys(cells, 1)

    def record(layer: Any, inputs: Any, outputs: Any) -> None:
        positions = _positions(layer, inputs.shape, outputs.shape)
        if id(layer) in cells:  # called once more to learn the shape, or not at all with cuDNN
            at_a_step[id(layer)] = positions
        else:
            uses[id(layer)] += positions

    def record_steps(layer: Any, inputs: Any, outputs: Any) -> None:
        for cell in flat_layers(layer):
            uses[id(cell)] += at_a_step[id(cell)] * inputs.shape[1]

    with ExitStack() as stack:
        for layer in layers:
            stack.enter_context(_recorded(layer, record))
        for layer in recurrent:
            stack.enter_context(_recorded(layer, record_steps))
        model(np.zeros((1, *model.input_shape[1:]), "float32"), training=False)
    return uses


@contextmanager
def _recorded(layer: Any, record: Callable[[Any, Any, Any], None]) -> Iterator[None]:
    call = layer.call

    def recorded(inputs: Any, *args: Any, **kwargs: Any) -> Any:
        outputs = call(inputs, *args, **kwargs)
        # A cell, and a recurrent layer that is asked to, add their states.
        record(layer, inputs, outputs[0] if isinstance(outputs, tuple | list) else outputs)
        return outputs

    layer.__dict__["call"] = recorded
    try:
        yield
    finally:
        del layer.__dict__["call"]


def parameters(model: "keras.Model") -> int:
    """Number of parameters, trainable or not (moving statistics of BatchNorm count)."""
    return int(model.count_params())


def whole(model: "keras.Model") -> Whole:
    """What the densities of a mask of ``model`` are shares of."""
    others = left_out(model)
    matrices = {k.path: k.size for k in [*kernels(model), *others]}
    return Whole(parameters(model), sum(matrices.values()), tuple(k.path for k in others))


def _positions(layer: Any, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> int:
    """How often a call uses each weight, by the shapes of what it takes and gives for one image."""
    # Once per position: of the output, or of the input where a transposed convolution spreads it.
    # Kernel shapes hold inputs per group, so groups need nothing more.
    from keras import layers

    if isinstance(layer, layers.EinsumDense):
        kernel, _, result = layer.equation.partition(",")[2].partition("->")
        axes = zip(kernel, layer.kernel.shape, strict=True)
        own: list[int] = [size for axis, size in axes if axis in result]
        return math.prod(outputs[1:]) // math.prod(own)
    transposed = layers.Conv1DTranspose | layers.Conv2DTranspose | layers.Conv3DTranspose
    shape = inputs if isinstance(layer, transposed) else outputs
    channels_first = getattr(layer, "data_format", None) == "channels_first"
    return math.prod(shape[2:] if channels_first else shape[1:-1])
