"""A part of a store, to take to another disk or to a colleague, and to merge into another store.

A part is a store itself: ``store.json`` and ``<kind>/<key>/`` of some nodes with their ancestors,
in a folder or in a tar file, parents before children. Nodes are named by their content, so merging
adds what is not there and changes nothing that is.
"""

import contextlib
import io
import json
import re
import shutil
import tarfile
import time
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import IO, Any

from lottery import files
from lottery.errors import StoreError
from lottery.store import VERSION, Node, Store
from lottery.upkeep.inventory import OTHERS, Entry, Inventory, size
from lottery.upkeep.requests import FOLDER as ASKED
from lottery.upkeep.requests import Request, note, read_request, requests
from lottery.upkeep.users import using
from lottery.upkeep.verification import MARK, check, sealed

INCOMING = "incoming"
_TAR: Mapping[str, Any] = {".tar": "w", ".tgz": "w:gz", ".gz": "w:gz"}
_NODE = re.compile("(?P<kind>[a-z][a-z0-9_]*)/(?P<key>[0-9a-f]{20})")


@dataclass
class Moved:
    """What an export or import did, by ``<kind>/<key>``."""

    added: list[str]
    there: list[str]
    """They were there already."""
    busy: list[str]
    """A process computes them at the moment, so they were left out."""
    bytes: int = 0


def export_part(store: Store, keys: Iterable[str], to: Path) -> Moved:
    """Write these nodes, with what they come from and what was measured of them alone.

    To a tar file (``.tar``, ``.tar.gz``, ``.tgz``), which must not exist; or to a folder: that of a
    store, into which they are merged, or a new one. Raises :class:`StoreError` for anything else,
    and for a node that is damaged.
    """
    inventory = Inventory.of(store)
    every = _with_kin(inventory, keys)
    with using(store, every, f"store.py export to={to}", str(to)):
        chosen = inventory.ordered(every)
        if to.suffix in _TAR:
            return _write_tar(store, chosen, to)
        if to.exists() and not (to.is_dir() and (_is_store(to) or not any(to.iterdir()))):
            raise StoreError(
                f"{to} is neither a run store nor an empty folder: name another folder, or a file "
                "that ends in .tar"
            )
        to.mkdir(parents=True, exist_ok=True)
        return _merge(Store(to), store, chosen)


def import_part(store: Store, part: Path) -> Moved:
    """Merge a part, or a whole store, into a store; parents before children.

    Each node is checked before it appears, by one rename; one that is there stays as it is. Raises
    :class:`StoreError` for what is no part, one of another layout, and a node that is damaged.
    """
    if not part.exists():
        raise StoreError(f"there is no {part}")
    if part.is_dir():
        if not _is_store(part):
            raise StoreError(f"{part} is no part of a run store (no store.json)")
        _check_version(part, files.read_json(part / "store.json").get("version"))
        if part.resolve() == store.root.resolve():
            raise StoreError(f"{part} is this store itself")
        theirs = Store(part)
        inventory = Inventory.of(theirs)
        with using(theirs, inventory.entries, f"store.py import {part}", str(store.root)):
            return _merge(store, theirs, inventory.ordered(set(inventory.entries)))
    try:
        with tarfile.open(part, "r:*") as tar:
            return _merge_tar(store, part, tar)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        reason = (str(error).splitlines() or ["?"])[0]
        raise StoreError(
            f"{part} is no part of a run store, or was cut short ({reason}); what came before is "
            "merged, and a whole one adds the rest"
        ) from error


# -- merging ---------------------------------------------------------------------------------------


def _merge(store: Store, theirs: Store, chosen: Sequence[Entry]) -> Moved:
    """Add nodes of another store."""
    with _arriving(store) as arrivals:
        for entry in chosen:
            if (folder := arrivals.begin(entry.name)) is not None:
                for name, path in files.files_below(entry.path).items():
                    (folder / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, folder / name)
                files.write_json(folder / MARK, sealed(entry.about, folder))
                arrivals.finish(entry.name, folder)
        for request in _requests_of(theirs, {entry.key for entry in chosen}):
            arrivals.note(request)
        return arrivals.moved


@dataclass
class _Arrivals:
    """Nodes that are on their way into a store; in ``folder`` until they are complete."""

    store: Store
    folder: Path
    moved: Moved

    def begin(self, name: str) -> Path | None:
        """The folder to put the files of a node into; None if it is there.

        Raises :class:`StoreError` for a name that no node has.
        """
        node = self._node(name)
        if node.done:
            self.moved.there.append(name)
            return None
        folder = self.folder / node.key
        folder.mkdir()
        return folder

    def finish(self, name: str, folder: Path) -> None:
        """Publish it. Raises :class:`StoreError` if it is damaged."""
        node = self._node(name)
        if damage := check(folder, node.kind).damage:
            raise StoreError(f"{name} is damaged: {damage[0]}; what came before it is merged")
        for path in folder.rglob("*"):
            files.sync(path)
        bytes_of = size(folder)
        if self.store.adopt(node, folder):
            self.moved.added.append(name)
            self.moved.bytes += bytes_of
        else:
            (self.moved.there if node.done else self.moved.busy).append(name)
            shutil.rmtree(folder)

    def note(self, request: Request) -> None:
        """Who asked for some of them, unless that is known."""
        if not (self.store.root / ASKED / request.file).exists():
            note(self.store, replace(request, imported=True))

    def _node(self, name: str) -> Node:
        found = _NODE.fullmatch(name)
        if found is None or found["kind"] in OTHERS:
            raise StoreError(f"{name} is no node of a run store")
        kind, key = found["kind"], found["key"]
        return Node(kind, key, self.store.root / kind / key)


@contextmanager
def _arriving(store: Store) -> Iterator[_Arrivals]:
    """A place in the store for what is not complete yet; whoever collects leaves it alone."""
    store.prepare(INCOMING)
    with using(store, (), "store.py import", "") as name:
        folder = store.root / INCOMING / name
        folder.mkdir()
        try:
            yield _Arrivals(store, folder, Moved([], [], []))
        finally:
            shutil.rmtree(folder, ignore_errors=True)


# -- tar files -------------------------------------------------------------------------------------


def _write_tar(store: Store, chosen: Sequence[Entry], to: Path) -> Moved:
    if to.exists():
        raise StoreError(f"{to} is there already: name another file, or remove it")
    if not to.absolute().parent.is_dir():
        raise StoreError(f"there is no folder {to.absolute().parent}")
    moved = Moved([entry.name for entry in chosen], [], [])
    # States that two trainings share are links to the same file: each is written out, so that a
    # node is whole by itself.
    with (
        files.replacing(to) as temporary,
        tarfile.open(temporary, _TAR[to.suffix], dereference=True) as tar,
    ):
        _add_json(tar, "store.json", {"version": VERSION})
        for request in _requests_of(store, {entry.key for entry in chosen}):
            _add_json(tar, f"{ASKED}/{request.file}", asdict(request))
        for entry in chosen:
            if damage := check(entry.path).damage:
                raise StoreError(
                    f"{entry.name} is damaged: {damage[0]}; remove it to compute it again"
                )
            # First, so that who reads the rest knows what it must be.
            _add_json(tar, f"{entry.name}/{MARK}", sealed(entry.about, entry.path))
            for name, path in files.files_below(entry.path).items():
                if name != MARK:
                    tar.add(path, f"{entry.name}/{name}", recursive=False)
                    moved.bytes += path.stat().st_size
    return moved


def _add_json(tar: tarfile.TarFile, name: str, value: Any) -> None:
    text = f"{json.dumps(value, indent=2)}\n".encode()
    member = tarfile.TarInfo(name)
    member.size, member.mtime = len(text), int(time.time())
    tar.addfile(member, io.BytesIO(text))


def _merge_tar(store: Store, part: Path, tar: tarfile.TarFile) -> Moved:
    first = tar.next()
    about = _json(tar, first) if first is not None and first.name == "store.json" else None
    if first is None or not isinstance(about, Mapping):
        raise StoreError(f"{part} is no part of a run store: it does not begin with store.json")
    _check_version(part, about.get("version"))
    with _arriving(store) as arrivals:
        name, folder = "", None
        for member in tar:
            path = PurePosixPath(member.name)
            if member.name == first.name:
                continue
            file = member.isfile() or member.islnk()  # a link to a file that came before
            if not file or path.is_absolute() or ".." in path.parts:
                raise StoreError(f"{part} holds {member.name}, which is no file of a node")
            if path.parts[0] == ASKED:
                with contextlib.suppress(TypeError, KeyError, AttributeError):
                    arrivals.note(read_request(_json(tar, member)))
                continue
            # One after the other, as they lie: a compressed file cannot be read backwards.
            if (here := "/".join(path.parts[:2])) != name:
                if folder is not None:
                    arrivals.finish(name, folder)
                name, folder = here, arrivals.begin(here)
            if folder is not None:
                target = folder.joinpath(*path.parts[2:])
                target.parent.mkdir(parents=True, exist_ok=True)
                with _stream(tar, member) as stream, target.open("wb") as copy:
                    shutil.copyfileobj(stream, copy)
        if folder is not None:
            arrivals.finish(name, folder)
        return arrivals.moved


def _stream(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    try:
        stream = tar.extractfile(member)
    except KeyError:
        stream = None
    if stream is None:  # a link to what did not come before, or is no file
        raise StoreError(
            f"{tar.name!s} holds {member.name}, a link to {member.linkname}, which it does not hold"
        )
    return stream


def _json(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Any:
    try:
        with _stream(tar, member) as stream:
            return json.load(stream)
    except ValueError:
        return None


# -- which nodes, and which layout -----------------------------------------------------------------


def _with_kin(inventory: Inventory, keys: Iterable[str]) -> set[str]:
    """With all that they come from, and what was measured of these nodes alone, such as lines."""
    every = inventory.sources(keys)
    for entry in inventory.entries.values():
        small = not entry.trained and not entry.states.root.exists()
        if small and entry.needs and entry.needs <= every:
            every.add(entry.key)
    return every & set(inventory.entries)


def _requests_of(store: Store, keys: Collection[str]) -> list[Request]:
    """Who asked for one of these nodes; of the others they asked for nothing is known there."""
    found = []
    for request in requests(store.root):
        if own := tuple(n for n in request.nodes if n.rpartition("/")[2] in keys):
            found.append(replace(request, nodes=own, states={}))
    return found


def _is_store(root: Path) -> bool:
    return (root / "store.json").exists()


def _check_version(part: Path, version: Any) -> None:
    if version != VERSION:
        raise StoreError(
            f"{part} has the layout {version} of another version of lottery, and this one has "
            f"{VERSION}, whose keys mean something else: nothing was changed"
        )
