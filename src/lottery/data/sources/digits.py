"""The UCI handwritten digits inside scikit-learn: 1,797 images of 8x8 pixels. Every machine has it.

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998.
"""

import functools
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from lottery import choices, files
from lottery.config import Data
from lottery.data.interface import Images, Labels, Rows, Shape, Split
from lottery.data.sources import Part
from lottery.data.splits import Keys
from lottery.errors import ConfigError


@functools.cache
def _file() -> Path:
    # Without scikit-learn, whose import takes as long as a third of TensorFlow's.
    file = metadata.distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")
    return Path(str(file))


@dataclass(frozen=True)
class Digits:
    """All of it is one part; test is cut off from it."""

    name: str = "digits"
    image_shape: Shape = (8, 8, 1)
    classes: tuple[str, ...] = tuple("0123456789")
    sizes: dict[Part, int] = field(default_factory=lambda: {"train": 1797})
    fingerprint: dict[str, Any] = field(
        default_factory=lambda: {"source": "digits", "contents": files.sha256(_file())}
    )

    def original_side(self) -> int:
        """As they are stored."""
        return self.image_shape[0]

    def labels(self, part: Part) -> Labels:
        """Digits 0 to 9, [1797]."""
        return _digits()[1]

    def keys(self, part: Part) -> Keys:
        """Positions in scikit-learn's file."""
        return np.arange(self.sizes["train"], dtype=np.uint64)

    def images(self, part: Part, rows: Rows) -> Images:
        """Uint8 [N, 8, 8, 1]."""
        return _digits()[0][rows]

    def stream(self, part: Part, rows: Rows, labels: Labels) -> Split:
        """In memory all the same: 115 KB."""
        from lottery.data.arrays import ArraySplit

        return ArraySplit(self.images(part, rows), labels)


@choices.source("digits")
@dataclass(frozen=True)
class DigitsData(Data):
    """The 1,797 handwritten digits of 8x8 pixels inside scikit-learn."""

    def open(self) -> Digits:
        """The digits. Raises :class:`ConfigError` for a ``stored_size`` other than 8."""
        if self.stored_size not in (None, 8):
            raise ConfigError(
                f"data.stored_size={self.stored_size}: digits are stored as 8x8 pixels"
            )
        return Digits()


@functools.lru_cache(maxsize=1)
def _digits() -> tuple[Images, Labels]:
    table = np.loadtxt(str(_file()), delimiter=",", dtype=np.int32)
    # 17 grey levels, 0 to 16, spread over 0 to 255.
    images = np.rint(table[:, :-1] * (255 / 16)).astype(np.uint8)
    return images.reshape(-1, 8, 8, 1), table[:, -1].copy()
