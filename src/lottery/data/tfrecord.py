"""TFRecord files of ``tf.train.Example``, read at any record, without TensorFlow, whose import
takes a worker seconds.

A record is its length (uint64), a masked CRC-32C of that, its bytes and their masked CRC-32C, all
little-endian. An Example is a protocol buffer, written here by hand: a map from names to features,
each a list of byte strings (field 1) or integers (field 3).
"""

import functools
import hashlib
import mmap
import os
import struct
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import google_crc32c

from lottery.errors import DataError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
_BYTES_LIST, _INT64_LIST = 1, 3  # fields of a Feature

_LENGTH = struct.Struct("<Q")
_LARGE = 2**16  # bytes of a record above which only its pages that are needed are read

Value = bytes | int

_HEADER, _FOOTER = 12, 4  # bytes before and after those of a record
_THREADS = 16  # that look for records; a network's file system answers them side by side
_OPEN = 256  # files that a reader keeps open


def write(file: BinaryIO, record: bytes) -> None:
    """Append a record."""
    length = struct.pack("<Q", len(record))
    file.write(length + _checksum(length))
    file.write(record)
    file.write(_checksum(record))


def read(path: Path, first: int = 0, count: int | None = None) -> Iterator[bytes]:
    """``count`` records from the ``first``, or all; the earlier ones are only leapt over.

    Raises :class:`DataError` for a file that is damaged or has fewer.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        position = 0
        while count is None or position < first + count:
            header = file.read(12)
            if not header and count is None:
                return
            if len(header) < 12 or header[8:] != _checksum(header[:8]):
                raise DataError(f"{path} is damaged: no record {position}")
            (length,) = struct.unpack("<Q", header[:8])
            if file.tell() + length + 4 > size:
                raise DataError(f"{path} is damaged: record {position} is cut short")
            if position < first:
                file.seek(length + 4, os.SEEK_CUR)
            else:
                record = file.read(length)
                if file.read(4) != _checksum(record):
                    raise DataError(f"{path} is damaged: record {position} fails its checksum")
                yield record
            position += 1


@dataclass(frozen=True)
class Frames:
    """What lies between the records of a file."""

    offsets: tuple[int, ...]
    """Where each record's own bytes begin."""
    lengths: tuple[int, ...]
    """In bytes."""
    checksum: str
    """SHA-256 of the frames. As each holds its record's length and CRC-32C, it tells files of other
    records apart."""


def frames(path: str | Path) -> Frames:
    """Leap from record to record; their own bytes are not read.

    Raises :class:`DataError` for a file that is damaged.
    """
    offsets: list[int] = []
    lengths: list[int] = []
    digest = hashlib.sha256()
    file = _File(path)
    size = os.fstat(file.fd).st_size
    frame, end = os.pread(file.fd, _HEADER, 0), 0
    while end < size:
        header = frame[-_HEADER:]
        if len(header) < _HEADER or header[8:] != _checksum(header[:8]):
            raise DataError(f"{path} is damaged: no record {len(offsets)}; prepare it again")
        (length,) = struct.unpack("<Q", header[:8])
        offsets.append(end + _HEADER)
        lengths.append(length)
        digest.update(frame)
        end += _HEADER + length + _FOOTER
        frame = os.pread(file.fd, _FOOTER + _HEADER, end - _FOOTER)
    if end > size:
        raise DataError(f"{path} is damaged: record {len(offsets) - 1} is cut short")
    digest.update(frame)
    return Frames(tuple(offsets), tuple(lengths), digest.hexdigest())


def checksum(paths: Sequence[str]) -> str:
    """SHA-256 over the :class:`Frames` of several files. Raises what :func:`frames` raises."""
    digest = hashlib.sha256()
    for of_file in _frames_of_all(paths):
        digest.update(of_file.checksum.encode())
    return digest.hexdigest()


class Reader:
    """The records of several files, counted from the first on, each read by its number.

    Raises :class:`DataError` for a file that is damaged, at once or when a record is read.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self._places = [
            (path, offset, length)
            for path, of_file in zip(paths, _frames_of_all(paths), strict=True)
            for offset, length in zip(of_file.offsets, of_file.lengths, strict=True)
        ]
        self._open = functools.lru_cache(_OPEN)(_File)

    def __len__(self) -> int:
        return len(self._places)

    def read(self, record: int) -> bytes:
        """The bytes of a record, which match their checksum. Any number of threads may read."""
        path, offset, length = self._places[record]
        file = self._open(path)
        content = os.pread(file.fd, length + _FOOTER, offset)
        if content[length:] != _checksum(content[:length]):
            raise DataError(f"record {record} fails its checksum ({path})")
        return content[:length]

    def encoded(self, record: int, part: str) -> tuple[str, Callable[[], bytes]]:
        """What a record of the ``part`` is called in messages, and what reads its image."""
        return f"record {record} of {part}", functools.partial(self.image, record)

    def image(self, record: int) -> bytes:
        """The feature ``image`` of a record. Raises :class:`DataError` for one without."""
        content = decode(self.read(record)).get("image")
        if not isinstance(content, bytes):
            raise DataError(f"record {record} has no image ({self._places[record][0]})")
        return content


def _frames_of_all(paths: Sequence[str]) -> Iterator[Frames]:
    with ThreadPoolExecutor(_THREADS) as pool:
        yield from pool.map(frames, paths)


class _File:
    """A file that is open for as long as somebody refers to it."""

    def __init__(self, path: str | Path) -> None:
        self.fd = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self.fd)


def integers(path: Path, feature: bytes) -> list[int]:
    """The first integer of one feature of every record; of a large file only that is read.

    Checksums are not looked at: those of the lengths are held against the end of the file, and
    whoever reads a whole record checks it. About 10 microseconds a record.

    Raises :class:`DataError` for a file that is damaged, or a record without that feature.
    """
    found: list[int] = []
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            return found
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            at = 0
            try:
                while at < size:
                    (length,) = _LENGTH.unpack_from(data, at)
                    end = at + 12 + length
                    if end + 4 > size:
                        raise ValueError("it is cut short")
                    found.append(_integer(data, at + 12, end, feature))
                    at = end + 4
                    if len(found) == 16 and at > 16 * _LARGE:
                        data.madvise(mmap.MADV_RANDOM)  # or images would be read ahead
            except (ValueError, IndexError, struct.error) as error:
                raise DataError(f"{path} is damaged: record {len(found)}: {error}") from None
    return found


def _integer(data: mmap.mmap, at: int, end: int, feature: bytes) -> int:
    """Of the Example between two positions, leaping over its other features."""
    while at < end:  # as in _fields, without its slices and generators: a fifth of the time
        _, at = _read_varint(data, at)
        _, at = _read_varint(data, at)  # into the map: what follows are its entries
        while at < end:
            _, at = _read_varint(data, at)
            length, at = _read_varint(data, at)
            stop = at + length
            size, name = _read_varint(data, at + 1)
            if data[name : name + size] == feature:
                entry = memoryview(data[at:stop])
                for _, content in _fields(entry, 2):
                    for kind, values in _fields(content, _INT64_LIST):
                        for value in _values(kind, values):
                            assert isinstance(value, int)
                            return value
                raise ValueError(f"its {feature.decode()} is no integer")
            at = stop
    raise ValueError(f"it has no {feature.decode()}")


def encode(features: dict[str, Value]) -> bytes:
    """An Example with one value for each feature, byte for byte as TensorFlow serialises it."""
    entries = b""
    for name, value in sorted(features.items()):
        if isinstance(value, bytes):
            feature = _field(_BYTES_LIST, _field(1, value))
        else:
            feature = _field(_INT64_LIST, _field(1, _varint(value % 2**64)))
        entries += _field(1, _field(1, name.encode()) + _field(2, feature))
    return _field(1, entries)


def decode(example: bytes) -> dict[str, Value]:
    """The first value of each feature of an Example that holds bytes or integers.

    Raises :class:`ValueError` for bytes that are none.
    """
    features: dict[str, Value] = {}
    for _, entries in _fields(example, 1):
        for _, entry in _fields(entries, 1):
            name = b"".join(value for _, value in _fields(entry, 1)).decode()
            for _, feature in _fields(entry, 2):
                for kind, values in _fields(feature):
                    if kind in (_BYTES_LIST, _INT64_LIST):
                        for value in _values(kind, values):
                            features.setdefault(name, value)
    return features


def _values(kind: int, values: memoryview) -> Iterator[Value]:
    for _, value in _fields(values, 1):
        if kind == _BYTES_LIST:
            yield bytes(value)
        else:  # packed, or one that _fields has left as its bytes
            at = 0
            while at < len(value):
                number, at = _read_varint(value, at)
                yield number - 2**64 if number >= 2**63 else number


def _fields(
    message: bytes | memoryview, wanted: int | None = None
) -> Iterator[tuple[int, memoryview]]:
    """(number, content) of each field; the content of a varint is its bytes."""
    message, at = memoryview(message), 0
    while at < len(message):
        key, at = _read_varint(message, at)
        kind, start = key & 7, at
        if kind == _VARINT:
            _, at = _read_varint(message, at)
        elif kind == _BYTES:
            length, start = _read_varint(message, at)
            at = start + length
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if at > len(message):
            raise ValueError("a field is cut short")
        if wanted in (None, key >> 3):
            yield key >> 3, message[start:at]


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | _BYTES) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*digits, number])


def _read_varint(data: memoryview | mmap.mmap, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError("a number is cut short")
        number |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if not data[at - 1] & 0x80:
            return number, at


def _checksum(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
