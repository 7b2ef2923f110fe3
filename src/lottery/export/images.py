"""Real images for an export: to measure the files' accuracy, and to calibrate integers with."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lottery.config import Data
from lottery.data import Chunk, Splits, crop_size, load
from lottery.data.preprocessing import Preprocessing
from lottery.errors import ConfigError
from lottery.tickets import Ticket

_BATCH = 256
Pixels = NDArray[np.float32]


@dataclass(frozen=True)
class Images:
    """The ticket's data set as the network sees it before normalisation: pixels 0 to 255.

    Float32 [N, H, W, C]; the centre of each image, resized as in training, never augmented.
    """

    splits: Splits
    preprocessing: Preprocessing

    def test(self) -> Iterator[tuple[Pixels, NDArray[np.int32]]]:
        """The test split in batches: pixels and labels."""
        for images, labels, valid in self.splits.test.evaluation(_BATCH).as_numpy_iterator():
            yield self._cut(images[valid]), labels[valid]

    def sample(self) -> Pixels:
        """The first images of the test split."""
        return next(self.test())[0]

    def calibration(self, count: int) -> Pixels:
        """``count`` training images drawn at random, all of them if there are fewer."""
        train = self.splits.train
        size = min(count, train.size)
        (batch,) = train.training(
            [Chunk(0, 1)], batch_size=size, steps_per_epoch=train.size // size, seed=0
        ).as_numpy_iterator()
        return self._cut(batch[0][0])

    def _cut(self, images: NDArray[np.uint8]) -> Pixels:
        return np.asarray(self.preprocessing.evaluation(images), np.float32)


def of_ticket(data: Data, ticket: Ticket) -> Images:
    """The data set that a config names, if it is one that the ticket can classify.

    Raises :class:`DataError` if it is not on this machine, and :class:`ConfigError` if its classes
    or images are others.
    """
    splits = load(data)
    found = splits.description
    if found.classes != ticket.classes:
        raise ConfigError(
            f"the ticket tells {len(ticket.classes)} classes apart ({_some(ticket.classes)}), and "
            f"{found.name} has {len(found.classes)} ({_some(found.classes)})"
        )
    shape = ticket.network.input_shape
    if found.input_shape != shape:
        ours, theirs = ("x".join(map(str, s)) for s in (shape, found.input_shape))
        raise ConfigError(f"the ticket takes images of {ours}, and {found.name} has {theirs}")
    side = crop_size(data, found.image_shape)
    as_it_is = (0.0,), (1 / 255,)
    return Images(splits, Preprocessing(shape, 0, False, *as_it_is, crop_size=side))


def _some(classes: tuple[str, ...]) -> str:
    return ", ".join(classes[:3]) + (", …" if len(classes) > 3 else "")
