"""The peak throughout."""

from dataclasses import dataclass
from typing import Any

from lottery import choices
from lottery.training import schedules
from lottery.training.schedules import Schedule


@choices.schedule("constant")
@dataclass(frozen=True)
class Constant(Schedule):
    """The peak throughout."""

    def after(self, peak: float, *, warmup: int, steps: int) -> Any:
        """The peak."""
        return schedules.unchanging(peak)
