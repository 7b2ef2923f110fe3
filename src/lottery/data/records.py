"""A split that preprocess.py prepared as one memory-mapped array, read at random."""

import mmap
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import tensorflow as tf

from lottery.data.indexed import IndexedSplit
from lottery.data.interface import Images, Labels, Rows


@dataclass(frozen=True, eq=False)
class RecordSplit(IndexedSplit):
    """Rows of an array uint8 [M, S, S, C] on disk, fetched when they are needed."""

    path: Path
    """A ``.npy`` file."""
    rows: Rows
    """The split's examples among those of the file, [N]."""
    labels: Labels

    def gather(self, rows: tf.Tensor) -> tf.Tensor:
        """See :class:`IndexedSplit`."""
        # Stateful calls would run one at a time, where operations are deterministic.
        images = tf.numpy_function(self.take, [rows], tf.uint8, stateful=False)
        return tf.ensure_shape(images, [*rows.shape, *self._mapped[0].shape[1:]])

    def take(self, rows: Rows) -> Images:
        """See :meth:`lottery.data.Split.take`."""
        pixels, pages = self._mapped
        chosen = self.rows[rows]
        _read_ahead(pages, pixels, chosen.ravel())
        return pixels.take(chosen, axis=0)

    @cached_property
    def _mapped(self) -> tuple[Images, mmap.mmap]:
        array = np.load(self.path, mmap_mode="r")
        return array.view(np.ndarray), array._mmap


def _read_ahead(pages: mmap.mmap, pixels: Images, rows: Rows) -> None:
    """Ask for all of a batch at once, so that a disk serves it together, not page by page."""
    header, stride = len(pages) - pixels.nbytes, pixels.strides[0]
    for row in rows.tolist():
        begin = header + row * stride
        aligned = begin - begin % mmap.PAGESIZE
        pages.madvise(mmap.MADV_WILLNEED, aligned, begin + stride - aligned)
