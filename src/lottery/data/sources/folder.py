"""A folder of class folders of image files.

Either ``dir/<class>/*.jpg``, from which test is cut off, or ``dir/train/<class>/*.jpg`` with an
optional ``dir/test`` or ``dir/val`` of the same kind.
"""

import functools
import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lottery import choices
from lottery.config import Data
from lottery.data import contents, images
from lottery.data.contents import with_status
from lottery.data.images import File
from lottery.data.interface import Images, Labels, Rows, Shape, Split
from lottery.data.sources import Part
from lottery.data.splits import Keys, name_key
from lottery.errors import ConfigError, DataError
from lottery.options import did_you_mean, option

log = logging.getLogger(__name__)

_NAMED = 5
_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
TEST_FOLDERS = ("test", "val", "validation")


@dataclass(frozen=True, eq=False)
class Folder:
    """The image files found below a root."""

    name: str
    root: Path
    image_shape: Shape
    classes: tuple[str, ...]
    paths: dict[Part, list[str]]
    """Relative to ``root``, sorted by class, then by file name."""
    fingerprint: dict[str, Any]
    unreadable: tuple[str, ...] = ()
    """Those left out, relative to ``root``."""

    @property
    def sizes(self) -> dict[Part, int]:
        """Files per part."""
        return {part: len(paths) for part, paths in self.paths.items()}

    def labels(self, part: Part) -> Labels:
        """Position of each file's class folder among those of train."""
        label = {name: i for i, name in enumerate(self.classes)}
        folders = (path.rsplit("/", 2)[-2] for path in self.paths[part])
        return np.fromiter((label[name] for name in folders), np.int32, len(self.paths[part]))

    def keys(self, part: Part) -> Keys:
        """Of class folder and file name, so that a file that is added moves no other."""
        names = ("/".join(path.rsplit("/", 2)[-2:]) for path in self.paths[part])
        return np.fromiter(map(name_key, names), np.uint64, len(self.paths[part]))

    def images(self, part: Part, rows: Rows) -> Images:
        """See :class:`lottery.data.sources.Source`."""
        paths = [self.paths[part][row] for row in rows]
        files = ((path, (self.root / path).read_bytes) for path in paths)
        return images.decode_all(files, len(paths), self.image_shape)

    def original_side(self) -> int | None:
        """By the headers of a sample of the files."""
        rows = images.sampled(self.sizes["train"])
        return images.median_side(self.root / self.paths["train"][row] for row in rows)

    def stream(self, part: Part, rows: Rows, labels: Labels) -> Split:
        """See :class:`lottery.data.sources.Source`."""
        from lottery.data.streams import FolderSplit

        paths = [self.paths[part][row] for row in rows]
        return FolderSplit(self.root, paths, labels, self.image_shape)


@choices.source("folder")
@dataclass(frozen=True)
class FolderData(Data):
    """A folder of class folders of images, with or without train/ and test/."""

    dir: str | None = option(None, "folder of class folders of images", identity=False)
    name: str = option("", "what to call it; empty: the name of the folder", identity=False)
    test: str = option("test", "name of the folder of test images")
    max_unreadable: int = option(
        0,
        "images that may be left out because they cannot be decoded; more than 0: all are decoded "
        "once beforehand",
        identity=False,
        ge=0,
    )

    def open(self) -> Folder:
        """The images below ``dir``, always RGB.

        Without ``test`` the test split is the first of :data:`TEST_FOLDERS` that is there.
        Raises :class:`ConfigError` if there is no ``dir`` or ``test`` is a path, and
        :class:`DataError` if it does not exist, if there is no folder ``test`` or it is ``train``
        by another name, if a class has no images, if ``test`` has a class that ``train`` has not,
        if a name is not UTF-8, if images differ in size and no ``stored_size`` says what to do, or
        if more than ``max_unreadable`` images cannot be decoded, where that is asked for.
        """
        if not self.dir:
            raise ConfigError(
                "data.source=folder needs data.dir=<folder of class folders of images>"
            )
        root = Path(self.dir).expanduser()
        if not root.is_dir():
            raise DataError(f"there is no folder {root} (data.dir)")
        if self.test in ("", "..") or Path(self.test).name != self.test:
            raise ConfigError(f"data.test={self.test} is not the name of a folder in {root}")
        found = find(root, TEST_FOLDERS if self.test == FolderData.test else (self.test,))
        if self.test != FolderData.test and "test" not in found:
            beside = [name for name in subfolders(root) if name != "train"]
            known = beside if (root / "train").is_dir() else []
            raise DataError(
                f"data.test={self.test}: there is no folder {root / self.test} beside "
                f"{root / 'train'}{did_you_mean(self.test, known)}"
            )
        classes = tuple(found["train"])
        files = {
            part: [f for fs in folders.values() for f in fs] for part, folders in found.items()
        }
        left_out: tuple[str, ...] = ()
        if self.max_unreadable:
            left_out = _unreadable(root, [f for fs in files.values() for f in fs])
            _allow(root, left_out, self.max_unreadable)
            gone = set(left_out)
            files = {part: [f for f in fs if f.path not in gone] for part, fs in files.items()}
            still = {file.path.rsplit("/", 2)[-2] for file in files["train"]}
            if empty := [name for name in classes if name not in still]:
                raise DataError(f"no image of class {empty[0]} of {root} can be decoded")
        paths = {part: [file.path for file in fs] for part, fs in files.items()}
        side = self.stored_size or _side(root, [path for ps in paths.values() for path in ps])
        return Folder(
            name=self.name or root.resolve().name,
            root=root,
            image_shape=(side, side, 3),
            classes=classes,
            paths=paths,
            fingerprint=fingerprint(files)
            | {"contents": {part: contents.of_files(root, fs) for part, fs in files.items()}},
            unreadable=left_out,
        )


def _unreadable(root: Path, listed: Sequence[File]) -> tuple[str, ...]:
    """The files that cannot be decoded; each is decoded once while it does not change."""

    def compute() -> str:
        log.info("decoding %d images of %s once, to find unreadable ones", len(listed), root)
        files = ((file.path, (root / file.path).read_bytes) for file in listed)
        return json.dumps(images.unreadable(files))

    def whole(text: str) -> bool:
        return text.startswith("[") and text.endswith("]")

    found = json.loads(contents.remembered("unreadable", listed, compute, whole))
    _tell(root, tuple((path, reason) for path, reason in found))
    return tuple(path for path, _ in found)


@functools.cache  # once in a process: every cell of a sweep opens its data
def _tell(root: Path, found: tuple[tuple[str, str], ...]) -> None:
    for path, reason in found[:_NAMED]:
        log.warning("unreadable: %s: %s", root / path, reason)
    if len(found) > _NAMED:
        log.warning("unreadable: %d more", len(found) - _NAMED)


def _allow(root: Path, left_out: Sequence[str], allowed: int) -> None:
    if len(left_out) > allowed:
        named = ", ".join(left_out[:_NAMED]) + (", ..." if len(left_out) > _NAMED else "")
        raise DataError(
            f"{len(left_out)} images of {root} cannot be decoded, more than "
            f"data.max_unreadable={allowed}: {named}; repair, remove or allow for them"
        )


def find(
    root: Path, test_folders: Sequence[str] = TEST_FOLDERS
) -> dict[Part, dict[str, list[File]]]:
    """The image files of each class of each part, both sorted by name.

    ``test`` is the first of ``test_folders`` with folders in it that stands beside ``train``.
    Raises :class:`DataError` for a class without images, for one of ``test`` alone, for a ``test``
    that is ``train`` by another name, and for names that are not UTF-8.
    """
    train = root / "train" if (root / "train").is_dir() else root
    found: dict[Part, dict[str, list[File]]] = {"train": class_folders(root, train)}
    beside = [root / name for name in test_folders if (root / name).is_dir()]
    test = next((folder for folder in beside if subfolders(folder)), next(iter(beside), None))
    if train != root and test is not None:
        if test.samefile(train):
            raise DataError(
                f"{test} is {train} by another name: test accuracy would be that on training "
                "examples"
            )
        found["test"] = class_folders(root, test)
    classes = tuple(found["train"])
    for unknown in set(found.get("test", ())) - set(classes):
        hint = did_you_mean(unknown, classes)
        raise DataError(f"class {unknown} of {test} is not a class of {train}{hint}")
    return found


def fingerprint(files: Mapping[Part, Sequence[File]]) -> dict[str, Any]:
    """JSON values that change when a file comes, goes or changes its size; nothing is read."""
    listed = [(file.path, file.bytes) for of_part in files.values() for file in sorted(of_part)]
    listing = "\n".join(f"{path}\t{size}" for path, size in listed)
    return {
        "source": "folder",
        "examples": {part: len(of_part) for part, of_part in files.items()},
        "paths_and_bytes": hashlib.sha256(listing.encode()).hexdigest(),
    }


def class_folders(root: Path, folder: Path) -> dict[str, list[File]]:
    """The image files in each folder of ``folder``, both sorted, with paths relative to ``root``.

    Raises :class:`DataError` for a folder without images and for fewer than two folders.
    """
    classes = {name: image_files(root, folder / name) for name in subfolders(folder)}
    empty = [name for name, files in classes.items() if not files]
    if empty:
        more = ", ..." if len(empty) > 5 else ""
        raise DataError(
            f"{len(empty)} of {len(classes)} class folders of {folder} hold no images "
            f"({', '.join(_ENDINGS)}): {', '.join(empty[:5])}{more}"
        )
    if len(classes) < 2:
        raise DataError(f"{folder} must hold two or more class folders, not {len(classes)}")
    return classes


def image_files(root: Path, folder: Path) -> list[File]:
    """The image files in ``folder`` itself, sorted, with paths relative to ``root``."""
    within = folder.relative_to(root).parts
    with os.scandir(folder) as entries:
        # scandir, because a stat per file is slow enough for a million files.
        return sorted(
            with_status("/".join((*within, _readable(entry))), entry.stat())
            for entry in entries
            if entry.name.lower().endswith(_ENDINGS) and entry.is_file()
        )


def subfolders(folder: Path) -> list[str]:
    """Their names, sorted; hidden ones are none."""
    with os.scandir(folder) as entries:
        return sorted(_readable(e) for e in entries if e.is_dir() and not e.name.startswith("."))


def _readable(entry: os.DirEntry[str]) -> str:
    """The name of a file or folder, which results and tables will have to show.

    Raises :class:`DataError` for one that is not UTF-8.
    """
    if not entry.name.isascii():
        try:
            entry.name.encode()
        except UnicodeEncodeError:
            raise DataError(
                f"the name {os.fsencode(entry.path)!r} is not UTF-8: rename it, e.g. with convmv"
            ) from None
    return entry.name


def _side(root: Path, paths: list[str]) -> int:
    size = images.common_size(root, paths)
    if size is None or size[0] != size[1]:
        what = "differ in size" if size is None else f"are {size[0]}x{size[1]} pixels, not square"
        raise DataError(
            f"the images of {root} {what}: set data.stored_size=<side in pixels to resize to>"
        )
    return size[0]
