"""Splits too large for memory: images are read and decoded while the network trains."""

import os
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import tensorflow as tf

from lottery.data import images, tfrecord
from lottery.data.indexed import IndexedSplit
from lottery.data.interface import Images, Labels, Rows, Shape


class DecodedSplit(IndexedSplit):
    """Rows that are read and decoded whenever they are fed."""

    image_shape: Shape
    decode: images.Decode = staticmethod(images.decode)

    @abstractmethod
    def encoded(self, row: int) -> images.Encoded:
        """The image at a position of the split: its name, and what reads its bytes."""

    def gather(self, rows: tf.Tensor) -> tf.Tensor:
        """See :class:`IndexedSplit`."""
        # Stateful calls would run one at a time, where operations are deterministic.
        pixels = tf.numpy_function(self.take, [rows], tf.uint8, stateful=False)
        return tf.ensure_shape(pixels, [*rows.shape, *self.image_shape])

    def take(self, rows: Rows) -> Images:
        """See :meth:`lottery.data.Split.take`."""
        decoded = partial(images.decoded, shape=self.image_shape, decode=self.decode)
        files = map(self.encoded, rows.ravel().tolist())
        # Below that size threads only get in each other's way; batches are fed side by side.
        each = map if self.image_shape[0] < images.SMALLEST_FOR_THREADS else _pool().map
        return np.stack(list(each(decoded, files))).reshape(*rows.shape, *self.image_shape)

    def check(self) -> None:
        """See :meth:`lottery.data.Split.check`."""
        images.check_all(self.files(), self.size, self.image_shape, self.decode)

    def files(self) -> Iterator[images.Encoded]:
        """The encoded images of the split, in order."""
        return map(self.encoded, range(self.size))


@dataclass(frozen=True, eq=False)
class FolderSplit(DecodedSplit):
    """One file per image."""

    root: Path
    paths: Sequence[str]
    """Relative to ``root``, [N]."""
    labels: Labels
    image_shape: Shape

    def encoded(self, row: int) -> images.Encoded:
        """See :class:`DecodedSplit`."""
        return self.paths[row], (self.root / self.paths[row]).read_bytes


@dataclass(frozen=True, eq=False)
class TfrecordSplit(DecodedSplit):
    """Examples with a feature ``image`` in TFRecord files."""

    part: str
    """Named in messages."""
    records: tfrecord.Reader
    """Those of the part that this split is cut from."""
    rows: Rows
    """Positions of the split's examples among them, [N]."""
    labels: Labels
    image_shape: Shape
    decode: images.Decode = images.decode

    def encoded(self, row: int) -> images.Encoded:
        """See :class:`DecodedSplit`."""
        return self.records.encoded(int(self.rows[row]), self.part)


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(len(os.sched_getaffinity(0)), thread_name_prefix="decode")
