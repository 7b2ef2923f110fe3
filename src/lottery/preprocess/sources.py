"""What a source folder holds, found by looking: its classes, its images in order, their labels.

One of three kinds: a prepared TensorFlow data set, an ILSVRC tree, a folder of class folders. Only
listings and label files are read, no images, and TensorFlow is not imported.
"""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lottery.data.images import File
from lottery.data.sources import Part, folder, tfds
from lottery.errors import DataError
from lottery.preprocess import ilsvrc
from lottery.preprocess.shards import Files, Records

log = logging.getLogger(__name__)

# Where an ILSVRC archive has its images, below what the user calls its root.
_ILSVRC_FOLDERS = ("Data/CLS-LOC", "ILSVRC/Data/CLS-LOC", "ILSVRC2012/Data/CLS-LOC")
_HELD_OUT = ("test", "validation", "val")


@dataclass(frozen=True)
class Source:
    """A labelled image set in its own fixed order."""

    kind: str
    """``folder``, ``ilsvrc`` or ``tfds``."""
    name: str
    classes: tuple[str, ...]
    """Names by label."""
    parts: Mapping[Part, Files | Records]
    """``train``, and ``test`` if the source holds examples out."""
    fingerprint: dict[str, Any]
    """JSON values that identify the content."""


def find(root: Path) -> Source:
    """The images below ``root``. Raises :class:`DataError` if it is nothing known or not whole."""
    if not root.is_dir():
        raise DataError(f"there is no folder {root} (source)")
    root = root.resolve()
    versions = [root] if (root / "features.json").is_file() else tfds.versions_of(root)
    if versions:
        return _tfds(versions[-1])
    for below in (*_ILSVRC_FOLDERS, "."):
        base = root / below
        flat = next((base / n for n in ("val", "validation") if _is_flat(root, base / n)), None)
        if (base / "train").is_dir() and flat:
            return _ilsvrc(root, base, flat)
        if (base / "train").is_dir() and below != ".":
            root = base  # the tree with its validation images sorted into classes
            break
    if not folder.subfolders(root):
        raise DataError(
            f"{root} is no source of images: neither class folders, nor an ILSVRC tree (train/ and "
            "val/), nor a prepared TensorFlow data set (features.json)"
        )
    return _folder(root)


def _is_flat(root: Path, path: Path) -> bool:
    return path.is_dir() and not folder.subfolders(path) and bool(folder.image_files(root, path))


def _folder(root: Path) -> Source:
    found = folder.find(root)
    classes = tuple(found["train"])
    label = {name: i for i, name in enumerate(classes)}
    listed = {
        part: [(file, label[name]) for name, files in folders.items() for file in files]
        for part, folders in found.items()
    }
    return _of_files("folder", root, classes, listed)


def _ilsvrc(root: Path, base: Path, flat: Path) -> Source:
    train = folder.class_folders(root, base / "train")
    label = {synset: i for i, synset in enumerate(train)}
    files = folder.image_files(root, flat)
    places = (root, base, flat, root.parent)
    synsets = ilsvrc.validation_synsets(places, [Path(file.path).stem for file in files])
    if unknown := sorted(set(synsets) - set(label)):
        raise DataError(
            f"the label file of {flat} names {len(unknown)} classes that {base / 'train'} has not: "
            f"{', '.join(unknown[:5])}{', ...' if len(unknown) > 5 else ''}"
        )
    called = ilsvrc.names(places)
    listed: dict[Part, list[tuple[File, int]]] = {
        "train": [(file, label[synset]) for synset, files in train.items() for file in files],
        "test": [(file, label[synset]) for file, synset in zip(files, synsets, strict=True)],
    }
    return _of_files("ilsvrc", root, tuple(called.get(synset, synset) for synset in train), listed)


def _of_files(
    kind: str, root: Path, classes: tuple[str, ...], listed: dict[Part, list[tuple[File, int]]]
) -> Source:
    parts = {
        part: Files(str(root), tuple(f for f, _ in pairs), tuple(n for _, n in pairs))
        for part, pairs in listed.items()
    }
    for part, files in parts.items():
        _warn_of_absent(
            part, [classes[i] for i in sorted({*range(len(classes))} - {*files.labels})]
        )
    labels = repr([files.labels for files in parts.values()]).encode()
    fingerprint = folder.fingerprint({part: files.files for part, files in parts.items()})
    fingerprint |= {"source": kind, "labels": hashlib.sha256(labels).hexdigest()}
    return Source(kind, root.name, classes, parts, fingerprint)


def _warn_of_absent(part: str, absent: list[str]) -> None:
    if absent:
        named = ", ".join(absent[:5]) + (", ..." if len(absent) > 5 else "")
        log.warning("%d classes have no %s image: %s", len(absent), part, named)


def _tfds(directory: Path) -> Source:
    info, features = tfds.read_json(directory, "dataset_info.json"), tfds.read_features(directory)
    classes = tfds.class_names(directory, features)
    splits = {str(split["name"]): split for split in info.get("splits", [])}
    if "train" not in splits:
        raise DataError(f"{directory} has no split train (it has: {', '.join(splits) or 'none'})")
    parts: dict[Part, Records] = {"train": _records(directory, info, splits["train"], len(classes))}
    held_out = None
    for name in (name for name in _HELD_OUT if name in splits):
        records = _records(directory, info, splits[name], len(classes))
        if tfds.is_labelled(
            [str(directory / f.path) for f in records.files]
        ):  # the test split of a competition is not
            parts["test"], held_out = records, name
            break
    used = {"train": "train"} | ({"test": held_out} if held_out else {})
    return Source(
        kind="tfds",
        name=str(info["name"]),
        classes=classes,
        parts=parts,
        fingerprint={
            "source": "tfds",
            "name": str(info["name"]),
            "version": directory.name,
            "splits": used,
            "examples": {part: len(records) for part, records in parts.items()},
            "bytes": {part: sum(f.bytes for f in r.files) for part, r in parts.items()},
        },
    )


def _records(directory: Path, info: dict[str, Any], split: dict[str, Any], classes: int) -> Records:
    files = []
    for shard in map(Path, tfds.find_shards(directory, info, split)):
        status = shard.stat()
        files.append(File(shard.name, status.st_size, status.st_mtime_ns))
    lengths = tuple(int(length) for length in split["shardLengths"])
    name = f"{info['name']} {split['name']}"
    return Records(str(directory), name, classes, tuple(files), lengths, 0, sum(lengths))
