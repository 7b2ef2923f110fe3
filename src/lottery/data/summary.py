"""What a person should know of a data set before training on it: a line, and warnings."""

import functools
import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from lottery.config import Data
from lottery.data.interface import Description, Labels

if TYPE_CHECKING:
    from lottery.data.sources import Source

log = logging.getLogger(__name__)

UNEVEN = 10
"""How many times the images of the rarest class the most frequent one has, to be warned of."""
SMALL_PART = 1 / 4
"""Share of a stored image that a crop leaves, to be warned of."""
SMALL_PART_OF_ENLARGED = 1 / 2
"""The same where images were enlarged, so that cropping them undoes what was just done."""


@dataclass(frozen=True)
class Sides:
    """How many pixels wide and high an image is, on its way to the network."""

    original: int | None
    """Short side as published, the median; None if nobody noted it."""
    stored: int
    cropped: int
    network: int

    @property
    def enlarged(self) -> bool:
        """Whether the stored image has more pixels than there was to see."""
        return self.original is not None and self.original < self.stored

    @property
    def least_share(self) -> float:
        """The part that a crop must leave, not to be warned of."""
        return SMALL_PART_OF_ENLARGED if self.enlarged else SMALL_PART

    @property
    def share(self) -> float:
        """The part of a stored image that a crop leaves."""
        return (self.cropped / self.stored) ** 2


@dataclass(frozen=True)
class Summary:
    """A data set as a study uses it."""

    name: str
    source: str
    """The choice of ``data``."""
    train: int
    validation: int
    test: int
    classes: int
    kept: tuple[str, ...]
    """The names of the classes, if others were left out."""
    shape: tuple[int, ...]
    """Of an example as stored."""
    sides: Sides | None
    """None of examples that are no square images."""
    random_areas: bool
    """Whether training images are random areas, resized to the crop."""
    most: tuple[str, int]
    """The class with the most training images, and how many."""
    fewest: tuple[str, int]
    """That with the fewest, of those that have any."""

    @property
    def line(self) -> str:
        """All of it in a line."""
        kind = f" ({self.source})" if self.source != self.name else ""
        kept = ", ".join(self.kept[:5]) + (", …" if len(self.kept) > 5 else "")
        kept = kept and f" ({kept})"
        noun = "image" if self.sides else "example"
        return (
            f"data {self.name}{kind}: {self.train:,} training, {self.validation:,} validation and "
            f"{self.test:,} test {noun}s of {self.classes:,} classes{kept}; an {noun} is "
            f"{self._way}; one validation {noun} weighs {100 / self.validation:.2g} points"
        )

    @property
    def _way(self) -> str:
        """What becomes of an image before the network sees it."""
        sides, way = self.sides, []
        if sides is None:
            return f"an array of {'x'.join(map(str, self.shape))}"
        if sides.original not in (None, sides.stored):
            way.append(f"about {sides.original} pixels as published")
        stored = "x".join(map(str, self.shape))
        if sides.network == sides.cropped == sides.stored and not self.random_areas:
            return " -> ".join([*way, f"{stored}, as stored and as the network sees it"])
        way.append(f"{stored} as stored")
        if sides.cropped != sides.stored or self.random_areas:
            random = " (random areas in training)" if self.random_areas else ""
            way.append(f"{sides.cropped}x{sides.cropped} cropped{random}")
        return " -> ".join([*way, f"{sides.network}x{sides.network} as the network sees it"])

    def warnings(self) -> Iterator[str]:
        """What may make a result worth less than it looks."""
        sides = self.sides
        if sides is not None and sides.share <= sides.least_share:
            stored = f"images of {self.name} are stored at {sides.stored} pixels"
            if sides.enlarged:
                stored = (
                    f"images of {self.name}, of about {sides.original} pixels, are enlarged to "
                    f"{sides.stored}"
                )
            yield (
                f"{stored} and cropped to {sides.cropped}, so the network sees "
                f"{100 * sides.share:.2g} % of each (1/{1 / sides.share:.3g}): "
                f"data.image_size=null data.resize={sides.network} shows it the whole"
            )
        ratio = self.most[1] / self.fewest[1]
        if ratio >= UNEVEN:
            yield (
                f"classes are uneven: {self.most[0]} has {ratio:.3g} times the training images of "
                f"{self.fewest[0]} ({self.most[1]:,} against {self.fewest[1]:,}), so top-1 says "
                "little about rare classes"
            )

    def result(self) -> dict[str, Any]:
        """What a result keeps of it, besides what it has of validation and test."""
        sides = {} if self.sides is None else {"image_sides": asdict(self.sides)}
        return {"train_examples": self.train, **sides}


def summarised(
    config: Data, source: "Source", description: Description, train_labels: Labels
) -> Summary:
    """Of a source that is open; ``train_labels`` are those of the training split."""
    from lottery.data.loading import crop_size, is_square_image
    from lottery.data.sources import KnowsOriginals

    counted = _counts(train_labels, description.classes)
    shape, sides = description.image_shape, None
    if is_square_image(shape):
        original = source.original_side() if isinstance(source, KnowsOriginals) else None
        cropped, network = crop_size(config, shape), description.input_shape[0]
        sides = Sides(original, shape[0], cropped, network)
    return Summary(
        name=description.name,
        source=config.source,
        **description.sizes,
        classes=len(description.classes),
        kept=description.classes if config.classes is not None else (),
        shape=shape,
        sides=sides,
        random_areas=config.crop == "resized",
        most=max(counted.items(), key=lambda item: item[1]),
        fewest=min(counted.items(), key=lambda item: item[1]),
    )


def _counts(labels: Labels, classes: tuple[str, ...]) -> Mapping[str, int]:
    import numpy as np

    counts = np.bincount(labels, minlength=len(classes)).tolist()
    return {name: count for name, count in zip(classes, counts, strict=True) if count}


@functools.cache  # once in a process, however many trainings use the data
def tell(summary: Summary) -> None:
    """Log the line and the warnings."""
    log.info("%s", summary.line)
    for warning in summary.warnings():
        log.warning("%s", warning)
