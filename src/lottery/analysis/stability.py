"""Barriers by rewind point: of one result, and of a sweep of stability.py as table and JSON."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from lottery import files
from lottery.analysis.table import show_whole, terminal
from lottery.barriers import INTERPOLATED, RECOMPUTED, STABLE, STATISTICS, Line
from lottery.errors import ResultError
from lottery.points import Point, order
from lottery.results import Record
from lottery.studies.stability import Measured

TITLES = {
    RECOMPUTED: "BatchNorm recomputed",
    INTERPOLATED: "BatchNorm interpolated",
}
NO_STATISTICS = "the network has no BatchNorm, so there are no statistics to recompute"
_OWN = ("rewind.epoch", "rewind.step", "seed")  # what tells apart the lines of one series


@dataclass(frozen=True)
class Place:
    """The lines of one rewind point: one a seed. ``series`` is what else was swept, if anything."""

    series: str
    point: Point
    lines: tuple[Line, ...]

    @property
    def barriers(self) -> list[float]:
        """Those that decide, in points of validation error."""
        return [line.barrier for line in self.lines]

    @property
    def stable(self) -> bool | None:
        """By the mean over seeds; None if a child of any is at chance, so that nothing is known."""
        if any(line.at_chance for line in self.lines):
            return None
        return statistics.fmean(self.barriers) < STABLE

    def values(self, kind: str, split: str) -> list[float]:
        """The barriers with these statistics on a split; empty if there are no such ones."""
        found = (line.barriers.get(kind) for line in self.lines)
        return [barriers[split] for barriers in found if barriers]

    def errors(self, kind: str, split: str) -> list[float]:
        """The mean error at each share of the line; empty if lines differ in their number."""
        found = [line.errors[kind][split] for line in self.lines if kind in line.errors]
        same = len({len(errors) for errors in found}) == 1
        return [statistics.fmean(e) for e in zip(*found, strict=True)] if same else []


@dataclass(frozen=True)
class Summary(Record):
    """A ``stability.json``: one entry a rewind point, with the lines of its seeds.

    Barriers are points of error, below ``threshold`` a network counts as stable; ``stable`` is by
    the mean over seeds, and null if a child is at chance.
    """

    what: ClassVar[str] = "the barriers of a sweep of stability.py"
    version: ClassVar[int] = 1

    threshold: float
    places: Sequence[Mapping[str, Any]]


def show(result: Measured, path: Path, console: Console | None = None) -> None:
    """Print the two children and the barrier between them, and where ``result.json`` is."""
    console, line = console or terminal(), result.measured
    where = f"rewound to {Point.of(line.point).words}"
    if result.mask:
        where += f", {100 * result.mask['density']:.4g} % of the weights"
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title=f"top-1 error in percent\n{where}")
    table.add_column("", no_wrap=True)
    for head in ("validation", "test"):
        table.add_column(head, justify="right", no_wrap=True)
    networks = {"dense": result.dense}
    networks |= {f"child {n}": child for n, child in enumerate(result.children, start=1)}
    for name, run in networks.items():
        errors = (100 * (1 - run[f"{split}_top1"]) for split in ("val", "test"))
        table.add_row(name, *(f"{error:.2f}" for error in errors))
    table.add_section()
    for kind in (s for s in STATISTICS if s in line.errors):
        highest = (f"{max(line.errors[kind][split]):.2f}" for split in ("val", "test"))
        table.add_row(f"highest between, {TITLES[kind]}" if _both(line) else "highest between",
                      *highest)  # fmt: skip
    show_whole(table, console)
    if not _both(line):
        console.print(NO_STATISTICS, style="dim")
    found = f"barrier: {result.barrier:.2f} points of validation error"
    if line.at_chance:
        console.print(f"{found}, which says nothing: a child has learnt nothing")
    else:
        stable = "stable" if result.barrier < STABLE else "not stable"
        console.print(f"{found}: {stable} (below {STABLE:g}); one seed, two orders of the data")
    console.print(f"result: {path}")


def conclude(folder: Path, console: Console | None = None) -> None:
    """Print the barriers of a sweep; leave stability.json and the picture in its folder.

    Nothing is printed or written if no cell has a result.
    """
    console, found = console or terminal(), read(folder)
    if not found:
        return
    show_whole(_table(found), console)
    if not all(_both(line) for place in found for line in place.lines):
        console.print(NO_STATISTICS, style="dim")
    files.write_json(folder / "stability.json", summary(found).written())
    from lottery.analysis import barrier_plot  # imports matplotlib

    written = barrier_plot.write(found, folder)
    names = ", ".join(path.name for path in written)
    console.print(f"written to {folder}: stability.json, {names}")


def read(folder: Path) -> list[Place]:
    """What the cells of a sweep have measured, by series and rewind point.

    Cells without a result, or with one that is damaged, are left out.
    """
    cells = files.read_json(folder / "sweep.json")["cells"]
    common = set.intersection(*(set(cell["overrides"]) for cell in cells)) if cells else set()
    places: dict[tuple[str, Point], dict[tuple[str, ...], Line]] = {}
    for cell in cells:
        try:
            line = Measured.read_file(folder / str(cell["num"]) / "result.json").measured
        except (OSError, ResultError):
            continue
        own = (o for o in cell["overrides"] if o not in common)
        series = " ".join(o for o in own if o.partition("=")[0] not in _OWN)
        # Two cells may mean the same: an epoch, and as many steps.
        of_seeds = places.setdefault((series, Point.of(line.point)), {})
        of_seeds[tuple(line.children)] = line
    names = list(dict.fromkeys(series for series, _ in places))
    ordered = sorted(places.items(), key=lambda item: (names.index(item[0][0]), order(item[0][1])))
    return [Place(series, point, tuple(of.values())) for (series, point), of in ordered]


def summary(found: Sequence[Place]) -> Summary:
    """What stability.json holds."""
    return Summary(threshold=STABLE, places=list(map(_entry, found)))


def _entry(place: Place) -> dict[str, Any]:
    kinds = [kind for kind in STATISTICS if place.values(kind, "val")]
    return {
        "series": place.series,
        "point": str(place.point),
        "seeds": len(place.lines),
        "barrier": _spread(place.barriers),
        "stable": place.stable,
        "barriers": {
            kind: {split: _spread(place.values(kind, split)) for split in ("val", "test")}
            for kind in kinds
        },
        "lines": [line.written() for line in place.lines],
    }


def _spread(values: Sequence[float]) -> dict[str, float | None]:
    sd = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "sd": sd}


def _table(found: Sequence[Place]) -> Table:
    several = max(len(place.lines) for place in found) > 1
    spread = ", mean ± sd over seeds" if several else ""
    table = Table(
        box=SIMPLE_HEAD,
        pad_edge=False,
        title=f"barrier in points of top-1 error{spread}, by rewind point\n"
        f"stable below {STABLE:g} on validation",
    )
    both = any(_both(line) for place in found for line in place.lines)
    kinds = STATISTICS if both else (INTERPOLATED,)
    table.add_column("rewound to", no_wrap=True)
    for kind in kinds:
        for split in ("validation", "test"):
            table.add_column(f"{split},\n{kind}" if both else split, justify="right", no_wrap=True)
    for head in ("seeds", "stable"):
        table.add_column(head, justify="right", no_wrap=True)
    for series in dict.fromkeys(place.series for place in found):
        if series:
            table.add_row(series, end_section=False, style="bold")
        for place in (p for p in found if p.series == series):
            table.add_row(place.point.words, *_entries(place, kinds))
        table.add_section()
    return table


def _entries(place: Place, kinds: Sequence[str]) -> Iterator[str]:
    for kind in kinds:
        for split in ("val", "test"):
            values = place.values(kind, split)
            yield _text(_spread(values)) if values else ""
    yield str(len(place.lines))
    yield {True: "yes", False: "no", None: "at chance"}[place.stable]


def _text(spread: Mapping[str, float | None]) -> str:
    sd = "" if spread["sd"] is None else f" ± {spread['sd']:.2f}"
    return f"{spread['mean']:.2f}{sd}"


def _both(line: Line) -> bool:
    return RECOMPUTED in line.errors
