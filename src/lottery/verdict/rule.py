"""One rule for a grid and for a search: which cells pass, and how far down each row they do.

The cells of a study lie in *rows* (all that is swept but percentile and seed: rewind points, say)
and on *rungs* (the percentiles, dense to sparse). A cell holds a pair of results for each seed.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from lottery.verdict.comparison import Comparison, Pair, compare


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

    def judge(self, cells: Mapping[Hashable, Sequence[Pair]]) -> dict[Hashable, Comparison]:
        """The comparison of each cell, whose ``not_inferior`` says whether it passes.

        All at once, since the spread between seeds is estimated from all of them. Raises
        :class:`ValueError` for a cell without a pair.
        """
        level = 0.5 if self.level is None else self.level
        return {place: compare(pairs, self.tolerance, level) for place, pairs in cells.items()}


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
