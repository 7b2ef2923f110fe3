"""First-order Taylor expansion (Molchanov et al. 2019, arXiv:1906.10771, equation 8)."""

from dataclasses import dataclass
from typing import ClassVar

from lottery import choices
from lottery.options import option
from lottery.pruning.evidence import Array, Evidence, Examples


@choices.score("taylor")
@dataclass(frozen=True)
class Taylor:
    """(w g)²: the square of what the loss would change to first order; mean over batches."""

    needs: ClassVar[frozenset[str]] = frozenset({"labels"})
    any_target: ClassVar[bool] = True

    per_class: int = option(10, "training examples of each class", ge=1)

    def scores(self, evidence: Evidence) -> dict[str, Array]:
        """Squares of each batch's ``w g``, g the gradient of its mean loss."""
        weights = evidence.weights
        total = evidence.zeros()
        count = 0
        for gradients in evidence.passes.gradients(weights, Examples(self.per_class)):
            count += 1
            for path in total:
                total[path] += (weights[path] * gradients[path]) ** 2
        return {path: squares / count for path, squares in total.items()}
