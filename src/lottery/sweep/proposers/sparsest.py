"""The sparsest ticket that passes, by looking at few cells of the grid."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lottery import choices
from lottery.errors import ConfigError
from lottery.options import option
from lottery.sweep.proposers import Candidate, Outlook, Overrides, _outlook, _record
from lottery.sweep.proposers._evidence import Evidence, State
from lottery.sweep.proposers._rows import networks
from lottery.sweep.proposers._search import NetworkSearch, Outcome


@choices.search("sparsest")
@dataclass(frozen=True)
class Sparsest:
    """The sparsest ticket that passes: rows compete, and most cells are never trained."""

    waves: str = option(
        "many",
        "many: fewest epochs; few: fewest waves, as wide as the launcher; or cells a wave",
    )
    confirm: int = option(2, "fresh seeds that the winner is trained with once more", ge=0)
    gate: bool = option(False, "whether rows with a barrier above 2 points go last")

    def proposer(self, candidates: Sequence[Candidate], parallel: int) -> "Proposal":
        """What asks for the cells of a search.

        Raises :class:`ConfigError` for options or a grid that it cannot search.
        """
        if self.confirm < 0:
            raise ConfigError(f"search.confirm={self.confirm} must be >= 0")
        if self.gate and all(c.barrier is None for c in candidates):
            raise ConfigError(
                "search.gate=true needs barriers, and the store has none of these dense networks: "
                "measure them with stability.py, with the same options and rewind.epoch=…, first"
            )
        grid = networks(candidates, self.gate)
        first = 1 + max((c.seed for c in candidates), default=0)
        fresh = tuple(range(first, first + self.confirm))
        seeds = max((network.seeds for network in grid), default=1)
        return Proposal(
            tuple(NetworkSearch(network, Evidence(network), fresh) for network in grid),
            tuple(candidates),
            self._slots(parallel, seeds),
        )

    def _slots(self, parallel: int, seeds: int) -> int | None:
        """Jobs of a wave; None for as few as decide."""
        waves = str(self.waves).strip()
        if waves == "many":
            return None
        if waves == "few":
            return max(parallel, 1)
        if not waves.isdecimal() or int(waves) < 1:
            raise ConfigError(
                f"search.waves={self.waves} must be many (fewest epochs), few (fewest waves), or "
                "the number of cells in a wave"
            )
        return int(waves) * seeds


class Proposal:
    """Asks for cells in waves until no further one could change the winner of any network.

    What it asks depends on what was told alone, whatever the order. A cell that was asked for, but
    not told of, counts as one that failed.
    """

    adaptive = True

    def __init__(
        self,
        searches: Sequence[NetworkSearch],
        candidates: Sequence[Candidate],
        slots: int | None,
    ) -> None:
        self._searches, self._candidates, self._slots = searches, candidates, slots
        self._told: dict[tuple[str, ...], Mapping[str, Any] | None] = {}
        self._asked: set[tuple[str, ...]] = set()
        self._waves = 0

    def ask(self) -> list[list[str]]:
        """The next wave; empty at the end. All networks take part in it."""
        for missing in self._asked - self._told.keys():
            self._told[missing] = None
        jobs = self._wave(self._searches, self._told)
        self._asked |= {job.overrides for job in jobs}
        self._waves += bool(jobs)
        return [list(job.overrides) for job in jobs]

    def tell(self, cell: Overrides, result: Mapping[str, Any] | None) -> None:
        """What a cell has shown, asked for or not; None if it failed."""
        if result is not None or tuple(cell) not in self._told:
            self._told[tuple(cell)] = result

    def outlook(self) -> Outlook:
        """What is expected to be asked for beyond what was told."""
        return _outlook.outlook(self._searches, self._candidates, self._told, self._wave)

    def record(self) -> dict[str, Any]:
        """What was found, as plain JSON, by network; :mod:`._record` has the parts.

        ``waves`` are those that this object asked for, ``confirm`` the cells of fresh seeds, and
        ``given_up`` those of which other seeds were not asked for.
        """
        outcomes = [search.outcome(self._told, self._slots) for search in self._searches]
        typed = {candidate.overrides for candidate in self._candidates}
        given_up = [
            c for s, o in zip(self._searches, outcomes, strict=True) for c in _given_up(s, o)
        ]
        return {
            "search": "sparsest",
            "waves": self._waves,
            "confirm": [list(cell) for cell in sorted(self._asked - typed)],
            "given_up": [list(cell) for cell in given_up],
            "networks": [
                _record.of_network(search.network, outcome)
                for search, outcome in zip(self._searches, outcomes, strict=True)
            ],
        }

    def _wave(
        self,
        searches: Sequence[NetworkSearch],
        told: Mapping[tuple[str, ...], Mapping[str, Any] | None],
    ) -> list[Candidate]:
        """What all searches ask for next, each cell once. Those that go on share the slots."""
        share = self._slots
        if share is not None and len(searches) > 1:
            searches = [s for s in searches if s.outcome(told, 1).jobs]
            share = max(share // max(len(searches), 1), 1)
        jobs = [job for s in searches for job in s.outcome(told, share).jobs]
        return list({job.overrides: job for job in jobs}.values())


def _given_up(search: NetworkSearch, outcome: Outcome) -> list[tuple[str, ...]]:
    """The cells of places that the first seeds have decided."""
    places = {p for p, look in outcome.standing.looks.items() if look.state is State.GIVEN_UP}
    return [
        candidate.overrides
        for row in search.network.rows
        for rung, cell in row.cells.items()
        for candidate in cell.values()
        if (row.name, rung) in places
    ]
