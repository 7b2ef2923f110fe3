"""The values and the one protocol that the rest of the system sees of a data set."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from lottery.errors import DataError

if TYPE_CHECKING:
    import tensorflow as tf

    from lottery.config import Data
    from lottery.data.summary import Summary

Images = npt.NDArray[Any]  # [N, S, S, C], uint8; of arrays of one's own [N, ...], or float32
Labels = npt.NDArray[np.int32]  # [N]
Rows = npt.NDArray[np.int64]  # [N], positions within a part of a source
Shape = tuple[int, ...]  # (height, width, channels); of arrays of one's own any


class Chunk(NamedTuple):
    """Consecutive optimizer steps of one epoch that are fed together."""

    first_step: int
    """Counted from the start of epoch 0."""
    steps: int


@dataclass(frozen=True)
class Share:
    """One of equal parts of every batch, of consecutive rows: what one process feeds."""

    index: int = 0
    of: int = 1

    def __call__(self, batch: Any, axis: int) -> Any:
        """These rows of a batch; ``of`` must divide their number, which must be static."""
        rows = batch.shape[axis] // self.of
        return batch[(slice(None),) * axis + (slice(self.index * rows, (self.index + 1) * rows),)]


WHOLE = Share()


@dataclass(frozen=True)
class Description:
    """What is known of a data set without reading its images."""

    name: str
    image_shape: Shape
    """(S, S, C) as stored, before any crop."""
    input_shape: Shape
    """(H, W, C) as the network sees it."""
    classes: tuple[str, ...]
    """Names by label, after the class filter."""
    sizes: dict[str, int]
    """Examples in ``train``, ``validation`` and ``test``."""
    fingerprint: dict[str, Any]
    """JSON values that tell apart different contents under the same name, e.g. a subset."""
    effective: "Data"
    """The options, with those at their defaults that have no effect on this data set."""
    unreadable: tuple[str, ...] = ()
    """Names of images that are left out, because they cannot be decoded."""


class Split(Protocol):
    """The examples of one split, with their images as stored."""

    @property
    def size(self) -> int:
        """Number of examples."""
        ...

    @property
    def labels(self) -> Labels:
        """Label of each example, in the order of :meth:`evaluation`."""
        ...

    def take(self, rows: Rows) -> Images:
        r"""Images uint8 [\*rows.shape, S, S, C] at positions ``rows``, as :attr:`labels` has them.

        Raises :class:`~lottery.errors.DataError` for one that cannot be decoded.
        """
        ...

    def training(
        self,
        chunks: Sequence[Chunk],
        *,
        batch_size: int,
        steps_per_epoch: int,
        seed: int,
        share: Share = WHOLE,
    ) -> "tf.data.Dataset":
        """One element per chunk: images uint8 [n, B, S, S, C] and labels int32 [n, B].

        ``n`` is the chunk's number of steps. The order of examples is a pure function of
        (``seed``, epoch, position), the same however a split is stored: it depends neither on the
        chunking nor on the first step. No example comes twice within an epoch; those beyond
        ``steps_per_epoch * batch_size`` sit it out. One pipeline serves all chunks, across the ends
        of epochs. Of the ``batch_size`` rows of a step, B are in the ``share``; no others are read.

        Raises :class:`ValueError` if a chunk straddles an epoch or an epoch needs more examples
        than there are.
        """
        ...

    def evaluation(self, batch_size: int, share: Share = WHOLE) -> "tf.data.Dataset":
        """Images uint8 [B, S, S, C], labels int32 [B] and valid bool [B], in a fixed order.

        The last batch is filled up with repeats that are not ``valid``, so that shapes are static
        and every example is valid exactly once. ``share`` as in :meth:`training`.
        """
        ...

    def check(self) -> None:
        """Decode every image. To be called when a pipeline fails, to learn the culprits.

        Raises :class:`~lottery.errors.DataError` naming and counting undecodable images.
        """
        ...


@runtime_checkable
class EncodedSplit(Split, Protocol):
    """A split whose images are decoded when they are used, in every epoch anew."""

    @property
    def image_shape(self) -> Shape:
        """(S, S, C) of every image once it is decoded."""
        ...

    def files(self) -> Iterator[tuple[str, Callable[[], bytes]]]:
        """The name of each image and what reads its encoded bytes, in a fixed order."""
        ...


@dataclass(frozen=True)
class Splits:
    """A data set ready to be fed."""

    description: Description
    train: Split
    validation: Split
    test: Split
    validation_images: str
    """Which images ``validation`` holds, and in which order, as a hash.

    It is the same wherever their source is found, and whatever the labels are. Where it is the same
    in two runs, :meth:`Split.evaluation` gives the same images in the same order.
    """
    test_images: str
    """The same of ``test``."""
    summary: "Summary"
    """What a person should know before training."""

    def check(self) -> None:
        """Raise :class:`~lottery.errors.DataError` for the undecodable images of all splits."""
        found = []
        for name in ("train", "validation", "test"):
            try:
                getattr(self, name).check()
            except DataError as error:
                found.append(f"{name} split: {error}")
        if found:
            raise DataError("; ".join(found))
