"""Points in training: so many complete epochs, so many optimizer steps, or both.

Written ``5ep``, ``2000it`` or ``5ep100it``.
"""

import re
from dataclasses import dataclass
from typing import Any

from lottery.errors import ConfigError

_WRITTEN = re.compile(r"(?:(?P<epochs>\d+)ep)?(?:(?P<steps>\d+)it)?")


@dataclass(frozen=True, order=True)
class Point:
    """After ``epochs`` complete epochs and ``steps`` optimizer steps of the next."""

    epochs: int = 0
    steps: int = 0

    @staticmethod
    def of(value: Any) -> "Point":
        """From a number of epochs, or from what :meth:`__str__` writes.

        Raises :class:`ConfigError` for anything else.
        """
        if isinstance(value, Point):
            return value
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return Point(value)
        text = str(value)
        if text.isdecimal():
            return Point(int(text))
        found = _WRITTEN.fullmatch(text)
        if not text or found is None:
            raise ConfigError(
                f"{value!r} is no point in training: write epochs and steps, as in 5ep, 2000it or "
                "5ep100it"
            )
        return Point(int(found["epochs"] or 0), int(found["steps"] or 0))

    @staticmethod
    def at(step: int, steps_per_epoch: int) -> "Point":
        """The point after so many steps in all."""
        return Point(*divmod(step, steps_per_epoch))

    def step(self, steps_per_epoch: int) -> int:
        """The number of optimizer steps that lie behind it."""
        return self.epochs * steps_per_epoch + self.steps

    def __str__(self) -> str:
        """As it is written: ``5ep``, ``2000it``, ``5ep100it``; ``0ep`` for the start."""
        epochs = f"{self.epochs}ep" if self.epochs or not self.steps else ""
        return epochs + (f"{self.steps}it" if self.steps else "")

    @property
    def label(self) -> str:
        """For an axis on which epochs are usual: ``5``, or ``2000it``."""
        return str(self) if self.steps else str(self.epochs)

    @property
    def words(self) -> str:
        """In a sentence: ``epoch 5``, ``step 2000``."""
        if not self.steps:
            return f"epoch {self.epochs}"
        return f"epoch {self.epochs}, step {self.steps}" if self.epochs else f"step {self.steps}"


START = Point()


def order(point: Point | None) -> tuple[int, int]:
    """A key to sort by: no point at all comes first."""
    return (-1, -1) if point is None else (point.epochs, point.steps)


def columns(point: Point | None) -> dict[str, int | None]:
    """For a table: the epochs that were rewound to, and the steps of the next, each if any."""
    if point is None:
        return {"rewind_epoch": None, "rewind_step": None}
    whole = not point.steps
    return {
        "rewind_epoch": point.epochs if point.epochs or whole else None,
        "rewind_step": None if whole else point.steps,
    }
