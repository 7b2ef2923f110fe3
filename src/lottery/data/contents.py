"""What files hold, as checksums that are remembered from one run to the next.

Reading a large data set again for every run would cost as much as training on it. So the checksum
of some files is kept under a name made of what the file system says of them: names, sizes, inodes
and the times at which they last changed in any way, which a program cannot set. An entry is never
wrong, so it is never changed: any number of processes on any number of machines may share them.
"""

import functools
import hashlib
import itertools
import logging
import os
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lottery import files
from lottery.data.images import File
from lottery.errors import DataError

log = logging.getLogger(__name__)

_THREADS = 16  # a disk or a network's file system answers them side by side
_SETTLED = 2.0  # seconds after which a further change is sure to have another time
_PATIENCE = 10.0  # seconds between lines about progress
_known: dict[str, str] = {}


def of_files(root: Path, listed: Sequence[File]) -> str:
    """SHA-256 of the names and contents of files below ``root``, in this order.

    Each folder is remembered by itself. Raises :class:`DataError` for a file that cannot be read.
    """
    progress = _Progress(root, sum(file.bytes for file in listed))
    with ThreadPoolExecutor(_THREADS) as pool:

        def read(folder: Sequence[File]) -> str:
            digest = hashlib.sha256()
            contents = pool.map(functools.partial(_sha256, root), folder)
            for file, content in zip(folder, contents, strict=True):
                digest.update(os.fsencode(f"{file.path}\0{content}\n"))
                progress.add(file.bytes)
            return digest.hexdigest()

        whole = hashlib.sha256()
        for _, group in itertools.groupby(listed, key=lambda file: file.path.rpartition("/")[0]):
            folder = list(group)
            whole.update(remembered("files", folder, functools.partial(read, folder)).encode())
    return whole.hexdigest()


def _is_digest(text: str) -> bool:
    return len(text) == 64


def remembered(
    kind: str,
    listed: Sequence[File],
    compute: Callable[[], str],
    whole: Callable[[str], bool] = _is_digest,
) -> str:
    """What ``compute`` tells of these files, a digest or a text; asked once while none changes.

    ``kind`` tells apart different questions about the same files, and ``whole`` whether a text is
    an answer.
    """
    key = _key(kind, listed)
    if key in _known:
        return _known[key]
    entry = cache() / key
    try:
        found = entry.read_text()
        if whole(found):
            _known[key] = found
            return found
    except (OSError, ValueError):
        pass
    settled = time.time_ns() - max((f.changed for f in listed), default=0) > _SETTLED * 1e9
    found = compute()
    if settled:  # else a change at the same tick of the clock would not be seen
        _known[key] = found
        _keep(entry, found)
    return found


def remember(kind: str, listed: Sequence[File], found: str) -> None:
    """What is known of these files, because this process has written them."""
    key = _key(kind, listed)
    _known[key] = found
    _keep(cache() / key, found)


def _key(kind: str, listed: Sequence[File]) -> str:
    return hashlib.sha256(os.fsencode(repr((kind, *map(tuple, listed))))).hexdigest()


def cache() -> Path:
    """The folder where checksums are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "lottery" / "contents"


def stamped(root: Path, path: str) -> File:
    """A file below ``root`` with what the file system says of it."""
    return with_status(path, (root / path).stat())


def with_status(path: str, status: os.stat_result) -> File:
    """A file by its path relative to its root."""
    return File(
        path, status.st_size, status.st_mtime_ns, inode=status.st_ino, changed=status.st_ctime_ns
    )


def _sha256(root: Path, file: File) -> str:
    try:
        return files.sha256(root / file.path)
    except OSError as error:
        raise DataError(f"{root / file.path} cannot be read: {error.strerror}") from error


def _keep(entry: Path, found: str) -> None:
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        temporary = entry.with_name(f".{entry.name}.{uuid.uuid4().hex[:8]}")
        temporary.write_text(found)
        temporary.replace(entry)
    except OSError as error:
        _warn_once(f"checksums cannot be kept in {entry.parent}, so every run reads the data "
                   f"again ({error.strerror}; XDG_CACHE_HOME moves them)")  # fmt: skip


@functools.cache
def _warn_once(message: str) -> None:
    log.warning("%s", message)


class _Progress:
    """A line now and then, for data that take long to read."""

    def __init__(self, root: Path, total: int) -> None:
        self._root, self._total, self._done = root, total, 0
        self._next = time.monotonic() + _PATIENCE

    def add(self, count: int) -> None:
        self._done += count
        if time.monotonic() > self._next:
            self._next = time.monotonic() + _PATIENCE
            log.info(
                "reading %s to know it by its content: %.1f of at most %.1f GB (kept in %s)",
                self._root, self._done / 1e9, self._total / 1e9, cache(),
            )  # fmt: skip
