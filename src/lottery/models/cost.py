"""What a network costs: multiplications and parameters."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lottery.models.kernels import flat_layers, kernels, layer_kernels, left_out
from lottery.pruning.masks import Whole

if TYPE_CHECKING:
    import keras


def multiply_adds(model: "keras.Model") -> int:
    """Multiply-adds of ``model`` for one image.

    Counted are all convolutions (grouped, depthwise and separable ones too) and Dense layers. One
    multiplication and the addition that goes with it count once, as in the MobileNet papers; FLOPs
    are about twice that. Weights that fall on padding count like the others. Biases, BatchNorm,
    activations, pooling and residual additions do not count. ``model`` must have a fixed image size
    and use each layer once.
    """
    return _multiplications(model, lambda kernel: math.prod(kernel.shape))


def surviving_multiply_adds(model: "keras.Model") -> int:
    """:func:`multiply_adds` of the weights that are not exactly zero.

    What a computer would do that skips every pruned weight; see its conditions.
    """
    import numpy as np

    return _multiplications(model, lambda kernel: int(np.count_nonzero(kernel)))


def _multiplications(model: "keras.Model", weights: Callable[[Any], int]) -> int:
    return sum(
        weights(kernel) * math.prod(_positions(layer))
        for layer in flat_layers(model)
        for kernel, _ in layer_kernels(layer)
    )


def parameters(model: "keras.Model") -> int:
    """Number of parameters, trainable or not (moving statistics of BatchNorm count)."""
    return int(model.count_params())


def whole(model: "keras.Model") -> Whole:
    """What the densities of a mask of ``model`` are shares of."""
    others = left_out(model)
    matrices = {k.path: k.size for k in [*kernels(model), *others]}
    return Whole(parameters(model), sum(matrices.values()), tuple(k.path for k in others))


def _positions(layer: Any) -> tuple[int, ...]:
    # Every weight is used once per position: of the output, or of the input where a transposed
    # convolution spreads it. Kernel shapes hold inputs per group, so groups need nothing more.
    from keras import layers

    transposed = layers.Conv1DTranspose | layers.Conv2DTranspose | layers.Conv3DTranspose
    shape = (layer.input if isinstance(layer, transposed) else layer.output).shape
    channels_first = getattr(layer, "data_format", None) == "channels_first"
    return tuple(shape[2:] if channels_first else shape[1:-1])
