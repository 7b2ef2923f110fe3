"""A split whose images are held in memory."""

from dataclasses import dataclass
from functools import cached_property

import tensorflow as tf

from lottery.data import order
from lottery.data.indexed import IndexedSplit
from lottery.data.interface import Images, Labels, Rows


@dataclass(frozen=True, eq=False)
class ArraySplit(IndexedSplit):
    """Images uint8 [N, S, S, C] and labels int32 [N]."""

    images: Images
    labels: Labels

    def gather(self, rows: tf.Tensor) -> tf.Tensor:
        """See :class:`IndexedSplit`."""
        return tf.gather(self._tensor, rows)

    def take(self, rows: Rows) -> Images:
        """See :meth:`lottery.data.Split.take`."""
        return self.images[rows]

    @cached_property
    def _tensor(self) -> tf.Tensor:
        return order.constant(self.images)
