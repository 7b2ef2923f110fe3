"""Runs by content: a node's key is a hash of what determines it, and it is computed once.

On disk, below the store's root::

    store.json                 version of this layout
    <kind>/<key>/              finished nodes, such as dense/<key>/ and ticket/<key>/: done.json
                               and whatever the node produced
    work/<kind>-<key>.<attempt>/
                               a node being computed; survives a kill, so the next owner resumes
    leases/<kind>-<key>        who is computing it; its modification time is the heartbeat
    leases/.<kind>-<key>.guard the lock under which that changes hands; goes with it
    asked/<hash>.json          a command and its output folder, with the nodes that it asked for
    using/<attempt>            a process at work, with the nodes that it needs: a lease as well
    using.lock                 the lock under which processes begin to use what others may remove
    trash/, incoming/          what is being deleted, or imported

A node appears under its final name by one rename, complete, or not at all.

Each attempt at a node works in a folder of its own name, and its successor takes the folder over
by renaming it. So an owner that was stopped for so long that it lost its lease cannot write,
replace or delete anything in what is now its successor's: its own paths are not there any more.
"""

import hashlib
import json
import logging
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lottery.errors import StoreError
from lottery.files import contents, naming, read_json, refresh, sync, write_json
from lottery.interrupts import keep_hearing
from lottery.leases import LOOK, POLL, Lease

log = logging.getLogger(__name__)

VERSION = 4
HEARTBEAT = 5.0  # seconds between signs of life of an owner
LEASE_TIMEOUT = 60.0  # seconds without one after which the owner counts as dead


def key_of(kind: str, identity: Mapping[str, Any]) -> str:
    """20 hexadecimal digits that name a node: SHA-256 of its canonical identity."""
    canonical = json.dumps([kind, identity], sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:20]


_KEY = re.compile("[0-9a-f]{20}")
PARENTS = ("dense", "ranked", "mask", "shuffled", "children")
"""Where an identity names the nodes that it is made of; that of a moved ticket in its ``start``."""
output_folder: ContextVar[str] = ContextVar("output_folder")
"""Of the command that is at work; who computes a node says so in it."""


def references(identity: Any) -> set[str]:
    """The keys of the parents that an identity names.

    Its other values are options, such as a name of data, which may look like a key.
    """
    if not isinstance(identity, Mapping):
        return set()
    start = identity.get("start")
    places = [identity, start] if isinstance(start, Mapping) else [identity]
    return set().union(*(keys_in(place.get(name)) for place in places for name in PARENTS))


def keys_in(value: Any) -> set[str]:
    """The keys that a text or a list of texts is."""
    texts = value if isinstance(value, list) else [value]
    return {text for text in texts if isinstance(text, str) and _KEY.fullmatch(text)}


@dataclass(frozen=True)
class Node:
    """One computed or computable thing in the store."""

    kind: str
    key: str
    path: Path
    identity: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)
    """What its key is a hash of; None if all that is known is the key."""

    @property
    def done(self) -> bool:
        """Whether it has been computed."""
        return (self.path / "done.json").exists()


class Store:
    """A folder of nodes that any number of processes, on any number of machines, may share.

    Raises :class:`StoreError` if the folder was written by another version of this program, with
    another layout.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self._clock: _Clock | None = None
        marker = self.root / "store.json"
        if marker.exists():
            version = read_json(marker)["version"]
            if version > VERSION:
                raise StoreError(
                    f"the store {self.root} was written by a newer version of lottery "
                    f"(layout {version}, this program knows {VERSION}); update, or choose "
                    "another paths.store"
                )
            if version < VERSION:
                raise StoreError(
                    f"the store {self.root} was written by an older version of lottery (layout "
                    f"{version}), whose keys mean something else today: choose another "
                    "paths.store, or remove it; report.py still reads its results"
                )

    def node(self, kind: str, identity: Mapping[str, Any]) -> Node:
        """The node of that identity, computed or not."""
        key = key_of(kind, identity)
        return Node(kind, key, self.root / kind / key, identity)

    def compute(
        self, kind: str, identity: Mapping[str, Any], produce: Callable[[Path], None]
    ) -> Node:
        """The finished node of that identity; ``produce`` fills its folder if nobody has yet.

        ``produce`` gets the work folder, which holds what an interrupted predecessor left.
        If it raises, the work folder stays for the next attempt. While another process computes
        the node this one waits; if that process dies, this one takes over.

        Raises :class:`StoreError` if another process has taken over from this one, which was
        stopped for a while, and has not finished yet.
        """
        node = self.node(kind, identity)
        if node.done:
            return node
        self.prepare(kind)
        with self._lease(node, identity) as lease:
            refresh(node.path.parent)
            if node.done:  # somebody finished it while we waited
                return node
            try:
                with lease.exclusively():
                    work = self._take_over(node, lease)
                produce(work)
                write_json(
                    work / "done.json",
                    {
                        "kind": kind,
                        "key": node.key,
                        "identity": identity,
                        "version": VERSION,
                        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
                        "output": output_folder.get(None),
                        "host": socket.gethostname(),
                        "files": contents(work, without="done.json"),
                    },
                )
                with lease.exclusively():
                    self._publish(work, node.path)
            except Exception as error:
                if lease.held():
                    raise
                # Whatever went wrong: our folder is not there any more.
                self._leave(node, lease, error)
        return node

    def adopt(self, node: Node, folder: Path) -> bool:
        """Publish a complete ``folder`` of this file system as a node, unless it is there.

        False, and nothing changes, if it is, or if a process computes it at the moment.
        """
        self.prepare(node.kind)
        lease = self.lease_of(node)
        if not lease.acquire():
            return False
        try:
            refresh(node.path.parent)
            with lease.exclusively():
                if node.done:
                    return False
                self._publish(folder, node.path)
                return True
        finally:
            lease.release()

    def _take_over(self, node: Node, lease: Lease) -> Path:
        """The work folder of this attempt: that of an interrupted one under a new name, or new."""
        folder = self.root / "work"
        refresh(folder)
        work = folder / f"{node.kind}-{node.key}.{lease.attempt}"
        left = list(folder.glob(f"{node.kind}-{node.key}*"))
        if left:
            left[0].rename(work)
        else:
            work.mkdir()
        return work

    def _leave(self, node: Node, lease: Lease, error: Exception) -> None:
        """Accept that another process took over: use its result, or give up without one."""
        lost = (
            f"{lease.owner} took over {node.kind} {node.key}, because this process was silent for "
            f"more than {LEASE_TIMEOUT:g} s"
        )
        refresh(node.path.parent)
        if not node.done:
            raise StoreError(f"{lost}; the same command uses its result") from error
        log.warning("%s; using its result", lost)

    def owner(self, node: Node) -> str | None:
        """Who computes a node at the moment, as far as one look can tell; None if nobody."""
        return self.lease_of(node).holder(self.now())

    def now(self) -> float:
        """The time by the clock that dates the leases; also has their folder looked up anew."""
        if self._clock is None or time.monotonic() - self._clock.read_at > LOOK:
            try:
                time_there = refresh(self.root / "leases")
            except OSError:  # nobody computes here, or we may only read
                time_there = time.time()
            self._clock = _Clock(time_there, time.monotonic())
        return self._clock.time + time.monotonic() - self._clock.read_at

    def check_writable(self) -> None:
        """Raise :class:`OSError` if nothing can be written, before jobs are queued that would."""
        with naming(self.root):
            self.prepare()
            with tempfile.TemporaryFile(dir=self.root) as probe:
                probe.write(bytes(4096))

    def prepare(self, *folders: str) -> None:
        """Make the store, and these folders in it, if they are not there."""
        for folder in (*folders, "work", "leases"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        if not (self.root / "store.json").exists():
            write_json(self.root / "store.json", {"version": VERSION})

    @staticmethod
    def _publish(work: Path, final: Path) -> None:
        if (final / "done.json").exists():  # finished by another that we could not see; the same
            shutil.rmtree(work)
            return
        if final.exists():  # a node without done.json is no node: a copy that was cut short
            shutil.rmtree(final)
        final.parent.mkdir(parents=True, exist_ok=True)
        work.rename(final)
        sync(final.parent)

    def lease_of(self, node: Node, **note: Any) -> Lease:
        """The lease of a node; ``note`` is for others to read if this process takes it."""
        return self.lease("leases", f"{node.kind}-{node.key}", **note)

    def lease(self, folder: str, name: str, **note: Any) -> Lease:
        """The lease of that name in a folder of the store."""
        return self._lease_in(folder, name, note, shared=True)

    def presence(self, folder: str, name: str, **note: Any) -> Lease:
        """The same of a name that nobody else takes: a process is at work."""
        return self._lease_in(folder, name, note, shared=False)

    def _lease_in(self, folder: str, name: str, note: Mapping[str, Any], *, shared: bool) -> Lease:
        path = self.root / folder / name
        return Lease(path, heartbeat=HEARTBEAT, timeout=LEASE_TIMEOUT, note=note, shared=shared)

    @contextmanager
    def _lease(self, node: Node, identity: Mapping[str, Any]) -> Iterator[Lease]:
        lease = self.lease_of(node, needs=sorted({node.key} | references(identity)))
        announced = False
        while not lease.acquire():
            keep_hearing()
            if node.done:  # nothing left to compute: no need to wait for the lease to go
                break
            if not announced:
                log.info("waiting for %s, which computes %s %s", lease.owner, node.kind, node.key)
                announced = True
            time.sleep(POLL)
        try:
            yield lease
        finally:
            lease.release()


@dataclass(frozen=True)
class _Clock:
    """What another clock showed, in seconds since 1970, when ours stood at ``read_at``."""

    time: float
    read_at: float
