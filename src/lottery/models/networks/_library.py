"""The networks of ``keras.applications``, untrained and with a head that returns logits.

``model=ResNet50``. Their options are the arguments of the Keras functions, at their defaults there;
``width`` stands for ``alpha``, ``dropout`` for ``dropout_rate``.
"""

import functools
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from lottery import choices
from lottery.choices import library
from lottery.models.kernels import flat_layers
from lottery.models.networks import Network
from lottery.options import option

if TYPE_CHECKING:
    import keras

# Arguments of the Keras functions that are no options: this project decides.
_DECIDED = {
    "classes", "classifier_activation", "include_preprocessing", "include_top", "input_shape",
    "input_tensor", "name", "pooling", "weights",
}  # fmt: skip
_RENAMED = {"alpha": "width", "dropout": "dropout", "dropout_rate": "dropout"}
_WITHOUT_BATCH_NORM = ("ConvNeXt", "VGG")
_WITHOUT_DEPTHWISE = ("DenseNet", "Inception", "ResNet", "VGG")


@dataclass(frozen=True)
class _WithBatchNorm(Network):
    batch_norm_momentum: float = option(0.99, "momentum of moving statistics", ge=0, lt=1)


def names() -> tuple[str, ...]:
    """Names of all networks of the installed Keras."""
    return tuple(sorted(n for n, taken in _functions().items() if "include_top" in taken))


def find(name: str) -> type | None:
    """The options of a network of Keras; None if there is none of that name."""
    return _made(name) if name in names() else None


def _functions() -> Any:
    return library.functions("applications")


@functools.cache
def _made(name: str) -> type:
    taken = _functions()[name]
    options = {_RENAMED.get(a, a): default for a, default in taken.items() if a not in _DECIDED}
    normalises = not name.startswith(_WITHOUT_BATCH_NORM)

    def build(self: Any, input_shape: tuple[int, int, int], classes: int) -> "keras.Model":
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name in options}
        arguments = {a: own[_RENAMED.get(a, a)] for a in taken if _RENAMED.get(a, a) in own}
        momentum = getattr(self, "batch_norm_momentum", None)
        return _build(name, input_shape, classes, arguments, momentum)

    made = library.dataclass_of(
        name,
        options,
        _WithBatchNorm if normalises else Network,
        module=__name__,
        doc=f"keras.applications.{name}",
    )
    lacks = set() if normalises else {"batch_norm"}
    lacks |= {"depthwise"} if name.startswith(_WITHOUT_DEPTHWISE) else set()
    made.lacks, made.build = frozenset(lacks), build  # type: ignore[attr-defined]
    return made


def _build(
    name: str,
    input_shape: tuple[int, int, int],
    classes: int,
    arguments: dict[str, Any],
    momentum: float | None,
) -> "keras.Model":
    """``keras.applications.<name>`` for normalised images: logits, random weights.

    ``momentum`` replaces that of its BatchNorm. Raises :class:`ValueError` from Keras for images
    that are too small.
    """
    import keras

    chosen: dict[str, Any] = {
        "include_top": True,
        "weights": None,
        "input_shape": input_shape,
        "classes": classes,
        "classifier_activation": None,
    }
    if "include_preprocessing" in _functions()[name]:
        chosen["include_preprocessing"] = False
    model = getattr(keras.applications, name)(**chosen, **arguments)
    for layer in flat_layers(model):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = momentum
        elif isinstance(layer, keras.layers.Rescaling):
            # EfficientNetB0-B7 divide by 255 and offer no way out. Our images are normalised.
            layer.scale, layer.offset = 1.0, 0.0
    return model


def __getattr__(name: str) -> type:
    """A class that was made here: pickle asks for it by its name."""
    if name in names():
        return choices.model.find(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
