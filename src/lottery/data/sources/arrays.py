"""Arrays of one's own: of ``lottery.Study``, or of a file that ``numpy.savez`` has written."""

import functools
import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lottery import choices
from lottery.config import Data
from lottery.data.interface import Images, Labels, Rows, Shape, Split
from lottery.data.sources import Part
from lottery.data.splits import Keys
from lottery.errors import ConfigError, DataError
from lottery.options import option

PARTS: tuple[Part, ...] = ("train", "validation", "test")
_EXACT = 2**24  # up to here, float32 holds every whole number

_remembered: dict[str, "Arrays"] = {}  # those of this process, by :attr:`Arrays.digest`


@dataclass(frozen=True, eq=False)
class Arrays:
    """Examples [N, ...], uint8 or float32, and labels int32 [N], of each part that there is."""

    name: str
    classes: tuple[str, ...]
    parts: Mapping[Part, tuple[Images, Labels]]

    @property
    def image_shape(self) -> Shape:
        """The shape of one example, whatever its number of axes."""
        return self.parts["train"][0].shape[1:]

    @property
    def sizes(self) -> dict[Part, int]:
        """Examples per part."""
        return {part: len(labels) for part, (_, labels) in self.parts.items()}

    @property
    def dtype(self) -> str:
        """``uint8`` or ``float32``."""
        return str(self.parts["train"][0].dtype)

    @property
    def digest(self) -> str:
        """SHA-256 of all examples, labels and names of classes."""
        return hashlib.sha256(json.dumps(self.fingerprint).encode()).hexdigest()

    @functools.cached_property
    def contents(self) -> str:
        """SHA-256 of all examples and labels, in their order."""
        whole = hashlib.sha256()
        for part, arrays in sorted(self.parts.items()):
            for array in arrays:
                whole.update(f"{part} {array.dtype} {array.shape}\n".encode())
                whole.update(np.ascontiguousarray(array).data)
        return whole.hexdigest()

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Nothing but the content counts: not where it came from, nor what it is called."""
        return {
            "source": "arrays",
            "contents": self.contents,
            "classes": list(self.classes),
            "dtype": self.dtype,
        }

    def labels(self, part: Part) -> Labels:
        """See :class:`lottery.data.sources.Source`."""
        return self.parts[part][1]

    def keys(self, part: Part) -> Keys:
        """Positions in the arrays."""
        return np.arange(self.sizes[part], dtype=np.uint64)

    def images(self, part: Part, rows: Rows) -> Images:
        """Examples [\\*rows.shape, ...] as they were given."""
        return self.parts[part][0][rows]

    def stream(self, part: Part, rows: Rows, labels: Labels) -> Split:
        """In memory all the same."""
        from lottery.data.arrays import ArraySplit

        return ArraySplit(self.images(part, rows), labels)


@choices.source("arrays")
@dataclass(frozen=True)
class ArraysData(Data):
    """Arrays of one's own, of any shape: those that lottery.Study was given, or an .npz file."""

    file: str | None = option(
        None,
        "file of numpy.savez: x_train, y_train and, if there are any, x_test, y_test, "
        "x_validation, y_validation",
        identity=False,
    )
    digest: str | None = option(
        None, "which of the arrays that lottery.Study was given", identity=False
    )
    name: str = option("arrays", "what to call them", identity=False)

    def open(self) -> Arrays:
        """The arrays.

        Raises :class:`ConfigError` if neither ``file`` nor ``digest`` says which,
        and :class:`DataError` if they are not there, or no examples with labels.
        """
        if self.stored_size is not None:
            raise ConfigError(
                f"data.stored_size={self.stored_size}: arrays are taken as they are; resize them "
                "before, or on the device by data.resize"
            )
        if self.file is not None:
            path = Path(self.file).expanduser()
            if not path.is_file():
                raise DataError(f"there is no file {path} (data.file)")
            status = path.stat()
            return _of_file(path, self.name, status.st_size, status.st_mtime_ns)
        if self.digest is None:
            raise ConfigError("data=arrays needs data.file=<file of numpy.savez>")
        if self.digest not in _remembered:
            raise DataError(
                f"the arrays {self.digest[:12]} were given to lottery.Study in another process: "
                "give them again, or save them with numpy.savez and use data.file=<that file>"
            )
        return _remembered[self.digest]


def remember(arrays: Arrays) -> str:
    """Keep arrays for this process; returns the digest by which ``data.digest`` finds them."""
    _remembered[arrays.digest] = arrays
    return arrays.digest


def checked(
    parts: Mapping[Part, tuple[Any, Any]],
    *,
    name: str = "arrays",
    classes: tuple[str, ...] | None = None,
) -> Arrays:
    """Examples and labels of each part, in the types that a training takes.

    uint8 stays; of other numbers float32 is made. All are copies, which nobody changes. ``classes``
    are names by label; None: the labels themselves.

    Raises :class:`DataError` for what is no array of finite numbers, for shapes that do not fit,
    and for labels that are no whole numbers from 0.
    """
    found: dict[Part, tuple[Images, Labels]] = {}
    for part in PARTS:
        if part in parts:
            x, y = parts[part]
            examples, labels = _examples(x, f"x_{part}"), _labels(y, f"y_{part}")
            if len(examples) != len(labels):
                raise DataError(
                    f"x_{part} has {len(examples):,} examples, and y_{part} has {len(labels):,} "
                    "labels"
                )
            found[part] = examples, labels
    shape, dtype = found["train"][0].shape[1:], found["train"][0].dtype
    for part, (examples, _) in found.items():
        if examples.shape[1:] != shape:
            raise DataError(
                f"x_{part} has examples of shape {examples.shape[1:]}, and x_train of {shape}"
            )
        if examples.dtype != dtype:
            raise DataError(
                f"x_{part} is {examples.dtype} and x_train is {dtype}: give both in one type, in "
                "the same units"
            )
    count = 1 + max(int(labels.max()) for _, labels in found.values())
    if count < 2:
        raise DataError("all labels are 0: there must be two classes at least")
    if count > sum(len(labels) for _, labels in found.values()):
        raise DataError(
            f"labels go up to {count - 1:,}, and there are fewer examples: number the classes from "
            "0, as numpy.unique(labels, return_inverse=True)[1] does"
        )
    if classes is not None and len(classes) < count:
        raise DataError(f"there are {len(classes)} names of classes, and labels up to {count - 1}")
    return Arrays(name, classes or tuple(map(str, range(count))), found)


def _examples(value: Any, what: str) -> Images:
    array = _array(value, what)
    if array.ndim < 2:
        raise DataError(
            f"{what} has the shape {array.shape}: it must have one row for each example, of one "
            "value at least, as [N, features] or [N, height, width, channels]"
        )
    if not array.size:
        raise DataError(f"{what} is empty: its shape is {array.shape}")
    if array.dtype == np.uint8 or array.dtype.kind == "b":
        return _own(array, np.uint8)
    if array.dtype.kind not in "iuf":
        raise DataError(f"{what} has the type {array.dtype}: it must hold real numbers")
    if array.dtype.kind in "iu" and max(-int(array.min()), int(array.max())) > _EXACT:
        raise DataError(
            f"{what} has whole numbers beyond {_EXACT:,}, which float32 cannot tell apart: scale "
            "or renumber them"
        )
    with np.errstate(over="ignore"):
        found = _own(array, np.float32)
    if not np.isfinite(found).all():
        bad = ~np.isfinite(found).reshape(len(found), -1).all(axis=1)
        raise DataError(
            f"{what} has values that are not finite (NaN, or beyond float32) in {bad.sum():,} of "
            f"its {len(found):,} examples, the first at {int(bad.argmax())}"
        )
    return found


def _labels(value: Any, what: str) -> Labels:
    array = _array(value, what)
    if array.dtype.kind in "USO":
        raise DataError(
            f"{what} holds text, not numbers: classes, labels = numpy.unique({what}, "
            "return_inverse=True) makes numbers of it"
        )
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 2:
        raise DataError(
            f"{what} has the shape {array.shape}, as one-hot labels have: {what}.argmax(axis=1) "
            "makes class numbers of them"
        )
    if array.ndim != 1 or not array.size:
        raise DataError(f"{what} has the shape {array.shape}: it must be one class number each")
    if array.dtype.kind not in "biuf" or (array != np.floor(array)).any():
        raise DataError(f"{what} must hold class numbers: 0, 1, 2, …")
    if array.min() < 0:
        raise DataError(f"{what} has the label {array.min():g}: class numbers begin at 0")
    if array.max() >= 2**31:
        raise DataError(f"{what} has the label {array.max():g}: that is no number of a class")
    return _own(array, np.int32)


def _own(array: np.ndarray[Any, Any], dtype: Any) -> np.ndarray[Any, Any]:
    """A copy: what its owner does to the array later must not change what a key stands for."""
    copy = np.array(array, dtype, order="C")
    copy.setflags(write=False)
    return copy


def _array(value: Any, what: str) -> np.ndarray[Any, Any]:
    try:
        return np.asarray(value)
    except Exception as error:  # whatever somebody's object raises
        raise DataError(f"{what} is no array: {type(error).__name__}: {error}") from error


@functools.lru_cache(maxsize=2)
def _of_file(path: Path, name: str, size: int, changed: int) -> Arrays:
    """Of a file as it was when it had that size and time."""
    return checked(read(path), name=name if name != "arrays" else path.stem)


def read(path: Path) -> dict[Part, tuple[Any, Any]]:
    """The examples and labels in a file of ``numpy.savez``, by part.

    Raises :class:`DataError` if it is none, or lacks a part's labels.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (OSError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is no file of numpy.savez: {error}") from error
    parts: dict[Part, tuple[Any, Any]] = {}
    for part in PARTS:
        there = [name for name in (f"x_{part}", f"y_{part}") if name in arrays]
        if len(there) == 1:
            other = f"{'y' if there[0].startswith('x') else 'x'}_{part}"
            raise DataError(f"{path} has {there[0]} and no {other}")
        if there:
            parts[part] = arrays[f"x_{part}"], arrays[f"y_{part}"]
    if "train" not in parts:
        raise DataError(f"{path} has no x_train and y_train, only {', '.join(arrays) or 'nothing'}")
    return parts
