"""Building networks. Importing this package does not import TensorFlow.

The networks themselves are choices: :mod:`lottery.models.networks`.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lottery import choices
from lottery.errors import ConfigError
from lottery.models.kernels import flat_layers, layer_kernels

if TYPE_CHECKING:
    import keras

__all__ = ["build", "build_choice", "head", "lacks", "reset_names"]


def build(
    name: str,
    input_shape: tuple[int, ...],
    classes: int,
    *,
    sync_batch_norm: bool = False,
    head_only: bool = False,
    **options: Any,
) -> "keras.Model":
    """The network of that name with these options: see :func:`build_choice`.

    Raises :class:`ConfigError` for an unknown name or option, too.
    """
    chosen = choices.model.of({"name": name, **options})
    return build_choice(
        chosen, input_shape, classes, sync_batch_norm=sync_batch_norm, head_only=head_only
    )


def build_choice(
    chosen: Any,
    input_shape: tuple[int, ...],
    classes: int,
    *,
    sync_batch_norm: bool = False,
    head_only: bool = False,
) -> "keras.Model":
    """A fresh network; its weights follow from ``keras.utils.set_random_seed``.

    ``chosen`` is a choice of ``model``, ``input_shape`` is (height, width, channels), or that of
    examples which are no images. The head and what follows it compute in float32, whatever the
    precision of the rest. With ``sync_batch_norm`` the replicas of a strategy normalise by the
    statistics of their batches together; with ``head_only`` nothing but the head trains, and moving
    statistics stand still.

    Raises :class:`ConfigError` where the network cannot take such images, or options.
    """
    from keras.layers import BatchNormalization

    reset_names()
    try:
        model: keras.Model = chosen.build(tuple(input_shape), classes)
    except Exception as error:
        # ValueError is Keras's word for shapes and arguments that do not fit. What else it makes
        # of the value of an option is the user's to fix too.
        if not (_own_options(chosen) or isinstance(error, ValueError)):
            raise
        shape = "x".join(map(str, input_shape))
        raise ConfigError(
            f"{chosen.name} cannot be built for {shape} images: {_line(error)}"
        ) from error
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


def reset_names() -> None:
    """Have Keras count automatic names from the beginning.

    Variable paths must not depend on what the process built before: those of Dropout's random
    state, and of whole layers in some Keras networks.
    """
    from keras.src.utils.naming import reset_uids

    reset_uids()


def lacks(chosen: Any, part: str) -> bool:
    """Whether a network is known to have no ``batch_norm`` or no ``depthwise`` convolution.

    Options about such a part have no effect on it. One's own networks may have any.
    """
    return part in getattr(chosen, "lacks", ())


def head(model: "keras.Model") -> Any:
    """The layer that tells the classes apart: the last one with a kernel."""
    return [layer for layer in flat_layers(model) if layer_kernels(layer)][-1]


def _own_options(chosen: Any) -> Mapping[str, Any]:
    """Its options that are not at their defaults."""
    plain = asdict(type(chosen)())
    given = asdict(chosen).items()
    return {name: v for name, v in given if v != plain[name] and name != "weights"}


def _line(error: Exception) -> str:
    """Keras's message without its colours and its dump of the arguments."""
    text = re.sub(r"\x1b\[\d*m", "", str(error)).partition("Arguments received by")[0]
    return " ".join(text.split())
