"""A TensorFlow data set prepared on this machine, with features ``image`` and ``label``.

What can be known from the files beside the records is read without importing TensorFlow.
"""

import contextlib
import functools
import io
import itertools
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lottery import choices
from lottery.config import Data
from lottery.data import contents, images, tfrecord
from lottery.data.interface import Images, Labels, Rows, Shape, Split
from lottery.data.sources import Part
from lottery.data.splits import Keys
from lottery.errors import ConfigError, DataError
from lottery.options import did_you_mean, option

_DEFAULT_ROOT = "~/tensorflow_datasets"
# A TFRecord stores each example between 12 bytes of length and checksum and 4 of checksum.
_FRAMING = 16


@dataclass(frozen=True)
class Tfds:
    """One version of one data set."""

    name: str
    directory: Path
    image_shape: Shape
    classes: tuple[str, ...]
    sizes: dict[Part, int]
    splits: dict[Part, str]
    """What the parts are called there."""
    shards: dict[Part, tuple[str, ...]]
    """Their files."""
    fingerprint: dict[str, Any]

    def labels(self, part: Part) -> Labels:
        """See :class:`lottery.data.sources.Source`. The order is that of the files.

        Reads 10 microseconds a record, once, and of large records little but the labels. Raises
        :class:`DataError` for damaged files and for a split without labels (TFDS writes -1).
        """
        shards = self.shards[part]
        status = tuple((s.st_size, s.st_mtime_ns) for s in map(os.stat, shards))
        with self._whole():
            labels = _labels(shards, status)
        if labels.min(initial=0) < 0:
            raise DataError(
                f"the {self.splits[part]} split of {self.name} has no labels "
                f"({np.count_nonzero(labels < 0)} of {len(labels)} are -1)"
                f"{_labelled(self.directory, self.splits[part])}"
            )
        if len(labels) != self.sizes[part] or labels.max(initial=0) >= len(self.classes):
            raise half_written(
                self.directory, f"the labels of {self.splits[part]} are not those it tells of"
            )
        return labels

    def keys(self, part: Part) -> Keys:
        """Positions in the files."""
        return np.arange(self.sizes[part], dtype=np.uint64)

    def images(self, part: Part, rows: Rows) -> Images:
        """See :class:`lottery.data.sources.Source`."""
        with self._whole():
            reader = tfrecord.Reader(self.shards[part])
        name = f"{self.name} {self.splits[part]}"
        files = (reader.encoded(row, name) for row in rows.tolist())
        return images.decode_all(files, len(rows), self.image_shape)

    @contextlib.contextmanager
    def _whole(self) -> Iterator[None]:
        """Say of a damaged file what to do about it."""
        try:
            yield
        except DataError as error:
            raise half_written(self.directory, str(error)) from None

    def original_side(self) -> int | None:
        """As the data set declares it or, where it does not, by its first records.

        Who prepared it has shuffled them, and to find others all would have to be leapt over.
        """
        height, width, _ = _declared_shape(read_features(self.directory))
        if height > 0 and width > 0:
            return min(height, width)
        with self._whole():
            first = tfrecord.read(Path(self.shards["train"][0]))
            records = itertools.islice(first, images.SAMPLE)
            found = [tfrecord.decode(record).get("image", b"") for record in records]
        return images.median_side(io.BytesIO(bytes(image)) for image in found)

    def stream(self, part: Part, rows: Rows, labels: Labels) -> Split:
        """See :class:`lottery.data.sources.Source`."""
        from lottery.data.streams import TfrecordSplit

        name = f"{self.name} {self.splits[part]}"
        with self._whole():
            records = tfrecord.Reader(self.shards[part])
        split: Split = TfrecordSplit(name, records, rows, labels, self.image_shape)
        return split


def _labelled(directory: Path, refused: str) -> str:
    """The end of a message: which splits but ``refused`` have labels, by their first records."""
    info, names = read_json(directory, "dataset_info.json"), []
    for split in info.get("splits", []):
        if split["name"] == refused:
            continue
        with contextlib.suppress(DataError):  # of one that is not on this machine
            if is_labelled(find_shards(directory, info, split)):
                names.append(str(split["name"]))
    others = [name for name in names if name != "train"]
    return f"; with labels: {', '.join(names) or 'none'}" + (
        f" (data.test={others[0]})" if others else ""
    )


def is_labelled(shards: Sequence[str]) -> bool:
    """Whether the first record has a label: TFDS writes -1 into those that have none."""
    first = next((r for shard in shards for r in tfrecord.read(Path(shard), 0, 1)), None)
    return first is not None and tfrecord.decode(first).get("label", -1) != -1


@choices.source("tfds")
@dataclass(frozen=True)
class TfdsData(Data):
    """Any TensorFlow data set with features image and label."""

    name: str = option("", "name of the data set, e.g. cifar10", identity=False)
    root: str | None = option(None, "TensorFlow Datasets directory", identity=False)
    download: bool = option(False, "fetch a missing data set", identity=False)
    test: str = option("test", "name of the split to test on")

    def open(self) -> Tfds:
        """The newest version of ``name`` below ``root``.

        With ``download`` a missing one is fetched and prepared first, by default in
        ``~/tensorflow_datasets``.

        Raises :class:`ConfigError` if name or root are not given, and :class:`DataError` if the
        data set is missing, half-written, without the features or splits needed, or has images of
        several sizes and no ``stored_size`` says what to do.
        """
        if not self.name:
            raise ConfigError(
                "data.source=tfds needs data.name=<a TensorFlow data set, e.g. cifar10>"
            )
        if self.root is None and not self.download:
            raise ConfigError(
                "data.source=tfds needs data.root=<TensorFlow Datasets directory> "
                f"(or data.download=true, which defaults it to {_DEFAULT_ROOT})"
            )
        root = Path(self.root or _DEFAULT_ROOT).expanduser()
        if self.download and not versions_of(root / self.name):
            _download(self.name, root)
        directory = _newest_version(root, self.name)

        info, features = read_json(directory, "dataset_info.json"), read_features(directory)
        splits = {str(split["name"]): split for split in info.get("splits", [])}
        names: dict[Part, str] = {"train": "train", "test": self.test}
        shards: dict[Part, tuple[str, ...]] = {}
        for part, name in names.items():
            if name not in splits:
                hint = did_you_mean(name, splits)
                raise DataError(f"{self.name} in {directory} has no split {name}{hint}")
            shards[part] = find_shards(directory, info, splits[name])
        examples = {name: sum(map(int, splits[name]["shardLengths"])) for name in names.values()}
        return Tfds(
            name=self.name,
            directory=directory,
            image_shape=_image_shape(directory, features, self.stored_size),
            classes=class_names(directory, features),
            sizes={part: examples[name] for part, name in names.items()},
            splits=names,
            shards=shards,
            fingerprint={
                "source": "tfds",
                "name": self.name,
                "version": directory.name,
                "examples": examples,
                "bytes": {name: int(splits[name]["numBytes"]) for name in names.values()},
                "contents": {
                    name: _contents(directory, shards[part]) for part, name in names.items()
                },
            },
        )


def _contents(directory: Path, shards: tuple[str, ...]) -> str:
    """A checksum of the records of a split, by those that are stored with them."""
    return contents.remembered(
        "tfrecord",
        [contents.stamped(directory, Path(shard).name) for shard in shards],
        lambda: tfrecord.checksum(shards),
    )


def versions_of(folder: Path) -> list[Path]:
    """The folders of versions in the folder of a data set, in rising order."""
    found = [path for path in folder.glob("*.*.*") if re.fullmatch(r"\d+\.\d+\.\d+", path.name)]
    return sorted(found, key=lambda path: [int(number) for number in path.name.split(".")])


def _newest_version(root: Path, name: str) -> Path:
    if not root.is_dir():
        raise DataError(f"there is no TensorFlow Datasets directory {root} (data.root)")
    versions = versions_of(root / name)
    if versions:
        return versions[-1]
    configs = [path.parent.name for path in sorted((root / name).glob("*/*/dataset_info.json"))]
    if configs:
        raise DataError(f"data.name={name} needs a config, e.g. {name}/{configs[0]}")
    if (root / name).is_dir():
        raise DataError(
            f"{root / name} holds no complete version of the data set: its preparation was not "
            "finished; delete the folder and prepare it again"
        )
    known = sorted(path.name for path in root.iterdir() if path.is_dir())
    raise DataError(f"there is no data set {name} in {root}{did_you_mean(name, known)}")


def _download(name: str, root: Path) -> None:
    import tensorflow_datasets as tfds

    try:
        tfds.builder(name, data_dir=str(root)).download_and_prepare()
    except tfds.core.DatasetNotFoundError:
        hint = did_you_mean(name, tfds.list_builders())
        raise DataError(f"TensorFlow Datasets has no data set {name}{hint}") from None
    except Exception as error:  # whatever the set's own script and the network raise
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise DataError(f"cannot download {name} into {root}: {reason}") from error


def half_written(directory: Path, reason: str) -> DataError:
    """The error for a prepared data set that is not whole."""
    return DataError(
        f"the TensorFlow data set in {directory} is half-written or damaged: {reason}; delete the "
        "folder and prepare it again"
    )


def read_json(directory: Path, name: str) -> dict[str, Any]:
    """One of the JSON files beside the records. Raises :class:`DataError`."""
    try:
        content: dict[str, Any] = json.loads((directory / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise half_written(directory, f"{name} is missing") from None
    except ValueError:
        raise half_written(directory, f"{name} is not valid JSON") from None
    return content


def read_features(directory: Path) -> dict[str, Any]:
    """The features by name. Raises :class:`DataError` without an ``image`` and a ``label``."""
    content = read_json(directory, "features.json")
    features: dict[str, Any] = content.get("featuresDict", {}).get("features", {})
    for name, kind in (("image", "image"), ("label", "classLabel")):
        if kind not in features.get(name, {}):
            raise DataError(
                f"the TensorFlow data set in {directory} has no {kind} feature named {name} "
                f"(its features: {', '.join(sorted(features))})"
            )
    return features


def find_shards(directory: Path, info: dict[str, Any], split: dict[str, Any]) -> tuple[str, ...]:
    """The files of a split. Raises :class:`DataError` for a missing one or a wrong total size."""
    if info.get("fileFormat", "tfrecord") != "tfrecord":
        raise DataError(f"{directory} is stored as {info['fileFormat']}; only tfrecord can be read")
    template = split.get("filepathTemplate", "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}")
    lengths = [int(length) for length in split["shardLengths"]]
    shards, total = [], 0
    for i in range(len(lengths)):
        shard = directory / template.format(
            DATASET=info["name"],
            SPLIT=split["name"],
            FILEFORMAT="tfrecord",
            SHARD_INDEX=f"{i:05d}",
            NUM_SHARDS=f"{len(lengths):05d}",
            SHARD_X_OF_Y=f"{i:05d}-of-{len(lengths):05d}",
        )
        try:
            total += shard.stat().st_size
        except FileNotFoundError:
            raise half_written(directory, f"{shard.name} is missing") from None
        shards.append(str(shard))
    examples_alone = int(split["numBytes"])
    # TFDS counts the examples alone, except that its unshuffled Beam writer counts whole files.
    if total not in (examples_alone + _FRAMING * sum(lengths), examples_alone):
        raise half_written(
            directory,
            f"the {split['name']} shards hold {total} bytes instead of "
            f"{examples_alone + _FRAMING * sum(lengths)}",
        )
    return tuple(shards)


def _image_shape(directory: Path, features: dict[str, Any], stored_size: int | None) -> Shape:
    image = features["image"]["image"]
    height, width, channels = _declared_shape(features)
    if image.get("dtype", "uint8") != "uint8" or channels not in (-1, 1, 3):
        raise DataError(
            f"the images of {directory} are {image.get('dtype')} with {channels} channels; only "
            "uint8 with 1 or 3 can be read"
        )
    if stored_size is None and (height != width or height < 1):
        what = "differ in size" if height < 1 else f"are {height}x{width} pixels, not square"
        raise DataError(
            f"the images of {directory} {what}: set data.stored_size=<side in pixels to resize to>"
        )
    side = stored_size or height
    return side, side, 3 if channels == -1 else channels


def _declared_shape(features: dict[str, Any]) -> tuple[int, int, int]:
    """Height, width and channels of all images; -1 for what differs between them."""
    dimensions = features["image"]["image"].get("shape", {}).get("dimensions", [])
    # Unknown dimensions are written as -1, or left out by older versions.
    height, width, channels = (int(d) for d in dimensions) if len(dimensions) == 3 else (-1, -1, 3)
    return height, width, channels


def class_names(directory: Path, features: dict[str, Any]) -> tuple[str, ...]:
    """Names by label, which are numbers where the data set has no names."""
    names = directory / "label.labels.txt"
    if names.is_file():
        try:
            return tuple(names.read_text(encoding="utf-8").splitlines())
        except UnicodeDecodeError:
            raise half_written(directory, f"{names.name} is not UTF-8") from None
    return tuple(str(i) for i in range(int(features["label"]["classLabel"]["numClasses"])))


@functools.lru_cache(maxsize=8)
def _labels(shards: tuple[str, ...], status: tuple[tuple[int, int], ...]) -> Labels:
    # `status` is there for the cache to notice that the data set was replaced.
    found = [tfrecord.integers(Path(shard), b"label") for shard in shards]
    return np.array([label for of_shard in found for label in of_shard], np.int32)
