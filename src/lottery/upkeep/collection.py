"""What a store can do without: states that nothing begins with, abandoned work, stray files.

The rule for states: of each training the first and the last stay, and each that another node begins
with or has scored, or that a command which has not finished may want. Any other can be trained
again from those (:mod:`lottery.replay`).
"""

import re
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lottery import files
from lottery.points import Point
from lottery.store import Node, Store
from lottery.upkeep import trash
from lottery.upkeep.inventory import Entry, Inventory, kinds, size
from lottery.upkeep.requests import FOLDER as ASKED
from lottery.upkeep.requests import requests
from lottery.upkeep.transport import INCOMING
from lottery.upkeep.users import FOLDER as USING
from lottery.upkeep.users import removing, unused, users

STATES, WORK, STRAY = "states", "work", "stray files"
KINDS = (STATES, WORK, STRAY)
_TEMPORARY = re.compile(r"\..+\.(?:[0-9a-f]{8}|[0-9a-f]{12})")
_DAY = 24 * 3600.0
WEEK, HOUR = 7 * _DAY, 3600.0
"""How long work that nobody asks for, and files with a temporary name, must have been left."""


@dataclass(frozen=True)
class Item:
    """A file or folder that can go."""

    kind: str
    """One of :data:`KINDS`."""
    path: Path
    bytes: int
    of: str
    """What it belongs to."""
    why: str


@dataclass(frozen=True)
class Collected:
    """What could go, or is gone, and the bytes of the store before and after."""

    items: tuple[Item, ...]
    before: int
    after: int

    @property
    def bytes(self) -> int:
        """Those of its items."""
        return sum(item.bytes for item in self.items)


def collect(store: Store, *, dry_run: bool = True, abandoned: float | None = None) -> Collected:
    """Remove what nothing needs; with ``dry_run`` only say what that is.

    Work that no process does any more stays as long as a command that has not finished asks for it,
    so that the same command goes on from there; with ``abandoned`` for so many days at most.
    """
    before = size(store.root)
    if dry_run:
        items = tuple(collectable(store, abandoned))
        return Collected(items, before, before - sum(item.bytes for item in items))
    with removing(store):
        found = list(collectable(store, abandoned))
        items = tuple(item for item in found if _take(store, item))
    trash.empty(store)
    return Collected(items, before, size(store.root))


def collectable(store: Store, abandoned: float | None = None) -> Iterator[Item]:
    """All that can go, at this moment."""
    inventory = Inventory.of(store)
    asked = [r for r in requests(store.root) if r.open(store.root)]
    at_work = users(store)
    busy = inventory.ancestors(key for user in at_work for key in user.needs)
    promised: dict[str, set[str]] = {}
    for request in asked:
        for dense, points in request.states.items():
            promised.setdefault(dense, set()).update(points)
    for entry in inventory.entries.values():
        if entry.key not in busy:
            yield from _states(inventory, entry, promised.get(entry.key, ()))
            yield from _replayed(inventory, entry, promised)
            yield from _temporary(store, entry.path, entry.name)
    wanted = {key for request in asked for key in request.keys}
    yield from _work(store, inventory, wanted | busy, abandoned)
    yield from _stray(store, inventory)


def _states(inventory: Inventory, entry: Entry, promised: Collection[str]) -> Iterator[Item]:
    """States of a training that nothing begins with."""
    steps = entry.states.steps()
    if len(steps) <= 2:
        return
    spe = _steps_per_epoch(entry)
    if spe is None:
        return
    begun = {point.step(spe) for point in _begun(inventory, entry.key, promised)}
    for step in steps[1:-1]:
        if step not in begun:
            path = entry.states.path(step)
            at = Point.at(step, spe).words
            yield Item(STATES, path, size(path), entry.name, f"nothing begins at {at}")


def _replayed(
    inventory: Inventory, entry: Entry, promised: Mapping[str, Collection[str]]
) -> Iterator[Item]:
    """States that were trained again for children that are all done."""
    if entry.kind != "state":
        return
    identity: Mapping[str, Any] = entry.about["identity"]
    dense = inventory.entries.get(str(identity.get("dense")))
    if dense is None:  # not trained yet, and this is how it begins; or nobody knows
        return
    if identity.get("untrained"):
        yield Item(STATES, entry.path, entry.bytes, entry.name, f"{dense.name} has it")
        return
    spe = _steps_per_epoch(dense)
    if spe is None:
        return
    step = int(identity["step"])
    begun = _begun(inventory, dense.key, promised.get(dense.key, ()))
    if step not in {point.step(spe) for point in begun}:
        at = Point.at(step, spe).words
        why = f"nothing begins at {at} of {dense.name}"
        yield Item(STATES, entry.path, entry.bytes, entry.name, why)


def _begun(inventory: Inventory, key: str, promised: Collection[str]) -> set[Point]:
    """The points of a training at which other nodes begin, or may."""
    own = {point for child in inventory.children.get(key, ()) for point in child.begun_at}
    return own | {Point.of(point) for point in promised}


def _work(
    store: Store, inventory: Inventory, wanted: Collection[str], abandoned: float | None
) -> Iterator[Item]:
    """Work folders whose owners are dead, and that nobody is going to take up."""
    for path in sorted((store.root / "work").glob("*")):
        node = _node_of(store, path)
        if node is None or store.owner(node):
            continue
        days = (store.now() - _touched(path)) / _DAY
        name = f"{node.kind}/{node.key}"
        if node.key in inventory.entries:
            yield Item(WORK, path, size(path), name, "it was finished by another")
        elif node.key not in wanted and days * _DAY > WEEK:
            why = f"no command that could go on asks for it; untouched for {days:.0f} days"
            yield Item(WORK, path, size(path), name, why)
        elif abandoned is not None and days > abandoned:
            yield Item(WORK, path, size(path), name, f"untouched for {days:.1f} days")


def _stray(store: Store, inventory: Inventory) -> Iterator[Item]:
    """What killed processes left elsewhere."""
    root = store.root
    dead = unused(store)
    alive = {path.name for path in (root / USING).glob("[!.]*")} - {path.name for path in dead}
    left = [p for folder in (trash.FOLDER, INCOMING) for p in sorted((root / folder).glob("*"))]
    for path in [*dead, *(path for path in left if path.name not in alive)]:
        yield Item(STRAY, path, size(path), path.parent.name, "left by a process that ended")
    for path in sorted((root / "leases").glob("[!.]*")):
        node = _node_of(store, path)
        if node and not store.owner(node) and not any(_works(store, node)):
            yield Item(STRAY, path, size(path), "leases", "its owner is dead")
    for folder in kinds(root):
        for path in sorted(folder.glob("[!.]*")):
            old = store.now() - _touched(path) > _DAY
            if old and path.is_dir() and not (path / "done.json").exists():
                what = f"{folder.name}/{path.name}"
                yield Item(STRAY, path, size(path), what, "a copy that was cut short")
        yield from _temporary(store, folder, folder.name, deep=False)
    for name in ("", ASKED, "leases", USING, "jobs"):
        yield from _temporary(store, root / name, name or "store", deep=False)
    for request in requests(root):
        nodes = [Node(*_parts(name), root / name) for name in request.nodes]
        there = any(node.path.exists() or any(_works(store, node)) for node in nodes)
        if not there and not request.open(root):
            path = root / ASKED / request.file
            yield Item(STRAY, path, size(path), ASKED, f"all is gone of {request.output}")


def _temporary(store: Store, folder: Path, of: str, *, deep: bool = True) -> Iterator[Item]:
    """Files with a temporary name that nobody is writing: their writer was killed."""
    pattern = folder.rglob if deep else folder.glob
    for path in sorted(pattern(".*")):
        # Not what is not ours, such as a server's snapshots; nor locks, which may be held.
        if _TEMPORARY.fullmatch(path.name) and store.now() - _touched(path) > HOUR:
            yield Item(STRAY, path, size(path), of, "a temporary file that nobody writes")


def _take(store: Store, item: Item) -> bool:
    """Take something out; False if that is not possible any more."""
    node = _node_of(store, item.path) if item.path.parent.name in ("work", "leases") else None
    if node is None:
        return bool(trash.take_out(store, [item.path]))
    with store.lease_of(node).vacant(store.now()) as free:
        return free and bool(trash.take_out(store, [item.path]))


def _works(store: Store, node: Node) -> Iterator[Path]:
    return (store.root / "work").glob(f"{node.kind}-{node.key}*")


def _node_of(store: Store, path: Path) -> Node | None:
    """The node that a work folder or a lease is of, by its name."""
    kind, _, rest = path.name.partition(".")[0].rpartition("-")
    return Node(kind, rest, store.root / kind / rest) if kind and rest else None


def _parts(name: str) -> tuple[str, str]:
    kind, _, key = name.rpartition("/")
    return kind, key


def _touched(path: Path) -> float:
    """When something below a path last changed, in seconds since 1970 by the file server."""
    try:
        times = [path.lstat().st_ctime]
        if path.is_dir():
            times += [inside.lstat().st_ctime for inside in path.rglob("*")]
        return max(times)
    except FileNotFoundError:
        return time.time()


def _steps_per_epoch(entry: Entry) -> int | None:
    """Of a training; None if it does not say, so that its points mean nothing."""
    try:
        return int(files.read_json(entry.path / "network.json")["steps_per_epoch"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def grouped(items: Sequence[Item]) -> dict[tuple[str, str], list[Item]]:
    """Items by kind and by what they belong to, the largest first."""
    found: dict[tuple[str, str], list[Item]] = {}
    for item in items:
        found.setdefault((item.kind, item.of), []).append(item)
    total = {place: sum(item.bytes for item in group) for place, group in found.items()}
    order = sorted(found, key=lambda place: (KINDS.index(place[0]), -total[place]))
    return {place: found[place] for place in order}
