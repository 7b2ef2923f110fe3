"""Evidence: what a score may look at. Nothing is computed before a score asks for it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from lottery.errors import ConfigError

Array = np.ndarray[Any, Any]
Arrays = Mapping[str, Array]
Mask = Mapping[str, Array]


@dataclass(frozen=True)
class Examples:
    """Labelled training examples, as many of each class, not augmented."""

    per_class: int
    """Drawn by the seed; of a smaller class, all."""
    half: int | None = None
    """0 or 1: one of two disjoint halves of each class's examples."""


class Passes(Protocol):
    """Passes through the network at given weights, by path. All variables are given.

    Gradients are those of every kernel, by path. The network is in training mode and its state
    (moving statistics, random numbers) is left as it was.
    """

    def gradients(
        self, weights: Arrays, examples: Examples, *, temperature: float = 1.0
    ) -> Iterator[Arrays]:
        """The gradient of the mean loss of each batch, logits divided by ``temperature``."""
        ...

    def hessian_product(
        self, weights: Arrays, direction: Arrays, examples: Examples, *, temperature: float = 1.0
    ) -> Arrays:
        """The Hessian of the mean loss of all ``examples`` times ``direction``.

        A kernel that ``direction`` does not name stands still: its part of the direction is zero.
        """
        ...

    def flow(self, weights: Arrays) -> Arrays:
        """The gradient of the sum of the outputs for an input of ones, in float64, without data.

        The network is in evaluation mode with the absolute values of kernels and scales, and
        without what is added: biases, BatchNorm's shifts and moving means. BatchNorm divides by its
        moving deviation as it is. So the sum is homogeneous in each kernel, and positive, which the
        conservation law of SynFlow needs. ReLU6 has no cap there. Of a sum beyond float64 all
        gradients are divided by one number. The published code takes absolute values of the moving
        statistics instead, and keeps what is added: the same at initialisation, where all of it is
        zero, and later no law holds.
        """
        ...


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is known of a network at the point that is scored (``mask.at``)."""

    weights: Arrays
    """All variables of the network by path, those that ``mask`` prunes at zero."""
    paths: tuple[str, ...]
    """The kernels to score, in the network's order."""
    percentile: float
    """What is to be removed in all, in percent."""
    seed: int = 0
    mask: Mask | None = None
    """What earlier rounds have left of the kernels; None before the first."""
    start: Callable[[], Arrays] | None = field(default=None, repr=False)
    """Loads the weights at initialisation."""
    offered: Passes | None = field(default=None, repr=False)
    """Passes through the network, for a score whose ``needs`` name them."""
    pruned: Callable[[Arrays, float], Mask] | None = field(default=None, repr=False)
    """The mask that the chosen allocation and pattern make of scores, at a percentile."""

    @cached_property
    def initial(self) -> Arrays:
        """The weights at initialisation. Raises :class:`ConfigError` where nobody has them."""
        if self.start is None:
            raise ConfigError("needs the weights at initialisation, which are not known here")
        return self.start()

    @property
    def passes(self) -> Passes:
        """Passes through the network. Raises :class:`ConfigError` for a score that names none."""
        if self.offered is None:
            raise ConfigError(
                "needs passes through the network, which its class does not name: add 'labels' to "
                "its needs, or 'network' if it takes no data"
            )
        return self.offered

    def prune(self, scores: Arrays, percentile: float) -> Mask:
        """The mask of these scores at another percentile, for a score that goes in rounds.

        Raises what the allocation and the pattern raise.
        """
        if self.pruned is None:
            raise ConfigError("prunes in rounds, and nothing says how")
        return self.pruned(scores, percentile)

    def generator(self) -> np.random.Generator:
        """Random numbers of a score, the same each time."""
        return np.random.Generator(np.random.PCG64([self.seed, 0x5C0]))

    def zeros(self) -> dict[str, Array]:
        """float64 zeros in the shapes of the kernels to score, to sum up in."""
        return {path: np.zeros(self.weights[path].shape) for path in self.paths}

    def alive(self, path: str) -> Array:
        """Which weights of a kernel earlier rounds have left."""
        kept = None if self.mask is None else self.mask.get(path)
        return np.ones(self.weights[path].shape, bool) if kept is None else kept
