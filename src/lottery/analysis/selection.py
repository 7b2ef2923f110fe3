"""The winning ticket of a study, chosen on validation data only.

Every cell is compared with its own dense networks, seed by seed and image by image, by one rule
for grids and searches (:mod:`lottery.verdict.rule`). A dense network at chance is matched by
nothing. Of the cells that match, those within the tolerance of the best dense network of the study
on the same data go first: a network that has learnt little is easy to match. A winner that was
trained once more with fresh seeds has to lose at most the tolerance with those too, and its
accuracy is theirs.
"""

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, TypeVar

from lottery.analysis.collect import Cell, Study
from lottery.points import Point as TrainingPoint
from lottery.points import order
from lottery.verdict import single
from lottery.verdict.comparison import Comparison
from lottery.verdict.images import Pair
from lottery.verdict.rule import LITERATURE, Rule, walk

T = TypeVar("T")
Place = tuple[str, float, TrainingPoint | None]
"""Series, percentile and rewind point: what the seeds of one point have in common."""

DENSITY, OF_KERNELS = "density", "density_of_kernels"
"""Shares of the weights that are left: of the prunable ones, and of those of all kernels."""
SAME_DATA = (
    "source",
    "name",
    "dir",
    "validation",
    "test",
    "test_fraction",
    "split_seed",
    "classes",
)
"""Options of ``data`` that say which validation images there are, where no result does."""


@dataclass(frozen=True)
class Point:
    """One place in the grid of one series: its cells, one a seed, in order of seed.

    ``fresh`` are those of seeds that had no part in choosing it.
    """

    series: str
    percentile: float
    rewound: TrainingPoint | None
    cells: tuple[Cell, ...]
    fresh: tuple[Cell, ...] = ()

    @property
    def place(self) -> Place:
        """Where it is."""
        return self.series, self.percentile, self.rewound

    @property
    def row(self) -> tuple[str, TrainingPoint | None]:
        """What its row in the grid has in common."""
        return self.series, self.rewound

    @property
    def done(self) -> tuple[Cell, ...]:
        """The cells with a result."""
        return tuple(c for c in self.cells if c.done)

    @property
    def density(self) -> float | None:
        """Share of the prunable weights that is left; None without a result."""
        return self.share(DENSITY)

    def share(self, measure: str) -> float | None:
        """Share of the weights that is left, by ``density`` or ``density_of_kernels``."""
        shares = (c.mask.get(measure) for c in self.done if c.mask)
        return max((s for s in shares if s is not None), default=None)

    @property
    def barrier(self) -> float | None:
        """Of the dense networks where they are rewound to: mean in points; None if not known."""
        found = [c.barrier for c in self.cells if c.barrier is not None]
        return statistics.fmean(found) if found else None

    @property
    def pairs(self) -> list[Pair]:
        """Results of dense run and ticket, one pair a finished cell."""
        return [c.pair for c in self.done if c.pair]

    @property
    def fresh_pairs(self) -> list[Pair]:
        """The same of the seeds that had no part in choosing it."""
        return [c.pair for c in self.fresh if c.done and c.pair]

    @property
    def at_chance(self) -> bool:
        """Whether one of the dense networks has learnt nothing."""
        return any(single.at_chance(dense) for dense, _ in self.pairs)

    @property
    def data(self) -> tuple[Any, ...]:
        """What tells validation images apart: themselves, or the options that choose them."""
        told = (c.dense.get("val_images") for c in self.cells if c.dense)
        if found := next(filter(None, told), None):
            return (found,)
        config = self.cells[0].config
        return tuple(repr(config.get(f"data.{name}")) for name in SAME_DATA)

    @property
    def control(self) -> bool:
        """Whether this is a control, which is compared but never the winner."""
        return any(c.control for c in self.cells)

    def values(self, kind: str, metric: str, *, fresh: bool = False) -> list[float]:
        """A metric of ``dense`` or ``ticket``, one value a finished cell; accuracies in percent."""
        scale = 100.0 if "top" in metric else 1.0
        cells = (c for c in self.fresh if c.done) if fresh else self.done
        return [scale * getattr(c, kind)[metric] for c in cells]


@dataclass(frozen=True)
class Best:
    """The most accurate dense network of a study on some data; mean over the series' seeds."""

    series: str
    top1: Fraction


@dataclass(frozen=True)
class Judged:
    """A point with its comparison; None without a result.

    Only a ``complete`` one, which has as many seeds as any other candidate, can win. ``measure``
    is the share of the weights by which candidates are ranked (see :func:`measure_of`); ``best``
    is the best dense network on the same data. ``counts`` is false beyond where its row has ended
    (:func:`lottery.verdict.rule.walk`). ``confirmation`` is the comparison of its fresh seeds.
    """

    point: Point
    comparison: Comparison | None
    complete: bool
    measure: str = DENSITY
    at_chance: bool = False
    best: Best | None = None
    counts: bool = True
    confirmation: Comparison | None = None

    @property
    def refuted(self) -> bool:
        """Whether its fresh seeds lose more than the tolerance."""
        return self.confirmation is not None and not self.confirmation.passes

    @property
    def given_up(self) -> bool:
        """Whether a search needed no more of its seeds."""
        return any(cell.given_up for cell in self.point.cells)

    @property
    def share(self) -> float | None:
        """Share of the weights that is left, by ``measure``; None without a result."""
        return self.point.share(self.measure)

    @property
    def of_kernels(self) -> bool:
        """Whether that is the share of the weights of all kernels."""
        return self.measure == OF_KERNELS

    @property
    def kept(self) -> str:
        """How much of the network is left, in words; by what decides in the study."""
        density = f"{100 * (self.point.density or 0):.4g} %"
        if not self.of_kernels:
            return f"{density} of the weights"
        share = f"{100 * (self.share or 0):.4g} %"
        return f"{share} of the weights of all kernels ({density} of the prunable ones)"

    @property
    def matches(self) -> bool:
        """Whether it is complete, passes the rule where that counts, and is not refuted."""
        passes = self.complete and self.comparison and self.comparison.passes
        return bool(passes and self.counts and not self.refuted)

    @property
    def behind_best(self) -> Fraction:
        """How far its mean validation top-1 is below the best dense network's, as a share of 1."""
        if self.best is None:
            return Fraction(0)
        return self.best.top1 - statistics.mean(single.share(t) for _, t in self.point.pairs)


@dataclass(frozen=True)
class Literature:
    """Who would win with the tolerance of the literature, by the mean or by the same test."""

    by_mean: Judged | None = None
    shown: Judged | None = None


@dataclass(frozen=True)
class Selection:
    """The verdict on a study: ``winner``, or the ``reason`` there is none and the nearest miss.

    ``measure`` is the share of the weights by which one ticket is sparser than another (see
    :func:`measure_of`); ``seeds`` is the number of seeds of a complete cell.
    """

    judged: tuple[Judged, ...]
    winner: Judged | None
    nearest: Judged | None
    reason: str | None
    rule: Rule
    seeds: int
    measure: str = DENSITY
    literature: Literature = Literature()

    @property
    def tolerance(self) -> float:
        """Points of validation top-1 that a winner may lose."""
        return self.rule.tolerance

    @property
    def level(self) -> float | None:
        """The level of the test; None if the mean decides."""
        return self.rule.level

    @property
    def focus(self) -> Judged | None:
        """The point to look at more closely: the winner, the nearest miss, or any with a result."""
        done = (j for j in self.judged if j.comparison)
        return self.winner or self.nearest or next(done, None)

    @property
    def left_out(self) -> tuple[Judged, ...]:
        """Candidates with a result that could not be chosen: they have fewer seeds than others."""
        return tuple(
            j
            for j in self.judged
            if j.comparison and not j.complete and not j.point.control and not j.given_up
        )

    @property
    def of_kernels(self) -> bool:
        """Whether tickets are ranked by the share of all kernels' weights."""
        return self.measure == OF_KERNELS

    @property
    def share_left(self) -> str:
        """What ``measure`` is called over a column or along an axis."""
        return "weights of all kernels left" if self.of_kernels else "weights left"

    def near_best(self, judged: Judged) -> bool:
        """Whether it is within the tolerance of the best dense network on its data."""
        return judged.behind_best <= single.points(self.tolerance)

    def too_coarse(self, judged: Judged) -> str | None:
        """What to say if a single validation image weighs more than the tolerance."""
        said = (single.too_coarse(d, self.tolerance) for d, _ in judged.point.pairs)
        return next(filter(None, said), None)

    def best_of_series(self) -> dict[str, Judged | None]:
        """The sparsest matching cell of every series, controls included."""
        series = dict.fromkeys(j.point.series for j in self.judged)
        return {
            s: _sparsest(j for j in self.judged if j.point.series == s and j.matches)
            for s in series
        }

    def neighbours(self, of: Judged) -> dict[str, Judged]:
        """The adjacent cells of the same series: one percentile or one rewind point away."""
        here = [j for j in self.judged if j.point.series == of.point.series]
        found = {}
        percentiles = sorted({j.point.percentile for j in here})
        rewound = sorted({j.point.rewound for j in here if j.point.rewound is not None})
        by_place = {(j.point.percentile, j.point.rewound): j for j in here}
        for name, percentile in _around(percentiles, of.point.percentile, ("denser", "sparser")):
            found[name] = by_place.get((percentile, of.point.rewound))
        if of.point.rewound is not None:
            for name, at in _around(rewound, of.point.rewound, ("earlier", "later")):
                found[name] = by_place.get((of.point.percentile, at))
        return {name: j for name, j in found.items() if j is not None}


def points(study: Study) -> list[Point]:
    """The study's cells by place in the grid: by series, denser and earlier first.

    A seed that two cells share counts once, the finished one first.
    """
    groups: dict[Place, dict[int, Cell]] = defaultdict(dict)
    fresh: dict[Place, dict[int, Cell]] = defaultdict(dict)
    for cell in study.cells:
        if cell.percentile is not None:
            place = (study.series(cell), float(cell.percentile), cell.rewound)
            group = (fresh if cell.fresh else groups)[place]
            if cell.seed not in group or (cell.done and not group[cell.seed].done):
                group[cell.seed] = cell
    found = [
        Point(*place, *(tuple(of[seed] for seed in sorted(of)) for of in (group, fresh[place])))
        for place, group in groups.items()
    ]
    return sorted(found, key=lambda p: (p.series, p.percentile, order(p.rewound)))


def select(
    found: Sequence[Point],
    tolerance: float,
    level: float | None,
    *,
    grid: Sequence[Point] | None = None,
    seeds: int | None = None,
) -> Selection:
    """Judge every point and choose the sparsest that matches dense on validation data.

    Of equally sparse ones that which was confirmed wins, then the more accurate on validation, then
    the one rewound further back. ``grid`` are the points that the level holds over, if those found
    are a part of them. ``seeds`` is how many a complete point has, if not as many as any other.
    Beside the tolerance that is asked for, that of the literature is looked at.
    """
    chosen = _select(found, _rule(grid or found, tolerance, level), seeds)
    by_mean = _select(found, _rule(grid or found, LITERATURE, None), seeds).winner
    shown = None
    if level is not None:
        shown = _select(found, _rule(grid or found, LITERATURE, level), seeds).winner
    return replace(chosen, literature=Literature(by_mean, shown))


def seeds_of(study: Study, found: Sequence[Point]) -> int | None:
    """How many seeds a complete point of a study has, if that is known otherwise than by the most.

    Of a search as many as were typed. Of a store, which holds what any command left, as many as
    most points have: a few may have more, to confirm them.
    """
    tickets = [point for point in found if not point.control]
    if study.search:
        return max((len(point.cells) for point in tickets), default=None)
    if study.of_store:
        counts = Counter(len(point.pairs) for point in tickets if point.pairs)
        return max(counts, key=lambda n: (counts[n], n), default=None)
    return None


def _rule(grid: Sequence[Point], tolerance: float, level: float | None) -> Rule:
    asked = ((point.row, point.percentile) for point in grid if not point.control)
    return Rule.of_grid(tolerance, level, asked)


def _select(found: Sequence[Point], rule: Rule, needed: int | None) -> Selection:
    finished = [point for point in found if point.pairs]
    candidates = [point for point in finished if not point.control]
    seeds = needed or max((len(point.pairs) for point in candidates or finished), default=0)
    measure = measure_of(finished)
    best = _best(found)
    complete = {point.place for point in finished if len(point.pairs) >= seeds}
    competing = [point for point in candidates if point.place in complete]
    compared = rule.judge({p.place: p.pairs for p in competing})
    for point in finished:  # each of the others by itself, since nothing is decided by them
        if point.place not in compared:
            compared |= rule.judge({point.place: point.pairs})
    confirming = replace(rule, level=None)
    fresh = {p.place: confirming.judge({0: p.fresh_pairs})[0] for p in found if p.fresh_pairs}
    refuted = {place for place, comparison in fresh.items() if not comparison.passes}
    ended = _ended(found, compared, complete, refuted)
    judged = tuple(
        Judged(
            point,
            compared.get(point.place),
            point.place in complete,
            measure,
            point.at_chance,
            best.get(point.data),
            point.place not in ended,
            fresh.get(point.place),
        )
        for point in found
    )
    chosen = Selection(judged, None, None, None, rule, seeds, measure)
    tickets = [j for j in judged if j.complete and not j.point.control]
    matching = [j for j in tickets if j.matches]
    winner = _sparsest(filter(chosen.near_best, matching)) or _sparsest(matching)
    if winner is not None:
        return replace(chosen, winner=winner)
    learnt = [j for j in tickets if not j.at_chance]
    nearest = max(learnt or tickets, key=_closeness, default=None)
    return replace(chosen, nearest=nearest, reason=_why_none(judged, tickets, rule))


def _ended(
    found: Sequence[Point],
    compared: Mapping[Any, Comparison],
    complete: Collection[Place],
    refuted: Collection[Place],
) -> set[Place]:
    """Where points lie, which may pass, beyond the end of their row."""
    rows: dict[tuple[Any, ...], list[Point]] = defaultdict(list)
    for point in found:
        rows[point.row].append(point)
    ended: set[Place] = set()
    for row in rows.values():
        ordered = sorted(row, key=lambda p: p.percentile)
        looked = [
            (rung, p.place in complete and compared[p.place].passes and p.place not in refuted)
            for rung, p in enumerate(ordered)
            # Of one with fewer seeds nothing is known, unless a search gave it up.
            if p.place in complete or any(cell.given_up for cell in p.cells)
        ]
        last = walk(looked)
        ended |= {p.place for p in ordered[0 if last is None else last + 1 :]}
    return ended


def measure_of(found: Iterable[Point]) -> str:
    """By which share of the weights tickets are compared: :data:`DENSITY` or :data:`OF_KERNELS`.

    Where the prunable weights are not the same part of all, equal densities are different numbers
    of weights, so that the share of all kernels decides.
    """
    masks = [c.mask for point in found for c in point.done if c.mask]
    if not all({"kernels", OF_KERNELS} <= set(mask) for mask in masks):
        return DENSITY
    parts = {Fraction(mask["prunable"], mask["kernels"]) for mask in masks}
    return OF_KERNELS if len(parts) > 1 else DENSITY


def _best(found: Sequence[Point]) -> dict[tuple[Any, ...], Best]:
    """The best dense network for each data set, by its mean over the seeds of a series."""
    groups: dict[tuple[tuple[Any, ...], str], dict[str, Fraction]] = defaultdict(dict)
    for point in found:
        for cell in point.cells:
            if cell.dense:
                groups[point.data, point.series][cell.dense["key"]] = single.share(cell.dense)
    best: dict[tuple[Any, ...], Best] = {}
    for (data, series), runs in groups.items():
        mean = statistics.mean(runs.values())
        if data not in best or mean > best[data].top1:
            best[data] = Best(series, mean)
    return best


def option_values(cells: Iterable[Cell], name: str) -> set[float | None]:
    """The values of a number among the options of a study's cells."""
    found = (c.config[name] for c in cells if name in c.config)
    return {None if v is None else float(v) for v in found}


def _sparsest(judged: Iterable[Judged]) -> Judged | None:
    def merit(j: Judged) -> tuple[float, bool, Fraction, int, int]:
        accuracy = statistics.mean(single.share(ticket) for _, ticket in j.point.pairs)
        later = order(j.point.rewound)
        confirmed = j.confirmation is not None and not j.refuted
        return -(j.share or 0.0), confirmed, accuracy, -later[0], -later[1]

    return max(judged, key=merit, default=None)


def _closeness(judged: Judged) -> float:
    return judged.comparison.lower if judged.comparison else -math.inf


def _why_none(judged: Sequence[Judged], tickets: Sequence[Judged], rule: Rule) -> str:
    if not any(j.comparison for j in judged):
        return "no cell has a result yet"
    if not tickets:
        return "only controls (random masks, fresh weights) have results, and they cannot win"
    open_ = (j for j in judged if j.comparison and not j.complete and not j.given_up)
    later = [j for j in open_ if not j.point.control]
    some = len(later) > 1
    left = (
        f"; {len(later)} cell{'s' * some} with results of fewer seeds {'are' if some else 'is'} "
        "left out"
        if later
        else ""
    )
    if all(j.at_chance for j in tickets):
        return (
            "the dense networks are at chance (no better than always naming the most frequent "
            f"class), so there is nothing to match{left}"
        )
    points = f"{rule.tolerance:g} point{'' if rule.tolerance == 1 else 's'}"
    shown = "" if rule.level is None else "shown to be "
    refuted = sum(j.refuted for j in tickets)
    again = f"; {refuted} that passed lost more with fresh seeds" if refuted else ""
    return f"no cell is {shown}at most {points} below dense on validation{again}{left}"


def _around(values: Sequence[T], value: T, names: tuple[str, str]) -> list[tuple[str, T]]:
    """The values before and after one in a sorted list, with their names."""
    at = values.index(value)
    found = [(names[0], values[at - 1])] if at > 0 else []
    return [*found, (names[1], values[at + 1])] if at + 1 < len(values) else found
