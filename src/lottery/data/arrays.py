"""A split whose images are held in memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import tensorflow as tf

from lottery.data import order
from lottery.data.interface import Chunk, Images, Labels


@dataclass(frozen=True, eq=False)
class ArraySplit:
    """Images uint8 [N, S, S, C] and labels int32 [N], fed by index."""

    images: Images
    labels: Labels

    @property
    def size(self) -> int:
        """Number of examples."""
        return len(self.labels)

    def training(
        self, chunks: Sequence[Chunk], *, batch_size: int, steps_per_epoch: int, seed: int
    ) -> tf.data.Dataset:
        """See :meth:`lottery.data.Split.training`."""
        order.check_chunks(
            chunks, size=self.size, batch_size=batch_size, steps_per_epoch=steps_per_epoch
        )
        images, labels = self._tensors

        def gather(first_step: tf.Tensor, steps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            rows = order.shuffled_rows(
                first_step,
                steps,
                size=self.size,
                batch_size=batch_size,
                steps_per_epoch=steps_per_epoch,
                seed=seed,
            )
            return tf.gather(images, rows), tf.gather(labels, rows)

        chunked = order.as_dataset(chunks)
        return order.in_order(
            chunked.map(order.as_it_is(gather), num_parallel_calls=tf.data.AUTOTUNE)
        )

    def evaluation(self, batch_size: int) -> tf.data.Dataset:
        """See :meth:`lottery.data.Split.evaluation`."""
        images, labels = self._tensors

        def gather(rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            take, valid = order.padding_rows(tf.size(rows), batch_size)
            rows = tf.gather(rows, take)
            return tf.gather(images, rows), tf.gather(labels, rows), valid

        rows = tf.data.Dataset.range(self.size).batch(batch_size)
        return order.in_order(rows.map(order.as_it_is(gather), num_parallel_calls=tf.data.AUTOTUNE))

    def check(self) -> None:
        """Nothing to find: the images are decoded."""

    @cached_property
    def _tensors(self) -> tuple[tf.Tensor, tf.Tensor]:
        return order.constant(self.images), order.constant(self.labels)
