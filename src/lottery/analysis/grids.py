"""The points of a study in rows and columns, as table and heat map show them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lottery.analysis.selection import Judged, Selection
from lottery.points import order


@dataclass(frozen=True)
class Grid:
    """Points by [row][column], None where there is none.

    They are ``of_series``, or the rows are all series. ``down`` and ``across`` say what rows and
    columns are.
    """

    of_series: bool
    series: str
    down: str
    rows: tuple[str, ...]
    across: str
    columns: tuple[str, ...]
    points: tuple[tuple[Judged | None, ...], ...]

    @property
    def judged(self) -> tuple[Judged, ...]:
        """Those that there are."""
        return tuple(j for row in self.points for j in row if j)


def grids(chosen: Selection) -> tuple[Grid, ...]:
    """One grid a series, of percentiles and what is rewound to.

    Or a single one, whose rows are the series, if each of them is rewound to one point and all are
    compared with the same dense networks.
    """
    series = by_series(chosen.judged)
    if len(series) > 1 and not chosen.of_kernels and _comparable(tuple(series.values())):
        return (_side_by_side(tuple(series.values())),)
    return tuple(_of_series(name, members) for name, members in series.items())


def by_series(judged: Iterable[Judged]) -> dict[str, list[Judged]]:
    """Points by their series, in the order of the study."""
    series: dict[str, list[Judged]] = {}
    for j in judged:
        series.setdefault(j.point.series, []).append(j)
    return series


def label(judged: Judged) -> str:
    """The series of a point, and what it is rewound to, in a legend."""
    at = judged.point.rewound
    start = "" if at is None else f"rewound to {at.label}"
    return ", ".join(filter(None, [judged.point.series, start]))


def _comparable(series: Sequence[Sequence[Judged]]) -> bool:
    cells = [c for members in series for j in members for c in j.point.cells if c.dense]
    rivals = {(c.seed, c.dense["key"]) for c in cells if c.dense}
    one_rival = len(rivals) == len({seed for seed, _ in rivals})
    return one_rival and all(len({j.point.rewound for j in m}) == 1 for m in series)


def _side_by_side(series: Sequence[Sequence[Judged]]) -> Grid:
    percentiles = sorted({j.point.percentile for members in series for j in members})
    return Grid(
        False,
        "",
        "",
        tuple(label(members[0]) for members in series),
        "weights pruned, percent",
        tuple(f"{p:g}" for p in percentiles),
        tuple(
            tuple({j.point.percentile: j for j in members}.get(p) for p in percentiles)
            for members in series
        ),
    )


def _of_series(name: str, judged: Sequence[Judged]) -> Grid:
    percentiles = sorted({j.point.percentile for j in judged})
    points = sorted({j.point.rewound for j in judged}, key=order)
    by_place = {(j.point.percentile, j.point.rewound): j for j in judged}
    return Grid(
        True,
        name,
        "weights pruned, percent",
        tuple(f"{p:g}" for p in percentiles),
        "rewound to epoch",
        tuple("afresh" if at is None else at.label for at in points),
        tuple(tuple(by_place.get((p, at)) for at in points) for p in percentiles),
    )
