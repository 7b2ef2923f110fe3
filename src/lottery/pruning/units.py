"""Units: weights that go together. Patterns arrange the weights of kernels into them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from lottery.errors import ConfigError
from lottery.pruning.layers import Allocation, Layer

Array = np.ndarray[Any, Any]
Mask = Mapping[str, Array]
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Ties:
    """Which output channels of a network's kernels stand or fall together, by class.

    Channels of one class are linked by additions, depthwise layers or gates. Class -1 must stay:
    outputs of the network, and what layers read that nobody knows.
    """

    made: Mapping[str, list[int]] = field(default_factory=dict)
    """Classes of the outputs of each kernel that mixes channels, by path."""
    passed: Mapping[str, list[int]] = field(default_factory=dict)
    """Classes of the outputs of each depthwise kernel, by path."""


@dataclass(frozen=True)
class Target:
    """How much to remove, and from where."""

    percentile: float
    """Of the weights, in all rounds together, in [0, 100)."""
    allocation: Allocation
    before: float = 0.0
    """The percentile of the round before."""


class Pattern(Protocol):
    """What a choice of ``mask.pattern`` is: it says which weights can go together.

    A class variable ``needs_ties`` says that it must know which channels are tied, ``of_matrices``
    that it takes kernels alone whose last axes are inputs and outputs, and ``whole_channels`` that
    a channel which has no weight left is meant to be gone: its bias, and its scale and shift in
    BatchNorm, are then zero in training, too.
    """

    def check(self, target: Target) -> None:
        """Raise :class:`ConfigError` for a target that no network can reach in this pattern."""
        ...

    def mask(
        self, scores: Mapping[str, Array], target: Target, within: Mask | None, ties: Ties | None
    ) -> dict[str, Array]:
        """The mask that removes the lowest scores; what ``within`` has removed stays removed."""
        ...

    def shuffled(
        self, mask: Mask, generator: np.random.Generator, ties: Ties | None
    ) -> dict[str, Array]:
        """A mask of this pattern that leaves as many weights of each kernel, drawn at random."""
        ...


def needs_ties(pattern: Pattern) -> bool:
    """Whether a pattern must know which channels of the network are tied."""
    return bool(getattr(pattern, "needs_ties", False))


def prunes_channels(pattern: Pattern) -> bool:
    """Whether a pattern prunes channels as a whole."""
    return bool(getattr(pattern, "whole_channels", False))


@dataclass(frozen=True)
class Units:
    """The units of some kernels, numbered by layer and position."""

    of: Mapping[str, Array]
    """The unit of each weight, in the shape of its kernel; -1 where a weight must stay."""
    layers: tuple[tuple[str, ...], ...]
    """Paths of the kernels in each layer. Those of one layer share units."""
    ends: Array
    """(layers + 1,) the first unit of each layer, and the number of units."""

    @property
    def count(self) -> int:
        """How many units."""
        return int(self.ends[-1])

    def sums(self, values: Mask, weights: Mapping[str, Array] | None = None) -> Array:
        """(units,) over the weights that ``values`` marks: their number, or the sum of these."""
        total = np.zeros(self.count, np.int64 if weights is None else np.float64)
        for paths, own in self.each():
            for path in paths:
                labels = self.of[path]
                chosen = values[path] & (labels >= 0)
                of_each = None if weights is None else weights[path][chosen].astype(float)
                inside = labels[chosen] - own.start
                total[own] += np.bincount(inside, of_each, own.stop - own.start)
        return total

    def marked(self, units: Array) -> dict[str, Array]:
        """The weights of the units that a (units,) array of booleans marks."""
        padded = np.append(units, False)  # where -1 points
        return {path: padded[labels] for path, labels in self.of.items()}

    def each(self) -> Iterator[tuple[tuple[str, ...], slice]]:
        """The kernels and the units of every layer."""
        for paths, first, end in zip(self.layers, self.ends, self.ends[1:], strict=False):
            yield paths, slice(int(first), int(end))


def one_a_layer(labels: Mapping[str, Array]) -> Units:
    """Units of which each lies in one kernel, from their numbers within it (0, 1, …)."""
    counts = [int(x.max()) + 1 for x in labels.values()]
    ends = np.cumsum([0, *counts])
    of = {path: x + first for (path, x), first in zip(labels.items(), ends, strict=False)}
    return Units(of, tuple((path,) for path in labels), ends)


class UnitPattern:
    """A pattern whose masks consist of whole units. A subclass says what these are."""

    def units(self, shapes: Shapes, ties: Ties | None) -> Units:
        """The units of kernels of these shapes; a kernel that has none is left dense."""
        raise NotImplementedError

    def held(self, units: Units, scores: Array, live: Array) -> Array:
        """(units,) booleans: what stays, whatever is asked for."""
        return np.zeros(units.count, bool)

    def check(self, target: Target) -> None:
        """Any target may be reached."""

    def mask(
        self, scores: Mapping[str, Array], target: Target, within: Mask | None, ties: Ties | None
    ) -> dict[str, Array]:
        """The mask that removes the units of the lowest mean scores.

        Kernels without units are left out. Raises what the allocation raises.
        """
        shapes = {path: s.shape for path, s in scores.items()}
        units = self.units(shapes, ties)
        if not units.count:
            raise ConfigError(
                f"mask.pattern={getattr(self, 'name', type(self).__name__)} finds nothing to prune "
                f"in {', '.join(scores)}"
            )
        alive = {p: np.ones(shapes[p], bool) if within is None else within[p] for p in units.of}
        sizes = units.sums(alive)
        means = units.sums(alive, scores) / np.maximum(sizes, 1)
        live = sizes > 0
        free = live & ~self.held(units, means, live)
        order, layers = list(scores), []
        for paths, own in units.each():
            there = live[own]
            size = sum(alive[p].size for p in paths)
            dead = size - sum(int(np.count_nonzero(alive[p])) for p in paths)
            of_each = means[own][there], sizes[own][there], free[own][there]
            ends = order[0] in paths, order[-1] in paths
            layers.append(
                Layer(paths, tuple(shapes[p] for p in paths), size, dead, *of_each, *ends)
            )
        removals = target.allocation.removals(layers, target.percentile, target.before)
        gone = np.zeros(units.count, bool)
        gone[live] = np.concatenate(
            [layer.lowest(count) for layer, count in zip(layers, removals, strict=True)]
        )
        return {path: alive[path] & ~marks for path, marks in units.marked(gone).items()}

    def shuffled(
        self, mask: Mask, generator: np.random.Generator, ties: Ties | None
    ) -> dict[str, Array]:
        """Surviving units drawn anew among those of a layer that have as many weights of each
        of its kernels, so that every kernel keeps its count."""
        units = self.units({path: m.shape for path, m in mask.items()}, ties)
        kept = units.sums(mask) > 0
        for paths, own in units.each():
            size = own.stop - own.start
            kind = np.zeros(size, np.int64)
            for path in paths:
                labels = units.of[path][units.of[path] >= 0] - own.start
                counts = np.bincount(labels, minlength=size)
                kind = np.unique(kind * (counts.max() + 1) + counts, return_inverse=True)[1]
            for alike in range(kind.max() + 1):
                chosen = own.start + np.flatnonzero(kind == alike)
                kept[chosen] = generator.permutation(kept[chosen])
        return {path: m | (units.of[path] < 0) for path, m in units.marked(kept).items()}
