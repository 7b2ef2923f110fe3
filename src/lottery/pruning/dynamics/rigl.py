"""RigL, the rigged lottery (Evci et al. 2020, arXiv:1911.11134, section 3 and algorithm 1)."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lottery import choices
from lottery.options import option
from lottery.pruning.dynamics import Aim, Moment, every, part
from lottery.pruning.dynamics._regrowth import random_start, regrown
from lottery.pruning.layers import Array


@choices.dynamics("rigl")
@dataclass(frozen=True)
class RigL:
    """Sparse from the start: small weights go, those come whose gradients are the largest."""

    gradients: ClassVar[bool] = True

    frequency: int = option(100, "steps between changes", ge=1)
    drop: float = option(
        0.3, "share of a layer's weights that a change replaces; it decays by a cosine", gt=0, lt=1
    )
    end: float = option(0.75, "share of the training after which nothing changes", gt=0, le=1)

    def changes(self, steps: int, aim: Aim) -> range:
        """Every so many steps, as long as fewer than ``end`` of all are done."""
        return every(self.frequency, part(self.end, steps), steps)

    def share(self, step: int, steps: int) -> float:
        """``drop / 2 (1 + cos(pi t / T_end))``, what a change after ``step`` steps replaces."""
        return self.drop / 2 * (1 + math.cos(math.pi * step / part(self.end, steps)))

    def start(self, moment: Moment, aim: Aim) -> dict[str, Array]:
        """By lot, as dense in each layer as the allocation says."""
        return random_start(moment, aim)

    def change(self, moment: Moment, aim: Aim) -> dict[str, Array]:
        """Of the n weights of a layer ``floor(share * n)`` go, and as many come, at zero.

        If a gradient is not finite, as where mixed precision overflows, nothing changes.
        """
        assert moment.gradients is not None
        slopes = {path: np.abs(moment.gradients[path]) for path in moment.mask}
        if not all(np.isfinite(s).all() for s in slopes.values()):
            return dict(moment.mask)
        share = self.share(moment.step, moment.steps)
        return {
            path: regrown(m, moment.weights[path], slopes[path], part(share, int(m.sum())))
            for path, m in moment.mask.items()
        }
