"""The winning ticket of a study, chosen on validation data only.

Every cell is compared with its own dense networks, seed by seed. With one seed a cell matches if
it loses at most the tolerance (:func:`~lottery.analysis.verdict.matches`): a single sample. With
several, it has to be shown *not inferior*, by a one-sided paired t-test of the null hypothesis
that the mean difference is ``-tolerance`` or worse: half of the two one-sided tests of Schuirmann
(1987), *Journal of Pharmacokinetics and Biopharmaceutics* 15(6).
"""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar

from lottery.analysis.collect import Cell, Study
from lottery.analysis.verdict import matches

T = TypeVar("T")
NO_SPREAD = 1e-9  # points; a smaller standard deviation is rounding


@dataclass(frozen=True)
class Comparison:
    """Tickets of ``n`` seeds against their dense parents, in points of validation top-1.

    ``lower`` bounds the mean difference from below with confidence 1 - level; with one seed it is
    the difference itself, and there is no spread, p-value or power. ``power`` is the probability
    of showing non-inferiority if the true difference is 0 and the spread is the one observed.
    """

    n: int
    difference: float
    sd: float | None
    lower: float
    p_value: float | None
    power: float | None
    not_inferior: bool


@dataclass(frozen=True)
class Point:
    """One place in the grid of one series: its cells, one a seed, in order of seed."""

    series: str
    percentile: float
    epoch: int | None
    cells: tuple[Cell, ...]

    @property
    def done(self) -> tuple[Cell, ...]:
        """The cells with a result."""
        return tuple(c for c in self.cells if c.done)

    @property
    def density(self) -> float | None:
        """Share of the prunable weights that is left; None without a result."""
        return max((c.mask["density"] for c in self.done if c.mask), default=None)

    @property
    def control(self) -> bool:
        """Whether this is a control, which is compared but never the winner."""
        return any(c.control for c in self.cells)

    def values(self, kind: str, metric: str) -> list[float]:
        """A metric of ``dense`` or ``ticket``, one value a finished cell; accuracies in percent."""
        scale = 100.0 if "top" in metric else 1.0
        return [scale * getattr(c, kind)[metric] for c in self.done]


@dataclass(frozen=True)
class Judged:
    """A point with its comparison; None without a result.

    Only a ``complete`` one, which has as many seeds as any other in the study, can win.
    """

    point: Point
    comparison: Comparison | None
    complete: bool

    @property
    def matches(self) -> bool:
        """Whether it is complete and not inferior to dense."""
        return bool(self.complete and self.comparison and self.comparison.not_inferior)


@dataclass(frozen=True)
class Selection:
    """The verdict on a study: ``winner``, or the ``reason`` there is none and the nearest miss."""

    judged: tuple[Judged, ...]
    winner: Judged | None
    nearest: Judged | None
    reason: str | None
    tolerance: float
    level: float

    @property
    def seeds(self) -> int:
        """Number of seeds of a complete cell."""
        return max((j.comparison.n for j in self.judged if j.comparison), default=0)

    @property
    def left_out(self) -> tuple[Judged, ...]:
        """Cells with a result that could not be chosen, for they have fewer seeds than others."""
        return tuple(j for j in self.judged if j.comparison and not j.complete)

    def best_of_series(self) -> dict[str, Judged | None]:
        """The sparsest matching cell of every series, controls included."""
        series = dict.fromkeys(j.point.series for j in self.judged)
        return {
            s: _sparsest(j for j in self.judged if j.point.series == s and j.matches)
            for s in series
        }

    def neighbours(self, of: Judged) -> dict[str, Judged]:
        """The adjacent cells of the same series: one percentile or one rewind epoch away."""
        here = [j for j in self.judged if j.point.series == of.point.series]
        found = {}
        percentiles = sorted({j.point.percentile for j in here})
        epochs = sorted({j.point.epoch for j in here if j.point.epoch is not None})
        by_place = {(j.point.percentile, j.point.epoch): j for j in here}
        for name, percentile in _around(percentiles, of.point.percentile, ("denser", "sparser")):
            found[name] = by_place.get((percentile, of.point.epoch))
        if of.point.epoch is not None:
            for name, epoch in _around(epochs, of.point.epoch, ("earlier", "later")):
                found[name] = by_place.get((of.point.percentile, epoch))
        return {name: j for name, j in found.items() if j is not None}


def points(study: Study) -> list[Point]:
    """The study's cells by place in the grid: by series, denser and earlier first.

    A seed that two cells share counts once, the finished one first.
    """
    groups: dict[tuple[str, float, int | None], dict[int, Cell]] = defaultdict(dict)
    for cell in study.cells:
        if cell.percentile is not None:
            group = groups[study.series(cell), float(cell.percentile), cell.epoch]
            if cell.seed not in group or (cell.done and not group[cell.seed].done):
                group[cell.seed] = cell
    found = [
        Point(*place, tuple(group[seed] for seed in sorted(group)))
        for place, group in groups.items()
    ]
    return sorted(found, key=lambda p: (p.series, p.percentile, -1 if p.epoch is None else p.epoch))


def select(found: Sequence[Point], tolerance: float, level: float) -> Selection:
    """Judge every point and choose the sparsest that matches dense on validation data.

    Of equally sparse ones the more accurate on validation wins, then the earlier rewind epoch.
    """
    most = max((len(point.done) for point in found), default=0)
    judged = tuple(
        Judged(
            point,
            compare(point.done, tolerance, level) if point.done else None,
            bool(point.done) and len(point.done) == most,
        )
        for point in found
    )
    tickets = [j for j in judged if j.complete and not j.point.control]
    winner = _sparsest(j for j in tickets if j.matches)
    nearest, reason = None, None
    if winner is None:
        nearest = max(tickets, key=_closeness, default=None)
        reason = _why_none(judged, tickets, tolerance)
    return Selection(judged, winner, nearest, reason, tolerance, level)


def compare(cells: Sequence[Cell], tolerance: float, level: float) -> Comparison:
    """The finished cells of one point against their dense parents. Reads validation results only.

    Raises :class:`ValueError` if there is no cell.
    """
    pairs = [(c.dense, c.ticket) for c in cells if c.dense and c.ticket]
    if not pairs:
        raise ValueError("no finished cell to compare")
    differences = [100 * (t["val_top1"] - d["val_top1"]) for d, t in pairs]
    if len(pairs) == 1:
        accepted = matches(*pairs[0], tolerance)
        return Comparison(1, differences[0], None, differences[0], None, None, accepted)
    return non_inferiority(differences, tolerance, level)


def non_inferiority(differences: Sequence[float], tolerance: float, level: float) -> Comparison:
    """One-sided paired t-test that the mean of ``differences`` (points) exceeds ``-tolerance``.

    Differences without any spread are decided by their mean alone: p is 0 or 1. Raises
    :class:`ValueError` for fewer than two.
    """
    from scipy import stats  # half a second

    n = len(differences)
    mean, sd = statistics.fmean(differences), statistics.stdev(differences)
    if sd < NO_SPREAD:
        p = 0.0 if mean + tolerance > NO_SPREAD else 1.0
        power = 1.0 if tolerance > NO_SPREAD else 0.0
        return Comparison(n, mean, 0.0, mean, p, power, p < level)
    error = sd / math.sqrt(n)
    p = float(stats.t.sf((mean + tolerance) / error, n - 1))
    critical = float(stats.t.isf(level, n - 1))
    power = float(stats.nct.sf(critical, n - 1, tolerance / error))
    power = 1.0 if math.isnan(power) else power  # SciPy gives up where it is 1 to all digits
    return Comparison(n, mean, sd, mean - critical * error, p, power, p < level)


def tolerance_of(cells: Iterable[Cell]) -> set[float]:
    """The ``verdict.tolerance`` values of a study's cells."""
    found = (c.config.get("verdict.tolerance") for c in cells)
    return {float(t) for t in found if t is not None}


def _sparsest(judged: Iterable[Judged]) -> Judged | None:
    def merit(j: Judged) -> tuple[float, Fraction, float]:
        accuracy = statistics.mean(Fraction(c.ticket["val_top1"]) for c in j.point.done if c.ticket)
        epoch = j.point.epoch
        return -(j.point.density or 0.0), accuracy, 0 if epoch is None else -epoch

    return max(judged, key=merit, default=None)


def _closeness(judged: Judged) -> float:
    return judged.comparison.lower if judged.comparison else -math.inf


def _why_none(judged: Sequence[Judged], tickets: Sequence[Judged], tolerance: float) -> str:
    if not any(j.comparison for j in judged):
        return "no cell has a result yet"
    if not tickets:
        return "only controls (random masks, fresh weights) have results, and they cannot win"
    points = f"{tolerance:g} point{'' if tolerance == 1 else 's'}"
    if max(j.comparison.n for j in tickets if j.comparison) == 1:
        return f"no cell is at most {points} below dense on validation"
    return f"no cell is shown to be at most {points} below dense on validation"


def _around(values: Sequence[T], value: T, names: tuple[str, str]) -> list[tuple[str, T]]:
    """The values before and after one in a sorted list, with their names."""
    at = values.index(value)
    found = [(names[0], values[at - 1])] if at > 0 else []
    return [*found, (names[1], values[at + 1])] if at + 1 < len(values) else found
