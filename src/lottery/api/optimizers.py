"""An optimizer of Keras as the options that choose it."""

import inspect
import re
from dataclasses import fields
from typing import Any

import numpy as np

from lottery import choices
from lottery.api import session
from lottery.errors import ConfigError

_SAME = {"learning_rate", "weight_decay", "name"}
_CLIP = "global_clipnorm"


def chosen(optimizer: Any) -> list[str]:
    """The overrides that choose it, and its schedule: constant if the learning rate is a number.

    Raises :class:`ConfigError` for what is no optimizer of Keras, and for a setting of it that the
    choice does not have.
    """
    if optimizer is None:
        return []
    if isinstance(optimizer, str):
        return [f"optimizer={optimizer}"]
    kind = type(optimizer)
    name = kind.__name__.lower()
    if kind.__module__.split(".")[0] != "keras" or not hasattr(optimizer, "get_config"):
        raise ConfigError(
            f"the optimizer is {kind.__name__}: give one of Keras or its name, or write a choice "
            "of optimizer (CONTRIBUTING.md)"
        )
    choice = choices.optimizer.find(name)
    config = optimizer.get_config()
    options = {f.name for f in fields(choice)}
    overrides = [f"optimizer={name}"]
    own = inspect.signature(kind).parameters
    for option, given in config.items():
        if option in _SAME:
            continue
        if option in options:
            overrides.append(session.value(f"optimizer.{option}", given))
        elif option == _CLIP:
            overrides.append(session.value("optimizer.clip_norm", given))
        elif option in own and given != own[option].default:
            raise ConfigError(f"{kind.__name__}({option}={given}) cannot be chosen here")
    overrides.append(session.value("optimizer.weight_decay", float(config["weight_decay"] or 0)))
    return [*overrides, *_schedule(config["learning_rate"])]


def _schedule(rate: Any) -> list[str]:
    if isinstance(rate, int | float):
        # Keras holds it in float32: what was typed is the shortest number that this could be.
        typed = float(str(np.float32(rate)))
        return [session.value("optimizer.learning_rate", typed), "schedule=constant"]
    config, kind = rate["config"], rate["class_name"]
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind).lower()
    peak = "initial_learning_rate"
    if name not in choices.schedule.names() or peak not in config:
        raise ConfigError(
            f"the learning rate is a {kind}, which is no choice of schedule (known: "
            f"{', '.join(choices.schedule.names())})"
        )
    options = {f.name for f in fields(choices.schedule.find(name))} - {"name"}
    if config.get("warmup_target") is not None:
        steps = config["warmup_steps"]
        raise ConfigError(
            f"{kind}(warmup_target={config['warmup_target']}) cannot be chosen: make it without a "
            f'warm-up, from its peak on, and add options=["schedule.warmup={steps}it"]'
        )
    others = set(config) - options - {peak, "name", "warmup_target", "warmup_steps"}
    if others:
        raise ConfigError(f"{kind}({', '.join(sorted(others))}=…) cannot be chosen here")
    overrides = [
        session.value(f"schedule.{option}", given)
        for option, given in config.items()
        if option in options
    ]
    return [session.value("optimizer.learning_rate", config[peak]), f"schedule={name}", *overrides]
