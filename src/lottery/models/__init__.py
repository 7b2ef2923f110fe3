"""Networks by name. Importing this package does not import TensorFlow; building a network does.

A network is a module of this package with a pure function

    build(input_shape, classes, *, width, dropout, batch_norm_momentum) -> keras.Model

that may take further keyword arguments, ``model.options`` in the config. It returns a Keras
functional model from normalised float images ``(batch, height, width, channels)`` to raw logits
``(batch, classes)``. Model, input and layers have fixed names, because masks and checkpoints
refer to variables by path. A new file in this directory is a new choice of ``model.name``.
"""

import importlib.util
import pkgutil
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lottery.choices import code as choices
from lottery.errors import ConfigError
from lottery.models import applications
from lottery.models._arguments import arguments
from lottery.models.applications import APPLICATIONS
from lottery.models.kernels import flat_layers, layer_kernels
from lottery.options import did_you_mean

if TYPE_CHECKING:
    import keras

__all__ = ["APPLICATIONS", "build", "check", "head", "known", "lacks"]

_NOT_NETWORKS = {"applications", "cost", "kernels"}
_PLAIN = {"conv_2", "conv_4", "conv_6", "lenet_300_100", "VGG16", "VGG19"}
_LACKING = {
    "batch_norm": _PLAIN | {name for name in APPLICATIONS if name.startswith("ConvNeXt")},
    "depthwise": _PLAIN
    | {"resnet20"}
    | {n for n in APPLICATIONS if n.startswith(("DenseNet", "Inception", "ResNet"))},
}
# Arguments of builders that are no options, and what decides them.
_DECIDED = {
    "input_shape": "the data decide",
    "classes": "the data decide",
    "width": "set model.width",
    "dropout": "set model.dropout",
    "batch_norm_momentum": "set model.batch_norm_momentum",
}


def known() -> tuple[str, ...]:
    """Every name :func:`build` takes: the networks of this package, then those of Keras."""
    return (*_own(), *APPLICATIONS)


def check(
    name: str, *, width: float = 1.0, dropout: float = 0.0, options: Mapping[str, Any] | None = None
) -> None:
    """Whether :func:`build` takes these. Imports no TensorFlow.

    Raises :class:`ConfigError` for the first thing that it does not take.
    """
    if name in _own():
        spec = importlib.util.find_spec(f"{__name__}.{name}")
        accepted = arguments(Path(str(spec and spec.origin)), "build")
        decided = _DECIDED
    elif name in APPLICATIONS:
        accepted = applications.parameters(name)
        decided = applications.DECIDED
        applications.check(name, width=width, dropout=dropout)
    else:
        raise ConfigError(f"model.name={name} is unknown{did_you_mean(name, known())}")
    for option in options or {}:
        if accepted is not None and option not in accepted:
            free = sorted(accepted - set(decided))
            hint = did_you_mean(option, free) if free else ": it takes no options"
            raise ConfigError(f"model.options.{option} is unknown to {name}{hint}")
        if option in decided:
            raise ConfigError(f"model.options.{option} is no option: {decided[option]}")


def build(
    name: str,
    input_shape: tuple[int, int, int],
    classes: int,
    *,
    width: float = 1.0,
    dropout: float = 0.0,
    batch_norm_momentum: float = 0.99,
    sync_batch_norm: bool = False,
    options: Mapping[str, Any] | None = None,
    head_only: bool = False,
) -> "keras.Model":
    """A fresh network; its weights follow from ``keras.utils.set_random_seed``.

    ``input_shape`` is (height, width, channels), ``options`` the network's own further arguments.
    The head and what follows it compute in float32, whatever the precision of the rest.
    With ``sync_batch_norm`` the replicas of a strategy normalise by the statistics of their batches
    together; with ``head_only`` nothing but the head trains, and moving statistics stand still.
    Raises :class:`ConfigError` for an unknown name or option and where the network cannot take
    such images.
    """
    options = dict(options or {})
    check(name, width=width, dropout=dropout, options=options)
    builder: Callable[..., Any] = (
        choices.module(__name__, name).build
        if name in _own()
        else partial(applications.build, name)
    )
    from keras.layers import BatchNormalization
    from keras.src.utils.naming import reset_uids

    # Variable paths must not depend on what the process built before, but automatic names count on:
    # those of Dropout's random state, and of whole layers in some Keras networks.
    reset_uids()
    try:
        model: keras.Model = builder(
            tuple(input_shape),
            classes,
            width=width,
            dropout=dropout,
            batch_norm_momentum=batch_norm_momentum,
            **options,
        )
    except Exception as error:
        # ValueError is Keras's word for shapes and arguments that do not fit. What else it makes
        # of the value of an option is the user's to fix too.
        if not (options or isinstance(error, ValueError)):
            raise
        shape = "x".join(map(str, input_shape))
        raise ConfigError(f"{name} cannot be built for {shape} images: {_line(error)}") from error
    inside = flat_layers(model)
    last = head(model)
    for layer in inside:
        if sync_batch_norm and isinstance(layer, BatchNormalization):
            layer.synchronized = True
    # Under a mixed precision policy too, the loss and top-k need the digits of the logits.
    for layer in inside[inside.index(last) :]:
        layer.dtype_policy = "float32"
    if head_only:
        for layer in inside:  # what holds the head comes before it, and must not hold it back
            layer.trainable = layer is last or last in flat_layers(layer)
    return model


def lacks(name: str, part: str) -> bool:
    """Whether a network is known to have no ``batch_norm`` or no ``depthwise`` convolution.

    Options about such a part have no effect on it. One's own networks may have any.
    """
    return name in _LACKING[part]


def head(model: "keras.Model") -> Any:
    """The layer that tells the classes apart: the last one with a kernel."""
    return [layer for layer in flat_layers(model) if layer_kernels(layer)][-1]


def _own() -> tuple[str, ...]:
    modules = (module.name for module in pkgutil.iter_modules(__path__))
    return tuple(sorted(n for n in modules if n not in _NOT_NETWORKS and not n.startswith("_")))


def _line(error: Exception) -> str:
    """Keras's message without its colours and its dump of the arguments."""
    text = re.sub(r"\x1b\[\d*m", "", str(error)).partition("Arguments received by")[0]
    return " ".join(text.split())
