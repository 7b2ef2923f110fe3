"""Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101)."""

from dataclasses import dataclass
from typing import Any

from lottery import choices
from lottery.training.optimizers.adam import Moments


@choices.optimizer("adamw")
@dataclass(frozen=True)
class AdamW(Moments):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""

    def keras_class(self) -> Any:
        """Keras's AdamW."""
        import keras

        return keras.optimizers.AdamW
