"""Where a search looks next. Nothing here decides whether a cell passes.

A rung is *useful* if its passing would make its row beat the sparsest ticket so far, by
:func:`~lottery.verdict.rule.walk`. When no rung of any row is useful, no single further look could
change the winner: that is the certificate. Most of the price is paid for it, not for finding the
winner: who knew the first row's answer from its third cell on would save less than 0.1 % of the
epochs of the published grids (docs/benchmarks.md). So no law of error over density is fitted
(Rosenfeld et al. 2021, arXiv:2006.10621), which takes three cells.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lottery.sweep.proposers import Candidate
from lottery.sweep.proposers._evidence import Look, State
from lottery.sweep.proposers._rows import Network, Place, Row
from lottery.verdict.rule import walk

NOTHING = -1
"""The rung of a row where nothing passes."""
RIVALS = 2
"""Cells of one rung that are completed together, of which one has to pass."""


@dataclass(frozen=True)
class Standing:
    """How the rows of a network stand after the looks at their cells."""

    network: Network
    looks: Mapping[Place, Look]

    def of(self, row: Row) -> dict[int, Look]:
        """The looks at a row's cells, by rung; without those that cannot be judged."""
        own = {rung: self.looks.get((row.name, rung)) for rung in row.cells}
        return {r: look for r, look in own.items() if look and look.state is not State.UNKNOWN}

    def known(self, row: Row) -> dict[int, bool]:
        """Whether the decided cells of a row pass, by rung."""
        return {r: look.passed for r, look in self.of(row).items() if look.passed is not None}

    def reached(self, row: Row) -> int:
        """The sparsest rung of a row that counts."""
        return _reached(self.known(row))

    @property
    def best(self) -> int:
        """The sparsest rung of all rows that counts."""
        return max((self.reached(row) for row in self.network.rows), default=NOTHING)

    @property
    def winner(self) -> Place | None:
        """The cell on that rung; of several the most accurate."""
        best = self.best
        places = [(row.name, best) for row in self.network.rows if self.reached(row) == best]
        return None if best == NOTHING else max(places, key=lambda p: _mean(self.looks[p]))

    def useful(self, row: Row) -> list[int]:
        """The undecided rungs of a row whose passing would beat all others, dense to sparse."""
        known, best = self.known(row), self.best
        return [
            rung
            for rung in row.cells
            if rung not in known
            and not self.unknown(row, rung)
            and _reached({**known, rung: True}) > best
        ]

    @property
    def hidden(self) -> list[Place]:
        """Cells that cannot be judged, and whose passing would beat all others."""
        best = self.best
        return [
            (row.name, rung)
            for row in self.network.rows
            for rung in row.cells
            if self.unknown(row, rung) and _reached({**self.known(row), rung: True}) > best
        ]

    def guess(self, row: Row) -> dict[int, bool]:
        """Whether cells of a row pass, by rung, if their other seeds are like those there."""
        return {rung: look.hopeful for rung, look in self.of(row).items()}

    def left(self, row: Row, rung: int) -> list[Candidate]:
        """The seeds of a cell that are not there."""
        look = self.looks.get((row.name, rung))
        return [c for s, c in row.cells[rung].items() if look is None or s not in look.seeds]

    def unknown(self, row: Row, rung: int) -> bool:
        """Whether a cell cannot be judged."""
        look = self.looks.get((row.name, rung))
        return look is not None and look.state is State.UNKNOWN


def _reached(known: Mapping[int, bool]) -> int:
    found = walk(known.items())
    return NOTHING if found is None else found


def _mean(look: Look) -> float:
    return float("-inf") if look.difference is None else look.difference


def one_cell(standing: Standing) -> list[Candidate]:
    """The next question for the fewest epochs, in one row after the other.

    It is one seed of one cell as long as the cell seems to fail, then all its others. Empty if
    nothing is useful.
    """
    for row in standing.network.rows:
        if useful := standing.useful(row):
            choose = _on_chain if row.iterative else _by_halves
            rung = choose(standing, row, useful)
            left, look = standing.left(row, rung), standing.of(row).get(rung)
            return left if look and look.hopeful else left[:1]
    return []


def _by_halves(standing: Standing, row: Row, useful: Sequence[int]) -> int:
    """Bisects a row, or tests whether it beats the best at all.

    The first row, and one that has beaten the others, is bisected up to its first failure, then
    looked at one rung beyond. Another is tested one rung sparser than the best. What is begun is
    finished first.
    """
    begun = [rung for rung in useful if rung in standing.of(row)]
    if begun:
        return begun[0]
    best = standing.best
    failed = [rung for rung, passed in standing.known(row).items() if rung > best and not passed]
    below = [rung for rung in useful if not failed or rung < min(failed)]
    nothing_yet = not any(standing.known(row) for row in standing.network.rows)
    ahead = standing.reached(row) == best > NOTHING
    if below and (nothing_yet or ahead or failed):
        return below[len(below) // 2]
    return useful[0]


def _on_chain(standing: Standing, row: Row, useful: Sequence[int]) -> int:
    """Goes down an iterative chain, whose rounds on the way are paid for anyway.

    First with one seed, half of the way to the next useful rung at a time, as a row that fails
    twice on the way has ended. Then come the other seeds at the sparsest rung that this one
    promises, or at the densest that is undecided.
    """
    guess = standing.guess(row)
    rungs, deepest = sorted(guess), max(guess, default=NOTHING)
    ended = len(rungs) > 1 and not any(guess[rung] for rung in rungs[-2:])
    if not ended and (deeper := [rung for rung in useful if rung > deepest]):
        on_the_way = [rung for rung in row.cells if deepest < rung <= deeper[0]]
        on_the_way = [rung for rung in on_the_way if not standing.unknown(row, rung)]
        return on_the_way[len(on_the_way) // 2]
    begun = [rung for rung in useful if rung in guess]
    promising = [rung for rung in begun if guess[rung]]
    return (promising[-1:] or begun or list(useful))[0]


def all_rows(standing: Standing, slots: int) -> list[Candidate]:
    """The next questions for the fewest waves: at most ``slots`` seeds of cells of all rows.

    First one seed each of cells spread over every row, every second rung at most; of an iterative
    chain its whole length. What they promise is taken for granted, and what shows it is asked for:
    the other seeds at the sparsest rung that any row promises, and the next two rungs of every row.
    Empty if nothing is useful.
    """
    rows = [(row, useful) for row in standing.network.rows if (useful := standing.useful(row))]
    rows = [(row, useful) for row, useful in rows if not row.unstable] or rows
    guesses = {row.name: standing.guess(row) for row, _ in rows}
    goal = max([standing.best, *map(_reached, guesses.values())])
    wave: list[Candidate] = []
    rivals = [(row.name, goal) for row, useful in rows
              if goal in useful and _reached(guesses[row.name]) == goal]  # fmt: skip
    rivals = sorted(rivals, key=lambda place: -_mean(standing.looks[place]))[:RIVALS]
    probes = []
    for row, useful in rows:
        guess = guesses[row.name]
        if (row.name, goal) in rivals:
            wave += standing.left(row, goal)
        for rung in [rung for rung in row.cells if rung > goal][:2]:
            if rung in useful and rung in guess:
                wave += standing.left(row, rung)
        failing = min((r for r, hope in guess.items() if r > goal and not hope), default=None)
        unseen = [r for r in useful if r > goal and r not in guess]
        below = [r for r in unseen if failing is None or r < failing] or unseen[:1]
        if below:
            probes.append((row, below))
    spare = max(slots - len(wave), 0)
    for i, (row, below) in enumerate(probes):
        share = spare // len(probes) + (i < spare % len(probes))
        wave += _probe(standing, row, below, share)
    return wave[:slots] or one_cell(standing)


def _probe(standing: Standing, row: Row, rungs: Sequence[int], jobs: int) -> list[Candidate]:
    """Of a row's unseen cells all seeds if there is room, else one each, spread over the rungs."""
    looked, count = bool(standing.looks), len(rungs)
    if looked and not row.iterative and jobs >= count * standing.network.seeds:
        return [c for rung in rungs for c in standing.left(row, rung)]
    cells = min(jobs, count if looked else (count + 1) // 2)
    picked = [rungs[i * count // (cells + 1)] for i in range(1, cells + 1)]
    if cells == count:
        picked = list(rungs)
    if row.iterative:
        # What is denser is on its way. One seed of several goes down at once; if there is only
        # one, that would be the whole grid.
        deepest = count - 1 if standing.network.seeds > 1 else count // 2
        picked = [rungs[deepest]] if jobs else []
    return [c for rung in picked for c in standing.left(row, rung)[:1]]
