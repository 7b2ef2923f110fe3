"""Synaptic flow through a network, without data (Tanaka et al. 2020, arXiv:2006.05467).

Computed by one process on one device, in float64: a sum over all paths through fifty layers is
far beyond float32.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from lottery import models
from lottery.data import Description
from lottery.errors import ConfigError
from lottery.models.kernels import flat_layers
from lottery.pruning.evidence import Array, Arrays
from lottery.training.pure import Variables

log = logging.getLogger(__name__)

ADDED = frozenset({"beta", "bias", "embeddings", "mean", "moving_mean"})  # names in Keras
SCALES = (1.0, 2.0**-500, 2.0**-1000)  # of input and output, until nothing is too large
ROUNDING = 1e-9  # of the largest value of a kernel


class Flow:
    """The flow of a network (``chosen``, a choice of ``model``) for a data set; compiled once.

    Every activation is positive, so a ReLU passes all of it on. The cap of a ReLU6 is taken off,
    else the flow would end where it is large; it stays in networks that multiply features, where
    it makes a gate. What is no scale of features and no kernel, but added, counts as nothing:
    tables of positions too.
    """

    def __init__(self, chosen: Any, description: Description) -> None:
        self._name = chosen.name
        with _float64():
            model = models.build_choice(chosen, description.input_shape, len(description.classes))
        layers = flat_layers(model)
        gated = any(isinstance(layer, keras.layers.Multiply) for layer in layers)
        for layer in layers:
            layer.dtype_policy = "float64"
            if not gated:
                _take_cap_off(layer)
        self._model = model
        self._variables = Variables(model)
        self._call = tf.function(self._sum_and_gradients, autograph=False)
        self._checked = False

    def __call__(self, weights: Arrays) -> dict[str, Array]:
        """The gradient by each kernel (:meth:`lottery.pruning.evidence.Passes.flow`), by path.

        Too large for float64, all of it is divided by one power of two. A network that is not
        proportional to its input (LayerNorm, tanh, gates) has no law of conservation, which is
        logged. Raises :class:`ConfigError` where the flow is negative, which such networks may
        have, or not finite.
        """
        given = {path: _positive(path, np.asarray(weights[path])) for path in self._variables.paths}
        values = self._variables.values(given)
        self._check(values)
        for scale in SCALES:
            _, gradients = self._call(values, tf.constant(scale, tf.float64))
            found = dict(zip(self._variables.kernels, (g.numpy() for g in gradients), strict=True))
            if all(np.isfinite(g).all() for g in found.values()):
                break
        else:
            raise ConfigError(
                f"the flow through {self._name} is not finite, even in float64: score by grasp, or "
                "train it before (mask.at)"
            )
        if any(g.min(initial=0) < -ROUNDING * g.max(initial=0) for g in found.values()):
            raise ConfigError(
                f"the flow through {self._name} is negative in places, since it has layers that "
                "subtract (LayerNorm, attention): score by grasp or snip"
            )
        return {path: np.maximum(g, 0) for path, g in found.items()}

    def _check(self, values: list[Any]) -> None:
        """Say once if the law does not hold."""
        if self._checked:
            return
        self._checked = True
        full, half = (self._call(values, tf.constant(s, tf.float64))[0] for s in (1.0, 0.5))
        if not np.isclose(full, 4 * half, rtol=1e-3):
            log.warning(
                "the outputs of %s are not proportional to its input, so that its synaptic flow is "
                "not conserved: mask.score=synflow may end whole layers of it",
                self._name,
            )

    def _sum_and_gradients(self, values: Any, scale: Any) -> tuple[Any, list[Any]]:
        at = self._variables.of_kernels(values)
        with _float64(), tf.GradientTape() as tape:
            tape.watch(at)
            ones = scale * tf.ones([1, *self._model.input_shape[1:]], tf.float64)
            outputs = self._variables.call(self._model, values, ones, training=False)
            total = scale * tf.reduce_sum(outputs)
        return total, tape.gradient(total, at, unconnected_gradients="zero")


def _take_cap_off(layer: Any) -> None:
    if isinstance(layer, keras.layers.ReLU):
        layer.max_value = None
    elif getattr(layer, "activation", None) is keras.activations.relu6:
        layer.activation = keras.activations.relu


def _positive(path: str, array: Array) -> Array:
    if path.rpartition("/")[2] in ADDED:
        return np.zeros_like(array)
    return np.abs(array) if array.dtype.kind == "f" else array


@contextmanager
def _float64() -> Iterator[None]:
    """Keras builds in float64, and then as before."""
    policy, kind = keras.config.dtype_policy(), keras.config.floatx()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    try:
        yield
    finally:
        keras.config.set_floatx(kind)
        keras.config.set_dtype_policy(policy)
