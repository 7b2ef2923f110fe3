"""Runs by content: a node's key is a hash of what determines it, and it is computed once.

On disk, below the store's root::

    store.json                 version of this layout
    dense/<key>/  mask/<key>/  ticket/<key>/  state/<key>/  transfer/<key>/
                               finished nodes: done.json and whatever the node produced
    work/<kind>-<key>/         a node being computed; survives a kill, so the next owner resumes
    leases/<kind>-<key>        who is computing it; its modification time is the heartbeat

A node appears under its final name by one rename, complete, or not at all.
"""

import errno
import fcntl
import hashlib
import json
import logging
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lottery.errors import StoreError
from lottery.files import naming, read_json, sync, write_json

log = logging.getLogger(__name__)

VERSION = 1
HEARTBEAT = 5.0  # seconds between signs of life of an owner
LEASE_TIMEOUT = 60.0  # seconds without one after which the owner counts as dead


def key_of(kind: str, identity: Mapping[str, Any]) -> str:
    """20 hexadecimal digits that name a node: SHA-256 of its canonical identity."""
    canonical = json.dumps([kind, identity], sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:20]


@dataclass(frozen=True)
class Node:
    """One computed or computable thing in the store."""

    kind: str
    key: str
    path: Path

    @property
    def done(self) -> bool:
        """Whether it has been computed."""
        return (self.path / "done.json").exists()


class Store:
    """A folder of nodes that any number of processes, on any number of machines, may share.

    Raises :class:`StoreError` if the folder was written by a newer version of this program.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        marker = self.root / "store.json"
        if marker.exists():
            version = read_json(marker)["version"]
            if version > VERSION:
                raise StoreError(
                    f"the store {self.root} was written by a newer version of lottery "
                    f"(layout {version}, this program knows {VERSION}); update, or choose "
                    "another paths.store"
                )

    def node(self, kind: str, identity: Mapping[str, Any]) -> Node:
        """The node of that identity, computed or not."""
        key = key_of(kind, identity)
        return Node(kind, key, self.root / kind / key)

    def compute(
        self, kind: str, identity: Mapping[str, Any], produce: Callable[[Path], None]
    ) -> Node:
        """The finished node of that identity; ``produce`` fills its folder if nobody has yet.

        ``produce`` gets the work folder, which holds what an interrupted predecessor left.
        If it raises, the work folder stays for the next attempt. While another process computes
        the node this one waits; if that process dies, this one takes over.
        """
        node = self.node(kind, identity)
        if node.done:
            return node
        self._prepare()
        with self._lease(node) as lease:
            # Network file systems remember for a while that a file was missing: look afresh.
            list(node.path.parent.iterdir())
            if node.done:  # somebody finished it while we waited
                return node
            work = self.root / "work" / f"{kind}-{node.key}"
            work.mkdir(parents=True, exist_ok=True)
            produce(work)
            write_json(
                work / "done.json",
                {
                    "kind": kind,
                    "key": node.key,
                    "identity": identity,
                    "version": VERSION,
                    "finished": datetime.now(UTC).isoformat(timespec="seconds"),
                },
            )
            if lease.held():
                self._publish(work, node.path)
                return node
        log.warning(
            "this process was silent for more than %g s, so another one took over %s %s; "
            "using its result", LEASE_TIMEOUT, kind, node.key,
        )  # fmt: skip
        return self.compute(kind, identity, produce)

    def owner(self, node: Node) -> str | None:
        """Who computes a node at the moment, as far as one look can tell; None if nobody."""
        return Lease(self.root / "leases", f"{node.kind}-{node.key}").holder()

    def check_writable(self) -> None:
        """Raise :class:`OSError` if nothing can be written, before jobs are queued that would."""
        with naming(self.root):
            self._prepare()
            with tempfile.TemporaryFile(dir=self.root) as probe:
                probe.write(bytes(4096))

    def _prepare(self) -> None:
        for folder in ("dense", "mask", "ticket", "state", "transfer", "work", "leases"):
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

    @contextmanager
    def _lease(self, node: Node) -> Iterator["Lease"]:
        lease = Lease(self.root / "leases", f"{node.kind}-{node.key}")
        announced = False
        while not lease.acquire():
            if node.done:  # nothing left to compute: no need to wait for the lease to go
                break
            if not announced:
                log.info("waiting for %s, which computes %s %s", lease.owner, node.kind, node.key)
                announced = True
            time.sleep(0.2)
        try:
            yield lease
        finally:
            lease.release()


class Lease:
    """The right to compute one node, held by one process and kept alive by a heartbeat.

    The owner touches the file through its own descriptor, so a paused owner whose lease was
    taken never touches its successor's. Others judge by whether the modification time *moves*,
    on their own clock, so clocks of different machines need not agree.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / name
        self.owner = "another process"
        self._guard = folder / ".guard"
        self._fd: int | None = None
        self._stop = threading.Event()
        self._seen: tuple[int, int] | None = None
        self._seen_at = 0.0

    def acquire(self) -> bool:
        """Take the lease if it is free or its owner is dead; False if somebody alive holds it."""
        with self._guarded():
            try:
                if not self._abandoned():
                    return False
            except FileNotFoundError:  # free
                pass
            fd = os.open(self.path.with_suffix(".new"), os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
            os.write(fd, json.dumps(_this_process()).encode())
            self.path.with_suffix(".new").replace(self.path)
        self._fd = fd
        self._stop.clear()
        threading.Thread(target=self._beat, daemon=True, name="lease-heartbeat").start()
        return True

    def holder(self) -> str | None:
        """Its owner if alive: judged by its process here, by its last sign of life elsewhere."""
        try:
            silent = time.time() - self.path.stat().st_mtime
            return None if self._abandoned() or silent > LEASE_TIMEOUT else self.owner
        except FileNotFoundError:
            return None

    def held(self) -> bool:
        """Whether this process still has it: nobody took it over while it was silent."""
        try:
            return self._fd is not None and os.path.samestat(os.fstat(self._fd), self.path.stat())
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Give the lease back, if it is held."""
        if self._fd is None:
            return
        self._stop.set()
        with self._guarded():
            if self.held():
                self.path.unlink()
        os.close(self._fd)
        self._fd = None

    def _beat(self) -> None:
        fd = self._fd
        while fd is not None and not self._stop.wait(HEARTBEAT):
            try:
                os.utime(fd)
            except OSError as error:
                if error.errno == errno.EBADF:  # released
                    return
                log.warning("no sign of life written to %s: %s", self.path, error)

    def _abandoned(self) -> bool:
        stat = self.path.stat()
        sign = (stat.st_ino, stat.st_mtime_ns)
        if sign != self._seen:
            self._seen, self._seen_at = sign, time.monotonic()
        try:
            owner = json.loads(self.path.read_text())
            self.owner = f"process {owner['pid']} on {owner['host']}"
        except (ValueError, KeyError):
            owner = {}
        here = _this_process()
        same_machine = all(owner.get(k) == here[k] for k in ("host", "pid_namespace", "user"))
        if same_machine and _started(owner["pid"]) != owner["started"]:
            return True  # its number is free, or given to a new process
        return time.monotonic() - self._seen_at > LEASE_TIMEOUT

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Make looking at the lease and replacing it one indivisible act."""
        with self._guard.open("a") as guard:
            try:
                fcntl.flock(guard, fcntl.LOCK_EX)
            except OSError as error:
                if error.errno in (errno.ENOLCK, errno.ENOTSUP):
                    raise StoreError(
                        f"the file system of {self._guard.parent} does not support flock; "
                        "choose a paths.store on one that does"
                    ) from error
                raise
            yield


def _this_process() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": _started(os.getpid()),
        # Containers of one host may not see each other's processes, nor users each other's.
        "pid_namespace": Path("/proc/self/ns/pid").readlink().name,
        "user": os.getuid(),
    }


def _started(pid: int) -> str | None:
    """When a process of this machine started, in ticks since boot; None if there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else fields[19]  # a zombie computes nothing
