"""Erdős-Rényi-Kernel (Evci et al. 2020, RigL, arXiv:1911.11134, section 3)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lottery import choices
from lottery.pruning.allocation import removed
from lottery.pruning.layers import Array, Layer, require_reachable


@choices.allocation("erk")
@dataclass(frozen=True)
class ErdosRenyiKernel:
    """Small layers stay denser: density ~ sum of a kernel's dimensions / their product."""

    def removals(self, layers: Sequence[Layer], percentile: float, before: float) -> list[int]:
        """``floor(percentile / 100 * N)`` weights of the N in all layers, exactly.

        Layer l keeps ``factor * sum(dimensions of l)`` weights, but no more than it has. The one
        factor at which the layers together keep what they should is searched for, so that what
        saturated layers cannot take goes to the others. Halves are rounded up, first in the first
        layers. A higher percentile never gives a layer more.

        Raises :class:`ConfigError` if layers must keep more than that.
        """
        size = sum(layer.size for layer in layers)
        goal = removed(percentile, size)
        require_reachable(layers, goal, percentile)
        shares = np.array([sum(map(sum, layer.shapes)) for layer in layers], float)
        least = np.array([layer.size - layer.most for layer in layers])
        most = np.array([layer.size - layer.dead for layer in layers])

        def kept(factor: float) -> Array:
            return np.clip(np.floor(factor * shares + 0.5).astype(np.int64), least, most)

        low, high = 0.0, float((most / shares).max()) + 1
        while low < (middle := (low + high) / 2) < high:
            if kept(middle).sum() <= size - goal:
                low = middle
            else:
                high = middle
        # Now low and high are neighbours: layers differ by one weight, where they reach a half.
        counts = kept(low)
        ties = np.flatnonzero(kept(high) > counts)
        counts[ties[: max(0, size - goal - int(counts.sum()))]] += 1
        return [layer.size - int(count) for layer, count in zip(layers, counts, strict=True)]
