"""A network as a pure function of its variables, on all devices of a strategy.

None of its variables is ever assigned, so moving statistics and the state of random numbers stay as
they are given.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from lottery import tensors
from lottery.config import Training
from lottery.data import Description
from lottery.models.kernels import kernels
from lottery.pruning.evidence import Array, Arrays
from lottery.training import devices, run

Batch = Callable[[list[int]], tuple[Any, Any]]
"""Images uint8 [B, S, S, C] and labels [B] of these rows."""


class Variables:
    """The variables of a network, as lists of values."""

    def __init__(self, model: keras.Model) -> None:
        self._trainable = len(model.trainable_variables)
        self._all = [*model.trainable_variables, *model.non_trainable_variables]
        self.paths = [v.path for v in self._all]
        self.kernels = [k.path for k in kernels(model)]
        self._places = [self.paths.index(path) for path in self.kernels]
        self.shapes = [tuple(self._all[i].shape) for i in self._places]

    def values(self, arrays: Arrays) -> list[Any]:
        """Tensors of arrays by path, which must name all, as :meth:`call` takes them."""
        return [tf.constant(arrays[v.path], v.dtype) for v in self._all]

    def of_kernels(self, values: Sequence[Any]) -> list[Any]:
        """The values of the kernels."""
        return [values[i] for i in self._places]

    def call(self, model: keras.Model, values: Sequence[Any], inputs: Any, training: bool) -> Any:
        """The outputs of the network at these values."""
        n = self._trainable
        return model.stateless_call(values[:n], values[n:], inputs, training=training)[0]


class PureNetwork:
    """The network of a config, in float32; each replica takes whole batches.

    Every process of a strategy must make the same calls. Of each, all get the result of every
    batch; there may be as many batches as the strategy has replicas. Files hold arrays by path,
    behind ``weights/`` and, for a Hessian product, ``direction/``.
    """

    def __init__(self, config: Training, description: Description) -> None:
        self.config = config
        devices.configure(precision="float32", deterministic=config.trainer.deterministic)
        self._strategy = devices.strategy(config.trainer.strategy)
        self._devices = devices.local_devices(self._strategy)
        self._rank, self._workers = devices.place(self._strategy)
        # Not in the strategy's scope: its variables serve as names and shapes only.
        self._model = run.network(config, description)
        self._preprocessing = run.preprocessing(config.data, description)
        self._variables = Variables(self._model)
        # Nothing here needs AutoGraph, which takes a second to rewrite the source.
        compiled = {"autograph": False, "reduce_retracing": True}
        self._gradients_call = tf.function(self._flat_gradients, **compiled)
        self._products_call = tf.function(self._flat_products, **compiled)
        self._read: tuple[Path | None, list[Any], list[Any]] = (None, [], [])

    def gradients(
        self, file: Path, batches: Sequence[list[int]], batch: Batch, temperature: float
    ) -> list[dict[str, Array]]:
        """The gradient of each batch's mean cross entropy by the kernels."""
        values, _ = self._arrays(file)
        return self._each(batches, batch, temperature, self._gradients_call, values)

    def hessian_products(
        self, file: Path, batches: Sequence[list[int]], batch: Batch, temperature: float
    ) -> list[dict[str, Array]]:
        """The Hessian of each batch's mean cross entropy by the kernels, times the direction."""
        values, direction = self._arrays(file)
        return self._each(batches, batch, temperature, self._products_call, values, direction)

    def _arrays(self, file: Path) -> tuple[list[Any], list[Any]]:
        """Values and direction from a file, whose name is never used again."""
        if self._read[0] != file:
            arrays, _ = tensors.read(file)
            values = self._variables.values(_within("weights/", arrays))
            given = _within("direction/", arrays)
            along = [
                tf.constant(given.get(path, np.zeros(shape)), tf.float32)
                for path, shape in zip(self._variables.kernels, self._variables.shapes, strict=True)
            ]
            self._read = file, values, along
        return self._read[1:]

    def _each(
        self,
        batches: Sequence[list[int]],
        batch: Batch,
        temperature: float,
        call: Callable[..., Any],
        *values: Any,
    ) -> list[dict[str, Array]]:
        own = len(self._devices)
        found = []
        for device, rows in zip(self._devices, batches[self._rank * own :], strict=False):
            images, labels = batch(rows)
            with tf.device(device):
                given = (tf.constant(images), tf.constant(labels), tf.constant(temperature))
                found.append(call(*values, *given))
        return [self._by_path(flat) for flat in self._gathered(found)[: len(batches)]]

    def _gathered(self, found: list[Any]) -> Array:
        """What the replicas of all processes found, [replicas, N]: zeros where there was none."""
        rows = np.zeros((len(self._devices), sum(map(_size, self._variables.shapes))), np.float32)
        for row, flat in zip(rows, found, strict=False):
            row[:] = flat.numpy()
        if self._workers == 1:
            return rows
        spread = self._strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(rows[None, context.replica_id_in_sync_group % len(rows)])
        )
        gathered: Array = self._strategy.gather(spread, axis=0).numpy()
        return gathered

    def _by_path(self, flat: Array) -> dict[str, Array]:
        shapes = self._variables.shapes
        parts = np.split(flat, np.cumsum(list(map(_size, shapes)))[:-1])
        named = zip(self._variables.kernels, parts, shapes, strict=True)
        return {path: part.reshape(shape) for path, part, shape in named}

    # -- inside the compiled functions -------------------------------------------------------

    def _flat_gradients(self, values: Any, images: Any, labels: Any, temperature: Any) -> Any:
        return _flat(self._gradients(values, images, labels, temperature))

    def _flat_products(
        self, values: Any, direction: Any, images: Any, labels: Any, temperature: Any
    ) -> Any:
        at = self._variables.of_kernels(values)
        with _twice_differentiable(), tf.GradientTape() as tape:
            tape.watch(at)
            gradients = self._gradients(values, images, labels, temperature)
            pairs = zip(gradients, direction, strict=True)
            along = tf.add_n([tf.reduce_sum(g * d) for g, d in pairs])
        return _flat(tape.gradient(along, at, unconnected_gradients="zero"))

    def _gradients(self, values: Any, images: Any, labels: Any, temperature: Any) -> list[Any]:
        at = self._variables.of_kernels(values)
        with tf.GradientTape() as tape:
            tape.watch(at)
            inputs = self._preprocessing.evaluation(images)
            logits = self._variables.call(self._model, values, inputs, training=True) / temperature
            targets = tf.one_hot(labels, logits.shape[-1])
            # Not the fused operation, which has no second derivative.
            losses = -tf.reduce_sum(targets * tf.nn.log_softmax(logits), axis=-1)
            loss = tf.reduce_mean(losses)
        return list(tape.gradient(loss, at, unconnected_gradients="zero"))


@contextmanager
def _twice_differentiable() -> Iterator[None]:
    """Have Keras compute means and variances in a way of which the second derivative is right.

    ``tf.nn.moments`` holds the mean constant in the variance. That is no error in a gradient, to
    which the mean adds nothing there, but in the gradient of a gradient it is one.
    """

    def moments(x: Any, axes: Any, keepdims: bool = False) -> tuple[Any, Any]:
        mean = tf.reduce_mean(x, axes, keepdims=True)
        variance = tf.reduce_mean(tf.math.squared_difference(x, mean), axes, keepdims=keepdims)
        return mean if keepdims else tf.squeeze(mean, axes), variance

    given = tf.nn.moments
    tf.nn.moments = moments
    try:
        yield
    finally:
        tf.nn.moments = given


def _flat(arrays: Sequence[Any]) -> Any:
    return tf.concat([tf.reshape(a, [-1]) for a in arrays], axis=0)


def _size(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape))


def _within(prefix: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
