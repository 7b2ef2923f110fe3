"""GraSP: gradient signal preservation (Wang et al. 2020, arXiv:2002.07376, equation 8)."""

from dataclasses import dataclass
from typing import ClassVar

from lottery import choices
from lottery.options import option
from lottery.pruning.evidence import Array, Evidence, Examples


@choices.score("grasp")
@dataclass(frozen=True)
class Grasp:
    """w (H g): weights without which the gradient would be larger go first."""

    needs: ClassVar[frozenset[str]] = frozenset({"labels"})
    any_target: ClassVar[bool] = True
    signed: ClassVar[bool] = True

    per_class: int = option(10, "training examples of each class, for both halves", ge=2)
    temperature: float = option(200.0, "what logits are divided by", gt=0)

    def scores(self, evidence: Evidence) -> dict[str, Array]:
        """g is the gradient of the mean loss, H its Hessian, over two disjoint halves of examples.

        As in the published code each half passes through the network by itself, and the gradient
        is that of the scored weights that survive. The paper's score is -w (H g), of which the
        *highest* are removed. Here the lowest are, hence the other sign.
        """
        weights, passes = evidence.weights, evidence.passes
        halves = [Examples(self.per_class, half) for half in (0, 1)]
        direction, curved = evidence.zeros(), evidence.zeros()
        for half in halves:
            found = list(passes.gradients(weights, half, temperature=self.temperature))
            for path in direction:
                mean = sum(gradients[path] for gradients in found) / len(found)
                direction[path] += evidence.alive(path) * mean / 2
        for half in halves:
            product = passes.hessian_product(weights, direction, half, temperature=self.temperature)
            for path in curved:
                curved[path] += product[path] / 2
        return {path: weights[path] * curved[path] for path in evidence.paths}
