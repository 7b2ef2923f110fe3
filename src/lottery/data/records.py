"""A split that preprocess.py prepared as one memory-mapped array, read at random."""

import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from lottery.data import order
from lottery.data.interface import Chunk, Images, Labels, Rows


@dataclass(frozen=True, eq=False)
class RecordSplit:
    """Rows of an array uint8 [M, S, S, C] on disk, gathered by index as they are needed."""

    path: Path
    """A ``.npy`` file."""
    rows: Rows
    """The split's examples among those of the file, increasing, [N]."""
    labels: Labels

    @property
    def size(self) -> int:
        """Number of examples."""
        return len(self.labels)

    def training(
        self, chunks: Sequence[Chunk], *, batch_size: int, steps_per_epoch: int, seed: int
    ) -> tf.data.Dataset:
        """See :meth:`lottery.data.Split.training`. The order is that of the in-memory split."""
        order.check_chunks(
            chunks, size=self.size, batch_size=batch_size, steps_per_epoch=steps_per_epoch
        )
        labels = order.constant(self.labels)

        def gather(first_step: tf.Tensor, steps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            chosen = order.shuffled_rows(
                first_step,
                steps,
                size=self.size,
                batch_size=batch_size,
                steps_per_epoch=steps_per_epoch,
                seed=seed,
            )
            return self._gather(chosen), tf.gather(labels, chosen)

        chunked = order.as_dataset(chunks)
        return order.in_order(
            chunked.map(order.as_it_is(gather), num_parallel_calls=tf.data.AUTOTUNE)
        )

    def evaluation(self, batch_size: int) -> tf.data.Dataset:
        """See :meth:`lottery.data.Split.evaluation`."""
        labels = order.constant(self.labels)

        def gather(chosen: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            take, valid = order.padding_rows(tf.size(chosen), batch_size)
            chosen = tf.gather(chosen, take)
            return self._gather(chosen), tf.gather(labels, chosen), valid

        chosen = tf.data.Dataset.range(self.size).batch(batch_size)
        return order.in_order(
            chosen.map(order.as_it_is(gather), num_parallel_calls=tf.data.AUTOTUNE)
        )

    def check(self) -> None:
        """Nothing to find: the images are decoded."""

    def take(self, chosen: npt.NDArray[np.int64]) -> Images:
        """Images at positions ``chosen`` of the split, uint8 [*chosen.shape, S, S, C]."""
        pixels, pages = self._array
        rows = self.rows[chosen]
        _read_ahead(pages, rows.ravel(), pixels)
        return pixels.take(rows, axis=0)

    def _gather(self, chosen: tf.Tensor) -> tf.Tensor:
        # Stateful calls would run one at a time, where operations are deterministic.
        images = tf.numpy_function(self.take, [chosen], tf.uint8, stateful=False)
        return tf.ensure_shape(images, [*chosen.shape, *self._array[0].shape[1:]])

    @cached_property
    def _array(self) -> tuple[Images, mmap.mmap]:
        mapped = np.load(self.path, mmap_mode="r")
        return mapped.view(np.ndarray), mapped._mmap


def _read_ahead(pages: mmap.mmap, rows: Rows, pixels: Images) -> None:
    """Ask for all of a batch at once, so that a disk serves them together, not one by one."""
    first = len(pages) - pixels.nbytes  # the file's header
    stride = pixels.strides[0]
    for row in rows.tolist():
        begin = first + row * stride
        aligned = begin - begin % mmap.PAGESIZE
        pages.madvise(mmap.MADV_WILLNEED, aligned, begin + stride - aligned)
