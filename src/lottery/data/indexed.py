"""What splits have in common whose images can be had in any order, by index."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from lottery.data import order
from lottery.data.interface import WHOLE, Chunk, Images, Labels, Rows, Share

# AutoGraph would take a third of a second to find no control flow in a function.
_as_it_is = tf.autograph.experimental.do_not_convert


class IndexedSplit(ABC):
    """A split that is fed by gathering rows, so that it starts at any step without state."""

    labels: Labels

    @abstractmethod
    def gather(self, rows: tf.Tensor) -> tf.Tensor:
        """Images uint8 [*rows.shape, S, S, C] at positions ``rows`` of the split, in a graph."""

    @abstractmethod
    def take(self, rows: Rows) -> Images:
        """See :meth:`lottery.data.Split.take`."""

    @property
    def size(self) -> int:
        """Number of examples."""
        return len(self.labels)

    def training(
        self,
        chunks: Sequence[Chunk],
        *,
        batch_size: int,
        steps_per_epoch: int,
        seed: int,
        share: Share = WHOLE,
    ) -> tf.data.Dataset:
        """See :meth:`lottery.data.Split.training`."""
        order.check_chunks(
            chunks, size=self.size, batch_size=batch_size, steps_per_epoch=steps_per_epoch
        )
        labels = order.constant(self.labels)

        def batches(first_step: tf.Tensor, steps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            rows = order.shuffled_rows(
                first_step,
                steps,
                size=self.size,
                batch_size=batch_size,
                steps_per_epoch=steps_per_epoch,
                seed=seed,
            )
            rows = share(rows, axis=1)
            return self.gather(rows), tf.gather(labels, rows)

        return _mapped(order.as_dataset(chunks), batches)

    def evaluation(self, batch_size: int, share: Share = WHOLE) -> tf.data.Dataset:
        """See :meth:`lottery.data.Split.evaluation`."""
        labels = order.constant(self.labels)

        def batch(rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            own = (share(part, axis=0) for part in order.padding_rows(tf.size(rows), batch_size))
            take, valid = own
            rows = tf.gather(rows, take)
            return self.gather(rows), tf.gather(labels, rows), valid

        return _mapped(tf.data.Dataset.range(self.size).batch(batch_size), batch)

    def check(self) -> None:  # noqa: B027  the default, not a gap
        """Nothing to find: the images are decoded."""


def _mapped(dataset: tf.data.Dataset, function: Callable[..., Any]) -> tf.data.Dataset:
    parallel = dataset.map(_as_it_is(function), num_parallel_calls=tf.data.AUTOTUNE)
    return order.in_order(parallel)
