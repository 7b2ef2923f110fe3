"""Drops at milestones, as in most ResNet papers (He et al. 2016, section 4.2)."""

from dataclasses import dataclass
from typing import Any

from lottery import choices
from lottery.options import option
from lottery.training.schedules import Schedule, unchanging


@choices.schedule("step")
@dataclass(frozen=True)
class Step(Schedule):
    """Drops by a factor at each milestone."""

    milestones: list[float] = option(
        [], "shares of the training, warm-up included, after which the rate drops"
    )
    factor: float = option(
        0.1,
        "what the rate is multiplied by at a milestone",
        only=lambda s: bool(s.milestones),
        gt=0,
        le=1,
    )

    def contradictions(self) -> list[str]:
        """Milestones must increase, between the end of the warm-up and that of the training."""
        inside = all(0 < m < 1 for m in self.milestones)
        if self.milestones != sorted(set(self.milestones)) or not inside:
            return [f"schedule.milestones={self.milestones} must increase between 0 and 1"]
        if self.milestones and self.milestones[0] <= self.warmup:  # the peak is never reached
            return [
                f"schedule.milestones={self.milestones} must lie after the end of the warm-up, "
                f"schedule.warmup={self.warmup}"
            ]
        return []

    def after(self, peak: float, *, warmup: int, steps: int) -> Any:
        """Keras's piecewise constant rate, which still has the old value *at* a boundary."""
        import keras

        boundaries = [round(m * steps) - warmup - 1 for m in self.milestones]
        values = [peak * self.factor**i for i in range(len(self.milestones) + 1)]
        if not boundaries:
            return unchanging(peak)
        return keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, values)
