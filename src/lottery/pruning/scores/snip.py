"""SNIP: connection sensitivity (Lee et al. 2019, arXiv:1810.02340, equation 5)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lottery import choices
from lottery.options import option
from lottery.pruning.evidence import Array, Evidence, Examples


@choices.score("snip")
@dataclass(frozen=True)
class Snip:
    """|w g|: what the loss would change at most, to first order; summed over batches."""

    needs: ClassVar[frozenset[str]] = frozenset({"labels"})
    any_target: ClassVar[bool] = True

    per_class: int = option(10, "training examples of each class", ge=1)

    def scores(self, evidence: Evidence) -> dict[str, Array]:
        """The sum of each batch's ``|w g|``: gradients of opposite sign do not cancel out.

        The paper's division by the sum over all weights changes no order and is left out.
        """
        weights = evidence.weights
        total = evidence.zeros()
        for gradients in evidence.passes.gradients(weights, Examples(self.per_class)):
            for path in total:
                total[path] += np.abs(weights[path] * gradients[path])
        return total
