"""Keras optimizers and learning-rate schedules from their configuration."""

from collections.abc import Collection
from typing import Any

import keras
import tensorflow as tf

from lottery.config import Optimizer, Schedule


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


def schedule(config: Schedule, peak: float, *, epochs: int, steps_per_epoch: int) -> Any:
    """The Keras learning-rate schedule over ``epochs * steps_per_epoch`` steps.

    A cosine ends at ``final * peak`` (Loshchilov & Hutter 2017, without restarts); milestones are
    shares of all steps, warm-up included.
    """
    schedules = keras.optimizers.schedules
    warmup = round(config.warmup * epochs * steps_per_epoch)
    if config.name == "cosine":
        decay = max(1, epochs * steps_per_epoch - warmup)
        after = schedules.CosineDecay(peak, decay, alpha=config.final)
    else:
        milestones = config.milestones if config.name == "step" else []
        # Keras's piecewise constant still has the old value *at* a boundary.
        boundaries = [round(m * epochs * steps_per_epoch) - warmup - 1 for m in milestones]
        values = [peak * config.factor**i for i in range(len(milestones) + 1)]
        after = (
            schedules.PiecewiseConstantDecay(boundaries, values) if boundaries else constant(peak)
        )
    return WarmUp(after, peak, warmup) if warmup else after


def constant(rate: float) -> Any:
    """A constant schedule. As an object, so that an optimizer's variables are always the same."""
    return keras.optimizers.schedules.PiecewiseConstantDecay([0], [rate, rate])


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


def optimizer(config: Optimizer, learning_rate: Any) -> Any:
    """The Keras optimizer, with a fixed name so that its variables' paths never change."""
    decays = config.weight_decay > 0 or config.name == "adamw"
    common = {
        "learning_rate": learning_rate,
        # Keras takes None for no decay, except for AdamW, which takes 0.
        "weight_decay": config.weight_decay if decays else None,
        "global_clipnorm": config.clip_norm,
        "name": "optimizer",
    }
    if config.name == "sgd":
        built = keras.optimizers.SGD(momentum=config.momentum, nesterov=config.nesterov, **common)
    else:
        kind = {"adam": keras.optimizers.Adam, "adamw": keras.optimizers.AdamW}[config.name]
        built = kind(beta_1=config.beta_1, beta_2=config.beta_2, epsilon=config.epsilon, **common)
    if decays:
        built.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return built
