"""Whether the files of nodes are what was written.

A node's ``done.json`` has size and SHA-256 of each of its files. One that is older has not: then
arrays are held against their own checksums, JSON is parsed, and what is left cannot be
checked.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lottery import files, tensors
from lottery.errors import DamagedError
from lottery.store import VERSION, Store, key_of
from lottery.upkeep.inventory import kinds

MARK = "done.json"


@dataclass(frozen=True)
class Checked:
    """What became of one node's check."""

    name: str
    """``<kind>/<key>``"""
    damage: tuple[str, ...] = ()
    """A line each."""
    files: int = 0
    bytes: int = 0
    unchecked: tuple[str, ...] = ()
    """Files of which nothing is known."""
    given_up: int = 0
    """States that were collected since it was written."""


def verify(store: Store) -> Iterator[Checked]:
    """Check every node of a store; those that are removed meanwhile are left out."""
    for folder in kinds(store.root):
        for path in sorted(folder.glob("[!.]*")):
            if (found := _looked_at(path)) is not None:
                yield found


def _looked_at(path: Path) -> Checked | None:
    """The check of a node; None if it is not there, or not any more."""
    while (path / MARK).exists():
        try:
            found = check(path)
        except FileNotFoundError:  # collected or removed since its folder was read: look again
            continue
        return found if not found.damage or (path / MARK).exists() else None
    return None


def check(path: Path, kind: str | None = None) -> Checked:
    """Check one node in its folder, which is named by its key; of this kind, or as it lies."""
    kind = kind or path.parent.name
    name = f"{kind}/{path.name}"
    try:
        about = files.read_json(path / MARK)
        key = key_of(str(about["kind"]), about["identity"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return Checked(name, (f"{MARK} cannot be read: {error!r}",))
    if (about["kind"], key, about.get("key")) != (kind, path.name, path.name):
        return Checked(name, (f"{MARK} says that it is {about['kind']}/{key}",))
    if about.get("version") != VERSION:
        return Checked(name, (f"it is of layout {about.get('version')}, not {VERSION}",))
    there = {name: file for name, file in files.files_below(path).items() if name != MARK}
    total = sum(file.stat().st_size for file in there.values())
    sealed = about.get("files")
    if isinstance(sealed, Mapping):
        damage = [*_against(sealed, there)]
        missing = [name for name in sealed if name not in there]
        needed = _needed(path, missing)
        damage += [f"{name} is missing" for name in missing if name in needed]
        states = {name.split("/")[1] for name in missing if name not in needed}
        return Checked(name, tuple(damage), len(there), total, given_up=len(states))
    damage, unchecked = [], []
    for inside, file in there.items():
        known = _by_itself(file)
        if known is None:
            unchecked.append(inside)
        elif known:
            damage.append(f"{inside} {known}")
    return Checked(name, tuple(damage), len(there), total, tuple(unchecked))


def sealed(about: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What ``done.json`` says, with what is known of the files if it did not say that yet."""
    if "files" in about:
        return dict(about)
    return {**about, "files": files.contents(folder, without=MARK)}


def _against(sealed: Mapping[str, Any], there: Mapping[str, Path]) -> Iterator[str]:
    """What differs from what was written."""
    for name, file in there.items():
        if name not in sealed:
            yield f"{name} was not there when it was finished"
            continue
        size, checksum = sealed[name]
        if file.stat().st_size != size:
            yield f"{name} has {file.stat().st_size} bytes, not {size}"
        elif files.sha256(file) != checksum:
            yield f"{name} has another checksum"


def _needed(path: Path, missing: list[str]) -> set[str]:
    """Those of the missing files that a collection would not have removed."""
    gone = {name for name in missing if name.startswith("checkpoints/step_")}
    steps = {name.split("/")[1] for name in gone}
    every = {*steps, *(p.name for p in (path / "checkpoints").glob("step_*"))}
    ends = {min(every), max(every)} if every else set()
    return set(missing) - {name for name in gone if name.split("/")[1] not in ends}


def _by_itself(file: Path) -> str | None:
    """What is wrong with a file, as it says itself; empty if nothing, None if it does not say."""
    try:
        if file.suffix == ".safetensors":
            tensors.read(file)
        elif file.suffix == ".json":
            json.loads(file.read_text())
        else:
            return None
    except DamagedError as error:
        return f"is damaged: {error}"
    except (OSError, ValueError) as error:
        return f"cannot be read: {error}"
    return ""
