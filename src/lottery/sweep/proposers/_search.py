"""The search of one network: its cells, then fresh seeds of its winner, and its controls."""

import functools
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from lottery.sweep.proposers import Candidate
from lottery.sweep.proposers._evidence import Look, Told, points
from lottery.sweep.proposers._moves import Standing, all_rows, one_cell
from lottery.sweep.proposers._rows import Network, Place
from lottery.verdict.images import Pair

REFUTATIONS = 3
"""Winners that fresh seeds may refute; the next is reported without."""


class Judge(Protocol):
    """What tells which cells pass."""

    def looks(
        self, told: Told, refuted: Collection[Place] = (), *, patient: bool = False
    ) -> Mapping[Place, Look]:
        """Every cell of which something was told."""
        ...

    def confirms(self, pairs: Sequence[Pair]) -> bool:
        """Whether these alone show a ticket."""
        ...


@dataclass(frozen=True)
class Confirmation:
    """A winner, trained once more: ``difference`` is of these seeds alone, in points.

    ``passed`` is None as long as seeds are missing, or if all of them ended with an error.
    """

    place: Place
    cells: tuple[Candidate, ...]
    seeds: tuple[int, ...] = ()
    difference: float | None = None
    passed: bool | None = None


@dataclass(frozen=True)
class Outcome:
    """How a search stands: ``jobs`` are what it asks for next; empty at its end.

    ``certified`` says that no single further look could change the winner, whether or not it was
    tried.
    """

    standing: Standing
    jobs: tuple[Candidate, ...]
    certified: bool
    winner: Place | None = None
    confirmation: Confirmation | None = None
    refuted: tuple[Confirmation, ...] = ()
    controls: tuple[Candidate, ...] = ()


@dataclass(frozen=True)
class NetworkSearch:
    """Asks for cells of one network; a function of what was told, and of nothing else.

    ``fresh`` are the seeds of a confirmation.
    """

    network: Network
    judge: Judge
    fresh: tuple[int, ...]

    def outcome(self, told: Told, slots: int | None) -> Outcome:
        """What was found, and what to ask next: of all rows in ``slots`` jobs, or of one cell."""
        refuted = self._refuted(told)
        places = [confirmation.place for confirmation in refuted]
        # First as if the spread between seeds were known as well as it will be in the end: the
        # first cells alone would know so little of it that none could pass.
        for patient in (True, False):
            standing = Standing(self.network, self.judge.looks(told, places, patient=patient))
            jobs = one_cell(standing) if slots is None else all_rows(standing, slots)
            if jobs:
                return Outcome(standing, tuple(jobs), False, refuted=refuted)
        winner, confirmation = standing.winner, None
        if winner is None:
            return Outcome(standing, (), not standing.hidden, refuted=refuted)
        if self.fresh and len(refuted) < REFUTATIONS:
            confirmation = self._confirmation(winner, told)
        controls = self._controls(winner)
        asked = (*(confirmation.cells if confirmation else ()), *controls)
        left = tuple(c for c in asked if c.overrides not in told)
        certified = not standing.hidden
        return Outcome(standing, left, certified, winner, confirmation, refuted, controls)

    def _refuted(self, told: Told) -> tuple[Confirmation, ...]:
        """All cells whose fresh seeds lost too much, whichever was the winner since."""
        told_of = (p for p, cells in self._fresh_cells.items() if cells[-1].overrides in told)
        found = (self._confirmation(place, told) for place in told_of)
        return tuple(confirmation for confirmation in found if confirmation.passed is False)

    @functools.cached_property
    def _fresh_cells(self) -> dict[Place, tuple[Candidate, ...]]:
        """The cells that would confirm each place; none without fresh seeds."""
        return {
            (row.name, rung): tuple(_with_seed(next(iter(cell.values())), s) for s in self.fresh)
            for row in self.network.rows
            for rung, cell in row.cells.items()
            if self.fresh
        }

    def _confirmation(self, place: Place, told: Told) -> Confirmation:
        cells = self._fresh_cells[place]
        if not all(cell.overrides in told for cell in cells):
            return Confirmation(place, cells)
        results = {cell.seed: told[cell.overrides] for cell in cells}
        pairs = {seed: (r["dense"], r["ticket"]) for seed, r in results.items() if r is not None}
        if not pairs:
            return Confirmation(place, cells)
        difference = statistics.fmean(map(points, pairs.values()))
        passed = self.judge.confirms(list(pairs.values()))
        return Confirmation(place, cells, tuple(pairs), difference, passed)

    def _controls(self, place: Place) -> tuple[Candidate, ...]:
        """Those at the winner's percentile, rewound to its point or to none."""
        (row,) = (row for row in self.network.rows if row.name == place[0])
        percentile = self.network.percentiles[place[1]]
        return tuple(
            c
            for c in self.network.controls
            if c.percentile == percentile and c.position in (None, row.position)
        )


def _with_seed(candidate: Candidate, seed: int) -> Candidate:
    """The same cell of another seed, of which nothing is trained yet."""
    others = [o for o in candidate.overrides if o.lstrip("+").partition("=")[0] != "seed"]
    epochs, shares = (
        {f"{key} seed={seed}": value for key, value in by_run.items()}
        for by_run in (candidate.epochs, candidate.shares)
    )
    overrides = (*others, f"seed={seed}")
    return replace(candidate, overrides=overrides, seed=seed, epochs=epochs, shares=shares)
