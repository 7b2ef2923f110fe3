"""The finished nodes of a store, what each comes from, and what comes from each."""

import difflib
import functools
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lottery import files
from lottery.errors import LotteryError, StoreError
from lottery.points import Point
from lottery.store import Store, keys_in, references
from lottery.training.checkpoints import CheckpointFolder

SHORTEST = 4  # digits of a key that may stand for it
OTHERS = {"work", "leases", "asked", "using", "trash", "incoming", "jobs", "report"}
"""Folders of a store that hold no nodes."""


@dataclass(frozen=True)
class Entry:
    """A finished node."""

    path: Path
    about: Mapping[str, Any]
    """What its ``done.json`` says."""

    @property
    def kind(self) -> str:
        """``dense``, ``mask``, ``ticket``, …"""
        return self.path.parent.name

    @property
    def key(self) -> str:
        """Its name, a hash of what determines it."""
        return self.path.name

    @property
    def name(self) -> str:
        """``<kind>/<key>``"""
        return f"{self.kind}/{self.key}"

    @functools.cached_property
    def needs(self) -> frozenset[str]:
        """Keys of the nodes that determine it."""
        return frozenset(references(self.about.get("identity")) - {self.key})

    @functools.cached_property
    def origin(self) -> frozenset[str]:
        """Keys of the nodes that it comes from, as it says itself, but that do not determine it.

        A ticket that was moved to other data holds all that it took from the ticket before; a
        network that began with the weights of another run, those.
        """
        try:
            told = files.read_json(self.path / "origin.json")
            places = [told, told.get("ticket", {})]
            runs = [key for place in places for key in place.get("runs", {}).values()]
        except (OSError, ValueError, AttributeError):
            return frozenset()
        said = references(told).union(*map(keys_in, runs))
        return frozenset(said - self.needs - {self.key})

    @property
    def finished(self) -> str:
        """When, in UTC."""
        return str(self.about.get("finished", ""))

    @property
    def trained(self) -> bool:
        """Whether it is a training, with metrics, and not a mask or a measurement."""
        return (self.path / "result.json").exists() and (self.path / "config.json").exists()

    @property
    def states(self) -> CheckpointFolder:
        """Its complete states, if it has any."""
        return CheckpointFolder(self.path / "checkpoints")

    @functools.cached_property
    def begun_at(self) -> frozenset[Point]:
        """The points that its identity names: where it begins, or whose weights were scored."""
        return frozenset(_points(self.about.get("identity")))

    @property
    def bytes(self) -> int:
        """Its size on disk."""
        return size(self.path)


@dataclass(frozen=True)
class Inventory:
    """All finished nodes of a store by their keys, which are unique over kinds."""

    root: Path
    entries: Mapping[str, Entry]
    unreadable: Mapping[str, Entry] = field(default_factory=dict)
    """Those whose ``done.json`` cannot be read: nothing is known of them, parents included."""

    @classmethod
    def of(cls, store: Store) -> "Inventory":
        """What there is now."""
        found: dict[str, Entry] = {}
        unreadable: dict[str, Entry] = {}
        for path in sorted(_done(store.root)):
            key, about = path.parent.name, None
            try:
                about = files.read_json(path)
            except FileNotFoundError:
                continue  # removed meanwhile
            except (OSError, ValueError):
                pass  # damaged, which is said by verify
            if isinstance(about, dict) and isinstance(about.get("identity"), dict):
                found[key] = Entry(path.parent, about)
            else:
                unreadable[key] = Entry(path.parent, {})
        return cls(store.root, found, unreadable)

    @property
    def every(self) -> Mapping[str, Entry]:
        """With those that cannot be read."""
        return {**self.unreadable, **self.entries}

    @functools.cached_property
    def children(self) -> Mapping[str, tuple[Entry, ...]]:
        """By key, the nodes that it determines."""
        return self._of(lambda entry: entry.needs)

    @functools.cached_property
    def moved(self) -> Mapping[str, tuple[Entry, ...]]:
        """By key, the nodes that come from it, but can do without."""
        return self._of(lambda entry: entry.origin)

    def _of(self, parents: Any) -> dict[str, tuple[Entry, ...]]:
        found: dict[str, tuple[Entry, ...]] = {}
        for entry in self.entries.values():
            for key in parents(entry):
                found[key] = (*found.get(key, ()), entry)
        return found

    def ancestors(self, keys: Iterable[str]) -> set[str]:
        """These keys and those of all that determines them, as far as that is in the store."""
        return _closure(keys, lambda key: self.entries[key].needs if key in self.entries else ())

    def sources(self, keys: Iterable[str]) -> set[str]:
        """The same with what they come from, but can do without."""
        there = self.entries
        return _closure(keys, lambda k: there[k].needs | there[k].origin if k in there else ())

    def descendants(self, keys: Iterable[str]) -> set[str]:
        """These keys and those of all that they determine."""
        return _closure(keys, lambda key: [child.key for child in self.children.get(key, ())])

    def ordered(self, keys: Collection[str]) -> list[Entry]:
        """The nodes of these keys, parents before children."""
        done: dict[str, Entry] = {}
        there = self.every

        def add(key: str) -> None:
            if key in done or key not in keys or key not in there:
                return
            for parent in sorted(there[key].needs):
                add(parent)
            done[key] = there[key]

        for key in sorted(keys):
            add(key)
        return list(done.values())

    def find(self, named: str) -> Entry:
        """The node of a key, of the beginning of one, of ``<kind>/<key>``, or of its folder.

        Raises :class:`StoreError`, which names those that are near, if there is none, and for a
        folder of another store.
        """
        kind, _, word = self._inside(named).rpartition("/")
        there = {k: entry for k, entry in self.every.items() if kind in ("", entry.kind)}
        if word in there:
            return there[word]
        begun = [key for key in there if key.startswith(word)]
        if len(word) >= SHORTEST and len(begun) == 1:
            return there[begun[0]]
        if len(word) >= SHORTEST and begun:
            listed = ", ".join(there[key].name for key in sorted(begun)[:5])
            raise StoreError(f"{len(begun)} keys begin with {word}: {listed}: type more of it")
        pattern = f"{kind or '*'}-{word}*"
        if len(word) >= SHORTEST and (works := list((self.root / "work").glob(pattern))):
            kind, _, key = works[0].name.partition(".")[0].rpartition("-")
            raise StoreError(
                f"{kind}/{key} is begun and not finished: there is nothing to tell yet"
            )
        raise StoreError(f"the store {self.root} has no node {named}{self._near(word)}")

    def _inside(self, named: str) -> str:
        """A name as it is below the root. Raises :class:`StoreError` for a folder elsewhere."""
        path = Path(named)
        if not path.is_dir() or not ("/" in named or (path / "done.json").exists()):
            return named.rstrip("/")
        folder, root = path.resolve(), self.root.resolve()
        if folder.is_relative_to(root):
            return str(folder.relative_to(root))
        own = folder.parents[1]
        raise StoreError(
            f"{named} is of another store: add store={own}"
            if (own / "store.json").exists() and (folder / "done.json").exists()
            else f"{named} is no folder of a node of the store {self.root}: name a node by its key "
            "or its folder there; store=<folder> says where another store is"
        )

    def _near(self, word: str) -> str:
        if not re.fullmatch("[0-9a-f]+", word):
            return ": name one by its key, the beginning of one, or a folder of a run"

        def likeness(key: str) -> tuple[int, float]:
            same = next((n for n in range(len(word)) if key[: n + 1] != word[: n + 1]), len(word))
            return same, difflib.SequenceMatcher(None, key, word).ratio()

        near = sorted(there := self.every, key=likeness, reverse=True)[:3]
        names = " or ".join(there[key].name for key in near)
        return f"; the nearest: {names}" if near else ": it is empty"


def kinds(root: Path) -> list[Path]:
    """The folders of a store that hold nodes."""
    if not root.is_dir():
        return []
    inside = (f for f in sorted(root.iterdir()) if f.is_dir() and not f.name.startswith("."))
    return [f for f in inside if f.name not in OTHERS and next(f.glob("*/done.json"), None)]


def size(*paths: Path) -> int:
    """Bytes of files, and of all files below folders: once of those that share it by links.

    What is gone counts nothing.
    """
    seen = {(found.st_dev, found.st_ino): found.st_size for p in paths for found in _files(p)}
    return sum(seen.values())


def freed(paths: Iterable[Path]) -> list[int]:
    """Of each, the bytes that are free again once it goes, after those before it.

    That is what has no other link: two trainings share states of which one went on from the other.
    """
    links: dict[tuple[int, int], int] = {}
    free = []
    for path in paths:
        free.append(0)
        for found in _files(path):
            file = (found.st_dev, found.st_ino)
            links[file] = links.get(file, 0) + 1
            free[-1] += found.st_size if links[file] == found.st_nlink else 0
    return free


def _files(path: Path) -> Iterator[os.stat_result]:
    try:
        if path.is_dir() and not path.is_symlink():
            for inside in os.scandir(path):
                yield from _files(Path(inside.path))
        else:
            yield path.lstat()
    except FileNotFoundError:
        return


def opened(root: str | Path) -> Store:
    """The store in a folder. Raises :class:`StoreError` if there is none, or of another layout."""
    if not (Path(root) / "store.json").exists():
        raise StoreError(f"{root} is no run store (no store.json): store=<folder> says where it is")
    return Store(root)


def _done(root: Path) -> Iterator[Path]:
    for folder in kinds(root):
        yield from folder.glob("[!.]*/done.json")


def _closure(keys: Iterable[str], near: Any) -> set[str]:
    found, open_ = set(), list(keys)
    while open_:
        if (key := open_.pop()) not in found:
            found.add(key)
            open_ += near(key)
    return found


def _points(value: Any) -> Iterator[Point]:
    """The points in training that a JSON value names anywhere."""
    if isinstance(value, str) and re.fullmatch(r"\d+ep(\d+it)?|\d+it", value):
        try:
            yield Point.of(value)
        except LotteryError:
            return
    elif isinstance(value, Mapping | list):
        for inside in value.values() if isinstance(value, Mapping) else value:
            yield from _points(inside)
