"""Who asked for which nodes: a file of the store for each command, written by its own job.

``asked/<hash of host, output folder and command>.json`` has the nodes that it asked for, done or
not. So a node, which never changes, can be asked for by any number of commands, and nobody writes
to a file of another.
"""

import contextlib
import getpass
import hashlib
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lottery import files
from lottery.lineage import Lineage, scored
from lottery.points import Point
from lottery.store import Store, output_folder
from lottery.upkeep.users import if_ours, using

FOLDER = "asked"


@dataclass(frozen=True)
class Request:
    """A command, its output folder, and the nodes that it asked for."""

    command: str
    """As it can be typed again."""
    output: str
    """An absolute path, on ``host``."""
    nodes: tuple[str, ...]
    """``<kind>/<key>`` of each, done or not."""
    states: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By the key of a dense network, the points whose states something begins with, or may."""
    host: str = field(default_factory=socket.gethostname)
    user: str = field(default_factory=lambda: _user())
    time: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    """When it was last given, in UTC."""
    searching: bool = False
    """Whether it is a search that has not ended, and may ask for more."""
    imported: bool = False
    """Whether it was given to another store, from which its nodes were imported."""

    @property
    def keys(self) -> frozenset[str]:
        """Those of its nodes."""
        return frozenset(node.rpartition("/")[2] for node in self.nodes)

    @property
    def file(self) -> str:
        """Name of its file: the same whenever a command is given again for an output folder."""
        name = "\n".join((self.host, self.output, self.command))
        return f"{hashlib.sha256(name.encode()).hexdigest()[:20]}.json"

    def also(self, nodes: Iterable[str]) -> "Request":
        """With these nodes too."""
        return replace(self, nodes=tuple(dict.fromkeys([*self.nodes, *nodes])))

    def open(self, root: Path) -> bool:
        """Whether it may still go on: nodes are missing, or it searches; and its folder is there.

        So is that of another machine whose disk cannot be seen from here.
        """
        there = all((root / node / "done.json").exists() for node in self.nodes)
        if self.imported or (there and not self.searching):
            return False
        output = Path(self.output)
        seen = self.host == socket.gethostname() or any(p.exists() for p in output.parents[:2])
        return output.exists() or not seen


def request(
    command: str,
    output: Path,
    asked: Iterable[tuple[Lineage, Any]],
    *,
    later: Mapping[str, Iterable[Point]] | None = None,
    searching: bool = False,
) -> Request:
    """The request of a command for these lineages, each with the config that it is of.

    ``later`` are points of dense networks, by key, at which what is not asked for yet may begin.
    """
    named: dict[str, None] = {}
    states: dict[str, dict[str, None]] = {}
    for chain, config in asked:
        named |= dict.fromkeys(f"{node.kind}/{node.key}" for node in chain.nodes)
        if chain.dense is not None:
            rewind = getattr(config, "rewind", None)
            points = {*chain.starts, *(rewind.kept if rewind else ())}
            points |= {*scored(config)} if chain.masks else set()
            states.setdefault(chain.dense.key, {}).update(dict.fromkeys(map(str, sorted(points))))
    for dense, begun in (later or {}).items():
        states.setdefault(dense, {}).update(dict.fromkeys(map(str, sorted(begun))))
    return Request(
        command,
        str(output.resolve()),
        tuple(named),
        {dense: tuple(points) for dense, points in states.items()},
        searching=searching,
    )


@contextlib.contextmanager
def asking(store: Store, asked: Request) -> Iterator[None]:
    """Note a request; while the block runs, nothing that it needs is removed from the store."""
    with using(store, asked.keys, asked.command, asked.output):
        note(store, asked)
        before = output_folder.set(asked.output)
        try:
            yield
        finally:
            output_folder.reset(before)


def note(store: Store, asked: Request) -> None:
    """Write a request, or write it again; not to a store in which we may only read."""
    with if_ours(store):
        store.prepare(FOLDER)
        files.write_json(store.root / FOLDER / asked.file, asdict(asked))


def requests(root: Path) -> list[Request]:
    """All requests of a store, the oldest first; files that are damaged are left out."""
    return sorted(by_file(root).values(), key=lambda r: r.time)


def by_file(root: Path) -> dict[Path, Request]:
    """The same by their files."""
    found = {}
    for path in sorted((root / FOLDER).glob("[!.]*.json")):
        try:
            found[path] = read_request(files.read_json(path))
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            continue  # or removed meanwhile
    return found


def read_request(about: Mapping[str, Any]) -> Request:
    """The request that a file holds; raises some error if it is damaged."""
    known = {f.name: about[f.name] for f in fields(Request) if f.name in about}
    states = {dense: tuple(points) for dense, points in known.get("states", {}).items()}
    return Request(**known | {"nodes": tuple(known["nodes"]), "states": states})


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without names of users
        return "unknown"
