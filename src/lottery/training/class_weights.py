"""What an example of each class counts in the loss of training: ``trainer.class_weights``.

The loss is multiplied by the weight of an example's class, or by the mean of both where mixup has
mixed two. Validation and test are measured without, and so are the gradients that scores look at:
those see as many examples of each class. No TensorFlow here.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lottery.data.interface import Labels
from lottery.errors import ConfigError
from lottery.options import did_you_mean

BALANCED = "balanced"


def given(option: Any, classes: Sequence[str]) -> list[float] | None:
    """The weight of each class that an option names; None if all count 1, or data decide.

    A list has one for each class. A dictionary has some, by the name of the class or, where no
    class is called that, by its number; the others count 1. Raises :class:`ConfigError` for what is
    neither, and not ``balanced``.
    """
    if option is None or option == BALANCED:
        return None
    weights = [1.0] * len(classes)
    if isinstance(option, Mapping):
        for key, value in option.items():
            weights[_place(str(key), classes)] = value
    elif isinstance(option, list | tuple):
        if len(option) != len(classes):
            raise ConfigError(
                f"trainer.class_weights has {len(option)} values, and there are {len(classes)} "
                "classes"
            )
        weights = list(option)
    else:
        raise ConfigError(
            f"trainer.class_weights={option} is neither balanced, nor a list, nor a dictionary of "
            "classes, as in {cat: 2, dog: 0.5}"
        )
    for name, weight in zip(classes, weights, strict=True):
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not (number and math.isfinite(weight) and weight >= 0):
            raise ConfigError(f"trainer.class_weights: {weight} of class {name} is no weight")
    if not any(weights):
        raise ConfigError("trainer.class_weights are all 0, so nothing would be learned")
    found = [float(weight) for weight in weights]
    return None if set(found) == {1.0} else found


def effective(option: Any, classes: Sequence[str]) -> Any:
    """The option in the one way in which keys hold it. Raises :class:`ConfigError`."""
    return BALANCED if option == BALANCED else given(option, classes)


def of(option: Any, classes: Sequence[str], labels: Labels) -> tuple[float, ...] | None:
    """The weight of each class; None if all count 1.

    ``balanced`` is N / (C n) for the n of N training ``labels`` that a class has, C being the
    number of classes: their sum over all examples is N. Raises :class:`ConfigError`.
    """
    if option != BALANCED:
        found = given(option, classes)
        return None if found is None else tuple(found)
    counts = np.bincount(labels, minlength=len(classes))
    return tuple(len(labels) / (len(classes) * n) if n else 0.0 for n in counts.tolist())


def _place(key: str, classes: Sequence[str]) -> int:
    if key in classes:
        return classes.index(key)
    if key.isdecimal() and int(key) < len(classes):
        return int(key)
    raise ConfigError(f"trainer.class_weights: there is no class {key}{did_you_mean(key, classes)}")
