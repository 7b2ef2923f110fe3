"""What the cells that were looked at have shown: which pass, which fail, which are given up."""

import enum
import math
import statistics
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lottery.sweep.proposers._rows import Network, Place
from lottery.verdict import images
from lottery.verdict.comparison import Comparison
from lottery.verdict.images import Pair
from lottery.verdict.rule import Rule

SURE = 2.5
"""Standard deviations at which the seeds that are there decide for those that are not.

Several cells of a search are close, so that 1 in 160 each. Two would save 0.6 % of a grid's epochs.
"""

Told = Mapping[tuple[str, ...], Mapping[str, Any] | None]
"""By the overrides of a cell what it has shown; None if it failed."""


class State(enum.StrEnum):
    """What is known of a cell."""

    PASSED = "passed"
    FAILED = "failed"
    GIVEN_UP = "given up"
    """The first seeds show that all together would fail."""
    REFUTED = "refuted"
    """It passed, but fresh seeds did not."""
    UNKNOWN = "unknown"
    """A seed ended with an error, so the cell cannot be judged."""
    OPEN = "open"
    """Some seeds are still to be trained."""


@dataclass(frozen=True)
class Look:
    """A cell of which at least one seed is there.

    ``difference`` is the mean over ``seeds`` of ticket - dense, in points; None if there is none.
    ``hopeful`` is whether it passes, or would if its other seeds were like those that are there.
    """

    state: State
    seeds: tuple[int, ...]
    difference: float | None = None
    hopeful: bool = False

    @property
    def passed(self) -> bool | None:
        """Whether it passes; None if that is not known."""
        if self.state in (State.UNKNOWN, State.OPEN):
            return None
        return self.state is State.PASSED


class Evidence:
    """The looks at the cells of one network."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self._rule = network.rule
        self._judged: dict[bool, dict[Hashable, Comparison]] = {}

    def looks(
        self, told: Told, refuted: Collection[Place] = (), *, patient: bool = False
    ) -> dict[Place, Look]:
        """Every cell of which something was told; those that fresh seeds refuted do not pass.

        With ``patient`` the spread between seeds counts as known as well as it will be when each
        row has shown its end.
        """
        pairs: dict[Place, dict[int, Pair]] = {}
        lost: set[Place] = set()
        for row in self.network.rows:
            for rung, cell in row.cells.items():
                place = row.name, rung
                for seed, candidate in cell.items():
                    if (result := told.get(candidate.overrides, ...)) is None:
                        lost.add(place)
                    elif result is not ...:
                        pairs.setdefault(place, {})[seed] = result["dense"], result["ticket"]
        judged = self._judge(pairs, patient)
        wanted = self._wanted(pairs)
        spread = _spread(list(pairs.values()))
        found = {}
        for place in sorted({*pairs, *lost}):
            own = pairs.get(place, {})
            difference = statistics.fmean(map(points, own.values())) if own else None
            hopeful = difference is not None and difference >= wanted
            if place in lost:
                state, hopeful = State.UNKNOWN, False
            elif place in judged:
                hopeful = judged[place].passes and place not in refuted
                failed = State.REFUTED if place in refuted else State.FAILED
                state = State.PASSED if hopeful else failed
            elif self._futile(list(own.values()), spread, wanted):
                state = State.GIVEN_UP
            else:
                state = State.OPEN
            found[place] = Look(state, tuple(own), difference, hopeful)
        return found

    def confirms(self, pairs: Sequence[Pair]) -> bool:
        """Whether tickets of fresh seeds lose at most the tolerance, on average."""
        rule = Rule(self.network.tolerance, level=None)
        return rule.judge({0: pairs})[0].passes

    def _judge(
        self, pairs: Mapping[Place, Mapping[int, Pair]], patient: bool
    ) -> dict[Hashable, Comparison]:
        """The rule's verdict on the complete cells."""
        complete: dict[Hashable, list[Pair]] = {
            place: list(own.values())
            for place, own in pairs.items()
            if len(own) == self.network.seeds
        }
        before = self._judged.get(patient)
        if before is None or before.keys() != complete.keys():
            expected = (len(self.network.rows) + 1) * (self.network.seeds - 1) if patient else 0
            rule = replace(self._rule, freedom=expected)
            self._judged[patient] = before = rule.judge(complete)
        return before

    def _wanted(self, pairs: Mapping[Place, Mapping[int, Pair]]) -> float:
        """The difference that a cell must have at least to pass, whatever its seeds will be: a test
        asks for more than the tolerance, for the validation images are a sample.
        """  # fmt: skip
        least = [self._rule.least(images.sampling(list(own.values()))) for own in pairs.values()]
        return float(statistics.median(least)) if least else -self.network.tolerance

    def _futile(self, pairs: Sequence[Pair], spread: float, wanted: float) -> bool:
        """Whether the mean over all seeds will hardly reach what is wanted.

        Seeds spread normally around a mean of which nothing else is known, so the mean over all S
        differs from that over the first n by a normal error of variance spread^2 (1/n - 1/S).
        """
        mean = statistics.fmean(map(points, pairs))
        error = spread * math.sqrt(1 / len(pairs) - 1 / self.network.seeds)
        return mean + SURE * error < wanted


def points(pair: Pair) -> float:
    """Ticket - dense, in points of validation top-1."""
    dense, ticket = pair
    return 100 * float(ticket["val_top1"] - dense["val_top1"])


def _spread(cells: Sequence[Mapping[int, Pair]]) -> float:
    """Standard deviation of a difference between seeds, in points, pooled over the cells.

    What the sampling of validation images could explain counts as one more degree of freedom, so
    that a first cell is not taken at its word.
    """
    if not cells:
        return 0.0
    squares = statistics.fmean(images.sampling([p]).variance(points(p)) for own in cells
                               for p in own.values())  # fmt: skip
    free = 1
    for own in cells:
        if len(own) > 1:
            squares += (len(own) - 1) * statistics.variance(map(points, own.values()))
            free += len(own) - 1
    return math.sqrt(squares / free)
