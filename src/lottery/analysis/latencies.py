"""How fast tickets are beside their dense twins: what export.py measured, prepared to be drawn.

Times are milliseconds a call, for a whole batch.
"""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lottery.analysis.collect import Cell
from lottery.analysis.figures import CATEGORIES
from lottery.analysis.selection import OF_KERNELS, Judged
from lottery.export.names import PRECISIONS
from lottery.export.results import Benchmark
from lottery.points import columns

RUNTIMES = {"browser": "browser", "litert": "LiteRT", "keras": "Keras"}


@dataclass(frozen=True)
class Quartiles:
    """Median, first and third quartile, in milliseconds."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Latency:
    """A ticket and its dense twin, timed in turns in one setting on one machine.

    ``speedup`` is the measured one; ``work`` the share of the dense network's multiply-adds that
    the ticket has left.
    """

    file: Path
    judged: Judged
    cell: Cell
    machine: str
    runtime: str
    precision: str
    batch: int
    threads: int | None
    dense: Quartiles
    ticket: Quartiles
    speedup: float
    work: float

    @property
    def how(self) -> str:
        """What ran it: ``LiteRT, 2 threads``."""
        name = RUNTIMES.get(self.runtime, self.runtime)
        if self.threads is None or (self.runtime == "browser" and self.threads == 1):
            return name
        return f"{name}, {self.threads} thread{'' if self.threads == 1 else 's'}"

    @property
    def identity(self) -> tuple[Any, ...]:
        """Two measurements that share it are one, repeated."""
        key = (self.cell.ticket or {})["key"]
        return key, self.machine, self.runtime, self.precision, self.batch, self.threads


@dataclass(frozen=True)
class Dot:
    """Latency at a density in percent; ``cell`` is None for the dense twin.

    Over several tickets each value is the median of theirs. ``ideal`` is the latency if time were
    proportional to multiply-adds.
    """

    density: float
    time: Quartiles
    ideal: float
    speedup: float
    possible: float
    about: tuple[str, ...]
    cell: str | None


@dataclass(frozen=True)
class Line:
    """One runtime on one machine: the dense twin first, then ever sparser tickets.

    ``group`` is its precision and batch size: ``float32, batch 1``.
    """

    group: str
    label: str
    colour: str
    marker: int
    dots: tuple[Dot, ...]


Panels = Mapping[str, tuple[Line, ...]]
"""Lines by group, the one to show first in front."""


def parse(measured: Benchmark, file: Path, judged: Judged, cell: Cell) -> list[Latency]:
    """The latencies that a benchmark.json of export.py tells of."""
    machine, models = measured.machine, measured.models
    whole, left = models["dense"]["multiply_adds"], models["ticket"]["surviving_multiply_adds"]
    where = f"{machine['cpu']}, {machine['cores']:g} cores"
    return [
        Latency(
            file, judged, cell, where,
            entry["runtime"], entry["precision"], entry["batch"], entry["threads"],
            _quartiles(entry["dense"]), _quartiles(entry["ticket"]),
            entry["speedup"], left / whole,
        )
        for entry in measured.latency
    ]  # fmt: skip


def rows(found: Iterable[Latency]) -> list[dict[str, Any]]:
    """One row a measurement."""
    return [
        {
            "cell": m.cell.name,
            "percentile": m.cell.percentile,
            **columns(m.cell.rewound),
            "seed": m.cell.seed,
            "density": m.judged.point.density,
            "density_of_kernels": m.judged.point.share(OF_KERNELS),
            "runtime": m.runtime,
            "precision": m.precision,
            "batch": m.batch,
            "threads": m.threads,
            **{
                f"{kind}_{name}_ms": getattr(getattr(m, kind), name)
                for kind in ("dense", "ticket")
                for name in ("median", "low", "high")
            },
            "speedup": m.speedup,
            "multiply_adds_left": m.work,
            "machine": m.machine,
            "ticket": (m.cell.ticket or {})["key"],
            "folder": str(m.file.parent.resolve()),
        }
        for m in found
    ]


def panels(found: Sequence[Latency]) -> dict[str, tuple[Line, ...]]:
    """The lines to draw. Machines are told apart, and so are the series of the study."""
    machines = {m.machine for m in found}
    groups: dict[tuple[int, int, str], list[Latency]] = defaultdict(list)
    for m in found:
        groups[m.batch, _precision(m.precision), m.precision].append(m)
    labels = sorted({(_order(m), _label(m, machines)) for m in found})
    styles = {label: n for n, label in enumerate(dict.fromkeys(label for _, label in labels))}
    drawn = {}
    for batch, place, precision in sorted(groups):
        name = f"{precision}, batch {batch}"
        drawn[name] = _lines(name, groups[batch, place, precision], machines, styles)
    return drawn


def shown(drawn: Panels) -> tuple[Line, ...]:
    """The lines in front: the smallest batch in full precision."""
    return next(iter(drawn.values()), ())


def summary(drawn: Panels, winner: Judged | None) -> str:
    """Theoretical and measured speed-up of one density, in words; empty if nothing is measured.

    That density is the winner's if it was measured, else the lowest.
    """
    lines = shown(drawn)
    densities = {dot.density for line in lines for dot in line.dots if dot.cell}
    if not densities:
        return ""
    wanted = 100 * (winner.share or 0.0) if winner else None
    density = wanted if wanted in densities else min(densities)
    dots = [(line, dot) for line in lines for dot in line.dots if dot.cell]
    here = [(line, dot) for line, dot in dots if dot.density == density]
    possible = statistics.median(dot.possible for _, dot in here)
    who = "the winning ticket" if density == wanted else "the ticket"
    measured = ", ".join(f"{_times(dot.speedup)} ({line.label})" for line, dot in here)
    return (
        f"With {density:.4g} % of its weights {who} has {100 / possible:.3g} % of the dense "
        f"network's multiply-adds, so in theory it is {_times(possible)} as fast. "
        f"Measured in {next(iter(drawn))}: {measured}."
    )


def ticks(lines: Iterable[Line]) -> list[float]:
    """Round times, 1-2-5, that cover the lines."""
    values = [v for line in lines for dot in line.dots
              for v in (dot.time.low, dot.time.high, dot.ideal) if v > 0]  # fmt: skip
    steps = [m * 10.0**e for e in range(-4, 7) for m in (1, 2, 5)]
    return [s for s in steps if min(values) / 2 < s < max(values) * 2] if values else []


def _quartiles(about: Mapping[str, Any]) -> Quartiles:
    return Quartiles(about["median_ms"], about["low_ms"], about["high_ms"])


def _lines(
    name: str, found: Sequence[Latency], machines: set[str], styles: Mapping[str, int]
) -> tuple[Line, ...]:
    groups: dict[str, list[Latency]] = defaultdict(list)
    for m in found:
        groups[_label(m, machines)].append(m)
    return tuple(
        Line(name, label, CATEGORIES[styles[label] % len(CATEGORIES)], styles[label], _dots(group))
        for label, group in sorted(groups.items(), key=lambda g: styles[g[0]])
    )


def _dots(found: Sequence[Latency]) -> tuple[Dot, ...]:
    by_density: dict[float, list[Latency]] = defaultdict(list)
    for m in found:
        by_density[100 * (m.judged.share or 0.0)].append(m)
    twin = _middle([m.dense for m in found])
    about = (f"dense twin, {found[0].how}", _time(twin), _tickets(found))
    dots = [Dot(100.0, twin, twin.median, 1.0, 1.0, about, None)]
    for density, group in sorted(by_density.items(), reverse=True):
        time = _middle([m.ticket for m in group])
        speedup = statistics.median(m.speedup for m in group)
        work = statistics.median(m.work for m in group)
        words = (
            f"{group[0].judged.kept} left, {group[0].how}", _time(time),
            f"{_times(speedup)} as fast as dense; by multiply-adds alone {_times(1 / work)}",
            _tickets(group),
        )  # fmt: skip
        ideal = work * twin.median
        dots.append(Dot(density, time, ideal, speedup, 1 / work, words, group[0].cell.name))
    return tuple(dots)


def _middle(times: Sequence[Quartiles]) -> Quartiles:
    return Quartiles(*(
        statistics.median(getattr(time, name) for time in times)
        for name in ("median", "low", "high")
    ))  # fmt: skip


def _label(m: Latency, machines: set[str]) -> str:
    where = m.machine if len(machines) > 1 else ""
    return ", ".join(filter(None, [m.how, m.judged.point.series, where]))


def _order(m: Latency) -> tuple[int, int]:
    known = list(RUNTIMES)
    return known.index(m.runtime) if m.runtime in known else len(known), m.threads or 0


def _precision(name: str) -> int:
    known: list[str] = list(PRECISIONS)
    return known.index(name) if name in known else len(known)


def _time(time: Quartiles) -> str:
    return f"{time.median:.3g} ms (quartiles {time.low:.3g} to {time.high:.3g})"


def _tickets(found: Sequence[Latency]) -> str:
    number = len({m.file for m in found})
    return (
        f"one benchmark of {found[0].machine}" if number == 1 else f"median of {number} benchmarks"
    )


def _times(factor: float) -> str:
    return f"{factor:.3g} times"
