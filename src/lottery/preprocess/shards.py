"""What a worker does: one shard of images from their files to the output, or the word that failed.

A shard is a run of consecutive images of one part of a source. Its journal in the work folder,
renamed into place when its bytes are on disk, is what makes a job restartable.
"""

import dataclasses
import errno
import hashlib
import io
import json
import os
import re
import socket
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import PIL
from PIL import Image, UnidentifiedImageError, features

from lottery import files
from lottery.data import images
from lottery.data.manifest import HEADER
from lottery.errors import DataError

_WRITEBACK = 16  # images after which the disk is set to work

Pixels = npt.NDArray[np.uint8]  # [S, S, 3]
Example = tuple[str, int, Callable[[], bytes]]  # name, label, what reads the encoded image


@dataclass(frozen=True)
class Layout:
    """How and where images are written."""

    work: str
    """Absolute path of the work folder, which every worker sees."""
    format: str
    """``array``: rows of one array file per part. ``tfrecord``: a file per shard."""
    encoding: str
    size: int
    quality: int
    """Of a JPEG."""

    @property
    def row_bytes(self) -> int:
        """Bytes of an image's pixels."""
        return self.size * self.size * 3


@dataclass(frozen=True)
class Files:
    """Labelled image files below a folder."""

    root: str
    files: tuple[images.File, ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.files)

    def cut(self, first: int, count: int) -> "Files":
        """The images at ``first`` and after."""
        rows = slice(first, first + count)
        return Files(self.root, self.files[rows], self.labels[rows])

    def scattered(self) -> "Files":
        """The same in a random order, always the same one."""
        order = np.random.Generator(np.random.PCG64([0])).permutation(len(self)).tolist()
        files, labels = ([values[i] for i in order] for values in (self.files, self.labels))
        return Files(self.root, tuple(files), tuple(labels))

    def examples(self) -> Iterator[Example]:
        """In order; nothing is read yet."""
        for file, label in zip(self.files, self.labels, strict=True):
            yield file.path, label, Path(self.root, file.path).read_bytes


@dataclass(frozen=True)
class Records:
    """Consecutive records of TFRecord files, Examples with ``image`` and ``label``."""

    root: str
    part: str
    """Named in messages."""
    classes: int
    files: tuple[images.File, ...]
    lengths: tuple[int, ...]
    """Records in each file."""
    first: int
    count: int

    def __len__(self) -> int:
        return self.count

    def cut(self, first: int, count: int) -> "Records":
        """The images at ``first`` and after."""
        count = max(0, min(count, self.count - first))
        return dataclasses.replace(self, first=self.first + first, count=count)

    def scattered(self) -> "Records":
        """Themselves: who prepared them has shuffled them."""
        return self

    def examples(self) -> Iterator[Example]:
        """In the order of the files. Raises :class:`DataError` for damaged records."""
        from lottery.data import tfrecord  # here, so that other sources need no CRC-32C

        start, end = self.first, self.first + self.count
        begin = 0
        for file, length in zip(self.files, self.lengths, strict=True):
            low, high = max(start - begin, 0), min(end - begin, length)
            path = Path(self.root, file.path)
            records = tfrecord.read(path, low, high - low) if low < high else ()
            for row, record in enumerate(records, begin + low):
                name = f"record {row} of {self.part}"
                try:
                    example = tfrecord.decode(record)
                    image, label = example["image"], example["label"]
                except (KeyError, ValueError):
                    raise DataError(f"{name} ({path}) is no Example of image and label") from None
                if not isinstance(image, bytes) or not isinstance(label, int):
                    raise DataError(f"{name} ({path}) has an image or label of the wrong type")
                if not 0 <= label < self.classes:
                    raise DataError(f"{name} has label {label}, outside 0 to {self.classes - 1}")
                yield name, label, partial(bytes, image)
            begin += length


@dataclass(frozen=True)
class Task:
    """A shard to be made."""

    part: str
    index: int
    of: int
    """Number of shards of the part."""
    first: int
    """Row of the part that it begins with."""
    images: Files | Records
    layout: Layout
    libraries: tuple[tuple[str, str], ...]

    @property
    def path(self) -> Path:
        """The file it writes, or writes into."""
        return Path(self.layout.work, file_name(self.layout.format, self.part, self.index, self.of))

    @property
    def journal(self) -> Path:
        """What it leaves when it is done."""
        return Path(self.layout.work, f"{self.part}-{self.index:05d}.json")

    def offset(self, row: int) -> int:
        """Byte at which the image at a row of the shard begins in an array file."""
        return HEADER + (self.first + row) * self.layout.row_bytes


@dataclass(frozen=True)
class Done:
    """A shard that is on disk."""

    part: str
    index: int
    examples: int
    """Images it was to hold."""
    labels: list[int]
    """Of the images it holds."""
    holes: list[int]
    """Rows, counted in the shard, of unreadable images."""
    unreadable: list[dict[str, str]]
    """Their ``path`` and ``reason``."""
    sums: list[int]
    """Of each channel's pixels, before any compression."""
    squares: list[int]
    sha256: str
    """Array: of the images it holds, in order. TFRecord: of the file."""
    bytes: int
    """Of the images it holds, or of the file."""
    sides: list[int] = field(default_factory=list)
    """Short side of each image it holds, before it was resized; none of an older journal."""
    kept: bool = False
    """It was there before."""


@dataclass(frozen=True)
class Failed:
    """Why a shard could not be made: something the user can fix, sent as a value because Spark
    would try the task again and bury an exception in its own.
    """

    message: str
    errno: int | None = None
    filename: str | None = None

    def error(self) -> Exception:
        """To be raised where the job was started."""
        if self.errno is None:
            return DataError(self.message)
        return OSError(self.errno, self.message, self.filename)


Result = Done | Failed


def libraries() -> tuple[tuple[str, str], ...]:
    """The versions that decide the bytes of a decoded image."""
    jpeg = features.version("libjpeg_turbo") or features.version("jpg") or "none"
    return (
        ("pillow", PIL.__version__),
        ("libjpeg", jpeg),
        ("opencv", cv2.__version__),
        ("numpy", np.__version__),
    )


def file_name(kind: str, part: str, index: int = 0, of: int = 1) -> str:
    """Of the file with the images of a shard."""
    return f"{part}_images.npy" if kind == "array" else f"{part}-{index:05d}-of-{of:05d}.tfrecord"


def run(task: Task) -> Result:
    """Make a shard, unless its journal is there and the bytes on disk are those it tells of."""
    if task.libraries != libraries():
        return Failed(
            f"{socket.gethostname()} has {_listed(libraries())}, the submitting process has "
            f"{_listed(task.libraries)}: bytes would differ; install the same versions"
        )
    try:
        with warnings.catch_warnings(action="ignore"):  # Pillow's, of odd but readable files
            return _finished(task) or _made(task)
    except DataError as error:
        return Failed(str(error))
    except OSError as error:
        return _failure(error)


def _failure(error: OSError) -> Failed:
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOENT, errno.ESTALE, errno.EIO):
        where = f"{error.filename} on {socket.gethostname()}"
        return Failed(f"cannot read or write {where}: {reason}; does every worker see the folder?")
    return Failed(reason, error.errno or errno.EIO, error.filename)


def _listed(versions: tuple[tuple[str, str], ...]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions)


def _finished(task: Task) -> Done | None:
    try:
        journal = files.read_json(task.journal)
    except (FileNotFoundError, ValueError):
        return None
    if journal.pop("task") != _digest(task):
        return None
    done = dataclasses.replace(Done(**journal), kept=True)
    return done if done.sha256 == _checksum(task, done) else None


def _digest(task: Task) -> str:
    """Of everything that decides what a shard holds."""
    return hashlib.sha256(repr(task).encode()).hexdigest()


def _checksum(task: Task, done: Done) -> str | None:
    try:
        if task.layout.format == "tfrecord":
            return files.sha256(task.path)
        digest, holes = hashlib.sha256(), set(done.holes)
        with task.path.open("rb") as file:
            for row in range(done.examples):
                if row not in holes:
                    file.seek(task.offset(row))
                    digest.update(file.read(task.layout.row_bytes))
        return digest.hexdigest()
    except FileNotFoundError:
        return None


def _made(task: Task) -> Done:
    write = _array if task.layout.format == "array" else _tfrecord
    read = _Reader(task)
    with files.naming(task.path):
        sha256, size = write(task, read)
    done = Done(
        part=task.part,
        index=task.index,
        examples=len(task.images),
        labels=read.labels,
        holes=read.holes,
        unreadable=read.unreadable,
        sums=read.sums.tolist(),
        squares=read.squares.tolist(),
        sha256=sha256,
        bytes=size,
        sides=read.sides,
    )
    # Plain, not indented: a hundred thousand labels are a line, not a page.
    journal = json.dumps({"task": _digest(task), **dataclasses.asdict(done)})
    files.write_text(task.journal, journal)
    return done


class _Reader:
    """Iterates over (row, pixels, label) of the readable images and keeps account."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.labels: list[int] = []
        self.sides: list[int] = []
        self.holes: list[int] = []
        self.unreadable: list[dict[str, str]] = []
        self.sums = np.zeros(3, np.int64)
        self.squares = np.zeros(3, np.int64)

    def __iter__(self) -> Iterator[tuple[int, Pixels, int]]:
        side = self.task.layout.size
        for row, (name, label, read) in enumerate(self.task.images.examples()):
            data = read()
            try:
                whole = images.whole(data, channels=3)
                pixels = images.squared(whole, side)
            except Exception as error:  # Pillow's plugins raise nearly anything for damaged bytes
                self.holes.append(row)
                self.unreadable.append({"path": name, "reason": _reason(data, error)})
                continue
            self.labels.append(label)
            self.sides.append(min(whole.shape[:2]))
            self._count(pixels)
            yield row, pixels, label

    def _count(self, pixels: Pixels) -> None:
        # Down the columns first, in small integers: numpy sums over a last axis of three slowly.
        columns = pixels.reshape(len(pixels), -1)
        squares = np.multiply(columns, columns, dtype=np.uint16)
        self.sums += columns.sum(0, dtype=np.uint32).reshape(-1, 3).sum(0, dtype=np.int64)
        self.squares += squares.sum(0, dtype=np.uint32).reshape(-1, 3).sum(0, dtype=np.int64)


def _reason(data: bytes, error: Exception) -> str:
    if not data:
        return "empty"
    if isinstance(error, UnidentifiedImageError):  # its text holds an address in memory
        return "not an image that Pillow knows"
    text = next(iter(str(error).splitlines()), "") or type(error).__name__
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def _array(task: Task, read: _Reader) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    # Each worker opens the file itself, perhaps on another node, and writes rows of its own.
    with task.path.open("r+b") as file:
        for row, pixels, _ in read:
            file.seek(task.offset(row))
            file.write(pixels.data)
            digest.update(pixels.data)
            size += pixels.nbytes
            if row % _WRITEBACK == 0:
                # Linux starts to write now, not when it is told to finish, and keeps no copy.
                os.posix_fadvise(file.fileno(), task.offset(0), size, os.POSIX_FADV_DONTNEED)
        file.flush()
        files.sync(task.path)
    return digest.hexdigest(), size


def _tfrecord(task: Task, read: _Reader) -> tuple[str, int]:
    from lottery.data import tfrecord

    with files.replacing(task.path) as temporary:
        with temporary.open("wb") as file:
            for _, pixels, label in read:
                image = _encoded(pixels, task.layout)
                tfrecord.write(file, tfrecord.encode({"image": image, "label": label}))
        return files.sha256(temporary), temporary.stat().st_size


def _encoded(pixels: Pixels, layout: Layout) -> bytes:
    if layout.encoding == "raw":
        return pixels.tobytes()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=layout.quality)
    return buffer.getvalue()
