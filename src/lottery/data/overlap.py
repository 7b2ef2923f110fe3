"""How many of the images that a data set holds out another training has seen. No TensorFlow.

Two configs of the same source (the same fingerprint) are compared by positions: exact, and at the
cost of reading labels. Others are compared by pixels: images count as one if they are equal once
both are stored in the same size, grey or RGB alike. That finds the same files in another folder,
format or source, but no near-duplicates; where it would find nothing for sure (what JPEG has
compressed once more, two prepared copies of different sizes) it is not known. It costs a tenth of a
millisecond per small image and a few per photograph and core; of more than :data:`LIMIT` images a
random sample is compared, so that it never takes more than minutes.
"""

import functools
import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from lottery import choices
from lottery.config import Data
from lottery.data import images
from lottery.data.interface import Images, Rows
from lottery.data.loading import Members, is_square_image, split_members
from lottery.data.sources import Source
from lottery.data.sources.records import Records
from lottery.errors import DataError, LotteryError

log = logging.getLogger(__name__)

LIMIT = 50_000
"""The most images of each side whose pixels are compared."""
SEEN, HELD_OUT = ("train", "validation"), ("test", "validation")
_CHUNK = 2**28  # bytes of pixels held at a time

Digests = npt.NDArray[np.uint64]  # [N]


@dataclass(frozen=True)
class Overlap:
    """Of the images that ``after`` holds out, how many ``before`` has seen."""

    examples: dict[str, int]
    """Images compared of ``test`` and ``validation`` of ``after``."""
    seen: dict[str, dict[str, int]]
    """Of those, by the split of ``before`` that they are in: ``train`` or ``validation``."""
    compared: str
    """``positions`` or ``pixels``."""
    sampled: bool
    """Whether only a sample was compared, so that there may be more."""

    def __str__(self) -> str:
        how = {"train": "trained on", "validation": "judged by"}
        told = ", ".join(
            f"{count} of {self.examples[held]} {held} images it was {how[by]}"
            for held, of_split in self.seen.items()
            for by, count in of_split.items()
            if count
        )
        if self.sampled:
            return f"{told} (of a sample)" if told else f"none in a sample of up to {LIMIT:,}"
        return told

    @property
    def summary(self) -> dict[str, Any]:
        """JSON values; ``told`` are the words for people, none if surely no image was seen."""
        counts = {name: {"examples": self.examples[name], **self.seen[name]} for name in HELD_OUT}
        how = {"compared": self.compared, "sampled": self.sampled}
        return {**counts, **how, "told": str(self)}

    @property
    def any(self) -> bool:
        """Whether an image was seen."""
        return any(count for of_split in self.seen.values() for count in of_split.values())

    @property
    def spoils(self) -> bool:
        """Whether accuracy on ``after`` says too much.

        It does for images that ``before`` was trained on, and for test images that chose among
        tickets. Validation images may choose twice.
        """
        trained_on = any(of_split["train"] for of_split in self.seen.values())
        return trained_on or self.seen["test"]["validation"] > 0


def overlap(before: Data, fingerprint: Mapping[str, Any], after: Data) -> Overlap:
    """Compare what ``before``, whose source had ``fingerprint``, trained with and ``after`` tests.

    Raises :class:`DataError` if the images of ``before`` are not on this machine any more, or
    cannot be known again in the form in which they are stored.
    """
    content = json.dumps(after.open().fingerprint)  # files may have changed since
    arguments = (json.dumps(asdict(before)), json.dumps(fingerprint), json.dumps(asdict(after)))
    return _overlap(*arguments, content)


@functools.lru_cache(maxsize=16)  # all cells of a sweep ask
def _overlap(*arguments: str) -> Overlap:
    old, fingerprint, new, _ = map(json.loads, arguments)
    before = choices.source.of(choices.source.known_part(old, download=False))
    after = choices.source.of(new)
    source = after.open()
    if source.fingerprint == fingerprint:
        return _by_positions(split_members(before, source), split_members(after, source))
    return _by_pixels(_found_again(before, fingerprint, after), after)


def _by_positions(before: dict[str, Members], after: dict[str, Members]) -> Overlap:
    def common(a: Members, b: Members) -> int:
        return len(np.intersect1d(a.rows, b.rows)) if a.part == b.part else 0

    return Overlap(
        {held: len(after[held].rows) for held in HELD_OUT},
        {held: {name: common(after[held], before[name]) for name in SEEN} for held in HELD_OUT},
        "positions",
        sampled=False,
    )


def _found_again(before: Data, fingerprint: Mapping[str, Any], after: Data) -> Data:
    """``before``, where its images are now: where they were, or where those of ``after`` are."""
    reasons = []
    places = {
        name: getattr(after, name)
        for name in ("root", "dir", "file", "digest")
        if hasattr(after, name)
    }
    moved = choices.source.of(choices.source.known_part(asdict(before), **places))
    for config in (before, moved):
        try:
            if config.open().fingerprint == fingerprint:
                return config
            reasons.append("they are no longer what they were")
        except LotteryError as error:
            reasons.append(str(error))
    raise DataError(reasons[0])


def _by_pixels(before: Data, after: Data) -> Overlap:
    old, new, side = _sized(before, after)
    seen, held = split_members(before, old), split_members(after, new)
    wanted = {name: _sample(seen[name].rows) for name in SEEN}
    asked = {name: _sample(held[name].rows) for name in HELD_OUT}
    log.info(
        "comparing %d held-out images with %d that the ticket was found with",
        sum(map(len, asked.values())), sum(map(len, wanted.values())),
    )  # fmt: skip
    known = {name: _digests(old, seen[name], rows, side) for name, rows in wanted.items()}
    found = {name: _digests(new, held[name], rows, side) for name, rows in asked.items()}
    return Overlap(
        {name: len(rows) for name, rows in asked.items()},
        {
            name: {by: int(np.isin(of_split, known[by]).sum()) for by in SEEN}
            for name, of_split in found.items()
        },
        "pixels",
        sampled=any(len(rows) < len(seen[name].rows) for name, rows in wanted.items())
        or any(len(rows) < len(held[name].rows) for name, rows in asked.items()),
    )


def _sized(before: Data, after: Data) -> tuple[Source, Source, int]:
    """Both sources, and the side in pixels at which their images can be compared.

    Images of different sizes are best read anew in the smaller one. Where that is fixed, the
    smaller ones may be the originals of the larger: those are enlarged as any source would.
    """
    configs = [before, after]
    sources = [config.open() for config in configs]
    types = {getattr(source, "dtype", "uint8") for source in sources}
    shapes = [source.image_shape for source in sources]
    if types != {"uint8"} or not all(
        map(is_square_image, shapes)
    ):  # only pixels can be compared in another size
        if len(types) > 1 or len(set(shapes)) > 1:
            raise DataError(
                f"{sources[0].name} holds {_told(sources[0])}, and {sources[1].name} "
                f"{_told(sources[1])}, which cannot be compared"
            )
        return sources[0], sources[1], shapes[0][0]
    prepared = [source for source in sources if isinstance(source, Records)]
    for source in prepared:
        if not source.raw:
            raise DataError(f"{source.name} holds images that JPEG has compressed once more")
    sides = [source.image_shape[0] for source in sources]
    if sides[0] != sides[1]:
        small, large = (0, 1) if sides[0] < sides[1] else (1, 0)
        for which, side in ((large, sides[small]), (small, sides[large])):
            try:
                sources[which] = replace(configs[which], stored_size=side).open()
            except LotteryError:  # its size is fixed
                continue
            break
        else:
            if sources[small] in prepared:  # not the originals, so that nothing would be equal
                raise DataError(
                    f"{sources[small].name} was prepared in another size, {sides[small]} pixels, "
                    f"than {sources[large].name}, {sides[large]} pixels"
                )
    return sources[0], sources[1], max(source.image_shape[0] for source in sources)


def _told(source: Source) -> str:
    shape = "x".join(map(str, source.image_shape))
    return f"examples of shape {shape} in {getattr(source, 'dtype', 'uint8')}"


def _sample(rows: Rows) -> Rows:
    if len(rows) <= LIMIT:
        return rows
    chosen = np.random.Generator(np.random.PCG64([0])).choice(len(rows), LIMIT, replace=False)
    return rows[np.sort(chosen)]


def _digests(source: Source, members: Members, rows: Rows, side: int) -> Digests:
    size = max(1, _CHUNK // int(np.prod(source.image_shape)))
    parts = (rows[i : i + size] for i in range(0, len(rows), size))
    found = [d for part in parts for d in _of(source.images(members.part, part), side)]
    return np.array(found, np.uint64)


def _of(pixels: Images, side: int) -> Iterator[int]:
    for image in pixels:
        if len(image) != side:
            image = images.squared(image, side)
        if (
            image.ndim == 3 and (image == image[..., :1]).all()
        ):  # grey, whether or not it is stored as RGB
            image = np.ascontiguousarray(image[..., 0])
        digest = hashlib.blake2b(image.tobytes(), digest_size=8).digest()
        yield int.from_bytes(digest, "little")
