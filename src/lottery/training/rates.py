"""The learning rates of whole trainings, number by number."""

from typing import Any

import numpy as np
import tensorflow as tf

from lottery.training.schedules import Schedule


def of_steps(schedule: Schedule, peak: float, *, steps: int, until: int) -> "np.ndarray[Any, Any]":
    """The rates of the first ``until`` of ``steps`` steps: float32 [until].

    ``schedule`` must be :meth:`~lottery.training.schedules.Schedule.in_steps`.
    """
    rate = schedule.build(peak, steps=steps)

    def each(numbers: Any) -> Any:
        def one(step: Any) -> Any:
            return tf.cast(rate(step), tf.float32)

        return tf.map_fn(one, numbers, fn_output_signature=tf.float32)

    # As a concrete function: of others TensorFlow counts the tracings, and warns.
    signature = tf.TensorSpec([None], tf.int64)
    compiled = tf.function(each, autograph=False).get_concrete_function(signature)
    return np.asarray(compiled(tf.range(until, dtype=tf.int64)))
