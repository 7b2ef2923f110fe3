"""Conv-2, Conv-4 and Conv-6: small VGGs of Frankle & Carbin 2019 (arXiv:1803.03635), figure 2."""

import keras
from keras import layers


def build(
    depth: int, input_shape: tuple[int, int, int], classes: int, *, width: float, dropout: float
) -> keras.Model:
    """``depth`` 3x3 convolutions in pairs, each pair pooled, then 256, 256 and the classes.

    ``width`` multiplies channels and hidden units. There is no BatchNorm in it.
    """
    image = keras.Input(input_shape, name="image")
    x = image
    for i in range(depth):
        channels = max(1, round(64 * 2 ** (i // 2) * width))
        x = layers.Conv2D(
            channels, 3, padding="same", activation="relu", kernel_initializer="glorot_normal",
            name=f"conv{i + 1}",
        )(x)  # fmt: skip
        if i % 2:
            x = layers.MaxPooling2D(name=f"pool{i // 2 + 1}")(x)
    x = layers.Flatten(name="flatten")(x)
    for i in (1, 2):
        x = layers.Dense(
            max(1, round(256 * width)), "relu", kernel_initializer="glorot_normal", name=f"fc{i}"
        )(x)
    if dropout:
        x = layers.Dropout(dropout, name="dropout")(x)
    logits = layers.Dense(classes, kernel_initializer="glorot_normal", name="classifier")(x)
    return keras.Model(image, logits, name=f"conv_{depth}")
