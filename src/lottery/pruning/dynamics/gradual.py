"""Gradual magnitude pruning, GMP (Zhu & Gupta 2017, arXiv:1710.01878, equation 1)."""

from dataclasses import dataclass

import numpy as np

from lottery import choices
from lottery.errors import ConfigError
from lottery.options import option
from lottery.pruning.dynamics import Aim, Moment, part
from lottery.pruning.layers import Array


@choices.dynamics("gradual")
@dataclass(frozen=True)
class Gradual:
    """The smallest weights go while the network trains, fast at first, and stay away."""

    frequency: int = option(100, "steps between changes", ge=1)
    begin: float = option(0.0, "share of the training before the first change", ge=0, lt=1)
    end: float = option(0.75, "share of the training before the last change", gt=0, le=1)
    initial: float = option(0.0, "percentile of the first change", ge=0, lt=100)

    def changes(self, steps: int, aim: Aim) -> range:
        """``t0, t0 + dt, …, t0 + n dt``, n as high as ``end`` lets it be.

        Raises :class:`ConfigError` if there is no change after the first, or it asks for more than
        the last.
        """
        if self.initial > aim.percentile:
            raise ConfigError(
                f"mask.during.initial={self.initial:g} is above mask.percentile="
                f"{aim.percentile:g}: lower it"
            )
        times = self._times(steps)
        if len(times) < 2:
            first, last = part(self.begin, steps), part(self.end, steps)
            raise ConfigError(
                f"mask.during.frequency={self.frequency} leaves no second change between the steps "
                f"{first} and {last} of {steps}: lower it, set mask.during.begin and "
                "mask.during.end further apart, or train longer"
            )
        return times if times.start else times[1:]  # that before the first step is the start

    def percentile(self, step: int, steps: int, final: float) -> float:
        """``s_f + (s_i - s_f) (1 - (t - t0) / (n dt))^3`` after that many steps, in percent.

        Between changes it is that of the last one, and nothing before the first.
        """
        times = self._times(steps)
        n = len(times) - 1
        done = min((step - times.start) // self.frequency, n)
        return final + (self.initial - final) * (1 - done / n) ** 3 if done >= 0 else 0.0

    def start(self, moment: Moment, aim: Aim) -> dict[str, Array]:
        """All weights, or what the first change leaves if training begins with it."""
        return self.change(moment, aim)

    def change(self, moment: Moment, aim: Aim) -> dict[str, Array]:
        """Without the smallest of what is left."""
        percentile, before = (
            self.percentile(step, moment.steps, aim.percentile)
            for step in (moment.step, moment.step - self.frequency)
        )
        scores = {path: np.abs(moment.weights[path]) for path in moment.mask}
        return aim.reach(scores, percentile, within=moment.mask, before=before)

    def _times(self, steps: int) -> range:
        first, last = part(self.begin, steps), part(self.end, steps)
        return range(first, last + 1, self.frequency)
