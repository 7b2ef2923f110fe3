"""The finished nodes of a store, what each comes from, and what comes from each."""

import difflib
import functools
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lottery import files
from lottery.errors import LotteryError, StoreError
from lottery.points import Point
from lottery.store import Store, references
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

        A ticket that was moved to other data holds all that it took from the ticket before.
        """
        try:
            said = references(files.read_json(self.path / "origin.json"))
        except (OSError, ValueError):
            return frozenset()
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

    @classmethod
    def of(cls, store: Store) -> "Inventory":
        """What there is now; a node whose ``done.json`` cannot be read is left out."""
        found: dict[str, Entry] = {}
        for path in sorted(_done(store.root)):
            try:
                about = files.read_json(path)
            except (OSError, ValueError):
                continue  # damaged, which is said by verify; or removed meanwhile
            if isinstance(about, dict):
                found[path.parent.name] = Entry(path.parent, about)
        return cls(store.root, found)

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

    def descendants(self, keys: Iterable[str]) -> set[str]:
        """These keys and those of all that they determine."""
        return _closure(keys, lambda key: [child.key for child in self.children.get(key, ())])

    def ordered(self, keys: Collection[str]) -> list[Entry]:
        """The nodes of these keys, parents before children."""
        done: dict[str, Entry] = {}

        def add(key: str) -> None:
            if key in done or key not in keys or key not in self.entries:
                return
            for parent in sorted(self.entries[key].needs):
                add(parent)
            done[key] = self.entries[key]

        for key in sorted(keys):
            add(key)
        return list(done.values())

    def find(self, named: str) -> Entry:
        """The node of a key, of the beginning of one, of ``<kind>/<key>``, or of its folder.

        Raises :class:`StoreError`, which names those that are near, if there is none.
        """
        word = Path(named).name
        if word in self.entries:
            return self.entries[word]
        begun = [key for key in self.entries if key.startswith(word)]
        if len(word) >= SHORTEST and len(begun) == 1:
            return self.entries[begun[0]]
        if len(word) >= SHORTEST and begun:
            listed = ", ".join(self.entries[key].name for key in sorted(begun)[:5])
            raise StoreError(f"{len(begun)} keys begin with {word}: {listed}: type more of it")
        if len(word) >= SHORTEST and (works := list((self.root / "work").glob(f"*-{word}*"))):
            kind, _, key = works[0].name.partition(".")[0].rpartition("-")
            raise StoreError(
                f"{kind}/{key} is begun and not finished: there is nothing to tell yet"
            )
        raise StoreError(f"the store {self.root} has no node {named}{self._near(word)}")

    def _near(self, word: str) -> str:
        if not re.fullmatch("[0-9a-f]+", word):
            return ": name one by its key, the beginning of one, or a folder of a run"

        def likeness(key: str) -> tuple[int, float]:
            same = next((n for n in range(len(word)) if key[: n + 1] != word[: n + 1]), len(word))
            return same, difflib.SequenceMatcher(None, key, word).ratio()

        near = sorted(self.entries, key=likeness, reverse=True)[:3]
        names = " or ".join(self.entries[key].name for key in near)
        return f"; the nearest: {names}" if near else ": it is empty"


def kinds(root: Path) -> list[Path]:
    """The folders of a store that hold nodes."""
    if not root.is_dir():
        return []
    inside = (f for f in sorted(root.iterdir()) if f.is_dir() and not f.name.startswith("."))
    return [f for f in inside if f.name not in OTHERS and next(f.glob("*/done.json"), None)]


def size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder; 0 if it is gone."""
    try:
        if not path.is_dir():
            return path.lstat().st_size
        return sum(size(Path(inside.path)) for inside in os.scandir(path))
    except FileNotFoundError:
        return 0


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
