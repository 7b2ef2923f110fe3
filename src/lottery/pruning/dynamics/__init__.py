"""Masks that change during training: one module each, named as its choice of ``mask.during``.

All of it is a function of arrays and of the step, so that every process of a training finds the
same mask, and a resumed one the mask that it would have had.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import floor
from typing import Any, Protocol

import numpy as np

from lottery import choices
from lottery.errors import ConfigError
from lottery.pruning import masks
from lottery.pruning.layers import Allocation, Array
from lottery.pruning.patterns.weight import Weight
from lottery.pruning.units import Mask

Arrays = Mapping[str, Array]


@dataclass(frozen=True)
class Aim:
    """Which density a mask is to have, of single weights, and where."""

    percentile: float
    """Of the weights that the mask is about, to remove by the end of the training."""
    allocation: Allocation

    def reach(
        self, scores: Arrays, percentile: float, *, within: Mask | None = None, before: float = 0.0
    ) -> dict[str, Array]:
        """The mask that removes the lowest scores, up to a percentile on the way.

        Arguments are those of :func:`lottery.pruning.masks.make`, which says what is raised.
        """
        return masks.make(
            scores,
            percentile,
            allocation=self.allocation,
            pattern=Weight(),
            within=within,
            before=before,
        )


@dataclass(frozen=True, eq=False)
class Moment:
    """What a change of a mask may look at: arrays of the kernels in the mask, by path."""

    step: int
    """Steps that were taken since the training began."""
    steps: int
    """Of the whole training."""
    mask: Mask
    weights: Arrays
    """What the mask prunes is zero."""
    gradients: Arrays | None
    """Of all weights, those at zero too; None unless the choice asks for them."""
    generator: np.random.Generator
    """Random numbers, by seed and step."""


class Dynamics(Protocol):
    """What a choice of ``mask.during`` is.

    A class variable ``gradients`` that is true asks for the dense gradient at each change. The
    step that measures it does not train: Algorithm 1 of RigL (Evci et al. 2020, arXiv:1911.11134)
    updates either weights or connections. ``knows_length = False`` says that what it does after a
    step does not depend on how long the training is; :meth:`changes` may end later.
    """

    def changes(self, steps: int, aim: Aim) -> Sequence[int]:
        """After which steps of a training of ``steps`` the mask changes: ascending, from 1 on.

        Raises :class:`ConfigError` if these cannot reach the aim.
        """
        ...

    def start(self, moment: Moment, aim: Aim) -> Mask:
        """The mask of the first step; that of ``moment`` leaves all weights."""
        ...

    def change(self, moment: Moment, aim: Aim) -> Mask:
        """The mask that follows."""
        ...


@dataclass(frozen=True)
class Course:
    """How a mask changes over a training: all that determines it but weights and gradients."""

    dynamics: Any
    """A choice of ``mask.during`` (:class:`Dynamics`)."""
    percentile: float
    """Percent of the weights to remove by the end."""
    allocation: Any
    """A choice of ``mask.scope``."""
    seed: int
    first_step: int
    last_step: int
    """Where the whole training begins and ends, however far one attempt gets."""

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "Course":
        """The course whose :func:`dataclasses.asdict` was ``value``.

        Raises :class:`ConfigError` for a choice that is unknown.
        """
        chosen = {
            "dynamics": choices.dynamics.of(value["dynamics"]),
            "allocation": choices.allocation.of(value["allocation"]),
        }
        return Course(**{**value, **chosen})

    @property
    def measures(self) -> bool:
        """Whether the step before each change measures the dense gradient and trains nothing."""
        return bool(getattr(self.dynamics, "gradients", False))

    @property
    def changes(self) -> Sequence[int]:
        """The steps after which the mask changes, counted over the whole schedule.

        Raises :class:`ConfigError` if the training is too short to reach the percentile.
        """
        found = self.dynamics.changes(self._steps, self._aim)
        if isinstance(found, range):  # of any length
            return range(found.start + self.first_step, found.stop + self.first_step, found.step)
        return [step + self.first_step for step in found]

    def start(self, weights: Arrays) -> dict[str, Array]:
        """The mask of the first step, for the kernels ``weights`` as they begin.

        Raises :class:`ConfigError` where :attr:`changes` does, or the allocation cannot be had.
        """
        self.dynamics.changes(self._steps, self._aim)
        whole = {path: np.ones(w.shape, bool) for path, w in weights.items()}
        return dict(self.dynamics.start(self._at(self.first_step, whole, weights), self._aim))

    def change(
        self, step: int, mask: Mask, weights: Arrays, gradients: Arrays | None = None
    ) -> dict[str, Array]:
        """The mask from ``step``, one of :attr:`changes`, on; arrays by path of the mask.

        ``gradients`` must be given if :attr:`measures`.
        """
        moment = self._at(step, mask, weights, gradients)
        return dict(self.dynamics.change(moment, self._aim))

    @property
    def _steps(self) -> int:
        return self.last_step - self.first_step

    @property
    def _aim(self) -> Aim:
        return Aim(self.percentile, self.allocation)

    def _at(
        self, step: int, mask: Mask, weights: Arrays, gradients: Arrays | None = None
    ) -> Moment:
        done = step - self.first_step
        generator = np.random.Generator(np.random.PCG64([self.seed, done, 0xD15]))
        return Moment(done, self._steps, mask, weights, gradients, generator)


def part(share: float, count: int) -> int:
    """``floor(share * count)`` of the decimal that was typed, exactly."""
    return floor(Fraction(repr(float(share))) * count)


def every(frequency: int, end: int, steps: int) -> range:
    """Every so many steps, as long as fewer than ``end`` are done.

    Raises :class:`ConfigError` if that is never, in a training of ``steps``.
    """
    found = range(frequency, end, frequency)
    if not found:
        raise ConfigError(
            f"mask.during.frequency={frequency} changes the mask never, before step {end} of "
            f"{steps}: lower it, or train longer"
        )
    return found
