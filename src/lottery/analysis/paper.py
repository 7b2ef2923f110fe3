"""The study as a table for a paper: plain values, which :mod:`.paper_formats` writes.

A row is a cell of the grid, or a series with a column for each percentile. What is averaged are
seeds and nothing else. Accuracies and densities are in percent, differences in points.
"""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from lottery.analysis.collect import Cell, Study
from lottery.analysis.grids import by_series
from lottery.analysis.report_options import Table as Wanted
from lottery.analysis.selection import DENSITY, OF_KERNELS, Judged, Selection

Value = str | float | tuple[float, ...] | None
"""An accuracy is a tuple, one value a seed; a number of seeds is text."""


@dataclass(frozen=True)
class Metric:
    """What can be a column: ``kind`` says how it is written (see :mod:`.paper_formats`)."""

    title: str
    kind: str


METRICS = {
    "density": Metric("weights left", "percent"),
    "density_of_kernels": Metric("of all kernels", "percent"),
    "n": Metric("n", "seeds"),
    "validation": Metric("validation", "accuracy"),
    "test": Metric("test", "accuracy"),
    "validation_top5": Metric("validation top-5", "accuracy"),
    "test_top5": Metric("test top-5", "accuracy"),
    "surviving": Metric("multiply-adds", "count"),
    "computed": Metric("multiply-adds computed", "count"),
    "difference": Metric("above dense", "points"),
    "p": Metric("p", "p"),
}
"""Columns by the name that ``table.columns`` takes."""
ACCURACIES = {
    "validation": "val_top1",
    "test": "test_top1",
    "validation_top5": "val_top5",
    "test_top5": "test_top5",
}


@dataclass(frozen=True)
class Column:
    """``name`` is unique in a table; columns of one ``group`` have its title over theirs."""

    name: str
    title: str
    kind: str = "text"
    group: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of values, of which the first ``dense`` are networks that nobody pruned."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Value, ...], ...]
    dense: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Entry:
    """A dense network, or a point of the grid: means and spreads of what its seeds gave."""

    network: str
    options: tuple[str, ...]
    """Values of the options that tell series apart; empty where a dense network has several."""
    rewound: str
    percentile: float | None
    values: Mapping[str, Value]

    @property
    def series(self) -> tuple[str, ...]:
        """What entries of one row have in common in a table of series."""
        return self.network.removeprefix("winning "), *self.options, self.rewound


def table(study: Study, chosen: Selection, wanted: Wanted) -> Table:
    """The table that is asked for, without rows for what has no result."""
    dense, pruned = _dense(study, chosen), list(_pruned(study, chosen))
    build = _by_cell if wanted.rows == "cell" else _by_series
    columns, rows = build(study, dense, pruned, wanted.metrics)
    return _with_content(Table(columns, rows, len(dense), tuple(_notes(chosen, wanted.metrics))))


def _dense(study: Study, chosen: Selection) -> list[Entry]:
    """The dense networks, one entry for each set of them that tickets are compared with."""
    entries = []
    for cells in _rivals(chosen):
        seeds = list({cell.seed: cell for cell in cells}.values())
        values: dict[str, Value] = {
            "density": 100.0,
            "density_of_kernels": 100.0,
            "n": str(len(seeds)),
            **_accuracies("dense", seeds),
            **{name: _work("network", seeds) for name in ("surviving", "computed")},
        }
        options = tuple(_shared(name, cells) for name in study.varied)
        entries.append(Entry("dense", options, "", None, values))
    return entries


def _rivals(chosen: Selection) -> list[list[Cell]]:
    """The finished cells, by the dense networks that they are compared with.

    A set of those has one network a seed, and may lack seeds that one of its cells does not have.
    """
    sets: list[tuple[dict[int, str], list[Cell]]] = []
    for members in by_series(j for j in chosen.judged if j.point.done).values():
        mine = None
        for judged in members:
            own = {c.seed: str((c.dense or {})["key"]) for c in judged.point.done}
            into = next((s for s in sets if _one_set(s[0], own, alike=s is mine)), None)
            if into is None:
                into = ({}, [])
                sets.append(into)
            into[0].update(own)
            into[1].extend(judged.point.done)
            mine = into
    return [cells for _, cells in sets]


def _one_set(one: Mapping[int, str], other: Mapping[int, str], *, alike: bool) -> bool:
    both = one.keys() & other.keys()
    return bool(both or alike) and all(one[seed] == other[seed] for seed in both)


def _shared(name: str, cells: Sequence[Cell]) -> str:
    """The value of an option where it says something of the dense network: before the mask."""
    if name == "method" or name.partition(".")[0] in ("mask", "rewind"):
        return ""
    values = {cell.spelled(name) for cell in cells}
    return values.pop() if len(values) == 1 else ""


def _pruned(study: Study, chosen: Selection) -> Iterable[Entry]:
    for judged in chosen.judged:
        kind = "control" if judged.point.control else "ticket"
        kind = "winning ticket" if judged is chosen.winner else kind
        found = judged.comparison
        if judged.point.done:
            against = {"difference": found.difference, "p": found.p_value} if found else {}
            yield _entry(study, judged, kind, judged.point.done, against)
        if fresh := [cell for cell in judged.point.fresh if cell.done]:
            again = judged.confirmation
            against = {"difference": again.difference} if again else {}
            yield _entry(study, judged, f"{kind}, fresh seeds", fresh, against)


def _entry(
    study: Study,
    judged: Judged,
    network: str,
    cells: Sequence[Cell],
    against: Mapping[str, float],
) -> Entry:
    point = judged.point
    shares: dict[str, Value] = {}
    for name in (DENSITY, OF_KERNELS):
        told = [c.mask[name] for c in cells if c.mask and c.mask.get(name) is not None]
        shares[name] = 100 * statistics.fmean(told) if told else None
    return Entry(
        network,
        tuple(point.cells[0].spelled(name) for name in study.varied),
        "" if point.rewound is None else point.rewound.label,
        point.percentile,
        {
            **shares,
            "n": str(len(cells)),
            **_accuracies("ticket", cells),
            **{name: _work(name, cells) for name in ("surviving", "computed")},
            **against,
        },
    )


def _accuracies(kind: str, cells: Sequence[Cell]) -> dict[str, Value]:
    """In percent, one value a seed; a metric that not all of them have is left out."""
    results = [getattr(cell, kind) for cell in cells]
    return {
        name: tuple(100 * r[metric] for r in results)
        for name, metric in ACCURACIES.items()
        if all(r.get(metric) is not None for r in results)
    }


def _work(name: str, cells: Sequence[Cell]) -> float | None:
    """Multiply-adds of an image, mean over seeds; None if not all of them tell it."""
    told = [(cell.ticket or {}).get("multiply_adds", {}).get(name) for cell in cells]
    return None if None in told else statistics.fmean(told)


def _by_cell(
    study: Study, dense: Sequence[Entry], pruned: Sequence[Entry], metrics: Sequence[str]
) -> tuple[tuple[Column, ...], tuple[tuple[Value, ...], ...]]:
    columns = (
        *_stub(study),
        Column("pruned", "pruned", "percent"),
        *(Column(m, METRICS[m].title, METRICS[m].kind) for m in metrics),
    )
    rows = tuple(
        (e.network, *e.options, e.rewound, e.percentile, *(e.values.get(m) for m in metrics))
        for e in (*dense, *pruned)
    )
    return columns, rows


def _by_series(
    study: Study, dense: Sequence[Entry], pruned: Sequence[Entry], metrics: Sequence[str]
) -> tuple[tuple[Column, ...], tuple[tuple[Value, ...], ...]]:
    """A group of columns for each percentile, and one before them for what is not pruned."""
    series: dict[tuple[str, ...], dict[float, Entry]] = {}
    for entry in pruned:
        series.setdefault(entry.series, {})[entry.percentile or 0.0] = entry
    columns, picks = list(_stub(study)), []
    for percentile in sorted({0.0, *(e.percentile or 0.0 for e in pruned)}):
        alike = [e for e in pruned if e.percentile == percentile]
        densities = {_about(e.values["density"]) for e in alike}
        one = len(densities) <= 1  # else each has its own, beside its accuracy
        left = densities.pop() if densities and one else ""
        group = f"{left} % left" if left else f"{percentile:g} % pruned"
        group = group if alike else "100 % left"
        own = metrics if one or "density" in metrics else ("density", *metrics)
        for m in own if alike else [m for m in own if m not in ("difference", "p")]:
            name = f"{m}_{percentile:g}_pruned"
            columns.append(Column(name, METRICS[m].title, METRICS[m].kind, group))
            picks.append((percentile, m))
    rows: list[tuple[Value, ...]] = []
    for entry in dense:
        rows.append((entry.network, *entry.options, entry.rewound, *_picked({0.0: entry}, picks)))
    for told, entries in series.items():
        rows.append((*told, *_picked(entries, picks)))
    return tuple(columns), tuple(rows)


def _picked(entries: Mapping[float, Entry], picks: Iterable[tuple[float, str]]) -> list[Value]:
    return [entries[at].values.get(metric) if at in entries else None for at, metric in picks]


def _about(density: Value) -> str:
    return f"{density:.4g}" if isinstance(density, float) else ""


def _stub(study: Study) -> tuple[Column, ...]:
    """Columns that say what a row is."""
    options = (Column(name, name) for name in study.varied)
    return Column("network", "network"), *options, Column("rewound_to", "rewound to")


def _with_content(made: Table) -> Table:
    """Without columns in which no row has anything."""
    kept = [
        n for n in range(len(made.columns)) if any(row[n] not in (None, "") for row in made.rows)
    ]

    def only(values: Sequence[Value]) -> tuple[Value, ...]:
        return tuple(values[n] for n in kept)

    columns = tuple(made.columns[n] for n in kept)
    return Table(columns, tuple(map(only, made.rows)), made.dense, made.notes)


def _notes(chosen: Selection, metrics: Sequence[str]) -> Iterable[str]:
    """What a caption has to say."""
    said: Mapping[str, Callable[[], str]] = {
        "n": lambda: "n: seeds.",
        "surviving": lambda: "Multiply-adds: of an image, by the weights that are left.",
        "computed": lambda: "Multiply-adds computed: of an image, those that are not skipped.",
        "difference": lambda: "Above dense: points of validation top-1, mean over seeds.",
        "p": lambda: _tested(chosen),
    }
    if any(name in ACCURACIES for name in metrics):
        yield (
            "Accuracies: top-1 in percent unless said otherwise; mean ± sample standard "
            "deviation over seeds. Chosen on validation; test decided nothing."
        )
    yield from (said[name]() for name in metrics if name in said)


def _tested(chosen: Selection) -> str:
    loss = f"a loss of {chosen.tolerance:g} point{'s' * (chosen.tolerance != 1)} or more"
    looks = {j.comparison.looks for j in chosen.judged if j.comparison}
    corrected = "with all cells of the grid taken into account"
    how = corrected if max(looks, default=1) > 1 else "of one cell alone"
    return f"p: of {loss} of validation top-1 against dense, one-sided, {how}."
