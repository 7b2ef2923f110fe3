"""The stable rate that falls at the end, as a Keras schedule."""

import math
from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("lottery")
class StableDecay(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """``peak`` for ``stable`` steps, then a fall over ``steps`` to ``final`` times the peak."""

    def __init__(self, peak: float, stable: int, steps: int, shape: str, final: float) -> None:
        super().__init__()
        self.peak, self.stable, self.steps = peak, stable, steps
        self.shape, self.final = shape, final

    def __call__(self, step: Any) -> Any:
        """Learning rate of a step (scalar tensor)."""
        step = tf.cast(step, tf.float32)
        done = tf.clip_by_value((step - self.stable) / self.steps, 0.0, 1.0)
        return tf.where(step < self.stable, self.peak, self.peak * self._left(done))

    def _left(self, done: Any) -> Any:
        """The share of the peak after that share of the fall."""
        if self.shape == "exponential":
            return tf.exp(done * math.log(self.final))
        left = {
            "linear": lambda: 1 - done,
            "cosine": lambda: (1 + tf.cos(math.pi * done)) / 2,
            "sqrt": lambda: 1 - tf.sqrt(done),
        }[self.shape]()
        return self.final + (1 - self.final) * left

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return {
            "peak": self.peak, "stable": self.stable, "steps": self.steps, "shape": self.shape,
            "final": self.final,
        }  # fmt: skip
