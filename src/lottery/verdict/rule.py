"""One rule for a grid and for a search: which cells pass, and how far down each row they do.

The cells of a study lie in *rows* (all that is swept but percentile and seed: rewind points, say)
and on *rungs* (the percentiles, dense to sparse). A cell holds a pair of results for each seed.

Accuracy falls with density, so the rungs of a row that are worse than the tolerance are its sparser
ones, and a wrong winner takes one of them that passes by luck before two that fail. Whoever walks a
row from dense to sparse looks at two such cells at most; whoever bisects it, at one for each
halving and one beyond. So the level is divided by the number of rows times that.
"""

import math
import statistics
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

from lottery.verdict.comparison import Comparison, compare, differences, margin
from lottery.verdict.images import Pair, Sampling
from lottery.verdict.spread import spreads

LITERATURE = 0.2
"""Points of top-1 that a matching ticket may lose in the literature, by the mean over its seeds."""


@dataclass(frozen=True)
class Rule:
    """When a cell passes: its tickets lose at most ``tolerance`` points of validation top-1.

    That has to be shown at a ``level`` that holds over all cells of a grid of ``rows`` rows and
    ``rungs`` rungs, however many of them are looked at. With ``level`` None nothing is tested: the
    mean over the seeds decides, as in most of the literature.
    """

    tolerance: float
    level: float | None = 0.05
    rows: int = 1
    rungs: int = 1
    freedom: int = 0
    """Degrees of freedom that the spread between seeds has at least: 0 of a verdict."""

    @classmethod
    def of_grid(
        cls, tolerance: float, level: float | None, cells: Iterable[tuple[Hashable, float]]
    ) -> Self:
        """The rule for a grid of these cells, each a row and a percentile, looked at or not."""
        rows: dict[Hashable, set[float]] = defaultdict(set)
        for row, percentile in cells:
            rows[row].add(percentile)
        return cls(tolerance, level, len(rows), max(map(len, rows.values()), default=1))

    @property
    def looks(self) -> int:
        """At how many cells that are worse than the tolerance a study may look."""
        halvings = math.ceil(math.log2(self.rungs + 1)) + 1
        return max(self.rows, 1) * max(min(self.rungs, halvings), 1)

    def least(self, images: Sampling) -> float:
        """The difference in points that a cell must exceed at least, whatever its seeds show.

        A test asks for more than the tolerance, since the validation images are a sample.
        """
        if self.level is None:
            return -self.tolerance
        error = margin(self.level, self.looks, None, images.variance(-self.tolerance))
        return float(error) - self.tolerance

    def judge(self, cells: Mapping[Hashable, Sequence[Pair]]) -> dict[Hashable, Comparison]:
        """The comparison of each cell, whose ``passes`` says whether it does.

        All at once, since the spread between seeds is estimated from all of them. Raises
        :class:`ValueError` for a cell without a pair.
        """
        told = {place: _by_rival(pairs) for place, pairs in cells.items()}
        # The others cannot pass, and what has collapsed spreads as nothing else does.
        close = {p: d for p, d in told.items() if statistics.fmean(d.values()) >= -self.tolerance}
        found = spreads(close)
        for place in told.keys() - close.keys():
            found |= spreads({place: told[place]})
        if self.freedom:
            found = {
                place: spread and replace(spread, freedom=max(spread.freedom, self.freedom))
                for place, spread in found.items()
            }
        return {
            place: compare(pairs, self.tolerance, self.level, found[place], self.looks)
            for place, pairs in cells.items()
        }


def walk(row: Iterable[tuple[int, bool]]) -> int | None:
    """The sparsest rung of a row that counts; None if there is none.

    ``row`` has the rungs that were looked at and whether their cells passed. From dense to sparse,
    a single failure is passed over, since accuracy is not quite monotone; two of them in succession
    end the row, whatever may pass beyond.
    """
    best, failures = None, 0
    for rung, passed in sorted(row):
        failures = 0 if passed else failures + 1
        if failures == 2:
            break
        if passed:
            best = rung
    return best


def _by_rival(pairs: Sequence[Pair]) -> dict[Hashable, float]:
    """The differences by dense network; by number of the seed, if nobody gave it a key."""
    rivals = [pair[0].get("key", number) for number, pair in enumerate(pairs)]
    return dict(zip(rivals, differences(pairs), strict=True))
