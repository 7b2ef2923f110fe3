"""The mask of a network: inside the compiled step, where it changes, and in a state."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from lottery.errors import MaskError
from lottery.pruning.dynamics import Course
from lottery.rewinding import owner
from lottery.training import optimizers
from lottery.training.checkpoints import State, named_masks
from lottery.training.tally import refuse_divergence

Array = np.ndarray[Any, Any]


class Masking:
    """Keeps what a mask prunes at exactly zero: weights, and all slots of the optimizer.

    Made within the strategy's scope. A mask that changes, by a ``course``, must be one of trainable
    variables, and is part of the state. One that prunes nothing of a variable, and never will, is
    as none, so that such a training is the dense one, bit for bit.

    ``whole`` is the mask in the shapes that states have, if ``model`` is a part of the network.

    ``zeroes`` says that pruned weights have to be set to zero after a step of this optimizer.
    """

    def __init__(
        self,
        model: Any,
        optimizer: Any,
        mask: Mapping[str, Array],
        course: Course | None,
        whole: Mapping[str, Array] | None = None,
    ) -> None:
        self.course = course
        self._weights = model.trainable_variables
        self._masks = [
            tf.Variable(np.array(mask[v.path], bool), trainable=False) if v.path in mask else None
            for v in self._weights
        ]
        self._prunes = [
            v.path in mask and (course is not None or not np.all(mask[v.path]))
            for v in self._weights
        ]
        paths = frozenset(v.path for v in model.variables)
        self._slots = [(owner(v.path, paths), v) for v in optimizer.variables]
        self._first = whole or {v.path: mask[v.path] for v, _ in self._pruned()}
        self._optimizer = type(getattr(optimizer, "inner_optimizer", optimizer)).__name__
        pruned = (v for v, _ in self._pruned())
        constrained = any(getattr(v, "constraint", None) is not None for v in pruned)
        self.zeroes = constrained or not optimizers.keeps_zeros(optimizer)

    def mask(self) -> dict[str, Array]:
        """The mask as it is now: booleans by path, True for what survives."""
        return {v.path: m.numpy() for v, m in self._masked()}

    def density(self) -> float:
        """The share of the weights in the mask that survive."""
        mask = self.mask()
        return sum(map(np.count_nonzero, mask.values())) / sum(m.size for m in mask.values())

    # -- in the compiled step ----------------------------------------------------------------

    def survivors(self, gradients: list[Any]) -> list[Any]:
        """The gradients of all trainable variables, zero for what is pruned."""
        pairs = zip(gradients, self._masks, self._prunes, strict=True)
        return [_kept(g, m) if prunes else g for g, m, prunes in pairs]

    def of_masked(self, gradients: list[Any]) -> list[Any]:
        """Those of the variables that have a mask, as they are."""
        return [g for g, m in zip(gradients, self._masks, strict=True) if m is not None]

    def zero_pruned(self, strategy: Any) -> None:
        """Set pruned weights to zero."""
        for v, m in self._pruned():
            strategy.extended.update(
                v.value, lambda v, m: v.assign(_kept(v, m)), args=(m,), group=False
            )

    def moved(self) -> int:
        """How many pruned weights are not zero now."""
        found = (tf.math.count_nonzero(tf.where(m, 0, v.value)) for v, m in self._pruned())
        return int(sum(int(count) for count in found))

    # -- between steps -----------------------------------------------------------------------

    def change(self, step: int, gradients: list[Any] | None) -> None:
        """Give the network the mask that its course has from ``step`` on.

        ``gradients`` are what :meth:`of_masked` gave. Every process finds the same mask, since
        weights and gradients are the same in all. Raises :class:`DivergedError` for weights that
        are not finite.
        """
        assert self.course is not None
        weights = {v.path: np.array(v.value) for v, _ in self._masked()}
        if not all(np.isfinite(w).all() for w in weights.values()):
            refuse_divergence(math.nan, step)
        slopes = None
        if gradients is not None:
            slopes = {p: g.numpy() for p, g in zip(weights, gradients, strict=True)}
        new = self.course.change(step, self.mask(), weights, slopes)
        for v, m in self._masked():
            kept = tf.constant(new[v.path])
            m.assign(kept)
            for array in (v, *(slot for path, slot in self._slots if path == v.path)):
                array.assign(tf.where(kept, array.value, tf.zeros((), array.value.dtype)))

    def state(self) -> State:
        """The mask as a state has it, if it changes; else nothing."""
        return named_masks(self.mask()) if self.course else {}

    def load(self, state: State) -> None:
        """Set the mask to that of a state, which has one if it changes."""
        if self.course:
            for v, m in self._masked():
                m.assign(state[f"mask/{v.path}"])

    def check(self, state: State, step: int) -> None:
        """Raise :class:`MaskError` unless all that the mask prunes is exactly 0.0 in a state.

        Weights and slots of the optimizer, after ``step``; the variables may have other values by
        now. Raises :class:`DivergedError` for those that are not finite.
        """
        names = [(f"model/{path}", path) for path in self._first]
        names += [(v.path, path) for path, v in self._slots if path and path in self._first]
        for name, path in names:
            kept = state[f"mask/{path}"] if self.course else self._first[path]
            array = state[name]
            if array.shape != kept.shape:  # a slot that is a number for the whole variable
                continue
            if moved := np.count_nonzero((array != 0) & ~kept):
                if not np.isfinite(array).all():
                    refuse_divergence(math.nan, step)
                raise MaskError(
                    f"by step {step} {self._optimizer} has moved {moved} of "
                    f"{np.count_nonzero(~kept)} pruned values of {name} away from zero, so no "
                    "checkpoint is written: take an optimizer that moves nothing whose gradient "
                    "and slots are zero"
                )

    def _masked(self) -> list[tuple[Any, Any]]:
        """Variables and masks, of those that have one."""
        pairs = zip(self._weights, self._masks, strict=True)
        return [(v, m) for v, m in pairs if m is not None]

    def _pruned(self) -> list[tuple[Any, Any]]:
        """Those of which the mask prunes something, or may."""
        trios = zip(self._weights, self._masks, self._prunes, strict=True)
        return [(v, m) for v, m, prunes in trios if prunes]


def _kept(values: Any, mask: Any) -> Any:
    """The values, zero for what is pruned: there a product would leave NaN and infinity as NaN."""
    return tf.where(mask, values, tf.zeros((), values.dtype))
