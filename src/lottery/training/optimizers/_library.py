"""Every other optimizer of Keras, by the lower case of its name: ``optimizer=lion``.

Its options are the arguments of its class, at their defaults there.
"""

import functools
from typing import Any

from lottery import choices
from lottery.choices import library
from lottery.training.optimizers import KEEP_ZEROS, Optimizer

# Of other options, or what this project does itself.
_DECIDED = {
    "learning_rate", "weight_decay", "clipnorm", "clipvalue", "global_clipnorm", "use_ema",
    "ema_momentum", "ema_overwrite_frequency", "loss_scale_factor", "gradient_accumulation_steps",
    "name",
}  # fmt: skip
_NO_CHOICES = {"Optimizer", "LossScaleOptimizer", "MultiOptimizer"}

# Lamb's norms count weights that something else makes irrelevant, and Lion moves a weight by the
# sign of its gradient, so as far by rounding as by a slope.
_LOOK_AROUND = {"Lamb", "Lion"}

# Masks and rewinding need slots that have the shapes of their weights and may be set to zero:
# without a gradient such a weight must stay as it is.
EXCLUDED = {
    "adafactor": "its slots are means over rows and columns, which no mask could part by weight",
    "ftrl": "it computes weights anew from its slots, so pruned and rewound ones do not stay",
    "schedulefreeadamw": "its slots begin as a copy of the weights, so it cannot be rewound "
    "without them, and the weights that it trains are not those it is evaluated with",
}
"""Optimizers of Keras that are no choices here, by name, and why."""


def names() -> tuple[str, ...]:
    """Names of all optimizers of the installed Keras but those that are excluded."""
    return tuple(_classes())


def find(name: str) -> type | None:
    """The options of an optimizer of Keras; None if there is none of that name."""
    found = _classes().get(name)
    return _made(found) if found else None


@functools.cache
def _classes() -> dict[str, str]:
    found = library.classes("optimizers")
    usable = (c for c, taken in found.items() if c not in _NO_CHOICES and "learning_rate" in taken)
    return {name.lower(): name for name in usable if name.lower() not in EXCLUDED}


@functools.cache
def _made(class_name: str) -> type:
    arguments = library.classes("optimizers")[class_name]
    common = {
        "learning_rate": arguments["learning_rate"],
        "weight_decay": arguments.get("weight_decay") or 0.0,
    }

    def keras_class(self: Optimizer) -> Any:
        import keras

        return getattr(keras.optimizers, class_name)

    made = library.dataclass_of(
        class_name,
        arguments,
        Optimizer,
        module=__name__,
        doc=f"keras.optimizers.{class_name}",
        leave_out=_DECIDED,
        defaults=common,
    )
    made.keras_class = keras_class  # type: ignore[attr-defined]
    made.elementwise = class_name in KEEP_ZEROS - _LOOK_AROUND  # type: ignore[attr-defined]
    return made


def __getattr__(class_name: str) -> type:
    """A class that was made here: pickle asks for it by its name."""
    if class_name in _classes().values():
        return choices.optimizer.find(class_name.lower())
    raise AttributeError(f"module {__name__!r} has no attribute {class_name!r}")
