"""The same density in every layer."""

from collections.abc import Sequence
from dataclasses import dataclass

from lottery import choices
from lottery.pruning.allocation import removed
from lottery.pruning.layers import Layer, require_reachable


@choices.allocation("layer")
@dataclass(frozen=True)
class Uniform:
    """The same percentile in every layer, however its scores compare with those of others."""

    def removals(self, layers: Sequence[Layer], percentile: float, before: float) -> list[int]:
        """``floor(percentile / 100 * N)`` weights of the N in each layer.

        Raises :class:`ConfigError` for a layer that cannot lose as many.
        """
        for layer in sorted(layers, key=lambda layer: layer.most / layer.size):
            require_reachable([layer], removed(percentile, layer.size), percentile)
        return [removed(percentile, layer.size) for layer in layers]
