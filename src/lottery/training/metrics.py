"""Loss, top-1 and top-5: as sums inside the compiled step, as means outside."""

from dataclasses import dataclass
from typing import Any

import tensorflow as tf


@dataclass(frozen=True)
class Metrics:
    """Mean loss and the shares of examples whose label is the first, or among the first five."""

    loss: float
    top1: float
    top5: float
    examples: int

    @classmethod
    def of(cls, sums: Any) -> "Metrics":
        """From the sums of a pass: loss, top-1 hits, top-5 hits, examples."""
        loss, top1, top5, examples = (float(s) for s in sums)
        return cls(loss / examples, top1 / examples, top5 / examples, int(examples))

    def named(self, prefix: str = "") -> dict[str, float]:
        """As ``{prefix + name: value}``, for logs."""
        return {f"{prefix}{n}": getattr(self, n) for n in ("loss", "top1", "top5")}


def hits(logits: Any, labels: Any, k: int) -> Any:
    """Whether each label is among the ``k`` highest logits: bool [batch].

    Of equal logits the lower class ranks first, so a network that answers the same for every
    class scores at chance; one that answers NaN scores zero. (``tf.math.in_top_k`` counts every
    tie as a hit.)
    """
    own = tf.gather(logits, labels, axis=1, batch_dims=1)[:, None]
    classes = tf.range(tf.shape(logits)[1], dtype=labels.dtype)[None, :]
    ahead = (logits > own) | ((logits == own) & (classes < labels[:, None]))
    rank = tf.reduce_sum(tf.cast(ahead, tf.int32), axis=1)
    return (rank < k) & tf.reduce_all(tf.math.is_finite(logits), axis=1)


def sums_of(losses: Any, logits: Any, labels: Any, weights: Any) -> Any:
    """Sums of loss, top-1 hits, top-5 hits and examples: float64 [4].

    Sums of float32 values are exact in float64 at these sizes, so their order does not matter.
    """
    weights = tf.cast(weights, tf.float64)

    def total(values: Any) -> Any:
        # A padded example must not matter, whatever its value.
        return tf.reduce_sum(tf.where(weights > 0, tf.cast(values, tf.float64), 0.0))

    tops = [total(hits(logits, labels, k)) for k in (1, 5)]
    return tf.stack([total(losses), *tops, tf.reduce_sum(weights)])
