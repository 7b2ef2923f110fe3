"""The grid of a search: networks, their rows, and on each row its cells from dense to sparse."""

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
    barrier: float | None = None


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
    competing = {c.network: None for c in candidates if not c.control}
    if candidates and not competing:
        raise ConfigError(
            "search=sparsest has only controls to look at, which cannot win: add tickets, or "
            "leave out search=sparsest"
        )
    rule = _rule([c for c in candidates if not c.control])
    groups = {name: [c for c in candidates if c.network == name] for name in competing}
    return tuple(_network(name, group, rule, gate) for name, group in groups.items())


def _rule(tickets: Sequence[Candidate]) -> Rule:
    for name in ("tolerance", "level"):
        if len(values := {getattr(c, name) for c in tickets}) > 1:
            said = ", ".join(sorted("null" if v is None else f"{v:g}" for v in values))
            raise ConfigError(
                f"search=sparsest needs one rule for all tickets: do not sweep verdict.{name} "
                f"({said})"
            )
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
            some = next(iter(next(iter(whole.values())).values()))
            rows.append(Row(row, whole, some.position, some.iterative, some.barrier))
    controls = {(c.row, c.percentile, c.seed): c for c in reversed(candidates) if c.control}
    return Network(
        name,
        tuple(percentiles),
        tuple(in_order(rows, gate)),
        seeds,
        rule,
        tuple(reversed(controls.values())),
        tuple(short),
    )


def in_order(rows: Iterable[Row], gate: bool) -> list[Row]:
    """The most promising first; those without a position last, as typed."""

    def key(row: Row) -> tuple[bool, bool, float]:
        unstable = gate and row.barrier is not None and row.barrier > BARRIER
        away = 0.0 if row.position is None else abs(row.position - LIKELY)
        return unstable, row.position is None, round(away, 9)

    return sorted(rows, key=key)
