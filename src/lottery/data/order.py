"""The order of training examples: a pure function of (seed, epoch, position)."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from lottery.data.interface import Chunk


def constant(values: Any, dtype: tf.DType | None = None) -> tf.Tensor:
    """A tensor in main memory, where tf.data runs, whatever the default device.

    It outlives the function that is being traced, if one is, so it may be kept.
    """
    with tf.init_scope(), tf.device("CPU:0"):
        return tf.constant(values, dtype)


def shuffled_rows(
    first_step: tf.Tensor,
    steps: tf.Tensor,
    *,
    size: int,
    batch_size: int,
    steps_per_epoch: int,
    seed: int,
) -> tf.Tensor:
    """Which of ``size`` examples make up consecutive steps of one epoch, int64 [steps, batch_size].

    ``index_shuffle`` computes any one element of an epoch's permutation directly, so a run starts
    at any step without state.
    """
    epoch = first_step // steps_per_epoch
    first = (first_step % steps_per_epoch) * batch_size
    positions = first + tf.range(steps * batch_size, dtype=tf.int64)
    rows = tf.random.experimental.index_shuffle(
        positions,
        seed=tf.stack([tf.constant(seed % 2**32, tf.uint32), tf.cast(epoch, tf.uint32)]),
        max_index=tf.constant(size - 1, tf.int64),
    )
    return tf.reshape(rows, [steps, batch_size])


def check_chunks(
    chunks: Sequence[Chunk], *, size: int, batch_size: int, steps_per_epoch: int
) -> None:
    """Raises :class:`ValueError` for what :meth:`Split.training` does not serve."""
    if steps_per_epoch * batch_size > size:
        raise ValueError(f"{steps_per_epoch} steps of {batch_size} need more than {size} examples")
    for chunk in chunks:
        last = chunk.first_step + chunk.steps - 1
        if chunk.steps < 1 or chunk.first_step // steps_per_epoch != last // steps_per_epoch:
            raise ValueError(f"{chunk} is not within one epoch of {steps_per_epoch} steps")


def as_dataset(chunks: Sequence[Chunk]) -> tf.data.Dataset:
    """(first_step, steps) of each chunk as int64 scalars."""
    first_steps, steps = ([chunk[i] for chunk in chunks] for i in (0, 1))
    return tf.data.Dataset.from_tensor_slices(
        (constant(first_steps, tf.int64), constant(steps, tf.int64))
    )


def padding_rows(count: tf.Tensor, batch_size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """How to fill ``count`` examples up to a batch: rows to take [B], and which are valid [B]."""
    rows = tf.range(batch_size)
    return rows % count, rows < count


def in_order(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """``dataset`` prefetched, and in the same order at any degree of parallelism."""
    options = tf.data.Options()
    options.deterministic = True
    return dataset.prefetch(tf.data.AUTOTUNE).with_options(options)
