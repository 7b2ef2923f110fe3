"""The learning rate over time: one module per choice, and any other of Keras by its name.

Importing this package does not import TensorFlow; building a schedule does.
"""

from dataclasses import dataclass
from typing import Any

from lottery.options import option


@dataclass(frozen=True)
class Schedule:
    """What all schedules have: a peak, and a linear rise to it at the beginning."""

    warmup: float = option(0.0, "share of the training for a linear rise from zero", ge=0, lt=1)

    def contradictions(self) -> list[str]:
        """One line for each value that contradicts another."""
        return []

    def after(self, peak: float, *, warmup: int, steps: int) -> Any:
        """The Keras schedule after ``warmup`` of ``steps`` steps, counted from there."""
        raise NotImplementedError

    def build(self, peak: float, *, steps: int) -> Any:
        """The Keras schedule over ``steps`` steps, all epochs together."""
        warmup = round(self.warmup * steps)
        after = self.after(peak, warmup=warmup, steps=steps)
        if not warmup:
            return after
        from lottery.training.schedules._warmup import WarmUp

        return WarmUp(after, peak, warmup)


def unchanging(rate: float) -> Any:
    """A constant schedule. As an object, so that an optimizer's variables are always the same."""
    import keras

    return keras.optimizers.schedules.PiecewiseConstantDecay([0], [rate, rate])
