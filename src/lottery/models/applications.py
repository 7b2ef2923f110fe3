"""The networks of ``keras.applications``, untrained and with a head that returns logits."""

import functools
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lottery.errors import ConfigError
from lottery.models._arguments import arguments
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

_FIXED = "it is the same for all networks"
# Arguments of the Keras functions that are no options, and what decides them.
DECIDED = {
    "alpha": "set model.width",
    "classes": "the data decide",
    "classifier_activation": "networks return logits",
    "dropout": "set model.dropout",
    "dropout_rate": "set model.dropout",
    "include_preprocessing": "images are normalised before (data.mean, data.std)",
    "include_top": _FIXED,
    "input_shape": "the data decide",
    "input_tensor": _FIXED,
    "name": _FIXED,
    "pooling": _FIXED,
    "weights": "networks start untrained",
}
_WIDTH, _DROPOUT = ("alpha",), ("dropout", "dropout_rate")


@functools.cache
def parameters(name: str) -> frozenset[str]:
    """The arguments of ``keras.applications.<name>``, read from the source of Keras."""
    spec = importlib.util.find_spec("keras")  # imports nothing
    folder = Path(str(spec and spec.origin)).parent / "src" / "applications"
    for source in sorted(folder.glob("*.py")):
        if found := arguments(source, name):
            return found
    raise ConfigError(f"the installed Keras has no network {name}")


def check(name: str, *, width: float, dropout: float) -> None:
    """Raise :class:`ConfigError` if the network has no width or dropout to set. Imports nothing."""
    if width != 1:
        _argument(name, "width", width, _WIDTH)
    if dropout:
        _argument(name, "dropout", dropout, _DROPOUT)


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

    chosen: dict[str, Any] = {
        "include_top": True,
        "weights": None,
        "input_shape": input_shape,
        "classes": classes,
        "classifier_activation": None,
    }
    if "include_preprocessing" in parameters(name):
        chosen["include_preprocessing"] = False
    if width != 1:
        chosen[_argument(name, "width", width, _WIDTH)] = width
    if dropout:
        chosen[_argument(name, "dropout", dropout, _DROPOUT)] = dropout
    model = getattr(keras.applications, name)(**{**chosen, **options})
    for layer in flat_layers(model):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = batch_norm_momentum
        elif isinstance(layer, keras.layers.Rescaling):
            # EfficientNetB0-B7 divide by 255 and offer no way out. Our images are normalised.
            layer.scale, layer.offset = 1.0, 0.0
    return model


def _argument(name: str, option: str, value: float, candidates: tuple[str, ...]) -> str:
    for candidate in candidates:
        if candidate in parameters(name):
            return candidate
    raise ConfigError(f"model.{option}={value:g}: {name} has no {option} to set")
