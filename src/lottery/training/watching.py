"""Callbacks that say that they change no weight, and are held to it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from lottery.errors import ConfigError
from lottery.training.callbacks import Together

if TYPE_CHECKING:
    from lottery.training.loop import Loop


class Watching(Together):
    """The callbacks of choices with ``watches_only = True``, by label, over ``loop``.

    Each hook is checked, at batches that of an epoch's first one alone: what changes a weight would
    change the result, but no key. The check is one number for each variable, made on the device.

    Hooks raise :class:`ConfigError` for a callback that has changed a weight.
    """

    def __init__(self, callbacks: Mapping[str, Any], loop: "Loop") -> None:
        super().__init__()
        self._callbacks, self._loop = callbacks, loop
        self._first_batch = True
        self._summed = tf.function(self._sums, autograph=False)

    def on_train_begin(self, logs: Any = None) -> None:
        """Tell all of them."""
        self._call("on_train_begin", logs)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Tell all of them."""
        self._first_batch = True
        self._call("on_epoch_begin", epoch, logs)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Tell all of them."""
        self._call("on_train_batch_begin", batch, logs, checked=self._first_batch)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Tell all of them."""
        self._call("on_train_batch_end", batch, logs, checked=self._first_batch)
        self._first_batch = False

    def on_validation(self, step: int, logs: Any) -> None:
        """Tell those that know it, a hook of this project."""
        self._call("on_validation", step, logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Tell all of them."""
        self._call("on_epoch_end", epoch, logs)

    def on_train_end(self, logs: Any = None) -> None:
        """Tell all of them."""
        self._call("on_train_end", logs)

    def _call(self, hook: str, *arguments: Any, checked: bool = True) -> None:
        before = self._summed().numpy() if checked else None
        for label, callback in self._callbacks.items():
            if not hasattr(callback, hook):
                continue
            getattr(callback, hook)(*arguments)
            if before is not None and (changed := np.flatnonzero(self._summed() != before)).size:
                path = self._loop.model.variables[changed[0]].path
                raise ConfigError(
                    f"callback={label} says watches_only=True and has changed {path} in {hook}: "
                    "leave watches_only out, so that keys hold what it does"
                )

    def _sums(self) -> Any:
        """A number for each variable of the network that depends on each bit and its place."""
        return tf.stack([_sum(v.value) for v in self._loop.model.variables])


def _sum(value: Any) -> Any:
    bits = {2: tf.int16, 4: tf.int32, 8: tf.int64}.get(value.dtype.size)
    words = tf.cast(tf.bitcast(value, bits) if bits else value, tf.int64)
    words = tf.reshape(words, [-1])
    return tf.reduce_sum(words * (2 * tf.range(tf.size(words, tf.int64), dtype=tf.int64) + 1))
