"""Measuring a network on a whole split, with all replicas and processes of a strategy."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from lottery.data import Split
from lottery.data.preprocessing import Preprocessing
from lottery.training.feeding import Feed
from lottery.training.metrics import Metrics, hits, sums_of


@dataclass(frozen=True, eq=False)
class Measured:
    """What a network does on a split."""

    metrics: Metrics
    correct: npt.NDArray[np.bool_]
    """Which examples have the highest logit at their label, [N], in the order of the split.

    ``metrics.top1`` is their share, so equal logits rank by class number.
    """


class Evaluation:
    """Measures ``model`` on splits, ``batch_size`` examples at a time or a few more.

    To be made outside of any ``tf.function``. All processes of ``strategy`` must measure the same
    split, and each learns the whole result.
    """

    def __init__(
        self, model: Any, preprocessing: Preprocessing, strategy: Any, feed: Feed, batch_size: int
    ) -> None:
        self._model, self._preprocessing = model, preprocessing
        self._strategy, self._feed = strategy, feed
        self._batch_size = math.ceil(batch_size / feed.replicas) * feed.replicas
        # Nothing here needs AutoGraph, which takes a second to rewrite the source.
        self._call = tf.function(self._of_batch, autograph=False)
        self._feeds: dict[int, tuple[Split, Iterator[Any]]] = {}

    def __call__(self, split: Split) -> Measured:
        """Every example counts once."""
        sums, correct = np.zeros(4), []
        batches = self._feeds.pop(id(split))[1] if id(split) in self._feeds else self._fed(split)
        for images, labels, valid in itertools.islice(batches, -(-split.size // self._batch_size)):
            found = self._call(images, labels, valid).numpy()
            sums += found[:4]
            correct.append(found[4:] > 0)
        self._feeds[id(split)] = split, batches  # at its beginning again
        # What fills up the last batch comes last.
        return Measured(Metrics.of(sums), np.concatenate(correct)[: split.size])

    def _fed(self, split: Split) -> Iterator[Any]:
        """The batches of a split, over and over: the next pass then begins at once."""
        dataset = split.evaluation(self._batch_size, self._feed.share)
        return self._feed(dataset.repeat().prefetch(1), batch_axis=0)

    def _of_batch(self, images: Any, labels: Any, valid: Any) -> Any:
        """The sums of a global batch, then for each of its rows 1 if it is correct: [4 + B]."""
        found = self._strategy.run(self._of_replica, args=(images, labels, valid))
        return self._strategy.reduce(tf.distribute.ReduceOp.SUM, found, axis=None)

    def _of_replica(self, images: Any, labels: Any, valid: Any) -> Any:
        inputs = self._preprocessing.evaluation(images)
        logits = tf.cast(self._model(inputs, training=False), tf.float32)
        losses = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
        sums = sums_of(losses, logits, labels, tf.cast(valid, losses.dtype))
        correct = tf.cast(hits(logits, labels, 1), sums.dtype)
        # At the place of these rows in the global batch, and zero elsewhere: so the sum over the
        # replicas, which is made anyway, has all rows in order.
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        here = tf.one_hot(replica, self._feed.replicas, dtype=sums.dtype)
        return tf.concat([sums, tf.reshape(here[:, None] * correct, [-1])], axis=0)
