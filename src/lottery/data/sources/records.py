"""Images that preprocess.py has prepared: uniform uint8 squares in memory-mapped arrays."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lottery.config import Data
from lottery.data.interface import Images, Labels, Rows, Shape, Split
from lottery.data.sources import Part
from lottery.errors import ConfigError, DataError

MANIFEST = "manifest.json"
VERSION = 1


@dataclass(frozen=True)
class Records:
    """A folder with a manifest, arrays of images and arrays of labels."""

    name: str
    directory: Path
    image_shape: Shape
    classes: tuple[str, ...]
    sizes: dict[Part, int]
    fingerprint: dict[str, Any]

    def labels(self, part: Part) -> Labels:
        """See :class:`lottery.data.sources.Source`."""
        labels: Labels = np.load(self.directory / f"{part}_labels.npy")
        return labels

    def images(self, part: Part, rows: Rows) -> Images:
        """See :class:`lottery.data.sources.Source`."""
        images: Images = np.load(self._images(part), mmap_mode="r")[rows]
        return images

    def stream(self, part: Part, rows: Rows, labels: Labels) -> Split:
        """See :class:`lottery.data.sources.Source`."""
        from lottery.data.records import RecordSplit

        return RecordSplit(self._images(part), rows, labels)

    def _images(self, part: Part) -> Path:
        return self.directory / f"{part}_images.npy"


def open_source(config: Data) -> Records:
    """What the manifest in ``config.dir`` says, once its files have been found to be whole.

    Raises :class:`ConfigError` if there is no ``dir`` or ``stored_size`` asks for another size,
    and :class:`DataError` if there is no manifest, or one that its files do not match.
    """
    if not config.dir:
        raise ConfigError("data.source=records needs data.dir=<output folder of preprocess.py>")
    directory = Path(config.dir).expanduser()
    manifest = read_manifest(directory)
    side, channels = manifest["size"], manifest["channels"]
    if config.stored_size not in (None, side):
        raise ConfigError(
            f"data.stored_size={config.stored_size}: the records in {directory} were made with "
            f"size={side}; run preprocess.py again for another"
        )
    return Records(
        name=config.name or directory.resolve().name,
        directory=directory,
        image_shape=(side, side, channels),
        classes=tuple(manifest["classes"]),
        sizes={part: split["examples"] for part, split in manifest["splits"].items()},
        fingerprint={
            "source": "records",
            "content": manifest["content"],
            "format": manifest["format"],
        },
    )


def read_manifest(directory: Path) -> dict[str, Any]:
    """The manifest of a folder of records, whose files have the sizes that it says.

    Raises :class:`DataError` if it is missing, damaged, of a newer version or does not match.
    """
    path = directory / MANIFEST
    if not directory.is_dir():
        raise DataError(f"there is no folder {directory}")
    if not path.exists():
        if (directory / ".work").exists():
            raise DataError(
                f"the preparation of {directory} was not finished: run the same preprocess.py "
                "command again, it goes on where it stopped"
            )
        raise DataError(f"{directory} holds no records: it has no {MANIFEST} (see preprocess.py)")
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
        version = manifest["version"]
    except (ValueError, TypeError, KeyError):
        raise DataError(f"{path} is damaged; prepare the folder again") from None
    if version > VERSION:
        raise DataError(f"{path} has version {version}; this code reads up to {VERSION}")
    for split in manifest["splits"].values():
        for file in split["files"]:
            _check_size(directory / file["name"], file["bytes"])
    return manifest


def _check_size(path: Path, expected: int) -> None:
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise DataError(f"{path} is missing, though {MANIFEST} names it") from None
    if size != expected:
        raise DataError(
            f"{path} holds {size} bytes instead of the {expected} of {MANIFEST}: it was cut short "
            "or replaced; prepare the folder again"
        )
