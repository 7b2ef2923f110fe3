"""LeNet-300-100 (LeCun et al. 1998), as in Frankle & Carbin 2019 (arXiv:1803.03635), figure 2."""

import keras
from keras import layers


def build(
    input_shape: tuple[int, int, int], classes: int, *, width: float, dropout: float
) -> keras.Model:
    """Two hidden layers of ``width`` times 300 and 100 units. There is no BatchNorm in it."""
    image = keras.Input(input_shape, name="image")
    x = layers.Flatten(name="flatten")(image)
    for i, units in enumerate((300, 100), start=1):
        x = layers.Dense(
            max(1, round(units * width)), "relu", kernel_initializer="glorot_normal", name=f"fc{i}"
        )(x)
    if dropout:
        x = layers.Dropout(dropout, name="dropout")(x)
    logits = layers.Dense(classes, kernel_initializer="glorot_normal", name="classifier")(x)
    return keras.Model(image, logits, name="lenet_300_100")
