"""Which processes are at work in a store, and what they need; nothing of that may be removed.

A process that asks for nodes says so before it looks for them, in a lease of its own below
``using/``. Whoever removes something first looks for such leases. Both happen under one lock, so
that either the process is seen, or it no longer finds what is gone and computes it again.
"""

import contextlib
import errno
import logging
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lottery.files import locked, refresh
from lottery.store import Store

log = logging.getLogger(__name__)

FOLDER = "using"
_NOT_OURS = {errno.EACCES, errno.EPERM, errno.EROFS}


@dataclass(frozen=True)
class User:
    """A process at work."""

    name: str
    """Process and machine."""
    command: str
    """What it runs; empty if it computes a node that no command asked for."""
    output: str
    needs: frozenset[str]
    """Keys of nodes, done or not."""

    def __str__(self) -> str:
        return f"{self.name} ({self.command})" if self.command else self.name


@contextlib.contextmanager
def using(store: Store, keys: Iterable[str], command: str, output: str) -> Iterator[str]:
    """Let nobody remove these nodes, or what they come from, meanwhile.

    Its value names this use, and no other. Of a store in which we may only read nothing is noted.
    """
    name = uuid.uuid4().hex[:12]
    note = {"needs": sorted(keys), "command": command, "output": output}
    lease = store.presence(FOLDER, name, **note)
    with if_ours(store):
        store.prepare(FOLDER)
        with locked(_lock(store)):
            lease.take()
            _lock(store).unlink(missing_ok=True)
    try:
        yield name
    finally:
        lease.release()


@contextlib.contextmanager
def if_ours(store: Store) -> Iterator[None]:
    """Leave out what this block writes if the store belongs to somebody else."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NOT_OURS:
            raise
        log.debug("nothing can be noted in the store %s: %s", store.root, error)


@contextlib.contextmanager
def removing(store: Store) -> Iterator[None]:
    """Let no process begin to use the store, or remove something from it, meanwhile."""
    store.prepare(FOLDER)
    with locked(_lock(store)):
        refresh(store.root / FOLDER)
        refresh(store.root / "leases")
        try:
            yield
        finally:
            _lock(store).unlink(missing_ok=True)


def users(store: Store) -> list[User]:
    """The processes at work: those that said so, and those that compute a node at the moment."""
    found = []
    for folder, lease_of in ((FOLDER, store.presence), ("leases", store.lease)):
        for path in sorted((store.root / folder).glob("[!.]*")):
            lease = lease_of(folder, path.name)
            about = lease.seen(store.now())
            if about is None:
                continue
            needs = set(map(str, about.get("needs", ())))
            if folder == "leases":
                needs.add(path.name.rpartition("-")[2])
            found.append(
                User(
                    lease.holder(store.now()) or "another process",
                    str(about.get("command", "")),
                    str(about.get("output", "")),
                    frozenset(needs),
                )
            )
    return sorted(found, key=lambda user: not user.command)  # who says what it runs first


def unused(store: Store) -> list[Path]:
    """Files below ``using/`` of processes that are dead."""
    names = (store.root / FOLDER).glob("[!.]*")
    return [path for path in names if store.presence(FOLDER, path.name).seen(store.now()) is None]


def _lock(store: Store) -> Path:
    return store.root / "using.lock"
