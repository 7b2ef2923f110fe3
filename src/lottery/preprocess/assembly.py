"""From finished shards to one output: holes closed, labels, statistics, manifest, final names."""

import math
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lottery import files
from lottery.data import manifest
from lottery.data.images import POLICY
from lottery.data.manifest import HEADER, MANIFEST
from lottery.data.sources.records import VERSION
from lottery.preprocess.shards import Done, Layout, file_name
from lottery.preprocess.sources import Source

_OURS = re.compile(r"(train|test)(_(images|labels)\.npy|-\d{5}-of-\d{5}\.tfrecord)")


def allocate(layout: Layout, part: str, count: int) -> None:
    """An array file of the final size, without its blocks. What an earlier job wrote stays."""
    path = Path(layout.work, file_name("array", part))
    with path.open("r+b" if path.exists() else "xb") as file:
        file.write(manifest.header(count, layout.size))
        file.truncate(HEADER + count * layout.row_bytes)


def assemble(source: Source, layout: Layout, shards: Sequence[Done], about: dict[str, Any]) -> None:
    """Make the files of the work folder whole and write the manifest beside them.

    Killed at any moment, it can be run again. ``about`` goes into the manifest.
    """
    splits, statistics = {}, ([0.0] * 3, [0.0] * 3)
    for part in source.parts:
        of_part = sorted((s for s in shards if s.part == part), key=lambda s: s.index)
        splits[part] = _split(layout, part, of_part, len(source.classes))
        if part == "train":
            pixels = splits[part]["examples"] * layout.size**2
            statistics = _statistics(of_part, pixels)
    encoded = f"; stored as JPEG of quality {layout.quality}" if layout.encoding == "jpeg" else ""
    finished = {
        "version": VERSION,
        "format": layout.format,
        "encoding": layout.encoding,
        "size": layout.size,
        "channels": 3,
        "policy": POLICY + encoded,
        "classes": list(source.classes),
        "mean": statistics[0],
        "std": statistics[1],
        "splits": splits,
        **about,
        "content": manifest.content(splits),
    }
    files.write_json(Path(layout.work, MANIFEST), finished)


def publish(work: Path, output: Path) -> None:
    """Give what is in the work folder its final names, the manifest last, and remove the folder.

    Killed at any moment, it can be run again.
    """
    finished = files.read_json(work / MANIFEST)
    (output / MANIFEST).unlink(missing_ok=True)  # of an output that is replaced
    names = {file["name"] for split in finished["splits"].values() for file in split["files"]}
    for path in output.iterdir():
        if _OURS.fullmatch(path.name) and path.name not in names:
            path.unlink()
    for name in sorted(names):
        if (work / name).exists():
            (work / name).replace(output / name)
    files.sync(output)
    (work / MANIFEST).replace(output / MANIFEST)
    files.sync(output)
    shutil.rmtree(work)


def _split(layout: Layout, part: str, shards: list[Done], classes: int) -> dict[str, Any]:
    work = Path(layout.work)
    if layout.format == "array":
        labels = _close_holes(layout, part, shards)
        entries = _array_shards(layout, part, shards, len(labels))
        images = work / file_name("array", part)
        listed = [{"name": images.name, "bytes": images.stat().st_size}]
    else:
        labels, entries = _of_all(shards), []
        listed = [
            {
                "name": file_name("tfrecord", part, shard.index, len(shards)),
                "bytes": shard.bytes,
                "examples": len(shard.labels),
                "sha256": shard.sha256,
            }
            for shard in shards
        ]
    path = work / f"{part}_labels.npy"
    with files.replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, labels)
    return {
        "examples": len(labels),
        "class_counts": np.bincount(labels, minlength=classes).tolist(),
        "original_sides": _original_sides(shards),
        "unreadable": [entry for shard in shards for entry in shard.unreadable],
        "files": [
            *listed,
            {"name": path.name, "bytes": path.stat().st_size, "sha256": files.sha256(path)},
        ],
        "shards": entries,
    }


def _original_sides(shards: list[Done]) -> dict[str, int] | None:
    """Short sides in pixels before images were resized; None if an older journal lacks them."""
    sides = sorted(side for shard in shards for side in shard.sides)
    if len(sides) != sum(len(shard.labels) for shard in shards) or not sides:
        return None
    return {"smallest": sides[0], "median": sides[len(sides) // 2], "largest": sides[-1]}


def _of_all(shards: list[Done]) -> npt.NDArray[np.int32]:
    return np.array([label for shard in shards for label in shard.labels], np.int32)


def _close_holes(layout: Layout, part: str, shards: list[Done]) -> npt.NDArray[np.int32]:
    """Move the last rows into the holes, cut the file, and return the labels of its rows."""
    total, first, holes = sum(shard.examples for shard in shards), 0, list[int]()
    for shard in shards:
        holes += [first + row for row in shard.holes]
        first += shard.examples
    kept = total - len(holes)
    readable = np.ones(total, bool)
    readable[holes] = False
    labels = np.empty(total, np.int32)
    labels[readable] = _of_all(shards)
    targets, donors = np.flatnonzero(~readable[:kept]), kept + np.flatnonzero(readable[kept:])
    labels[targets] = labels[donors]
    path, row = Path(layout.work, file_name("array", part)), layout.row_bytes
    with path.open("r+b") as file, files.naming(path):
        for target, donor in zip(targets.tolist(), donors.tolist(), strict=True):
            file.seek(HEADER + donor * row)
            image = file.read(row)
            file.seek(HEADER + target * row)
            file.write(image)
        file.seek(0)
        file.write(manifest.header(kept, layout.size))
        file.flush()
        os.fsync(file.fileno())  # before the rows that were moved are cut off
        file.truncate(HEADER + kept * row)
        os.fsync(file.fileno())
    return labels[:kept]


def _array_shards(layout: Layout, part: str, shards: list[Done], kept: int) -> list[dict[str, Any]]:
    """The checksum of each shard's rows, computed again where holes or the cut changed them."""
    entries, first, row = [], 0, layout.row_bytes
    with Path(layout.work, file_name("array", part)).open("rb") as file:
        for shard in shards:
            count = min(shard.examples, kept - first)
            if count <= 0:
                break
            touched = shard.holes or count < shard.examples
            start = HEADER + first * row
            sha256 = manifest.checksum(file, start, count * row) if touched else shard.sha256
            entries.append({"first": first, "examples": count, "sha256": sha256})
            first += shard.examples
    return entries


def _statistics(shards: list[Done], pixels: int) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel scaled to [0, 1], exact but for one rounding."""
    mean, std = [], []
    for channel in range(3):
        total = sum(shard.sums[channel] for shard in shards)
        squares = sum(shard.squares[channel] for shard in shards)
        mean.append(total / (255 * pixels))
        std.append(math.sqrt((pixels * squares - total**2) / (255 * pixels) ** 2))
    return mean, std
