"""What a search will take, before anything ran: it is played through on made-up networks."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lottery.sweep.proposers import Candidate, Outlook
from lottery.sweep.proposers._evidence import Look, State, Told
from lottery.sweep.proposers._moves import Standing
from lottery.sweep.proposers._rows import Network, Place
from lottery.sweep.proposers._search import NetworkSearch
from lottery.verdict.images import Pair

SCENARIOS = 6
"""Sparsest passing rungs that are tried, besides none and all."""


Wave = Callable[[Sequence[NetworkSearch], Told], list[Candidate]]
"""What several searches ask for together."""


def outlook(
    searches: Sequence[NetworkSearch], candidates: Sequence[Candidate], told: Told, wave: Wave
) -> Outlook:
    """From what has been told already."""
    done = {key for c in candidates if told.get(c.overrides) is not None for key in c.epochs}
    grid = {c.overrides: c for c in candidates if c.overrides not in told}
    whole = {k: e for c in grid.values() for k, e in c.epochs.items() if k not in done}
    price = {k: p for c in grid.values() for k, p in c.price.items() if k not in done}
    played = [
        _play(made, told, done, wave)
        for sure in (True, False)
        for made in _scenarios(searches, told, sure)
    ]
    cells, epochs, prices, waves = zip(*played, strict=True)
    return Outlook(
        min(cells), max(cells), min(epochs), max(epochs), min(waves), max(waves),
        len(grid), sum(whole.values()), min(prices), max(prices), sum(price.values()),
    )  # fmt: skip


@dataclass(frozen=True)
class _MadeUp:
    """Rows that pass down to a rung, and where they really did; the judge of a played search.

    If ``sure``, one seed shows that a cell fails.
    """

    network: Network
    sparsest: Mapping[str, int]
    real: Mapping[Place, Look]
    sure: bool

    def looks(
        self, told: Told, refuted: Collection[Place] = (), *, patient: bool = False
    ) -> dict[Place, Look]:
        found = {}
        real = Standing(self.network, self.real)
        for row in self.network.rows:
            sparsest = max(self.sparsest[row.name], real.reached(row))
            for rung, cell in row.cells.items():
                place = row.name, rung
                seeds = tuple(s for s, c in cell.items() if told.get(c.overrides) is not None)
                if place in self.real:
                    found[place] = self.real[place]
                elif seeds:
                    found[place] = self._look(seeds, rung <= sparsest)
        return found

    def _look(self, seeds: tuple[int, ...], passes: bool) -> Look:
        complete = len(seeds) == self.network.seeds
        if passes:
            return Look(State.PASSED if complete else State.OPEN, seeds, 0.0, hopeful=True)
        state = State.FAILED if complete else State.GIVEN_UP if self.sure else State.OPEN
        return Look(state, seeds, -self.network.tolerance)

    def confirms(self, pairs: Sequence[Pair]) -> bool:
        return True


def _scenarios(
    searches: Sequence[NetworkSearch], told: Told, sure: bool
) -> Iterator[list[NetworkSearch]]:
    """All rows alike; each a little sparser, or denser, than the one before."""
    real = [
        {place: look for place, look in s.judge.looks(told).items() if look.passed is not None}
        for s in searches
    ]

    def made(rung: Callable[[int, Network], float]) -> list[NetworkSearch]:
        return [
            NetworkSearch(
                s.network,
                _MadeUp(
                    s.network,
                    {row.name: round(rung(i, s.network)) for i, row in enumerate(s.network.rows)},
                    looks,
                    sure,
                ),
                s.fresh,
            )
            for s, looks in zip(searches, real, strict=True)
        ]

    for step in range(SCENARIOS + 2):
        share = step / (SCENARIOS + 1)
        yield made(lambda i, n, share=share: share * len(n.percentiles) - 1)  # type: ignore[misc]
    yield made(lambda i, n: i)
    yield made(lambda i, n: i * len(n.percentiles) / len(n.rows))
    yield made(lambda i, n: len(n.percentiles) - 2 - i)


def _play(
    searches: Sequence[NetworkSearch], told: Told, done: Collection[str], wave: Wave
) -> tuple[int, float, float, int]:
    """Cells, epochs, their price, and waves of one search to its end."""
    told, paid, asked, epochs, price, waves = dict(told), set(done), 0, 0.0, 0.0, 0
    chains = [c for s in searches for c in s.network.candidates if c.iterative]
    while jobs := wave(searches, told):
        waves += 1
        asked += len(jobs)
        for c in jobs:
            epochs += sum(e for key, e in c.epochs.items() if key not in paid)
            price += sum(p for key, p in c.price.items() if key not in paid)
            paid |= c.epochs.keys()
            told[c.overrides] = _PASSED
        told |= {c.overrides: _PASSED for c in chains if c.epochs.keys() <= paid}
    return asked, epochs, price, waves


_PASSED = {"dense": {"val_top1": 1.0}, "ticket": {"val_top1": 1.0}}
