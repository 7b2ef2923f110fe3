"""Every other schedule of Keras, by its name in lower case: ``schedule=exponential_decay``.

Its options are the arguments of its class, at their defaults there. Where it asks for a number of
steps and none is given, it takes all that there are after the warm-up.
"""

import functools
import re
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from lottery import choices
from lottery.choices import library
from lottery.errors import ConfigError
from lottery.training.schedules import Piece, Schedule

_PEAK = "initial_learning_rate"
_STEPS = {"decay_steps", "first_decay_steps"}
_DECIDED = {_PEAK, "name", "warmup_target", "warmup_steps"}


def names() -> tuple[str, ...]:
    """Names of all schedules of the installed Keras that begin at a peak."""
    return tuple(_classes())


def find(name: str) -> type | None:
    """The options of a schedule of Keras; None if there is none of that name."""
    found = _classes().get(name)
    return _made(found) if found else None


@functools.cache
def _classes() -> dict[str, str]:
    found = library.classes("optimizers/schedules")
    usable = (name for name, taken in found.items() if _PEAK in taken)
    return {re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower(): name for name in usable}


@functools.cache
def _made(class_name: str) -> type:
    arguments = library.classes("optimizers/schedules")[class_name]

    def given(self: Schedule) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name in arguments}

    def contradictions(self: Schedule) -> list[str]:
        missing = (
            name
            for name, value in given(self).items()
            if value is None and arguments[name] is library.REQUIRED and name not in _STEPS
        )
        bad = [f"schedule.{name} has no value" for name in missing]
        return [*Schedule.contradictions(self), *bad]

    def complete(self: Schedule, warmup: int, steps: int) -> dict[str, Any]:
        own = given(self)
        return own | {n: max(1, steps - warmup) for n in _STEPS & set(own) if own[n] is None}

    def pieces_after(self: Schedule, *, warmup: int, steps: int) -> Sequence[Piece]:
        return [(warmup, [class_name, complete(self, warmup, steps)])]

    def after(self: Schedule, peak: float, *, warmup: int, steps: int) -> Any:
        import keras

        own = complete(self, warmup, steps)
        own.pop("name", None)
        try:
            return getattr(keras.optimizers.schedules, class_name)(peak, **own)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"keras.optimizers.schedules.{class_name}: {error}") from error

    made = library.dataclass_of(
        class_name,
        arguments,
        Schedule,
        module=__name__,
        doc=f"keras.optimizers.schedules.{class_name}",
        leave_out=_DECIDED,
    )
    for function in (contradictions, after, pieces_after):
        setattr(made, function.__name__, function)
    return made


def __getattr__(class_name: str) -> type:
    """A class that was made here: pickle asks for it by its name."""
    name = next((n for n, c in _classes().items() if c == class_name), None)
    if name is None:
        raise AttributeError(f"module {__name__!r} has no attribute {class_name!r}")
    return choices.schedule.find(name)
