"""Writing files so that a reader never sees half of one, on any crash; and locks."""

import csv
import errno
import fcntl
import hashlib
import json
import logging
import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lottery.errors import LotteryError

log = logging.getLogger(__name__)

LOCK_POLL, LOCK_TELL = 0.05, 5.0  # seconds between tries of a lock; until one says that it waits


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends without error."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with naming(path):
            yield temporary
            sync(temporary)
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an :class:`OSError` say which file it is about; that of a full disk does not."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def sync(path: Path) -> None:
    """Force a file or folder to disk, so that a rename after it cannot overtake its content."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def refresh(folder: Path) -> float:
    """Have a network file system look up anew what is in a folder, and what is not.

    It remembers both for a while, until the folder changes; so this changes it. Returns the time in
    seconds since 1970 by the clock of the file system, which dates its files.
    """
    probe = folder / f".look.{uuid.uuid4().hex[:8]}"
    try:
        with probe.open("x") as file:
            os.utime(file.fileno())
            return os.fstat(file.fileno()).st_mtime
    finally:
        probe.unlink(missing_ok=True)


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock file ``path``, which is made if need be, so that nobody else holds it.

    Who holds it may remove it. It says which process that is, for those who wait: a process that
    is stopped while it holds a lock keeps it, and waiting in silence would look like hanging.

    Raises :class:`BlockingIOError` if another holds it and ``wait`` is false, and
    :class:`LotteryError` if the file system has no locks.
    """
    begun, told = time.monotonic(), False
    while True:
        with path.open("a") as file:
            try:
                mine = _lock(file.fileno(), path)
            except BlockingIOError:
                if not wait:
                    raise
                mine = False
            if mine:
                with suppress(OSError):  # a full disk, say; it is for people only
                    os.ftruncate(file.fileno(), 0)
                    os.write(file.fileno(), f"{os.getpid()} on {socket.gethostname()}".encode())
                yield
                return
        if not told and time.monotonic() - begun > LOCK_TELL:
            told = True
            with suppress(OSError):  # it is gone
                log.warning(
                    "waiting for process %s, which holds the lock %s; if it was stopped (Ctrl-Z), "
                    "let it go on (kill -CONT) or end it",
                    path.read_text() or "(unknown)", path,
                )  # fmt: skip
        time.sleep(LOCK_POLL)


def _lock(fd: int, path: Path) -> bool:
    """Lock the open file ``path``; False if the path is another file by now, or gone.

    Raises :class:`BlockingIOError` if another has the lock.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        refresh(path.parent)
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno == errno.ESTALE:  # another machine removed it
            return False
        if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise LotteryError(
                f"the file system of {path.parent} does not support flock; choose a folder "
                "(paths.store, or the output of preprocess.py) on one that does"
            ) from error
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically. Raises :class:`ValueError` on NaN, which JSON lacks."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text())


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file as dictionaries; none if there is no such file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def sha256(path: Path) -> str:
    """The hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def contents(folder: Path, without: str) -> dict[str, list[Any]]:
    """Size in bytes and SHA-256 of each file below a folder, by relative path.

    But of the file ``without``, and of those whose own name, or that of a folder in between, begins
    with a dot: they are temporary.
    """
    return {
        name: [path.stat().st_size, sha256(path)]
        for name, path in files_below(folder).items()
        if name != without
    }


def files_below(folder: Path) -> dict[str, Path]:
    """The files below a folder by relative path, without temporary ones."""
    inside = ((path.relative_to(folder), path) for path in sorted(folder.rglob("*")))
    return {str(name): path for name, path in inside if path.is_file() and not hidden(name)}


def hidden(path: Path) -> bool:
    """Whether a relative path has a part that begins with a dot."""
    return any(part.startswith(".") for part in path.parts)
