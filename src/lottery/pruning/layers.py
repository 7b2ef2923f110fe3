"""Layers as an allocation sees them: scored units of weights, and how many weights may go."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from lottery.errors import ConfigError
from lottery.pruning.allocation import removed

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Layer:
    """A kernel, or kernels whose units are tied together, as far as it has survived."""

    paths: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    size: int
    """Weights, those that were removed before among them."""
    dead: int
    """Weights that were removed before; they stay removed, and count as removed."""
    scores: Array
    """(units,) of what survives, in order of position; the lowest go first."""
    sizes: Array
    """(units,) surviving weights in each."""
    free: Array
    """(units,) booleans: what may go."""
    first: bool = False
    """Whether it holds the first kernel that was scored."""
    last: bool = False
    """Whether it holds the last one, which the pattern may have left out."""

    @property
    def most(self) -> int:
        """The number of weights that can be removed in all."""
        return self.dead + int(self.sizes[self.free].sum())

    def lowest(self, removals: int) -> Array:
        """(units,) booleans: the units to remove, so that ``removals`` weights are gone in all."""
        gone = self.free.copy()
        gone[self.free] = lowest(
            self.scores[self.free], self.sizes[self.free], removals - self.dead
        )
        return gone


class Allocation(Protocol):
    """What a choice of ``mask.scope`` is: it says how many weights each layer loses."""

    def removals(self, layers: Sequence[Layer], percentile: float, before: float) -> Sequence[int]:
        """The weights that each layer loses in all, those that it lost before among them.

        ``before`` is the percentile of the round before, 0 in the first. Of units that are larger
        than a weight, a layer then loses as many as fit. Raises :class:`ConfigError` for a
        percentile that cannot be reached.
        """
        ...


def lowest(scores: Array, sizes: Array, budget: int) -> Array:
    """Booleans that mark the longest run of the lowest scores whose sizes fit into ``budget``.

    Ties break by position: the first goes first.
    """
    if not len(scores) or budget < sizes.min():
        return np.zeros(scores.shape, bool)
    if (sizes == sizes[0]).all():  # no need to sort millions of weights
        count = min(budget // int(sizes[0]), len(scores))
        threshold = np.partition(scores, count - 1)[count - 1]
        marks: Array = scores < threshold
        ties = np.flatnonzero(scores == threshold)
        marks[ties[: count - np.count_nonzero(marks)]] = True
        return marks
    order = np.argsort(scores, kind="stable")
    marks = np.zeros(scores.shape, bool)
    marks[order[np.cumsum(sizes[order]) <= budget]] = True
    return marks


def together(
    layers: Sequence[Layer], percentile: float, scores: Sequence[Array] | None = None
) -> list[int]:
    """What each layer loses if all units are ranked together, by their scores or by others.

    Raises :class:`ConfigError` if that is more than may go.
    """
    goal = removed(percentile, sum(layer.size for layer in layers))
    require_reachable(layers, goal, percentile)
    values = [layer.scores for layer in layers] if scores is None else scores
    gone = lowest(
        np.concatenate([v[layer.free] for v, layer in zip(values, layers, strict=True)]),
        np.concatenate([layer.sizes[layer.free] for layer in layers]),
        goal - sum(layer.dead for layer in layers),
    )
    ends = np.cumsum([np.count_nonzero(layer.free) for layer in layers])[:-1]
    return [
        layer.dead + int(layer.sizes[layer.free][marks].sum())
        for layer, marks in zip(layers, np.split(gone, ends), strict=True)
    ]


def require_reachable(layers: Sequence[Layer], goal: int, percentile: float) -> None:
    """Raise :class:`ConfigError` if ``goal`` weights of these layers cannot be removed.

    What is short of a unit does not count: that would stay in any case.
    """
    size, most = sum(layer.size for layer in layers), sum(layer.most for layer in layers)
    unit = min((int(layer.sizes.min()) for layer in layers if len(layer.sizes)), default=1)
    if goal - most >= unit:
        of = f" of {layers[0].paths[0]}" if len(layers) == 1 else ""
        highest = np.floor(1e4 * most / size) / 100
        raise ConfigError(
            f"mask.percentile={percentile:g} cannot be reached: {size - most:,} of the {size:,} "
            f"weights{of} have to stay. The highest possible is {highest:.2f}"
        )
