"""Linear warm-up as a Keras schedule."""

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("lottery")
class WarmUp(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """Linear rise from zero over ``steps`` steps, then ``after`` counted from there.

    Goyal et al. 2017 (arXiv:1706.02677), section 2.2.
    """

    def __init__(self, after: Any, peak: float, steps: int) -> None:
        super().__init__()
        self.after, self.peak, self.steps = after, peak, steps

    def __call__(self, step: Any) -> Any:
        """Learning rate of a step (scalar tensor)."""
        step = tf.cast(step, tf.float32)
        rising = self.peak * step / self.steps
        return tf.where(step < self.steps, rising, self.after(tf.maximum(step - self.steps, 0.0)))

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return {"after": self.after, "peak": self.peak, "steps": self.steps}
