"""Images that preprocess.py has prepared: uniform squares in memory-mapped arrays or TFRecords."""

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lottery import choices
from lottery.config import Data
from lottery.data import contents, images, tfrecord
from lottery.data.images import Decode, File
from lottery.data.interface import Images, Labels, Rows, Shape, Split
from lottery.data.manifest import MANIFEST, problems
from lottery.data.sources import Part
from lottery.data.splits import Keys
from lottery.errors import ConfigError, DataError
from lottery.options import option

VERSION = 1

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Records:
    """A folder with a manifest, images, and an array of labels for each part."""

    name: str
    directory: Path
    image_shape: Shape
    classes: tuple[str, ...]
    sizes: dict[Part, int]
    fingerprint: dict[str, Any]
    shards: dict[Part, tuple[str, ...]]
    """TFRecord files, in order; none if the images are in arrays."""
    raw: bool
    """Pixels as they are, not JPEG."""
    original: int | None
    """See :meth:`original_side`."""

    def original_side(self) -> int | None:
        """As preprocess.py noted it."""
        return self.original

    def labels(self, part: Part) -> Labels:
        """See :class:`lottery.data.sources.Source`."""
        labels: Labels = np.load(self.directory / f"{part}_labels.npy")
        return labels

    def keys(self, part: Part) -> Keys:
        """Positions in the output."""
        return np.arange(self.sizes[part], dtype=np.uint64)

    def images(self, part: Part, rows: Rows) -> Images:
        """See :class:`lottery.data.sources.Source`."""
        if not self.shards[part]:
            found: Images = np.load(self._array(part), mmap_mode="r")[rows]
            return found
        reader = tfrecord.Reader(self.shards[part])
        files = (reader.encoded(row, f"{self.name} {part}") for row in rows.tolist())
        return images.decode_all(files, len(rows), self.image_shape, self._decode)

    def stream(self, part: Part, rows: Rows, labels: Labels) -> Split:
        """See :class:`lottery.data.sources.Source`."""
        if self.shards[part]:
            split: Split = self._records(part, rows, labels)
            return split
        from lottery.data.records import RecordSplit

        return RecordSplit(self._array(part), rows, labels)

    def _array(self, part: Part) -> Path:
        return self.directory / f"{part}_images.npy"

    @property
    def _decode(self) -> Decode:
        return images.unpack if self.raw else images.decode

    def _records(self, part: Part, rows: Rows, labels: Labels) -> Any:
        from lottery.data.streams import TfrecordSplit

        name, reader = f"{self.name} {part}", tfrecord.Reader(self.shards[part])
        return TfrecordSplit(name, reader, rows, labels, self.image_shape, self._decode)


@choices.source("records")
@dataclass(frozen=True)
class RecordsData(Data):
    """Images that preprocess.py has prepared."""

    dir: str | None = option(None, "output folder of preprocess.py", identity=False)
    name: str = option("", "what to call it; empty: the name of the folder", identity=False)

    def open(self) -> Records:
        """What the manifest in ``dir`` says, once its files have been found to be whole.

        Raises :class:`ConfigError` if there is no ``dir`` or ``stored_size`` asks for another size,
        and :class:`DataError` if there is no manifest, or one that its files do not match.
        """
        if not self.dir:
            raise ConfigError("data.source=records needs data.dir=<output folder of preprocess.py>")
        directory = Path(self.dir).expanduser()
        manifest = read_manifest(directory)
        check_files(directory, manifest)
        _check_changed(directory, manifest)
        side, channels = manifest["size"], manifest["channels"]
        if self.stored_size not in (None, side):
            raise ConfigError(
                f"data.stored_size={self.stored_size}: the records in {directory} were made with "
                f"size={side}; run preprocess.py again for another"
            )
        return Records(
            name=self.name or directory.resolve().name,
            directory=directory,
            image_shape=(side, side, channels),
            classes=tuple(manifest["classes"]),
            sizes={part: split["examples"] for part, split in manifest["splits"].items()},
            fingerprint={
                "source": "records",
                "content": manifest["content"],
                "format": manifest["format"],
            },
            shards={
                part: tuple(
                    str(directory / file["name"])
                    for file in split["files"]
                    if file["name"].endswith(".tfrecord")
                )
                for part, split in manifest["splits"].items()
            },
            raw=manifest["encoding"] == "raw",
            # Manifests of older versions lack them.
            original=(manifest["splits"]["train"].get("original_sides") or {}).get("median"),
        )


def read_manifest(directory: Path) -> dict[str, Any]:
    """What ``preprocess.py`` says of a folder that it wrote.

    Raises :class:`DataError` if there is nothing, or it is damaged or of a newer version.
    """
    path = directory / MANIFEST
    if not directory.is_dir():
        raise DataError(f"there is no folder {directory}")
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
        version = manifest["version"]
    except FileNotFoundError:
        if (directory / ".work").is_dir():
            raise DataError(
                f"the preparation of {directory} was not finished: run the same preprocess.py "
                "command again, it goes on where it stopped"
            ) from None
        raise DataError(
            f"{directory} is no output of preprocess.py: it has no {MANIFEST}"
        ) from None
    except (ValueError, TypeError, KeyError):
        raise _damaged(path) from None
    if version != VERSION:
        raise DataError(f"{path} has version {version}; this code reads {VERSION}")
    return manifest


def _damaged(manifest: Path) -> DataError:
    return DataError(f"{manifest} is damaged; prepare the folder again")


def check_files(directory: Path, manifest: dict[str, Any]) -> None:
    """Raise :class:`DataError` for a file that is not there in the length of the manifest."""
    for split in manifest["splits"].values():
        for entry in split["files"]:
            path = directory / entry["name"]
            if not path.is_file() or path.stat().st_size != entry["bytes"]:
                raise DataError(
                    f"{path} is missing or cut short: preprocess.py verify={directory} tells more, "
                    "with force=true it makes the folder again"
                )


def trust(directory: Path) -> None:
    """Remember that the files of a folder, just written, are those that its manifest tells of."""
    manifest = read_manifest(directory)
    contents.remember("records", _stamps(directory, manifest), _checked(manifest))


def _check_changed(directory: Path, manifest: dict[str, Any]) -> None:
    """Raise :class:`DataError` if files are not what the manifest says, by which keys know them.

    Who prepared the folder knows. A copy of it, or a file that was replaced, is read once.
    """

    def compare() -> str:
        log.info("%s is not as preprocess.py has left it: comparing it with its %s, once",
                 directory, MANIFEST)  # fmt: skip
        try:
            wrong = [found for found in problems(directory, manifest) if isinstance(found, str)]
        except (KeyError, TypeError, ValueError):
            raise _damaged(directory / MANIFEST) from None
        if wrong:
            raise DataError(
                f"{directory} was changed after it was prepared: {wrong[0]}; prepare it again with "
                "preprocess.py force=true"
            )
        return _checked(manifest)

    contents.remembered("records", _stamps(directory, manifest), compare)


def _stamps(directory: Path, manifest: dict[str, Any]) -> list[File]:
    names = [entry["name"] for split in manifest["splits"].values() for entry in split["files"]]
    return [contents.stamped(directory, name) for name in (*names, MANIFEST)]


def _checked(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(manifest["content"].encode()).hexdigest()
