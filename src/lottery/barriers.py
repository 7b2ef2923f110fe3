"""How far the error rises on the line between two children of one network, as plain values.

Instability analysis (Frankle et al. 2020, arXiv:1912.05671): two children go on from one state,
the same but for the order and augmentation of the data. If the error on the straight line between
their weights stays at that of its ends, training from that state on is stable: it leads to the same
linearly connected minimum, whatever the order. Imports no TensorFlow.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lottery import fields
from lottery.errors import ResultError
from lottery.points import Point
from lottery.results import Record
from lottery.store import Store

STABLE = 2.0
"""Points of error: what has a lower barrier counts as stable (Frankle et al. 2020, section 3)."""
SPLITS = ("val", "test")
RECOMPUTED, INTERPOLATED = "recomputed", "interpolated"
STATISTICS = (RECOMPUTED, INTERPOLATED)
"""The moving statistics of BatchNorm on the line: recomputed from training images at each of its
points (Jordan et al. 2022, arXiv:2211.08403), or interpolated as weights are."""
FILE = "line.json"
"""In a ``line`` node of the store."""


def height(errors: Sequence[float]) -> float:
    """The barrier of errors along a line: the highest, less the mean of those at its two ends.

    In the unit of the errors; 0 at least.
    """
    return max(errors) - (errors[0] + errors[-1]) / 2


@dataclass(frozen=True)
class Line(Record):
    """The error on the line between two children, and where they come from.

    ``dense`` is the key of the dense network, ``point`` where both leave its training, ``mask`` the
    key of the mask that both have, None if they are dense, and ``children`` are their keys.
    ``shares`` say where on the line each error was measured: 0 is the first child, 1 the second.
    ``errors`` are top-1 errors in percent, by statistics and split; a network without BatchNorm has
    ``interpolated`` ones alone, and no number of ``batches`` for recomputing. Of children
    ``at_chance``, which have learnt nothing, a barrier says nothing.
    """

    what: ClassVar[str] = "a line between children"
    version: ClassVar[int] = 1

    dense: str
    point: str
    steps_per_epoch: int
    mask: str | None
    children: Sequence[str]
    shares: Sequence[float]
    batches: int | None
    errors: Mapping[str, Any]
    at_chance: bool

    def check(self) -> None:
        """Errors at every share, of both splits."""
        if INTERPOLATED not in self.errors or set(self.errors) - set(STATISTICS):
            raise ValueError("errors have other statistics")
        for found in self.errors.values():
            for split in SPLITS:
                if len(fields.entries(found, split)) != len(self.shares):
                    raise ValueError(f"{split} has not an error for each share")
        if len(self.children) != 2 or len(self.shares) < 2:
            raise ValueError("it has not two ends")

    @property
    def barriers(self) -> dict[str, dict[str, float]]:
        """Points of error, by statistics and split."""
        return {
            statistics: {split: height(found[split]) for split in SPLITS}
            for statistics, found in self.errors.items()
        }

    @property
    def barrier(self) -> float:
        """The one that decides: on validation images, statistics recomputed if there are any."""
        return next(self.barriers[s]["val"] for s in STATISTICS if s in self.errors)

    def leaves(self, dense: str, point: Point) -> bool:
        """Whether its children are dense, and leave that network at that point."""
        spe = self.steps_per_epoch
        same = Point.of(self.point).step(spe) == point.step(spe)
        return self.mask is None and self.dense == dense and same


def barriers(store: Store) -> list[Line]:
    """All lines that a store has, by key; those that are damaged are left out."""
    found = []
    for done in sorted((store.root / "line").glob("*/done.json")):
        try:
            found.append(Line.read_file(done.with_name(FILE)))
        except (OSError, ResultError):
            continue
    return found


def barrier_of(lines: Iterable[Line], dense: str, point: Point) -> float | None:
    """The barrier of a dense network rewound to a point, in points of validation top-1.

    ``dense`` is its key. Of several lines the finest counts. None if there is none, or its
    children have learnt nothing, so that it means nothing.
    """
    here = [line for line in lines if line.leaves(dense, point) and not line.at_chance]
    finest = max(here, key=lambda line: (len(line.shares), line.batches or 0), default=None)
    return None if finest is None else finest.barrier
