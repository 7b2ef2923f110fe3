"""Where a search looks next. Nothing here decides whether a cell passes.

A rung is *useful* if its passing would make its row beat the sparsest ticket so far, by
:func:`~lottery.verdict.rule.walk`. When no rung of any row is useful, no single further look could
change the winner: that is the certificate.
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
            and not self._unknown(row, rung)
            and _reached({**known, rung: True}) > best
        ]

    def guess(self, row: Row) -> dict[int, bool]:
        """The same of all cells of a row with a look, if their other seeds are like the first."""
        return {rung: look.hopeful for rung, look in self.of(row).items()}

    def left(self, row: Row, rung: int) -> list[Candidate]:
        """The seeds of a cell that are not there."""
        look = self.looks.get((row.name, rung))
        return [c for s, c in row.cells[rung].items() if look is None or s not in look.seeds]

    def _unknown(self, row: Row, rung: int) -> bool:
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
    """What is begun is finished. The first row, and one that has beaten the others, is bisected up
    to its first failure, and then looked at one rung beyond; a row that has not is tested one rung
    sparser than the best.
    """  # fmt: skip
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
    """Down with one seed, half of the way to the next useful rung at a time, as what fails twice
    on the way needs no more; then the sparsest rung that this seed promises, else the densest.

    The rounds on the way are paid for, so there is no looking at a denser rung for less.
    """  # fmt: skip
    guess = standing.guess(row)
    rungs, deepest = sorted(guess), max(guess, default=NOTHING)
    ended = len(rungs) > 1 and not any(guess[rung] for rung in rungs[-2:])
    if not ended and (deeper := [rung for rung in useful if rung > deepest]):
        on_the_way = [rung for rung in row.cells if deepest < rung <= deeper[0]]
        return on_the_way[len(on_the_way) // 2]
    begun = [rung for rung in useful if rung in guess]
    promising = [rung for rung in begun if guess[rung]]
    return (promising[-1:] or begun or list(useful))[0]


def all_rows(standing: Standing, slots: int) -> list[Candidate]:
    """The next questions for the fewest waves: at most ``slots`` seeds of cells of all rows.

    First one seed of cells spread over the rungs, every second one at most. What they promise is
    taken for granted, and what it takes to show it is asked for: the other seeds at the sparsest
    rung that any row promises, and in every row the next two rungs.
    """
    rows = [(row, useful) for row in standing.network.rows if (useful := standing.useful(row))]
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
        picked = picked[-1:]  # the others are rounds on its way
    return [c for rung in picked for c in standing.left(row, rung)[:1]]
