"""MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381), in the form sparse inference accepts.

Two things differ from ``keras.applications.MobileNetV2``. Before each stride of 2 the image is
padded by one zero pixel on *every* side, which is what XNNPACK's sparse kernels take (and what
the PyTorch networks do). And small images keep features to look at: see :func:`strides`.
"""

from collections.abc import Sequence

import keras
from keras import layers

# Expansion, output channels, blocks, stride of the first block: table 2 of the paper.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_HALVINGS = 5
_STOCK_SIZE = 96  # pixels from which on the strides are those of the paper


def build(
    input_shape: tuple[int, int, int],
    classes: int,
    *,
    width: float,
    dropout: float,
    batch_norm_momentum: float,
) -> keras.Model:
    """MobileNetV2 with ``width`` times the channels, rounded to multiples of 8.

    The last convolution never has fewer than 1280 channels, as in the paper.
    """
    net = _Layers(batch_norm_momentum)
    stem_stride, *halving = strides(min(input_shape[:2]))
    image = keras.Input(input_shape, name="image")
    x = net.conv(image, divisible(32 * width), 3, stem_stride, name="stem")
    block = 0
    for expansion, channels, blocks, stock in _STAGES:
        stride = halving.pop(0) if stock == 2 else 1
        for i in range(blocks):
            x = net.block(
                x,
                expansion=expansion,
                channels=divisible(channels * width),
                stride=stride if i == 0 else 1,
                name=f"block_{block}",
            )
            block += 1
    x = net.conv(x, max(1280, divisible(1280 * width)), 1, 1, name="last")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    if dropout:
        x = layers.Dropout(dropout, name="dropout")(x)
    logits = layers.Dense(classes, kernel_initializer=_initial(), name="classifier")(x)
    return keras.Model(image, logits, name="mobilenet_v2")


def strides(size: int) -> Sequence[int]:
    """Strides of the five places that halve the image, the stem first, for ``size`` pixels.

    From 96 pixels on they are all 2. A smaller image would end as 1x1 to 3x3 features, so it
    skips the first halvings until 4x4 are left, or all that it has: 32 pixels give 1, 1, 2, 2, 2.
    """
    count = _HALVINGS
    while size < _STOCK_SIZE and count and -(-size // 2**count) < 4:
        count -= 1
    return [1] * (_HALVINGS - count) + [2] * count


def divisible(channels: float) -> int:
    """The nearest multiple of 8, at least 8, that is no more than 10 % smaller than ``channels``.

    ``_make_divisible`` of the reference implementation (tensorflow/models, slim).
    """
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest


class _Layers:
    """The convolutions of one network, each followed by BatchNorm."""

    def __init__(self, momentum: float) -> None:
        self.momentum = momentum

    def conv(
        self, x: keras.KerasTensor, channels: int, size: int, stride: int, *, name: str,
        activation: bool = True,
    ) -> keras.KerasTensor:  # fmt: skip
        x, padding = _pad(x, stride, name)
        x = layers.Conv2D(
            channels, size, stride, padding, use_bias=False, kernel_initializer=_initial(),
            name=f"{name}_conv",
        )(x)  # fmt: skip
        return self._norm(x, name, activation)

    def depthwise(self, x: keras.KerasTensor, stride: int, *, name: str) -> keras.KerasTensor:
        x, padding = _pad(x, stride, name)
        x = layers.DepthwiseConv2D(
            3, stride, padding, use_bias=False, depthwise_initializer=_initial(),
            name=f"{name}_conv",
        )(x)  # fmt: skip
        return self._norm(x, name, activation=True)

    def block(
        self, x: keras.KerasTensor, *, expansion: int, channels: int, stride: int, name: str
    ) -> keras.KerasTensor:
        """Inverted residual with linear bottleneck: expand, filter in depth, project."""
        inputs, in_channels = x, x.shape[-1]
        if expansion > 1:
            x = self.conv(x, expansion * in_channels, 1, 1, name=f"{name}_expand")
        x = self.depthwise(x, stride, name=f"{name}_depthwise")
        x = self.conv(x, channels, 1, 1, name=f"{name}_project", activation=False)
        if stride == 1 and in_channels == channels:
            x = layers.Add(name=f"{name}_add")([inputs, x])
        return x

    def _norm(self, x: keras.KerasTensor, name: str, activation: bool) -> keras.KerasTensor:
        x = layers.BatchNormalization(momentum=self.momentum, epsilon=1e-3, name=f"{name}_norm")(x)
        return layers.ReLU(6.0, name=f"{name}_relu")(x) if activation else x


def _initial() -> keras.initializers.Initializer:
    """The reference implementation's (tensorflow/models, slim): one scale for all layers.

    BatchNorm makes the scale of a convolution irrelevant to its output, but not to global
    magnitude pruning: with fan-scaled weights and a short training, the wide layers start as the
    smallest and are removed whole. A new object each, because one object gives equal weights to
    layers of equal shape.
    """
    return keras.initializers.TruncatedNormal(stddev=0.09)


def _pad(x: keras.KerasTensor, stride: int, name: str) -> tuple[keras.KerasTensor, str]:
    # padding="same" at stride 2 would pad an even image on two sides only.
    if stride == 1:
        return x, "same"
    return layers.ZeroPadding2D(1, name=f"{name}_pad")(x), "valid"
