"""How far tickets of different seeds lie apart, estimated from all cells of a study together.

Two or three seeds say little about the spread of one cell: Student's t with one degree of freedom
asks for more than any ticket gives. But a study has many cells, and their seeds differ for two
reasons. The dense networks do, which all cells share; and so do the tickets, each by itself. An
analysis of variance over cells and seeds tells them apart: the first has as many degrees of freedom
as there are seeds less one, the second those of all cells. Where a cell spreads more than the
others, its own spread counts.
"""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Spread:
    """Variances between ``seeds``, in points squared: of what the cells share, and of each alone.

    ``freedom`` are the degrees of freedom of ``own``; those of ``shared`` are ``seeds - 1``.
    """

    seeds: int
    shared: float
    own: float
    freedom: int

    @property
    def sd(self) -> float:
        """Standard deviation between seeds, in points."""
        return float((self.shared + self.own) ** 0.5)


def spreads(
    cells: Mapping[Hashable, Mapping[Hashable, float]],
) -> dict[Hashable, Spread | None]:
    """Of each cell, whose differences in points are given by dense network; None of one seed.

    Only cells that are compared with the same dense networks are looked at together.
    """
    families: dict[frozenset[Hashable], list[Hashable]] = defaultdict(list)
    for place, differences in cells.items():
        families[frozenset(differences)].append(place)
    found: dict[Hashable, Spread | None] = {}
    for rivals, places in families.items():
        if len(rivals) < 2:
            found |= dict.fromkeys(places)
            continue
        order = list(cells[places[0]])
        table = np.array([[cells[place][rival] for rival in order] for place in places])
        found |= zip(places, _of_family(table), strict=True)
    return found


def _of_family(table: np.ndarray[Any, Any]) -> Sequence[Spread]:
    """Of each cell of a complete table of differences, [cells, seeds]."""
    cells, seeds = table.shape
    shared = float(table.mean(0).var(ddof=1))
    alone = table.var(1, ddof=1)
    freedom = (cells - 1) * (seeds - 1)
    if not freedom:  # then nothing tells what is shared
        return [Spread(seeds, 0.0, float(alone[0]), seeds - 1)]
    rest = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
    pooled = float(np.sum(rest**2)) / freedom
    # Part of what the cells have on their own is in the mean over them already.
    own = (1 - 1 / cells) * np.maximum(pooled, alone - shared)
    return [Spread(seeds, shared, float(v), freedom) for v in own]
