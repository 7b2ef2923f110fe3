"""Splits too large for memory: images are read and decoded while the network trains."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from lottery.data import images, order
from lottery.data.interface import Chunk, Labels, Rows, Shape
from lottery.errors import DataError

# Encoded images a shuffle holds: about 1 GB of original ImageNet JPEGs.
SHUFFLE_BUFFER = 8192


@dataclass(frozen=True, eq=False)
class FolderSplit:
    """One file per image, read in any order by index."""

    root: Path
    paths: Sequence[str]
    """Relative to ``root``, [N]."""
    labels: Labels
    image_shape: Shape

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

        def rows(step: tf.Tensor) -> tf.Tensor:
            return order.shuffled_rows(
                step,
                tf.constant(1, tf.int64),
                size=self.size,
                batch_size=batch_size,
                steps_per_epoch=steps_per_epoch,
                seed=seed,
            )[0]

        steps = order.as_dataset(chunks).flat_map(
            lambda first, count: tf.data.Dataset.range(first, first + count)
        )
        examples = self._examples(steps.map(rows).unbatch())
        return order.in_order(_in_chunks(examples, chunks, batch_size))

    def evaluation(self, batch_size: int) -> tf.data.Dataset:
        """See :meth:`lottery.data.Split.evaluation`."""
        return order.in_order(
            _in_padded_batches(self._examples(tf.data.Dataset.range(self.size)), batch_size)
        )

    def check(self) -> None:
        """See :meth:`lottery.data.Split.check`."""
        images.check_all(self.files(), self.size, self.image_shape)

    def files(self) -> Iterator[images.Encoded]:
        """The encoded images of the split, in order."""
        for path in self.paths:
            yield path, (self.root / path).read_bytes

    def _examples(self, rows: tf.data.Dataset) -> tf.data.Dataset:
        labels = order.constant(self.labels)

        def read(row: np.int64) -> npt.NDArray[np.uint8]:
            path = self.paths[int(row)]
            return _decode(path, (self.root / path).read_bytes, self.image_shape, images.decode)

        def example(row: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            image = tf.numpy_function(read, [row], tf.uint8, stateful=False)
            return tf.ensure_shape(image, self.image_shape), labels[row]

        return rows.map(example, num_parallel_calls=tf.data.AUTOTUNE)


@dataclass(frozen=True, eq=False)
class TfrecordSplit:
    """Records read in file order and shuffled in a buffer of :data:`SHUFFLE_BUFFER` examples."""

    part: str
    """Named in messages."""
    encoded: Callable[[], tf.data.Dataset]
    """All encoded images of the part this split is cut from, in batches of strings [n]."""
    rows: Rows
    """Increasing positions of the split's examples among those images, [N]."""
    labels: Labels
    image_shape: Shape
    decode: images.Decode = images.decode

    @property
    def size(self) -> int:
        """Number of examples."""
        return len(self.labels)

    def training(
        self, chunks: Sequence[Chunk], *, batch_size: int, steps_per_epoch: int, seed: int
    ) -> tf.data.Dataset:
        """See :meth:`lottery.data.Split.training`.

        To start within an epoch its earlier records are read, but not decoded.
        """
        order.check_chunks(
            chunks, size=self.size, batch_size=batch_size, steps_per_epoch=steps_per_epoch
        )
        records = self._records()

        def run(epoch: tf.Tensor, first: tf.Tensor, steps: tf.Tensor) -> tf.data.Dataset:
            # Dataset.shuffle mixes its seed with the global one. Fixing that of the graph which
            # this function is traced into makes the order a function of (seed, epoch) alone.
            tf.random.set_seed(1)
            of_epoch = tf.random.stateless_uniform(
                [], [tf.constant(seed, tf.int64), epoch], 0, 2**31 - 1, tf.int64, alg="philox"
            )
            shuffled = records.shuffle(
                SHUFFLE_BUFFER, seed=of_epoch, reshuffle_each_iteration=False
            )
            return shuffled.skip(first * batch_size).take(steps * batch_size)

        runs = order.constant(_runs(chunks, steps_per_epoch), tf.int64)
        picked = tf.data.Dataset.from_tensor_slices(runs).flat_map(lambda r: run(r[0], r[1], r[2]))
        return order.in_order(_in_chunks(self._examples(picked), chunks, batch_size))

    def evaluation(self, batch_size: int) -> tf.data.Dataset:
        """See :meth:`lottery.data.Split.evaluation`."""
        return order.in_order(_in_padded_batches(self._examples(self._records()), batch_size))

    def check(self) -> None:
        """See :meth:`lottery.data.Split.check`."""
        images.check_all(self.files(), self.size, self.image_shape, self.decode)

    def files(self) -> Iterator[images.Encoded]:
        """The encoded images of the split, in order."""
        member = self._row_of.numpy() >= 0
        first = 0
        for batch in self.encoded().as_numpy_iterator():
            for i in np.flatnonzero(member[first : first + len(batch)]).tolist():
                yield self._name(first + i), partial(bytes, batch[i])
            first += len(batch)

    def _name(self, position: int) -> str:
        return f"record {position} of {self.part}"

    def _records(self) -> tf.data.Dataset:
        """(position in the part, encoded image) of each example, in order."""
        row_of = self._row_of
        records = self.encoded().unbatch().enumerate().take(len(row_of))
        return records.filter(lambda position, _: row_of[position] >= 0)

    @cached_property
    def _row_of(self) -> tf.Tensor:
        """The example at each position up to the last one's, -1 for records of other splits."""
        table = np.full(int(self.rows[-1]) + 1, -1, np.int64)
        table[self.rows] = np.arange(self.size)
        return order.constant(table)

    def _examples(self, records: tf.data.Dataset) -> tf.data.Dataset:
        labels, row_of = order.constant(self.labels), self._row_of

        def read(position: np.int64, data: bytes) -> npt.NDArray[np.uint8]:
            name = self._name(int(position))
            return _decode(name, partial(bytes, data), self.image_shape, self.decode)

        def example(position: tf.Tensor, data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            image = tf.numpy_function(read, [position, data], tf.uint8, stateful=False)
            return tf.ensure_shape(image, self.image_shape), labels[row_of[position]]

        return records.map(example, num_parallel_calls=tf.data.AUTOTUNE)


def tfrecord_batches(
    shards: Sequence[str], feature: str, dtype: str, *, interleaved: bool
) -> tf.data.Dataset:
    """One feature of every record, always in the same order, in batches [256].

    The order is that of the files one after the other, or sixteen of them interleaved. Images are
    left encoded. Without TFDS's own pipeline, because parsing a batch at a time is several times as
    fast for small images, and this is on the way of every run.
    """
    spec = {feature: tf.io.FixedLenFeature([], dtype)}
    records = tf.data.Dataset.from_tensor_slices(list(shards)).interleave(
        tf.data.TFRecordDataset,
        cycle_length=16 if interleaved else 1,
        block_length=16,
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    return records.batch(256).map(lambda batch: tf.io.parse_example(batch, spec)[feature])


def _decode(
    name: str, read: Callable[[], bytes], shape: Shape, decode: images.Decode
) -> npt.NDArray[np.uint8]:
    try:
        return decode(read(), shape)
    except Exception as error:
        raise DataError(f"{name} cannot be decoded: {error}") from error


def _runs(chunks: Sequence[Chunk], steps_per_epoch: int) -> list[list[int]]:
    """[epoch, first step in it, steps] of stretches that can be read in one go."""
    runs: list[list[int]] = []
    for chunk in chunks:
        epoch, first = divmod(chunk.first_step, steps_per_epoch)
        if runs and runs[-1][0] == epoch and sum(runs[-1][1:]) == first:
            runs[-1][2] += chunk.steps
        else:
            runs.append([epoch, first, chunk.steps])
    return runs


def _in_chunks(
    examples: tf.data.Dataset, chunks: Sequence[Chunk], batch_size: int
) -> tf.data.Dataset:
    """Cut a stream of (image, label) into one element [n, B, ...] per chunk."""
    steps = [chunk.steps for chunk in chunks]
    sizes = order.constant([n * batch_size for n in steps], tf.int64)
    chunk_of_step = order.constant(np.repeat(np.arange(len(chunks)), steps), tf.int64)

    def key(i: tf.Tensor, _: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        return chunk_of_step[i // batch_size]

    def batch(chunk: tf.Tensor, window: tf.data.Dataset) -> tf.data.Dataset:
        return window.map(lambda _, example: example).batch(sizes[chunk], drop_remainder=True)

    def split(image: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        shape = [-1, batch_size, *image.shape[1:]]
        return tf.reshape(image, shape), tf.reshape(label, [-1, batch_size])

    return (
        examples.enumerate()
        .group_by_window(key, batch, window_size_func=lambda chunk: sizes[chunk])
        .map(split)
    )


def _in_padded_batches(examples: tf.data.Dataset, batch_size: int) -> tf.data.Dataset:
    def pad(image: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        take, valid = order.padding_rows(tf.size(label), batch_size)
        return tf.gather(image, take), tf.gather(label, take), valid

    return examples.batch(batch_size).map(pad)
