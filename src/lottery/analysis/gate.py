"""What stability.py has measured of the dense networks of a study, beside its grid."""

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from lottery.analysis.collect import Cell, Study
from lottery.analysis.grids import Grid
from lottery.barriers import STABLE, Line, barrier_of, barriers
from lottery.errors import StoreError
from lottery.store import Store


def with_barriers(study: Study) -> Study:
    """The study, each cell with the barrier of its dense network where it is rewound to."""
    stores = {cell.store for cell in study.cells if cell.store is not None}
    lines = {store: _lines(store) for store in stores}
    if not any(lines.values()):
        return study
    return replace(study, cells=tuple(_with_barrier(cell, lines) for cell in study.cells))


def of_columns(grid: Grid) -> list[float | None]:
    """The mean barrier of each column's dense networks; None where none was measured."""
    found = []
    for column in zip(*grid.points, strict=True):
        cells = [cell for judged in column if judged for cell in judged.point.cells]
        own = {c.dense["key"]: c.barrier for c in cells if c.dense and c.barrier is not None}
        found.append(statistics.fmean(own.values()) if own else None)
    return found


def sentence(grid: Grid) -> str | None:
    """The barriers of a grid's columns, for people; None if there are none."""
    values = of_columns(grid) if grid.of_series else []
    named = [f"{at}: {b:.2f}" for at, b in zip(grid.columns, values, strict=False) if b is not None]
    if not named:
        return None
    return (
        f"Barrier of the dense networks by rewind epoch, in points of validation error, "
        f"{', '.join(named)}; below {STABLE:g} counts as stable (stability.py)."
    )


def _lines(store: Path) -> list[Line]:
    try:
        return barriers(Store(store))
    except StoreError:  # of another layout, which has none
        return []


def _with_barrier(cell: Cell, lines: Mapping[Path, Iterable[Line]]) -> Cell:
    rewinding = cell.config.get("rewind.name", "weights")
    if cell.store is None or not cell.dense or cell.rewound is None or rewinding != "weights":
        return cell
    return replace(cell, barrier=barrier_of(lines[cell.store], cell.dense["key"], cell.rewound))
