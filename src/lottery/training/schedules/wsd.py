"""Warm-up, stable, decay (Hu et al. 2024, MiniCPM, arXiv:2404.06395, section 4)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from lottery import choices
from lottery.errors import ConfigError
from lottery.options import option
from lottery.training.schedules import (
    CONSTANT,
    Piece,
    Schedule,
    is_place,
    odd_place,
    place_in_steps,
    step_of,
)


@choices.schedule("wsd")
@dataclass(frozen=True)
class WarmUpStableDecay(Schedule):
    """The peak, and a fall at the end. Until that begins, nothing depends on where the end is.

    The state at the beginning of the fall is kept, so a longer training goes on from there.
    """

    decay: Any = option(
        0.1, "how long the fall at the end is: a share of the training, or 2ep, 1000it", gt=0, le=1
    )
    shape: str = option(
        "linear",
        "of the fall; sqrt is 1 - sqrt(t) (Haegele et al. 2024, arXiv:2405.18392), exponential the "
        "paper's",
        choices=("linear", "cosine", "sqrt", "exponential"),
    )
    final: float = option(0.0, "share of the peak left at the end", ge=0, le=1)

    def contradictions(self) -> list[str]:
        """The decay must be a length, and an exponential one has to end above zero."""
        errors = super().contradictions()
        if not is_place(self.decay):
            errors.append(odd_place("decay", self.decay))
        if self.shape == "exponential" and self.final == 0:
            errors.append("schedule.shape=exponential never reaches schedule.final=0: raise that")
        return errors

    def check(self, steps: int, steps_per_epoch: int) -> None:
        """Whether there is room for warm-up and decay. Raises :class:`ConfigError`."""
        super().check(steps, steps_per_epoch)
        own = self.in_steps(steps_per_epoch)
        if own._begins(steps) < own.warm_up(steps):
            raise ConfigError(
                f"schedule.warmup={self.warmup} and schedule.decay={self.decay} are longer than "
                f"the training together, {steps} steps"
            )

    def in_steps(self, steps_per_epoch: int) -> Self:
        """With points written in steps."""
        warmup, decay = (place_in_steps(p, steps_per_epoch) for p in (self.warmup, self.decay))
        return replace(self, warmup=warmup, decay=decay)

    def after(self, peak: float, *, warmup: int, steps: int) -> Any:
        """The peak, then the fall."""
        from lottery.training.schedules._decay import StableDecay

        begins = self._begins(steps)
        return StableDecay(peak, begins - warmup, steps - begins, self.shape, self.final)

    def pieces_after(self, *, warmup: int, steps: int) -> Sequence[Piece]:
        """The peak, then the fall, which is another one of another length."""
        begins = self._begins(steps)
        return [(warmup, CONSTANT), (begins, [self.shape, steps - begins, self.final])]

    def keeps(self, steps: int) -> tuple[int, ...]:
        """The last state that does not know the end."""
        return (self._begins(steps),)

    def _begins(self, steps: int) -> int:
        """The step at which the fall begins; it takes one step at least."""
        return steps - max(1, step_of(self.decay, steps))
