"""Dropping weights of a layer and growing as many: what SET and RigL have in common."""

import numpy as np

from lottery.pruning.dynamics import Aim, Moment
from lottery.pruning.layers import Array, lowest


def random_start(moment: Moment, aim: Aim) -> dict[str, Array]:
    """A mask by lot, in each layer as dense as the allocation says."""
    return aim.reach(random_numbers(moment), aim.percentile)


def random_numbers(moment: Moment) -> dict[str, Array]:
    """Uniform numbers in the shapes of the kernels, by seed and step."""
    drawn = moment.generator
    return {path: drawn.random(out=np.empty(m.shape)) for path, m in moment.mask.items()}


def regrown(mask: Array, weights: Array, appeal: Array, count: int) -> Array:
    """The mask of one layer without its ``count`` smallest weights and with as many others.

    Those of the highest ``appeal`` come, of all that are not active then: a weight that has just
    been dropped may come back, and keeps its value, since the mask never was without it. Among
    equals the first goes, and the first comes. All arrays have the shape of the kernel.
    """
    active = np.flatnonzero(mask)
    smallest = _lowest(np.abs(weights.ravel()[active]), count)
    kept = mask.ravel().copy()
    kept[active[smallest]] = False
    free = np.flatnonzero(~kept)
    kept[free[_lowest(-appeal.ravel()[free], count)]] = True
    return kept.reshape(mask.shape)


def _lowest(values: Array, count: int) -> Array:
    return lowest(values, np.ones(len(values), np.int64), count)
