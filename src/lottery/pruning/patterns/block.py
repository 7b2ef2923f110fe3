"""Blocks of a kernel as a matrix, as sparse matrix products take them."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lottery import choices
from lottery.options import option
from lottery.pruning.units import Array, Shapes, Ties, UnitPattern, Units, one_a_layer


@choices.pattern("block")
@dataclass(frozen=True)
class Block(UnitPattern):
    """Blocks of inputs x outputs weights: 1x4, 4x1, …"""

    of_matrices: ClassVar[bool] = True

    rows: int = option(1, "inputs in a block: window positions, then input channels", ge=1)
    columns: int = option(4, "outputs in a block", ge=1)

    def units(self, shapes: Shapes, ties: Ties | None) -> Units:
        """Blocks of the matrix (window x inputs, outputs); smaller ones at the far edges."""
        return one_a_layer({path: self._blocks(shape) for path, shape in shapes.items()})

    def _blocks(self, shape: tuple[int, ...]) -> Array:
        outputs = shape[-1]
        inputs = int(np.prod(shape[:-1], dtype=int))
        row = np.arange(inputs)[:, None] // self.rows
        column = np.arange(outputs) // self.columns
        labels: Array = (row * -(-outputs // self.columns) + column).reshape(shape)
        return labels
