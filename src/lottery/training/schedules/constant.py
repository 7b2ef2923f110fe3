"""The peak throughout."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lottery import choices
from lottery.training import schedules
from lottery.training.schedules import CONSTANT, Piece, Schedule


@choices.schedule("constant")
@dataclass(frozen=True)
class Constant(Schedule):
    """The peak throughout."""

    def after(self, peak: float, *, warmup: int, steps: int) -> Any:
        """The peak."""
        return schedules.unchanging(peak)

    def pieces_after(self, *, warmup: int, steps: int) -> Sequence[Piece]:
        """The peak."""
        return [(warmup, CONSTANT)]
