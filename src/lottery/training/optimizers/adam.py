"""Adam (Kingma & Ba 2015, arXiv:1412.6980)."""

from dataclasses import dataclass
from typing import Any, ClassVar

from lottery import choices
from lottery.options import option
from lottery.training.optimizers import Optimizer


@dataclass(frozen=True)
class Moments(Optimizer):
    """The options of Adam and its kin."""

    elementwise: ClassVar[bool] = True

    beta_1: float = option(0.9, "decay of the first moment", ge=0, lt=1)
    beta_2: float = option(0.999, "decay of the second moment", ge=0, lt=1)
    epsilon: float = option(1e-7, "added to the denominator", gt=0)


@choices.optimizer("adam")
@dataclass(frozen=True)
class Adam(Moments):
    """Adam (Kingma & Ba 2015)."""

    def keras_class(self) -> Any:
        """Keras's Adam."""
        import keras

        return keras.optimizers.Adam
