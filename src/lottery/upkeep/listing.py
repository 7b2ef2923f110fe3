"""The trainings of a store, a line each: what, how accurate, how large, when, by which command."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lottery import files
from lottery.analysis import collect
from lottery.analysis.collect import Cell, Study
from lottery.analysis.configs import flat, told
from lottery.config import DENSE
from lottery.points import Point
from lottery.store import Store
from lottery.tickets.ticket import data_name
from lottery.upkeep.inventory import Entry, Inventory
from lottery.upkeep.requests import Request, requests


@dataclass(frozen=True)
class Row:
    """A training, as a line tells it; texts are empty where a kind has no such thing."""

    entry: Entry
    what: str
    """Its kind, and for a ticket how it was pruned, unless that is by magnitude."""
    network: str
    data: str
    pruned: float | None
    """Percent of the prunable weights that are removed."""
    rewound: str
    """Where its training began in that of the dense network, or what it began with instead."""
    seed: int | None
    accuracy: float | None
    """Validation top-1, a share of 1."""
    bytes: int
    finished: str
    asked: tuple[Request, ...]
    """Who asked for it, the first first."""

    @property
    def command(self) -> str:
        """Of those who asked, that of the first who asked for little else; empty if not known."""
        return min(self.asked, key=lambda request: len(request.nodes)).command if self.asked else ""


def listed(
    store: Store, where: Mapping[str, Any] | None = None, keys: Iterable[str] | None = None
) -> list[Row]:
    """The finished trainings whose options have the wanted values, the oldest first.

    As :func:`lottery.analysis.collect.where` chooses them, and by ``kind`` too; of the given keys
    if there are any. A training that says too little of itself to be told is left out.

    Raises :class:`LotteryError` for an option that none of them has, and if none is left.
    """
    inventory = Inventory.of(store)
    chosen = inventory.entries.values() if keys is None else inventory.ordered(set(keys))
    cells = []
    for entry in chosen:
        if not entry.trained:
            continue
        try:
            cells.append(_cell(inventory, entry))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # which verify tells
    if where:
        cells = list(collect.where(Study(store.root, tuple(cells)), where).cells)
    who = _by_key(requests(store.root))
    rows = []
    for cell in cells:
        try:
            rows.append(_row(inventory.every[cell.name], cell, who.get(cell.name, ())))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return sorted(rows, key=lambda row: (row.finished, row.entry.kind))


def _cell(inventory: Inventory, entry: Entry) -> Cell:
    """A training with the options that mean something for it."""
    if entry.kind == "ticket":
        config = told(collect.ticket_config(entry.path))
    else:
        config = flat(files.read_json(entry.path / "config.json"))
        if entry.kind == "dense":  # it was asked for by a study, of whose mask it knows nothing
            config = {n: v for n, v in config.items() if n.partition(".")[0] in DENSE}
        else:
            config = told(config)
        if (dense := inventory.entries.get(_dense(entry))) and entry.kind == "child":
            # Its own seed is that of its order, which nobody chose.
            config["seed"] = files.read_json(dense.path / "config.json")["seed"]
    return Cell(
        entry.key,
        "done",
        {"kind": entry.kind, **config},
        folder=entry.path,
        ticket=files.read_json(entry.path / "result.json"),
        mask=_mask(entry.path),
        store=inventory.root,
    )


def _row(entry: Entry, cell: Cell, asked: tuple[Request, ...]) -> Row:
    ticket, result = entry.kind == "ticket", cell.ticket or {}
    method = str(cell.config.get("method", "magnitude")) if ticket else ""
    seed, network = cell.config.get("seed"), str(cell.config.get("model.name", ""))
    top1 = result.get("val_top1")
    return Row(
        entry,
        entry.kind if method in ("", "magnitude") else f"{entry.kind} ({method})",
        network,
        data_name(files.read_json(entry.path / "config.json")["data"]),
        None if cell.mask is None else float(cell.mask["percentile"]),
        _begun(entry, cell),
        None if seed is None else int(seed),
        None if top1 is None else float(top1),
        entry.bytes,
        entry.finished,
        asked,
    )


def _begun(entry: Entry, cell: Cell) -> str:
    if entry.kind == "child":
        point = entry.about["identity"].get("point")
        return "" if point is None else Point.of(point).label
    if entry.kind != "ticket":
        return ""
    name = str(cell.config.get("rewind.name", "weights"))
    if cell.rewound is None:
        return "" if name == "weights" else name
    return cell.rewound.label if name == "weights" else f"{cell.rewound.label} ({name})"


def _dense(entry: Entry) -> str:
    return str(entry.about["identity"].get("dense"))


def _mask(path: Path) -> dict[str, Any] | None:
    file = path / "mask.json"
    return files.read_json(file) if file.exists() else None


def _by_key(asked: Iterable[Request]) -> dict[str, tuple[Request, ...]]:
    found: dict[str, tuple[Request, ...]] = {}
    for request in asked:
        for key in request.keys:
            found[key] = (*found.get(key, ()), request)
    return found


@dataclass(frozen=True)
class Details:
    """All that there is to say of a node."""

    entry: Entry
    row: Row | None
    """None of what is no training."""
    parents: tuple[str, ...]
    """Those that determine it, and those that it comes from, by ``<kind>/<key>``."""
    gone: tuple[str, ...]
    """Keys of those that are not in the store."""
    children: tuple[Entry, ...]
    asked: tuple[Request, ...]
    parts: Mapping[str, int]
    """Bytes by part: a line for each kept state, and for each other file."""


def details(store: Store, name: str) -> Details:
    """What a node is, what it comes from, what comes from it, and who asked for it.

    Raises :class:`StoreError` if there is none of that name.
    """
    inventory = Inventory.of(store)
    entry = inventory.find(name)
    rows = listed(store, keys=[entry.key])
    above = sorted(entry.needs | entry.origin)
    there = [inventory.entries[key].name for key in above if key in inventory.entries]
    children = {
        child.key: child
        for found in (inventory.children, inventory.moved)
        for child in found.get(entry.key, ())
    }
    return Details(
        entry,
        rows[0] if rows else None,
        tuple(there),
        tuple(key for key in above if key not in inventory.entries),
        tuple(sorted(children.values(), key=lambda child: (child.kind, child.finished))),
        # States and scores are made on the way, by a command that did not know it beforehand.
        tuple(
            request
            for request in requests(store.root)
            if entry.key in request.keys or _wrote(request, entry)
        ),
        _parts(entry),
    )


def _wrote(request: Request, entry: Entry) -> bool:
    """Whether a node was computed for an output folder: paths are those of a machine."""
    output = entry.about.get("output")
    return request.output == output and entry.about.get("host", request.host) == request.host


def _parts(entry: Entry) -> dict[str, int]:
    parts: dict[str, int] = {}
    for name, path in files.files_below(entry.path).items():
        inside = name.split("/")
        part = "/".join(inside[:2]) if inside[0] == "checkpoints" else inside[0]
        parts[part] = parts.get(part, 0) + path.stat().st_size
    return dict(sorted(parts.items(), key=lambda item: -item[1]))
