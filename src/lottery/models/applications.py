"""The networks of ``keras.applications``, untrained and with a head that returns logits."""

import inspect
from typing import TYPE_CHECKING, Any

from lottery.errors import ConfigError
from lottery.models.kernels import flat_layers

if TYPE_CHECKING:
    import keras

# Written out so that names can be checked and completed without importing TensorFlow.
APPLICATIONS = (
    "ConvNeXtBase", "ConvNeXtLarge", "ConvNeXtSmall", "ConvNeXtTiny", "ConvNeXtXLarge",
    "DenseNet121", "DenseNet169", "DenseNet201",
    "EfficientNetB0", "EfficientNetB1", "EfficientNetB2", "EfficientNetB3", "EfficientNetB4",
    "EfficientNetB5", "EfficientNetB6", "EfficientNetB7",
    "EfficientNetV2B0", "EfficientNetV2B1", "EfficientNetV2B2", "EfficientNetV2B3",
    "EfficientNetV2L", "EfficientNetV2M", "EfficientNetV2S",
    "InceptionResNetV2", "InceptionV3",
    "MobileNet", "MobileNetV2", "MobileNetV3Large", "MobileNetV3Small",
    "NASNetLarge", "NASNetMobile",
    "ResNet101", "ResNet101V2", "ResNet152", "ResNet152V2", "ResNet50", "ResNet50V2",
    "VGG16", "VGG19", "Xception",
)  # fmt: skip

# Arguments of the Keras functions that are decided here, or by another config value.
_DECIDED = {
    "alpha", "classes", "classifier_activation", "include_preprocessing", "include_top",
    "input_shape", "input_tensor", "name", "pooling", "weights",
}  # fmt: skip


def options(name: str) -> set[str]:
    """The keyword arguments of ``keras.applications.<name>`` that are free to choose."""
    return set(_parameters(name)) - _DECIDED


def build(
    name: str,
    input_shape: tuple[int, int, int],
    classes: int,
    *,
    width: float,
    dropout: float,
    batch_norm_momentum: float,
    **options: Any,
) -> "keras.Model":
    """``keras.applications.<name>`` for normalised images: logits, random weights.

    A ``width`` of 1 and a ``dropout`` of 0 leave what the network has by default. Other values
    reach it where its function has an argument for them (``alpha``; ``dropout`` or
    ``dropout_rate``), and are a :class:`ConfigError` where it has none. ``batch_norm_momentum``
    replaces the network's own. Raises :class:`ValueError` from Keras for images that are too small.
    """
    import keras

    parameters = _parameters(name)
    arguments: dict[str, Any] = {
        "include_top": True,
        "weights": None,
        "input_shape": input_shape,
        "classes": classes,
        "classifier_activation": None,
    }
    if "include_preprocessing" in parameters:
        arguments["include_preprocessing"] = False
    if width != 1:
        arguments[_argument(name, "width", width, ("alpha",))] = width
    if dropout:
        arguments[_argument(name, "dropout", dropout, ("dropout", "dropout_rate"))] = dropout
    model = getattr(keras.applications, name)(**{**arguments, **options})
    for layer in flat_layers(model):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = batch_norm_momentum
        elif isinstance(layer, keras.layers.Rescaling):
            # EfficientNetB0-B7 divide by 255 and offer no way out. Our images are normalised.
            layer.scale, layer.offset = 1.0, 0.0
    return model


def _parameters(name: str) -> tuple[str, ...]:
    import keras

    return tuple(inspect.signature(getattr(keras.applications, name)).parameters)


def _argument(name: str, option: str, value: float, candidates: tuple[str, ...]) -> str:
    for candidate in candidates:
        if candidate in _parameters(name):
            return candidate
    raise ConfigError(f"model.{option}={value:g}: {name} has no {option} to set")
