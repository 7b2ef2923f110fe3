"""``manifest.json``: what a folder of records holds, and whether it still does."""

import hashlib
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lottery import files

MANIFEST = "manifest.json"
HEADER = 128
"""Bytes before the first image of an array file."""


def content(splits: Mapping[Any, dict[str, Any]]) -> str:
    """The checksum over the checksums of all files and shards."""
    digest = hashlib.sha256()
    for name, split in sorted(splits.items()):
        for entry in (*split["files"], *split["shards"]):
            if "sha256" in entry:
                digest.update(f"{name} {entry['sha256']}\n".encode())
    return digest.hexdigest()


def header(count: int, size: int) -> bytes:
    """The first :data:`HEADER` bytes of an array file, uint8 [count, size, size, 3]."""
    buffer = io.BytesIO()
    about = {"descr": "|u1", "fortran_order": False, "shape": (count, size, size, 3)}
    np.lib.format.write_array_header_1_0(buffer, about)
    if len(buffer.getvalue()) != HEADER:
        raise ValueError("numpy writes a header of another length")
    return buffer.getvalue()


def problems(folder: Path, manifest: dict[str, Any]) -> Iterator[str | int]:
    """What does not match, in words; and, as they are read, numbers of bytes that were checked."""
    for name, split in manifest["splits"].items():
        for entry in split["files"]:
            yield from _file(folder / entry["name"], entry)
        yield from _labels(folder, name, split)
        if manifest["format"] == "array":
            yield from _rows(folder / f"{name}_images.npy", split, manifest["size"])
    if content(manifest["splits"]) != manifest["content"]:
        yield f"{MANIFEST}: its own checksums do not match their sum"


def _file(path: Path, entry: dict[str, Any]) -> Iterator[str | int]:
    if not path.is_file():
        yield f"{path.name} is missing"
    elif (size := path.stat().st_size) != entry["bytes"]:
        yield f"{path.name} has {size:,} bytes instead of {entry['bytes']:,}"
    elif "sha256" in entry:
        if files.sha256(path) != entry["sha256"]:
            yield f"{path.name} does not match its checksum"
        yield size


def _labels(folder: Path, name: str, split: dict[str, Any]) -> Iterator[str | int]:
    try:
        labels = np.load(folder / f"{name}_labels.npy", allow_pickle=False)
        counts = np.bincount(labels, minlength=len(split["class_counts"])).tolist()
    except (OSError, ValueError, TypeError):
        counts = None  # missing or damaged, which its size or checksum has told
    if counts is not None and counts != split["class_counts"]:
        yield f"{name}_labels.npy has other class counts than {MANIFEST}"


def _rows(path: Path, split: dict[str, Any], size: int) -> Iterator[str | int]:
    if not path.is_file():
        return
    row = size * size * 3
    with path.open("rb") as file:
        if file.read(HEADER) != header(split["examples"], size):
            yield f"{path.name} has another header than {MANIFEST} tells"
        for shard in split["shards"]:
            first, last = shard["first"], shard["first"] + shard["examples"] - 1
            if checksum(file, HEADER + first * row, shard["examples"] * row) != shard["sha256"]:
                yield f"{path.name} does not match its checksum in rows {first} to {last}"
            yield shard["examples"] * row


def checksum(file: Any, start: int, count: int) -> str:
    """The SHA-256 of ``count`` bytes of an open file, or of what there is of them."""
    digest = hashlib.sha256()
    file.seek(start)
    while count and (block := file.read(min(count, 2**22))):
        digest.update(block)
        count -= len(block)
    return digest.hexdigest()
