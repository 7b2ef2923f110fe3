"""LAMP: layer-adaptive magnitude pruning (Lee et al. 2021, arXiv:2010.07611, equation 4)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lottery import choices
from lottery.errors import ConfigError
from lottery.pruning.layers import Array, Layer, together


@choices.allocation("lamp")
@dataclass(frozen=True)
class Lamp:
    """Ranked together by s² / the sum of all s'² of the layer that are not lower."""

    def removals(self, layers: Sequence[Layer], percentile: float, before: float) -> list[int]:
        """``floor(percentile / 100 * N)`` weights of the N in all layers.

        Among equal scores of a layer, the first counts as the lowest. Raises :class:`ConfigError`
        for scores below zero, which a square would put in another order.
        """
        for layer in layers:
            if (layer.scores < 0).any():
                raise ConfigError(
                    f"mask.scope=lamp squares scores, and some of {layer.paths[0]} are negative: "
                    "choose mask.scope=global or another mask.score"
                )
        return together(layers, percentile, [_adapted(layer.scores) for layer in layers])


def _adapted(scores: Array) -> Array:
    order = np.argsort(scores, kind="stable")
    highest = scores[order[-1]] if len(order) else 0.0
    squares = (scores[order] / (highest or 1.0)) ** 2  # scaled, lest squares overflow
    rest = np.cumsum(squares[::-1])[::-1]
    adapted = np.empty(len(order))
    adapted[order] = squares / np.where(rest > 0, rest, 1.0)
    return adapted
