"""Sparse evolutionary training, SET (Mocanu et al. 2018, arXiv:1707.04780, algorithm 1)."""

from dataclasses import dataclass
from typing import ClassVar

from lottery import choices
from lottery.options import option
from lottery.pruning.dynamics import Aim, Moment, every, part
from lottery.pruning.dynamics._regrowth import random_numbers, random_start, regrown
from lottery.pruning.layers import Array


@choices.dynamics("set")
@dataclass(frozen=True)
class SparseEvolution:
    """Sparse from the start: the smallest weights of each layer go, as many come by lot."""

    knows_length: ClassVar[bool] = False

    frequency: int = option(100, "steps between changes; the paper has an epoch", ge=1)
    drop: float = option(0.3, "share of a layer's weights that each change replaces", gt=0, lt=1)

    def changes(self, steps: int, aim: Aim) -> range:
        """Every so many steps, but not after the last one."""
        return every(self.frequency, steps, steps)

    def start(self, moment: Moment, aim: Aim) -> dict[str, Array]:
        """By lot, as dense in each layer as the allocation says."""
        return random_start(moment, aim)

    def change(self, moment: Moment, aim: Aim) -> dict[str, Array]:
        """``floor(drop * n)`` of the n weights of a layer go, and as many come, at zero.

        The paper drops the smallest positive and the largest negative weights, a share of each;
        this, as later work does, the smallest by magnitude.
        """
        lots = random_numbers(moment)
        return {
            path: regrown(m, moment.weights[path], lots[path], part(self.drop, int(m.sum())))
            for path, m in moment.mask.items()
        }
