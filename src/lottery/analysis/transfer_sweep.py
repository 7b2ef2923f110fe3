"""The transfers of a sweep of transfer.py by themselves, without the study of their tickets."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lottery import tickets
from lottery.analysis import transfers
from lottery.analysis.collect import Cell
from lottery.analysis.selection import Judged, Point, measure_of
from lottery.analysis.transfers import Transfer
from lottery.errors import LotteryError, ResultError
from lottery.points import Point as TrainingPoint
from lottery.studies.transfer import Moved

# Options of the ticket's own run in which tickets of one place in a grid may differ.
_APART = {"seed", "paths", "logger", "sweep"}


@dataclass(frozen=True)
class Origin:
    """Where a ticket is from. ``place`` is that in a grid: its tickets differ in ``seed`` only."""

    place: str
    key: str
    mask: Mapping[str, Any]
    percentile: float
    rewound: TrainingPoint | None
    seed: int | None
    series: str


def read(folders: Sequence[Path]) -> list[Transfer]:
    """The transfers in the ``result.json`` of a sweep's cells; one that cannot be read is left out.

    Where a sweep has several tickets of one place in a grid, their seeds tell them apart; where it
    has one, it is the transfer's seeds that vary.
    """
    groups: dict[str, list[tuple[Origin, Transfer]]] = defaultdict(list)
    for folder in folders:
        try:
            origin, moved = _read(folder / "result.json")
        except (OSError, ResultError):
            continue
        groups[origin.place].append((origin, moved))
    measure = measure_of(m.judged.point for group in groups.values() for _, m in group)
    return transfers.merged(m for group in groups.values() for m in _placed(group, measure))


def _read(path: Path) -> tuple[Origin, Transfer]:
    result = Moved.read_file(path)
    origin = _origin(result.ticket)
    cell = _cell(path.parent, origin, int(result.transfer["seed"]))
    (moved,) = transfers.parse(result, path, _judged([cell], origin), cell)
    return origin, moved


def _origin(ticket: Mapping[str, Any]) -> Origin:
    """From the ticket's file; if it is gone or is another by now, the ticket is a place alone."""
    key, density = ticket["key"], ticket["density"]
    series = f"{ticket['network']} found on {ticket['data']}"
    alone = Origin(
        key, key, {"density": density}, round(100 * (1 - density), 2), None, None, series
    )
    try:
        found = tickets.load_ticket(ticket["file"])
    except LotteryError:
        return alone
    if found.digest != ticket["digest"]:
        return alone
    config = found.provenance["config"]
    mask = {"density": density, **found.provenance["mask"]}
    percentile, point = mask["percentile"], found.provenance["rewound_to"]
    what = {k: v for k, v in config.items() if k not in _APART}
    place = json.dumps([what, percentile, point], sort_keys=True)
    how = config.get("mask")
    changing = isinstance(how, Mapping) and how.get("during") is not None
    rewound = None if changing else TrainingPoint.of(point)  # which a mask that changes is not
    return Origin(place, key, mask, percentile, rewound, int(config["seed"]), series)


def _placed(group: Sequence[tuple[Origin, Transfer]], measure: str) -> list[Transfer]:
    """The transfers of one place's tickets, which share it from now on."""
    several = len({origin.key for origin, _ in group}) > 1
    cells = [
        _cell(moved.file.parent, origin, origin.seed)
        if several and origin.seed is not None
        else moved.cell
        for origin, moved in group
    ]
    judged = replace(_judged(cells, group[0][0]), measure=measure)
    return [
        replace(moved, cell=cell, judged=judged)
        for (_, moved), cell in zip(group, cells, strict=True)
    ]


def _cell(folder: Path, origin: Origin, seed: int) -> Cell:
    return Cell(
        folder.name,
        "done",
        {"seed": seed, "mask.percentile": origin.percentile},
        folder=folder,
        ticket={"key": origin.key},
        mask=origin.mask,
        at=origin.rewound,
    )


def _judged(cells: Iterable[Cell], origin: Origin) -> Judged:
    point = Point(origin.series, origin.percentile, origin.rewound, tuple(cells))
    return Judged(point, None, complete=False)
