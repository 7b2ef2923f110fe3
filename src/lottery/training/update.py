"""What the optimizer makes of the gradients of a step: masked, and compiled by XLA as one function.

An optimizer of Keras calls a handful of kernels for each variable, and a mask one or two more. In a
small network most of a step goes into those calls and into passing over the weights once for each.
XLA makes one pass of them all, so that a mask costs next to nothing.
"""

import functools
import logging
from typing import Any

import keras
import tensorflow as tf

from lottery.training.masking import Masking

log = logging.getLogger(__name__)

# XLA takes tens of milliseconds for each variable, so seconds for MobileNetV2. Networks of more
# variables take steps so long that little is gained: benchmarks/compiled_update.py.
MOST_VARIABLES = 64


class Update:
    """A step of ``optimizer`` that leaves at zero what ``masking`` prunes.

    Compiled by XLA for a single replica of a network of up to :data:`MOST_VARIABLES` trainable
    variables, whatever compiles its gradients. Keras's optimizers reduce over replicas, which XLA
    cannot compile. Nor can it compile every optimizer of somebody's own: one log line says so, and
    the update is then made by TensorFlow's kernels.
    """

    def __init__(self, optimizer: Any, variables: list[Any], masking: Masking, strategy: Any):
        self._optimizer, self._variables = optimizer, variables
        self._masking, self._strategy = masking, strategy
        self._function: Any = None

    def __call__(self, gradients: list[Any]) -> None:
        """Take the step. To be called in a replica, while a ``tf.function`` is traced."""
        if self._function is None:
            self._function = self._chosen(gradients)
        self._function(*gradients)

    def _chosen(self, gradients: list[Any]) -> Any:
        if self._strategy.num_replicas_in_sync > 1 or len(self._variables) > MOST_VARIABLES:
            return self._step
        compiled: Any = tf.function(self._step, autograph=False, jit_compile=True)
        if not self._known and (reason := _refusal(compiled, gradients)):
            name = type(self._inner).__name__
            log.info("the update of %s is not compiled by XLA, so it is slower: %s", name, reason)
            return self._step
        return compiled

    @property
    def _inner(self) -> Any:
        return getattr(self._optimizer, "inner_optimizer", self._optimizer)

    @functools.cached_property
    def _known(self) -> bool:
        """Whether only Keras's own code is compiled, which the tests show that XLA can."""
        own = type(self._inner) is getattr(keras.optimizers, type(self._inner).__name__, None)
        return own and all(v.constraint is None for v in self._variables)

    def _step(self, *gradients: Any) -> None:
        survivors = self._masking.survivors(list(gradients))
        self._optimizer.apply(survivors, self._variables)
        if self._masking.zeroes:
            tf.__internal__.distribute.interim.maybe_merge_call(
                self._masking.zero_pruned, self._strategy
            )


def _refusal(compiled: Any, gradients: list[Any]) -> str | None:
    """Why XLA cannot compile a function of these gradients; None if it can."""
    try:
        specs = map(tf.type_spec_from_value, gradients)
        with tf.init_scope():
            compiled.experimental_get_compiler_ir(*specs)(stage="hlo")
    except Exception as error:  # whatever an optimizer of somebody's own does
        return str(error).splitlines()[0]
    return None
