"""One image from encoded bytes to uint8 pixels, the same way for every source.

Pillow decodes, since it knows every odd kind of file; OpenCV resizes, since it averages over exact
areas (Pillow's BOX counts whole pixels only, which shifts what lies between them).
"""

import contextlib
import io
import itertools
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from lottery.data.interface import Images, Shape
from lottery.errors import DataError

Encoded = tuple[str, Callable[[], bytes]]
"""The name of an image and what reads its encoded bytes."""
Decode = Callable[[bytes, Shape], npt.NDArray[np.uint8]]
"""What makes pixels (S, S, C) of an image's bytes."""

POLICY = (
    "camera orientation (EXIF) applied; RGB; centre square resized by area interpolation "
    "(OpenCV's INTER_AREA) when it shrinks, bilinearly when it grows"
)
"""What :func:`decode` does, in words."""


class File(NamedTuple):
    """An image file as a folder lists it."""

    path: str
    """Relative to the root of its source, with slashes."""
    bytes: int
    modified: int
    """Time of the last change of its content, in nanoseconds."""
    inode: int = 0
    changed: int = 0
    """Time of the last change of any kind, in nanoseconds; nobody can set it."""


# Below this side decoding is mostly Python, which threads only slow down (measured: 2.3x at 28).
SMALLEST_FOR_THREADS = 64
_BATCH = 256
SAMPLE = 100
"""Images whose headers tell how large those of a data set are."""

cv2.setNumThreads(1)  # images are what runs side by side
_NAMED = 5


def decode(data: bytes, shape: Shape) -> npt.NDArray[np.uint8]:
    """The centre square of an image, resized to ``shape`` (S, S, C) with C = 1 or 3.

    Equal to resizing the short side to S and cropping the centre, without rounding the long side.
    Shrinking averages over the area of each pixel, growing is bilinear. An image of S x S pixels is
    only decoded. The camera's orientation (EXIF) is applied; grey (of 16 bits too), CMYK and
    palette images become RGB, whatever their file is called.

    Raises whatever Pillow raises for damaged bytes.
    """
    side, _, channels = shape
    return squared(whole(data, channels), side).reshape(shape)


def whole(data: bytes, channels: int) -> npt.NDArray[np.uint8]:
    """The pixels of an image as it is, [H, W] or [H, W, 3]. Orientation and colours as above.

    Raises whatever Pillow raises for damaged bytes.
    """
    with Image.open(io.BytesIO(data)) as image:
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode.startswith("I;16"):  # of which convert would clip all but the darkest
            high = (np.asarray(image) >> 8).astype(np.uint8)
            pixels = Image.fromarray(high).convert("L" if channels == 1 else "RGB")
        else:
            pixels = image.convert("L" if channels == 1 else "RGB")
    return np.asarray(pixels)


def squared(pixels: npt.NDArray[np.uint8], side: int) -> npt.NDArray[np.uint8]:
    """The centre square of pixels [H, W] or [H, W, C], resized to ``side`` as in :func:`decode`."""
    height, width = pixels.shape[:2]
    if (height, width) == (side, side):
        return pixels
    short = min(height, width)
    top, left = (height - short) // 2, (width - short) // 2
    square = pixels[top : top + short, left : left + short]
    area, linear = cv2.INTER_AREA, cv2.INTER_LINEAR
    resized = cv2.resize(square, (side, side), interpolation=area if short >= side else linear)
    return np.asarray(resized, np.uint8).reshape(side, side, *pixels.shape[2:])


def unpack(data: bytes, shape: Shape) -> npt.NDArray[np.uint8]:
    """Pixels of ``shape`` that were stored as they are. Raises :class:`ValueError` for others."""
    return np.frombuffer(data, np.uint8).reshape(shape)


def decoded(file: Encoded, shape: Shape, decode: Decode = decode) -> npt.NDArray[np.uint8]:
    """The pixels of one image. Raises :class:`DataError` with its name and what is wrong."""
    name, read = file
    try:
        return decode(read(), shape)
    except Exception as error:  # Pillow's plugins raise nearly anything for damaged bytes
        raise DataError(f"{name} cannot be decoded: {error}") from error


def decode_all(
    files: Iterable[Encoded], count: int, shape: Shape, decode: Decode = decode
) -> Images:
    """``count`` images of ``shape`` as one array [count, S, S, C], in order.

    Raises :class:`DataError` naming the first undecodable images and counting all.
    """
    images = np.empty((count, *shape), np.uint8)
    bad = []
    for i, (name, image) in enumerate(_decoded(files, shape, decode)):
        if image is None:
            bad.append(name)
        else:
            images[i] = image
    _refuse(bad, count)
    return images


def check_all(files: Iterable[Encoded], count: int, shape: Shape, decode: Decode = decode) -> None:
    """Like :func:`decode_all`, keeping nothing."""
    _refuse([name for name, image in _decoded(files, shape, decode) if image is None], count)


def unreadable(files: Iterable[Encoded]) -> list[tuple[str, str]]:
    """The names of those that cannot be decoded, each with the reason, in order."""

    def attempt(file: Encoded) -> tuple[str, str] | None:
        try:
            decoded(file, (1, 1, 3))
        except DataError as error:
            return file[0], str(error.__cause__)
        return None

    files, found = iter(files), []
    with ThreadPoolExecutor() as pool:
        while batch := list(itertools.islice(files, _BATCH)):
            found += [bad for bad in pool.map(attempt, batch) if bad is not None]
    return found


def common_size(root: Path, paths: Sequence[str]) -> tuple[int, int] | None:
    """(width, height) in pixels if all files agree, from their headers; None if they differ.

    Raises :class:`DataError` for images without a readable header.
    """
    sizes, bad = set(), []
    for path in paths:
        try:
            with Image.open(root / path) as image:
                sizes.add(image.size)
        except Exception:  # see decoded
            bad.append(path)
    _refuse(bad, len(paths))
    return sizes.pop() if len(sizes) == 1 else None


def sampled(count: int) -> list[int]:
    """At most :data:`SAMPLE` of the numbers below ``count``, evenly spread."""
    return [int(number) for number in np.linspace(0, count - 1, min(count, SAMPLE))]


def median_side(opened: Iterable[Path | io.BytesIO]) -> int | None:
    """The median short side in pixels of image files, from their headers.

    Those without a readable header do not count; None if there is no other.
    """
    sides = []
    for file in opened:
        with contextlib.suppress(Exception), Image.open(file) as image:  # see decoded
            sides.append(min(image.size))
    return int(statistics.median_low(sides)) if sides else None


def _decoded(
    files: Iterable[Encoded], shape: Shape, decode: Decode
) -> Iterator[tuple[str, npt.NDArray[np.uint8] | None]]:
    def attempt(file: Encoded) -> tuple[str, npt.NDArray[np.uint8] | None]:
        try:
            return file[0], decoded(file, shape, decode)
        except DataError:
            return file[0], None

    if shape[0] < SMALLEST_FOR_THREADS:
        yield from map(attempt, files)
        return
    files = iter(files)
    with ThreadPoolExecutor() as pool:
        # In batches: the executor would otherwise take in all files before the first result.
        while batch := list(itertools.islice(files, _BATCH)):
            yield from pool.map(attempt, batch)


def _refuse(bad: list[str], count: int) -> None:
    if bad:
        named = ", ".join(bad[:_NAMED]) + (", ..." if len(bad) > _NAMED else "")
        raise DataError(f"{len(bad)} of {count} images cannot be decoded: {named}")
