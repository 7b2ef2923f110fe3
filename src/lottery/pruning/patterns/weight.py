"""Single weights: unstructured pruning."""

from dataclasses import dataclass
from math import prod

import numpy as np

from lottery import choices
from lottery.pruning.units import Shapes, Ties, UnitPattern, Units, one_a_layer


@choices.pattern("weight")
@dataclass(frozen=True)
class Weight(UnitPattern):
    """Every weight by itself."""

    def units(self, shapes: Shapes, ties: Ties | None) -> Units:
        """A unit for each weight."""
        return one_a_layer({p: np.arange(prod(s)).reshape(s) for p, s in shapes.items()})
