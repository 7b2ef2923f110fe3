"""Leases: who may compute something, of any number of processes on any number of machines."""

import errno
import functools
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lottery.errors import StoreError
from lottery.files import locked

log = logging.getLogger(__name__)

POLL = 0.2  # seconds between looks at a lease that one waits for
LOOK = 1.0  # seconds; what lies further between two looks is silence of the one who looks


class Lease:
    """The right to compute one thing, held by one process and kept alive by a heartbeat.

    It is the file ``path``, touched every ``heartbeat`` seconds; after ``timeout`` seconds without
    a touch its owner counts as dead.

    Looking at the lease and replacing it is one indivisible act under a lock file beside it, which
    goes with it.

    The owner touches the file through its own descriptor, so a paused owner whose lease was
    taken never touches its successor's. Who waits judges by whether the modification time *moves*
    from look to look; who looks once compares it to the time of the same file server. So the clocks
    of different machines need not agree.

    One that nobody else may take, such as a sign of presence, is not ``shared``: it stays its
    owner's for as long as that lives, even stopped, where that can be seen; and if it was removed,
    the next heartbeat puts it back.
    """

    def __init__(
        self,
        path: Path,
        *,
        heartbeat: float,
        timeout: float,
        note: Mapping[str, Any] | None = None,
        shared: bool = True,
    ) -> None:
        """``note`` is written into the lease, for others to read (:meth:`seen`)."""
        self._shared = shared
        self.path = path
        self._note = dict(note or {})
        self.owner = "another process"
        self.attempt = uuid.uuid4().hex[:12]
        self._heartbeat, self._timeout = heartbeat, timeout
        self._guard = path.with_name(f".{path.name}.guard")
        self._fd: int | None = None
        self._stop = threading.Event()
        self._heart: threading.Thread | None = None
        self._seen: tuple[str | None, int] | None = None
        self._seen_at = 0.0
        self._silence = 0.0

    def acquire(self) -> bool:
        """Take the lease if it is free or its owner is dead; False if somebody alive holds it."""
        if not self._abandoned():
            return False
        with locked(self._guard):
            if not self._abandoned():
                return False
            self.take()
        return True

    def take(self) -> None:
        """Take it without a look: of a name that nobody else has, there is nobody to lock out."""
        self._fd = self._write()
        self._stop.clear()
        self._heart = threading.Thread(target=self._beat, daemon=True, name="lease-heartbeat")
        self._heart.start()

    def _write(self) -> int:
        new = self.path.with_name(f".{self.path.name}.{self.attempt}")
        fd = os.open(new, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.write(fd, json.dumps(_this_process() | self._note | {"attempt": self.attempt}).encode())
        new.replace(self.path)
        return fd

    def holder(self, now: float) -> str | None:
        """Its owner if alive: judged by its process here, by its last sign of life elsewhere.

        ``now`` is the time in seconds by the clock that dates the files in the folder.
        """
        found = self._living(now)
        return found.name if found else None

    def seen(self, now: float) -> Mapping[str, Any] | None:
        """What it says of its owner, the ``note`` included; None unless the owner is alive."""
        found = self._living(now)
        return found.owner if found else None

    @contextmanager
    def vacant(self, now: float) -> Iterator[bool]:
        """A moment in which nobody can take it; whether nobody alive has it.

        Then the lease of a dead owner is gone afterwards.
        """
        with locked(self._guard):
            free = self._living(now) is None
            yield free
            if free:
                self.path.unlink(missing_ok=True)
            self._guard.unlink(missing_ok=True)

    def _living(self, now: float) -> "_Found | None":
        found = _look(self.path)
        if found is None or found.dead:
            return None
        if not self._shared and found.here:  # at most stopped
            return found
        return None if now - found.beat / 1e9 > self._timeout else found

    def held(self) -> bool:
        """Whether this process still has it: nobody took it over while it was silent."""
        if self._fd is None:
            return False
        found = _look(self.path)
        self.owner = found.name if found else "another process"
        return found is not None and found.attempt == self.attempt

    @contextmanager
    def exclusively(self) -> Iterator[None]:
        """A moment in which nobody can take the lease over.

        Raises :class:`StoreError` if somebody has.
        """
        with locked(self._guard):
            if not self.held():
                raise StoreError(f"this process has lost its lease {self.path}")
            yield

    def release(self) -> None:
        """Give the lease back, if it is held."""
        if self._fd is None:
            return
        self._stop.set()
        if self._heart is not None:
            self._heart.join()  # or it might touch a file that gets the number of ours
        with locked(self._guard):
            if self.held():
                self.path.unlink()
            self._guard.unlink(missing_ok=True)
        os.close(self._fd)
        self._fd = None

    def _beat(self) -> None:
        while self._fd is not None and not self._stop.wait(self._heartbeat):
            try:
                os.utime(self._fd)  # by the clock of the file server
                if not self._shared and not self.path.exists():
                    gone, self._fd = self._fd, self._write()
                    os.close(gone)
            except OSError as error:
                log.warning("no sign of life written to %s: %s", self.path, error)

    def _abandoned(self) -> bool:
        """Whether nobody has it, or its owner was silent for too long while we were not."""
        found = _look(self.path)
        if found is None:
            return True
        self.owner = found.name
        now, sign = time.monotonic(), (found.attempt, found.beat)
        if sign != self._seen:
            self._seen, self._silence = sign, 0.0
        else:
            self._silence += min(now - self._seen_at, LOOK)
        self._seen_at = now
        return found.dead or self._silence > self._timeout


@dataclass(frozen=True)
class _Found:
    """What a lease says at one look: its owner, and when it last gave a sign of life."""

    owner: Mapping[str, Any]
    beat: int  # nanoseconds since 1970, by the file server's clock

    @property
    def name(self) -> str:
        if not {"pid", "host"} <= set(self.owner):
            return "another process"
        return f"process {self.owner['pid']} on {self.owner['host']}"

    @property
    def attempt(self) -> str | None:
        return self.owner.get("attempt")

    @property
    def dead(self) -> bool:
        """Whether it ran on this machine, and its number is free or given to a new process."""
        return self.here and bool(_started(self.owner["pid"]) != self.owner["started"])

    @property
    def here(self) -> bool:
        """Whether it ran on this machine, so that its process can be looked for."""
        here = _this_process()
        same = all(self.owner.get(k) == here[k] for k in ("boot", "pid_namespace", "user"))
        return same and here["boot"] is not None


def _look(path: Path) -> _Found | None:
    """What a lease says now; None if there is none."""
    for _ in range(10):
        try:
            with path.open() as file:  # opening it asks a network file system for its state
                beat = os.fstat(file.fileno()).st_mtime_ns
                text = file.read()
            break
        except FileNotFoundError:
            return None
        except OSError as error:  # replaced by another machine while we looked
            if error.errno != errno.ESTALE:
                raise
    else:
        raise StoreError(f"{path} changes faster than it can be read")
    try:
        owner = json.loads(text)
    except ValueError:
        owner = {}
    return _Found(owner if isinstance(owner, dict) else {}, beat)


def _this_process() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": _started(os.getpid()),
        # Names of machines repeat, and so do the numbers of namespaces on different ones.
        "boot": _boot(),
        # Containers of one host may not see each other's processes, nor users each other's.
        "pid_namespace": Path("/proc/self/ns/pid").readlink().name,
        "user": os.getuid(),
    }


@functools.cache
def _boot() -> str | None:
    """A random number that this machine got when it started; None where it is not told."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() or None
    except OSError:
        return None


def _started(pid: int) -> str | None:
    """When a process of this machine started, in ticks since boot; None if there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else fields[19]  # a zombie computes nothing
