"""Removing a node with all that it determines, unless a process at work needs any of that."""

from collections.abc import Sequence
from dataclasses import dataclass

from lottery.errors import StoreError
from lottery.store import Node, Store
from lottery.sweep.claims import underway
from lottery.upkeep import trash
from lottery.upkeep.inventory import Entry, Inventory, freed
from lottery.upkeep.requests import Request, requests
from lottery.upkeep.users import User, removing, users


@dataclass(frozen=True)
class Removal:
    """What goes, children before parents, and whom that concerns."""

    entries: tuple[Entry, ...]
    named: tuple[Entry, ...]
    """Those of them that were asked for; the others depend on these."""
    staying: tuple[Entry, ...]
    """Nodes that come from one of those, but can do without: tickets that were moved."""
    asked: tuple[Request, ...]
    """Who asked for one of those."""
    bytes: int

    @property
    def open(self) -> tuple[Request, ...]:
        """Those that have not finished, and will have to compute it again."""
        root = self.entries[0].path.parent.parent
        return tuple(request for request in self.asked if request.open(root))


def remove(store: Store, names: Sequence[str], *, dry_run: bool = True) -> Removal:
    """Remove nodes and all that they determine; with ``dry_run`` only say what that is.

    Children go first, so that whatever ends this process, no node stays without what it comes from.

    Raises :class:`StoreError` if there is no such node, or if a process at work, or a job that
    waits, needs one of those that would go.
    """
    if dry_run:
        return _removal(store, names)
    with removing(store):
        found = _removal(store, names)
        for entry in found.entries:
            node = Node(entry.kind, entry.key, entry.path)
            with store.lease_of(node).vacant(store.now()) as free:
                if not free:
                    raise StoreError(f"{store.owner(node)} computes {entry.name} again: end it")
                trash.take_out(store, [entry.path])
    trash.empty(store)
    return found


def _removal(store: Store, names: Sequence[str]) -> Removal:
    inventory = Inventory.of(store)
    named = {entry.key: entry for entry in map(inventory.find, names)}
    keys = inventory.descendants(named)
    _check_unused(inventory, keys, users(store))
    asked = tuple(request for request in requests(store.root) if request.keys & keys)
    _check_unqueued(store, asked)
    going = list(reversed(inventory.ordered(keys)))
    staying = {e.key: e for key in keys for e in inventory.moved.get(key, ()) if e.key not in keys}
    total = sum(freed(entry.path for entry in going))
    return Removal(tuple(going), tuple(named.values()), tuple(staying.values()), asked, total)


def _check_unqueued(store: Store, asked: Sequence[Request]) -> None:
    """Raise :class:`StoreError` if a job of SLURM that one of them submitted still waits."""
    who = underway(store)
    for request in asked:
        for name in request.nodes:
            kind, _, key = name.rpartition("/")
            node = Node(kind, key, store.root / name)
            if not node.done and (job := who(node)):
                raise StoreError(
                    f"{job} is to compute {name} of `{request.command}`, which needs what would "
                    "go: wait until it has ended, or cancel it"
                )


def _check_unused(inventory: Inventory, keys: set[str], at_work: Sequence[User]) -> None:
    """Raise :class:`StoreError` if a process needs one of these nodes."""
    for user in at_work:
        # What comes from a node goes with it, so what a needed one comes from is refused as well.
        if needed := sorted(user.needs & keys):
            more = f" and {len(needed) - 1} more" if needed[1:] else ""
            where = f", which writes to {user.output}" if user.output else ""
            raise StoreError(
                f"{inventory.every[needed[0]].name}{more}, which would go, is needed by "
                f"{user}{where}: wait until it has ended, or end it"
            )
