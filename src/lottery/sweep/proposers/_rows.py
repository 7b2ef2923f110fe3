"""The grid of a search: networks, their rows, and on each row its cells from dense to sparse."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lottery.errors import ConfigError
from lottery.sweep.proposers import Candidate
from lottery.verdict.rule import Rule

BARRIER = 2.0
"""Points of error on the line above which a row is unstable (Frankle et al. 2020, section 3)."""
LIKELY = 1 / 3
"""The share of the training around which the best points to rewind to lie."""

Place = tuple[str, int]
"""A row and a rung of one network."""


@dataclass(frozen=True)
class Row:
    """Cells that differ in percentile and seed alone: by rung, then by seed."""

    name: str
    cells: Mapping[int, Mapping[int, Candidate]]
    position: float | None = None
    iterative: bool = False
    unstable: bool = False
    """Whether it is to go last: its barrier is above :data:`BARRIER`."""


@dataclass(frozen=True)
class Network:
    """Rows that compete, the most promising first, on the rungs ``percentiles``, dense to sparse.

    Each cell has ``seeds`` candidates. ``short`` are places typed with fewer seeds, which cannot
    win and are not looked at.
    """

    name: str
    percentiles: tuple[float, ...]
    rows: tuple[Row, ...]
    seeds: int
    rule: Rule
    """That of all networks of the sweep: its winner is the winner of the report."""
    controls: tuple[Candidate, ...] = ()
    short: tuple[tuple[str, float], ...] = ()

    @property
    def tolerance(self) -> float:
        """Points that a winner may lose."""
        return self.rule.tolerance

    @property
    def level(self) -> float | None:
        """Of the test; None if the mean decides."""
        return self.rule.level

    @property
    def candidates(self) -> list[Candidate]:
        """Those that can win."""
        return [c for row in self.rows for cell in row.cells.values() for c in cell.values()]


def networks(candidates: Sequence[Candidate], gate: bool = False) -> tuple[Network, ...]:
    """The grid of each network, in the order typed. Equal cells count once.

    With ``gate``, rows whose barrier is above :data:`BARRIER` come last. Raises
    :class:`ConfigError` if nothing could win, or there are several rules.
    """
    if any(c.percentile is None for c in candidates):
        raise ConfigError("search=sparsest looks for winning tickets, so it is for prune.py")
    _refuse_several_rules([c for c in candidates if not c.control])
    candidates = _distinct(candidates)
    rivals = _rivals(candidates)
    competing = {rivals[c.overrides]: None for c in candidates if not c.control}
    if candidates and not competing:
        raise ConfigError(
            "search=sparsest has only controls to look at, which cannot win: add tickets, or "
            "leave out search=sparsest"
        )
    rule = _rule([c for c in candidates if not c.control])
    groups = {name: [c for c in candidates if rivals[c.overrides] == name] for name in competing}
    return tuple(_network(name[0], group, rule, gate) for name, group in groups.items())


def _distinct(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Without those that are the same runs as one before: what differs changes nothing."""
    found = {(frozenset(c.epochs), c.percentile, c.seed): c for c in reversed(candidates)}
    return [c for c in candidates if found[frozenset(c.epochs), c.percentile, c.seed] is c]


def _rivals(candidates: Sequence[Candidate]) -> dict[tuple[str, ...], tuple[str, str]]:
    """By overrides the network, and the dense network of the row's first seed.

    Rows that are compared with other dense networks do not compete: each would be the sparsest of
    its own.
    """
    first: dict[tuple[str, str], Candidate] = {}
    for c in candidates:
        row = c.network, c.row
        if row not in first or c.seed < first[row].seed:
            first[row] = c
    return {c.overrides: (c.network, first[c.network, c.row].dense) for c in candidates}


def _refuse_several_rules(tickets: Sequence[Candidate]) -> None:
    for name in ("tolerance", "level"):
        if len(values := {getattr(c, name) for c in tickets}) > 1:
            said = ", ".join(sorted("null" if v is None else f"{v:g}" for v in values))
            raise ConfigError(
                f"search=sparsest needs one rule for all tickets: do not sweep verdict.{name} "
                f"({said})"
            )


def _rule(tickets: Sequence[Candidate]) -> Rule:
    tolerance, level = (tickets[0].tolerance, tickets[0].level) if tickets else (0.0, None)
    cells = [((c.network, c.row), c.percentile) for c in tickets if c.percentile is not None]
    return Rule.of_grid(tolerance, level, cells)


def _network(name: str, candidates: Sequence[Candidate], rule: Rule, gate: bool) -> Network:
    own = [c for c in candidates if not c.control]
    percentiles = sorted({c.percentile for c in own if c.percentile is not None})
    rung = {percentile: i for i, percentile in enumerate(percentiles)}
    cells: dict[str, dict[int, dict[int, Candidate]]] = {}
    for c in own:
        assert c.percentile is not None
        cells.setdefault(c.row, {}).setdefault(rung[c.percentile], {}).setdefault(c.seed, c)
    seeds = max(len(cell) for row in cells.values() for cell in row.values())
    short = [
        (row, percentiles[r])
        for row, typed in cells.items()
        for r in sorted(typed)
        if len(typed[r]) < seeds
    ]
    rows = []
    for row, typed in cells.items():
        whole = {r: typed[r] for r in sorted(typed) if len(typed[r]) == seeds}
        if whole:
            every = [c for cell in whole.values() for c in cell.values()]
            barriers = [c.barrier for c in every if c.barrier is not None]
            unstable = gate and bool(barriers) and statistics.fmean(barriers) > BARRIER
            rows.append(Row(row, whole, every[0].position, every[0].iterative, unstable))
    controls = {(c.row, c.percentile, c.seed): c for c in reversed(candidates) if c.control}
    return Network(
        name,
        tuple(percentiles),
        tuple(in_order(rows)),
        seeds,
        rule,
        tuple(reversed(controls.values())),
        tuple(short),
    )


def in_order(rows: Iterable[Row]) -> list[Row]:
    """The most promising first; those without a position late, as typed; unstable ones last."""

    def key(row: Row) -> tuple[bool, bool, float]:
        away = 0.0 if row.position is None else abs(row.position - LIKELY)
        return row.unstable, row.position is None, round(away, 9)

    return sorted(rows, key=key)
