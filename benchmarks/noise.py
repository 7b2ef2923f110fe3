"""A data set of random images, in memory, as a choice of ``data.source``."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lottery import choices
from lottery.config import Data
from lottery.data.arrays import ArraySplit
from lottery.options import option


@dataclass(frozen=True)
class Noise:
    """Random images of ten classes, 200 of each to train."""

    side: int
    name = "noise"
    classes = tuple("0123456789")
    sizes = {"train": 2220, "test": 100}  # noqa: RUF012
    fingerprint = {}  # noqa: RUF012

    @property
    def image_shape(self):
        return self.side, self.side, 3

    def labels(self, part):
        return np.arange(self.sizes[part], dtype=np.int32) % 10

    def keys(self, part):
        return np.arange(self.sizes[part], dtype=np.uint64)

    def images(self, part, rows):
        return self._pixels[part][rows]

    def stream(self, part, rows, labels):
        return ArraySplit(self.images(part, rows), labels)

    @cached_property
    def _pixels(self):
        generator = np.random.default_rng(0)
        return {p: generator.integers(0, 256, (n, *self.image_shape), np.uint8)
                for p, n in self.sizes.items()}  # fmt: skip


@choices.source("noise")
@dataclass(frozen=True)
class NoiseData(Data):
    """Random images."""

    side: int = option(96, "of the images in pixels", ge=1)

    def open(self):
        return Noise(self.side)
