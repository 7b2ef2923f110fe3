"""What became of a study's tickets: on other data (transfer.py), on other machines (export.py)."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from lottery.analysis import latencies, transfers
from lottery.analysis.collect import Cell, Study
from lottery.analysis.latencies import Latency
from lottery.analysis.selection import Judged, Selection
from lottery.analysis.transfers import Transfer
from lottery.errors import LotteryError, ResultError
from lottery.export.results import Benchmark
from lottery.studies.transfer import Moved

T = TypeVar("T", Transfer, Latency)
R = TypeVar("R", Moved, Benchmark)


@dataclass(frozen=True)
class Deployment:
    """The transfers and latencies of a study's tickets; ``notes`` say what could not be read."""

    transfers: tuple[Transfer, ...] = ()
    latencies: tuple[Latency, ...] = ()
    notes: tuple[str, ...] = ()


def collect(
    study: Study, chosen: Selection, *, moved: str | None = None, exported: str | None = None
) -> Deployment:
    """Everything that transfer.py and export.py have left of the tickets in a study's grid.

    ``moved`` and ``exported`` are the folders to look in; None means those beside the study's
    store, where they are left by default. Of a measurement that was repeated the last counts, by
    its folder's name, and so does each run of a repeated transfer. What is not of the study's
    tickets is left out; a ticket that was moved is another one than the one it was before. Raises
    :class:`LotteryError` if a folder that was asked for is not there.
    """
    owners = {
        c.ticket["key"]: (j, c)
        for j in chosen.judged
        for c in j.point.done
        if c.ticket and "key" in c.ticket
    }
    notes: list[str] = []
    found_transfers = _read(
        _left(study, moved, "transfer", "result.json"), Moved, transfers.parse, owners, notes
    )
    benchmarks = _left(study, exported, "export", "benchmark.json")
    found_latencies = _read(benchmarks, Benchmark, latencies.parse, owners, notes)
    return Deployment(
        tuple(transfers.merged(found_transfers)),
        tuple({m.identity: m for m in found_latencies}.values()),
        tuple(notes),
    )


def _left(study: Study, told: str | None, kind: str, name: str) -> Iterator[Path]:
    """The files of that name, those of the jobs of a sweep among them, oldest stamp first."""
    if told is not None and not Path(told).is_dir():
        raise LotteryError(f"there is no folder {told} to look for {name} in")
    beside = {cell.store.parent / kind for cell in study.cells if cell.store}
    for folder in [Path(told)] if told is not None else sorted(beside):
        found = (f for depth in ("", "*/", "*/*/") for f in folder.glob(depth + name))
        yield from sorted(found, key=lambda f: f.relative_to(folder).parts)


def _read(
    found: Iterable[Path],
    kind: type[R],
    parse: Callable[[R, Path, Judged, Cell], Iterable[T]],
    owners: Mapping[str, tuple[Judged, Cell]],
    notes: list[str],
) -> list[T]:
    read: list[T] = []
    for path in found:
        try:
            about = kind.read_file(path)
        except (OSError, ResultError) as error:
            notes.append(f"left out: {error}")
            continue
        key = about.ticket["key"]
        # Others' tickets are no concern of this study.
        if key in owners and _same_density(about.ticket, owners[key][1]):
            read += parse(about, path, *owners[key])
    return read


def _same_density(ticket: Mapping[str, Any], cell: Cell) -> bool:
    """Whether it can be the cell's ticket; one with a new head has another density."""
    mask = cell.mask or {}
    return "density" not in mask or math.isclose(ticket["density"], mask["density"], rel_tol=1e-6)
