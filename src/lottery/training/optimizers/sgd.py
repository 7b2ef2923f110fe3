"""Stochastic gradient descent, with momentum (Sutskever et al. 2013)."""

from dataclasses import dataclass
from typing import Any, ClassVar

from lottery import choices
from lottery.options import option
from lottery.training.optimizers import Optimizer


@choices.optimizer("sgd")
@dataclass(frozen=True)
class Sgd(Optimizer):
    """Stochastic gradient descent."""

    elementwise: ClassVar[bool] = True

    momentum: float = option(0.9, "momentum", ge=0, lt=1)
    nesterov: bool = option(False, "Nesterov momentum", only=lambda o: o.momentum > 0)

    @property
    def has_slots(self) -> bool:
        """Only with momentum."""
        return self.momentum > 0

    def keras_class(self) -> Any:
        """Keras's SGD."""
        import keras

        return keras.optimizers.SGD
