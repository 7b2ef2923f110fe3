"""Drops at milestones, as in most ResNet papers (He et al. 2016, section 4.2)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from lottery import choices
from lottery.errors import ConfigError
from lottery.options import option
from lottery.training.schedules import (
    Piece,
    Schedule,
    is_place,
    is_share,
    odd_place,
    place_in_steps,
    step_of,
    unchanging,
)


@choices.schedule("step")
@dataclass(frozen=True)
class Step(Schedule):
    """Drops by a factor at each milestone."""

    milestones: list[Any] = option(
        [],
        "after which the rate drops: shares of the training, warm-up included, or points in it, "
        "[30ep,60ep], which may lie beyond its end",
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
        errors, given = super().contradictions(), self.milestones
        if odd := [m for m in given if not is_place(m)]:
            return [*errors, odd_place("milestones", odd[0])]
        if not all(map(is_share, given)):
            if any(map(is_share, given)):
                errors.append(
                    f"schedule.milestones={given} mixes shares of the training with points in it: "
                    "write all of them in one way"
                )
            return errors
        inside = all(0 < m < 1 for m in given)
        if given != sorted(set(given)) or not inside:
            epochs = "" if inside else "; epochs are written 30ep, steps 2000it"
            return [*errors, f"schedule.milestones={given} must increase between 0 and 1{epochs}"]
        if given and is_share(self.warmup) and given[0] <= self.warmup:  # the peak is never reached
            errors.append(self._too_early())
        return errors

    def check(self, steps: int, steps_per_epoch: int) -> None:
        """As contradictions, of points too. Raises :class:`ConfigError`."""
        super().check(steps, steps_per_epoch)
        own = self.in_steps(steps_per_epoch)
        found = [step_of(m, steps) for m in own.milestones]
        if any(is_share(m) for m in self.milestones) and is_share(self.warmup):
            return  # of few steps, shares may fall together
        if found != sorted(set(found)):
            raise ConfigError(f"schedule.milestones={self.milestones} must increase")
        if found and found[0] <= own.warm_up(steps):
            raise ConfigError(self._too_early())

    def _too_early(self) -> str:
        return (
            f"schedule.milestones={self.milestones} must lie after the end of the warm-up, "
            f"schedule.warmup={self.warmup}"
        )

    def in_steps(self, steps_per_epoch: int) -> Self:
        """With points written in steps."""
        milestones = [place_in_steps(m, steps_per_epoch) for m in self.milestones]
        warmup = place_in_steps(self.warmup, steps_per_epoch)
        return replace(self, warmup=warmup, milestones=milestones)

    def after(self, peak: float, *, warmup: int, steps: int) -> Any:
        """Keras's piecewise constant rate, which still has the old value *at* a boundary."""
        import keras

        boundaries = [step_of(m, steps) - warmup - 1 for m in self.milestones]
        values = [peak * factor for factor in self._factors]
        if not boundaries:
            return unchanging(peak)
        return keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, values)

    def pieces_after(self, *, warmup: int, steps: int) -> Sequence[Piece]:
        """A constant rate from each milestone on."""
        starts = [warmup, *(step_of(m, steps) for m in self.milestones)]
        return [(s, ["constant", f]) for s, f in zip(starts, self._factors, strict=True)]

    @property
    def _factors(self) -> list[float]:
        """Shares of the peak: at first, and after each milestone."""
        return [float(self.factor**i) for i in range(len(self.milestones) + 1)]
