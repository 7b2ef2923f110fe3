"""Keras optimizers: one module per choice, and any other of Keras by its name.

Importing this package does not import TensorFlow; building an optimizer does.
"""

import dataclasses
import inspect
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, ClassVar

from lottery.errors import ConfigError
from lottery.options import option

SPARED = ("bias", "gamma", "beta")
"""Variables that weight decay spares: biases and those of BatchNorm."""


KEEP_ZEROS = frozenset(
    ("Adadelta", "Adagrad", "Adam", "Adamax", "AdamW", "Lamb", "Lion", "Nadam", "RMSprop", "SGD")
)
"""Optimizers of Keras that leave a weight at zero where its gradients and slots are zero."""


@dataclass(frozen=True)
class Optimizer:
    """What all optimizers have. Weight decay is decoupled and spares biases and BatchNorm."""

    elementwise: ClassVar[bool] = False
    """Whether weights that a mask has cut off matter to no other one, so that a network without
    them trains as one with them. A subclass that updates otherwise sets it anew."""

    learning_rate: float = option(0.1, "peak learning rate", gt=0)
    weight_decay: float = option(0.0, "decay per step, times the learning rate", ge=0)
    clip_norm: float | None = option(None, "largest global norm of the gradient", gt=0)

    @property
    def has_slots(self) -> bool:
        """Whether it remembers anything of earlier steps, so that a rewinding could reset it."""
        return True

    def keras_class(self) -> Any:
        """The class of Keras; imports TensorFlow."""
        raise NotImplementedError

    def build(self, learning_rate: Any) -> Any:
        """The Keras optimizer, with a fixed name so that its variables' paths never change.

        ``learning_rate`` is a Keras schedule. Raises :class:`ConfigError` for what Keras refuses.
        """
        kind = self.keras_class()
        common = {f.name for f in dataclasses.fields(Optimizer)} | {"name"}
        own = {
            f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in common
        }
        # Keras takes None for no decay, except where decay is what the optimizer is about.
        decays = self.weight_decay > 0 or _default_decay(kind) is not None
        if decays:
            own["weight_decay"] = self.weight_decay
        try:
            built = kind(
                learning_rate=learning_rate,
                global_clipnorm=self.clip_norm,
                name="optimizer",
                **own,
            )
        except (TypeError, ValueError) as error:
            name = getattr(self, "name", type(self).__name__)
            raise ConfigError(f"optimizer={name}: Keras refuses it: {error}") from error
        if decays:
            built.exclude_from_weight_decay(var_names=list(SPARED))
        return built


def _default_decay(kind: Any) -> Any:
    parameter = inspect.signature(kind).parameters.get("weight_decay")
    return None if parameter is None else parameter.default


def keeps_zeros(optimizer: Any) -> bool:
    """Whether a weight that is zero stays so where its gradients and slots are zero.

    False where that is not known: of optimizers of one's own, and of averaged weights.
    """
    import keras
    import numpy as np

    inner = getattr(optimizer, "inner_optimizer", optimizer)
    kind = type(inner)
    if kind.__name__ not in KEEP_ZEROS or kind is not getattr(keras.optimizers, kind.__name__):
        return False
    divides = np.float32(getattr(inner, "epsilon", 1)) == 0  # 0 by 0
    return not (divides or inner.use_ema)


def accelerate(optimizer: Any, paths: Collection[str], factor: float) -> None:
    """Have a built optimizer update the variables of these paths at ``factor`` times its rate.

    Discriminative fine-tuning (Howard & Ruder 2018, arXiv:1801.06146, section 3.2) with two groups.
    Decoupled weight decay keeps the common rate.
    """
    step = optimizer.update_step
    places = {i for i, v in enumerate(optimizer._trainable_variables) if v.path in paths}

    def update_step(gradient: Any, variable: Any, learning_rate: Any) -> None:
        faster = optimizer._get_variable_index(variable) in places
        step(gradient, variable, learning_rate * (factor if faster else 1.0))

    optimizer.update_step = update_step
