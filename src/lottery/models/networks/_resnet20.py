"""ResNet-20 for small images (He et al. 2016, arXiv:1512.03385, section 4.2).

Three stages of three blocks with 16, 32 and 64 channels. Where a stage halves the image and doubles
the channels, the shortcut has no parameters (option A): every other pixel, and channels of zeros.
"""

import keras
from keras import layers

_CHANNELS = (16, 32, 64)  # of each stage
_BLOCKS = 3  # in each stage


def build(
    input_shape: tuple[int, int, int],
    classes: int,
    *,
    width: float,
    dropout: float,
    batch_norm_momentum: float,
) -> keras.Model:
    """ResNet-20 with ``width`` times the channels."""
    image = keras.Input(input_shape, name="image")
    x = _conv(image, _channels(16, width), 1, batch_norm_momentum, name="stem")
    x = layers.ReLU(name="stem_relu")(x)
    for stage, base in enumerate(_CHANNELS, start=1):
        for i in range(_BLOCKS):
            stride = 2 if stage > 1 and i == 0 else 1
            name = f"stage_{stage}_block_{i}"
            x = _block(x, _channels(base, width), stride, batch_norm_momentum, name=name)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    if dropout:
        x = layers.Dropout(dropout, name="dropout")(x)
    logits = layers.Dense(classes, kernel_initializer="he_normal", name="classifier")(x)
    return keras.Model(image, logits, name="resnet20")


def _channels(base: int, width: float) -> int:
    return max(1, round(base * width))


def _block(
    x: keras.KerasTensor, channels: int, stride: int, momentum: float, *, name: str
) -> keras.KerasTensor:
    shortcut, missing = x, channels - x.shape[-1]
    x = _conv(x, channels, stride, momentum, name=f"{name}_a")
    x = layers.ReLU(name=f"{name}_a_relu")(x)
    x = _conv(x, channels, 1, momentum, name=f"{name}_b")
    if stride > 1:
        # The mean over a window of one pixel: plain subsampling.
        shortcut = layers.AveragePooling2D(1, stride, name=f"{name}_subsample")(shortcut)
    if missing:
        # With the axes read as (channels, rows, columns), "columns" are our channels.
        shortcut = layers.ZeroPadding2D(
            ((0, 0), (0, missing)), data_format="channels_first", name=f"{name}_pad_channels"
        )(shortcut)
    x = layers.Add(name=f"{name}_add")([shortcut, x])
    return layers.ReLU(name=f"{name}_relu")(x)


def _conv(
    x: keras.KerasTensor, channels: int, stride: int, momentum: float, *, name: str
) -> keras.KerasTensor:
    padding = "same"
    if stride > 1:
        # Padded alike on all sides, so that outputs are centred on the pixels the shortcut takes;
        # padding="same" would shift them by one in an even image.
        x, padding = layers.ZeroPadding2D(1, name=f"{name}_pad")(x), "valid"
    x = layers.Conv2D(
        channels, 3, stride, padding, use_bias=False, kernel_initializer="he_normal",
        name=f"{name}_conv",
    )(x)  # fmt: skip
    return layers.BatchNormalization(momentum=momentum, epsilon=1e-5, name=f"{name}_norm")(x)
