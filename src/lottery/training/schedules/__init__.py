"""The learning rate over time: one module per choice, and any other of Keras by its name.

Importing this package does not import TensorFlow; building a schedule does.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from lottery.errors import ConfigError
from lottery.options import identity, option
from lottery.points import Point

Piece = tuple[int, Any]
"""From which step on the rate follows a formula, and which: JSON values that say all but the peak.
Steps of a formula count from where it begins."""


@dataclass(frozen=True)
class Schedule:
    """What all schedules have: a peak, and a linear rise to it at the beginning.

    A length, or a place, is a share of the training or, so that it does not depend on how long that
    is, a point: ``5ep``, ``2000it``.
    """

    warmup: Any = option(
        0.0, "a linear rise from zero: a share of the training, or 5ep, 2000it", ge=0, lt=1
    )

    def contradictions(self) -> list[str]:
        """One line for each value that contradicts another."""
        return [] if is_place(self.warmup) else [odd_place("warmup", self.warmup)]

    def check(self, steps: int, steps_per_epoch: int) -> None:
        """Whether it fits a training of ``steps``. Raises :class:`ConfigError` if not."""
        warmup = self.in_steps(steps_per_epoch).warm_up(steps)
        if not is_share(self.warmup) and warmup >= steps:
            raise ConfigError(
                f"schedule.warmup={self.warmup} is not shorter than the training, {steps} steps: "
                "the rate would never reach its peak"
            )

    def in_steps(self, steps_per_epoch: int) -> Self:
        """The same, with every point written in steps alone, and so in one way only."""
        return replace(self, warmup=place_in_steps(self.warmup, steps_per_epoch))

    def after(self, peak: float, *, warmup: int, steps: int) -> Any:
        """The Keras schedule after ``warmup`` of ``steps`` steps, counted from there."""
        raise NotImplementedError

    def pieces_after(self, *, warmup: int, steps: int) -> Sequence[Piece]:
        """What :meth:`after` consists of; steps count from the start of the training.

        As long as the pieces of two schedules are equal, so are their rates. What is not known of a
        schedule may depend on the number of steps from the beginning.
        """
        return [(warmup, [identity(self), steps])]

    def keeps(self, steps: int) -> tuple[int, ...]:
        """After which steps of a training a state is kept, for one of another length to begin."""
        return ()

    def warm_up(self, steps: int) -> int:
        """Steps of the warm-up, of ``steps`` in all. The schedule must be :meth:`in_steps`."""
        return step_of(self.warmup, steps)

    def pieces(self, steps: int) -> list[Piece]:
        """All that determines the rates of a training of ``steps``, but for the peak."""
        warmup = self.warm_up(steps)
        rise: list[Piece] = [(0, ["warm-up", warmup])] if warmup else []
        return [*rise, *self.pieces_after(warmup=warmup, steps=steps)]

    def build(self, peak: float, *, steps: int) -> Any:
        """The Keras schedule over ``steps`` steps, all epochs together.

        It must be :meth:`in_steps`, and fit (:meth:`check`).
        """
        warmup = self.warm_up(steps)
        after = self.after(peak, warmup=warmup, steps=steps)
        if not warmup:
            return after
        from lottery.training.schedules._warmup import WarmUp

        return WarmUp(after, peak, warmup)


CONSTANT = ["constant", 1.0]
"""The formula of a rate that stays at the peak."""


def alike(a: Sequence[Piece], b: Sequence[Piece]) -> int | None:
    """How many steps two schedules of the same peak have the same rates for; None: for ever."""
    for number in range(max(len(a), len(b))):
        starts = [piece[number][0] for piece in (a, b) if number < len(piece)]
        if len(starts) < 2 or a[number] != b[number]:
            return min(starts)
    return None


def is_share(place: Any) -> bool:
    """Whether a place in the training is a share of it."""
    return isinstance(place, int | float) and not isinstance(place, bool)


def is_place(place: Any) -> bool:
    """Whether a value is a share, or a point such as ``5ep``."""
    if is_share(place):
        return True
    try:
        Point.of(place)
    except ConfigError:
        return False
    return True


def odd_place(name: str, value: Any) -> str:
    """What to say of an option whose value :func:`is_place` refuses."""
    return (
        f"schedule.{name}={value} is neither a share of the training, as 0.1, nor a point in it, "
        "as 5ep or 2000it"
    )


def place_in_steps(place: Any, steps_per_epoch: int) -> Any:
    """The place; a point as so many steps."""
    return place if is_share(place) else f"{Point.of(place).step(steps_per_epoch)}it"


def step_of(place: Any, steps: int) -> int:
    """The step of a place in a training of ``steps``, if it is a share or a number of steps."""
    if is_share(place):
        share: float = place
        return round(share * steps)
    point = Point.of(place)
    assert not point.epochs, "in_steps comes first"
    return point.steps


def unchanging(rate: float) -> Any:
    """A constant schedule. As an object, so that an optimizer's variables are always the same."""
    import keras

    return keras.optimizers.schedules.PiecewiseConstantDecay([0], [rate, rate])
