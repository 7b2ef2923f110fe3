"""All layers together."""
# ruff: noqa: N999 - a choice is named as its module

from collections.abc import Sequence
from dataclasses import dataclass

from lottery import choices
from lottery.pruning.layers import Layer, together


@choices.allocation("global")
@dataclass(frozen=True)
class Global:
    """All units ranked together: a layer loses as many as score low."""

    def removals(self, layers: Sequence[Layer], percentile: float, before: float) -> list[int]:
        """``floor(percentile / 100 * N)`` weights of the N in all layers."""
        return together(layers, percentile)
