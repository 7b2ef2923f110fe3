"""What a store can do without: states that nothing begins with, abandoned work, stray files.

The rule for states: of each training the first and the last stay, and each that another node begins
with or has scored, or that a command which has not finished may want. Any other can be trained
again from those (:mod:`lottery.replay`).
"""

import re
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lottery import choices, files
from lottery.errors import LotteryError
from lottery.points import Point
from lottery.store import Node, Store
from lottery.upkeep import trash
from lottery.upkeep.inventory import Entry, Inventory, freed, kinds, size
from lottery.upkeep.requests import FOLDER as ASKED
from lottery.upkeep.requests import by_file, requests
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
    of: str
    """What it belongs to."""
    why: str
    bytes: int = 0
    """What is free again when it goes, after those before it."""


@dataclass(frozen=True)
class Collected:
    """What could go, or is gone, and the bytes of the store before and after."""

    items: tuple[Item, ...]
    before: int
    after: int
    unreadable: tuple[str, ...] = ()
    """Nodes of which nobody knows what they begin with, so that all states stay."""

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
        inventory = Inventory.of(store)
        items = _priced(collectable(store, inventory, abandoned))
        after = before - sum(item.bytes for item in items)
        return Collected(items, before, after, _unreadable(inventory))
    with removing(store):
        inventory = Inventory.of(store)
        found = _priced(collectable(store, inventory, abandoned))
        items = tuple(item for item in found if _take(store, item))
    trash.empty(store)
    return Collected(items, before, size(store.root), _unreadable(inventory))


def _priced(items: Iterator[Item]) -> tuple[Item, ...]:
    found = tuple(items)
    sizes = freed(item.path for item in found)
    return tuple(replace(item, bytes=free) for item, free in zip(found, sizes, strict=True))


def _unreadable(inventory: Inventory) -> tuple[str, ...]:
    return tuple(entry.name for entry in inventory.unreadable.values())


def collectable(
    store: Store, inventory: Inventory, abandoned: float | None = None
) -> Iterator[Item]:
    """All that can go, at this moment."""
    asked = [r for r in requests(store.root) if r.open(store.root)]
    at_work = users(store)
    busy = inventory.ancestors(key for user in at_work for key in user.needs)
    promised: dict[str, set[str]] = {}
    for request in asked:
        for dense, points in request.states.items():
            promised.setdefault(dense, set()).update(points)
    for entry in inventory.entries.values():
        if entry.key not in busy:
            if not inventory.unreadable:
                yield from _states(inventory, entry, promised.get(entry.key, ()))
                yield from _replayed(inventory, entry, promised, busy)
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
    going_on = None if spe is None else _for_going_on(entry, spe)
    if spe is None or going_on is None:
        return
    begun = {point.step(spe) for point in _begun(inventory, entry.key, promised)} | going_on
    for step in steps[1:-1]:
        if step not in begun:
            path = entry.states.path(step)
            at = Point.at(step, spe).words
            yield Item(STATES, path, entry.name, f"nothing begins at {at}")


def _replayed(
    inventory: Inventory,
    entry: Entry,
    promised: Mapping[str, Collection[str]],
    busy: Collection[str],
) -> Iterator[Item]:
    """States that were trained again for children that are all done."""
    identity: Mapping[str, Any] = entry.about["identity"]
    # Who uses a state found it on the way, and names the dense network only.
    if entry.kind != "state" or identity.get("dense") in busy:
        return
    dense = inventory.entries.get(str(identity.get("dense")))
    if dense is None:  # not trained yet, and this is how it begins; or nobody knows
        return
    if identity.get("untrained"):
        yield Item(STATES, entry.path, entry.name, f"{dense.name} has it")
        return
    spe = _steps_per_epoch(dense)
    if spe is None:
        return
    step = int(identity["step"])
    begun = _begun(inventory, dense.key, promised.get(dense.key, ()))
    if step not in {point.step(spe) for point in begun}:
        at = Point.at(step, spe).words
        why = f"nothing begins at {at} of {dense.name}"
        yield Item(STATES, entry.path, entry.name, why)


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
            yield Item(WORK, path, name, "it was finished by another")
        elif node.key not in wanted and days * _DAY > WEEK:
            why = f"no command that could go on asks for it; untouched for {days:.0f} days"
            yield Item(WORK, path, name, why)
        elif abandoned is not None and days > abandoned:
            yield Item(WORK, path, name, f"untouched for {days:.1f} days")


def _stray(store: Store, inventory: Inventory) -> Iterator[Item]:
    """What killed processes left elsewhere."""
    root = store.root
    dead = unused(store)
    alive = {path.name for path in (root / USING).glob("[!.]*")} - {path.name for path in dead}
    left = [p for folder in (trash.FOLDER, INCOMING) for p in sorted((root / folder).glob("*"))]
    for path in [*dead, *(path for path in left if path.name not in alive)]:
        yield Item(STRAY, path, path.parent.name, "left by a process that ended")
    for path in sorted((root / "leases").glob("[!.]*")):
        node = _node_of(store, path)
        if node and not store.owner(node) and not any(_works(store, node)):
            yield Item(STRAY, path, "leases", "its owner is dead")
    for folder in kinds(root):
        for path in sorted(folder.glob("[!.]*")):
            old = store.now() - _touched(path) > _DAY
            if old and path.is_dir() and not (path / "done.json").exists():
                what = f"{folder.name}/{path.name}"
                yield Item(STRAY, path, what, "a copy that was cut short")
        yield from _temporary(store, folder, folder.name, deep=False)
    for name in ("", ASKED, "leases", USING, "jobs"):
        yield from _temporary(store, root / name, name or "store", deep=False)
    for path, request in by_file(root).items():
        nodes = [Node(*_parts(name), root / name) for name in request.nodes]
        there = any(node.path.exists() or any(_works(store, node)) for node in nodes)
        if not there and not request.open(root):
            yield Item(STRAY, path, ASKED, f"all is gone of {request.output}")


def _temporary(store: Store, folder: Path, of: str, *, deep: bool = True) -> Iterator[Item]:
    """Files with a temporary name that nobody is writing: their writer was killed."""
    pattern = folder.rglob if deep else folder.glob
    for path in sorted(pattern(".*")):
        # Not what is not ours, such as a server's snapshots; nor locks, which may be held.
        if _TEMPORARY.fullmatch(path.name) and store.now() - _touched(path) > HOUR:
            yield Item(STRAY, path, of, "a temporary file that nobody writes")


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


def _for_going_on(entry: Entry, spe: int) -> set[int] | None:
    """Steps at which a training of another length would begin; None if that is not known here."""
    try:
        config = files.read_json(entry.path / "config.json")
        schedule = choices.schedule.of(choices.schedule.known_part(config["schedule"]))
        return set(schedule.in_steps(spe).keeps(int(config["trainer"]["epochs"]) * spe))
    except (OSError, ValueError, KeyError, TypeError, LotteryError):  # a plug-in's, say
        return None


def grouped(items: Sequence[Item]) -> dict[tuple[str, str], list[Item]]:
    """Items by kind and by what they belong to, the largest first."""
    found: dict[tuple[str, str], list[Item]] = {}
    for item in items:
        found.setdefault((item.kind, item.of), []).append(item)
    total = {place: sum(item.bytes for item in group) for place, group in found.items()}
    order = sorted(found, key=lambda place: (KINDS.index(place[0]), -total[place]))
    return {place: found[place] for place in order}
