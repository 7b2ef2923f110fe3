"""No evidence at all: the control that every other score has to beat."""

from dataclasses import dataclass
from typing import ClassVar

from lottery import choices
from lottery.pruning.evidence import Array, Evidence


@choices.score("random")
@dataclass(frozen=True)
class Random:
    """Random numbers of the standard Cauchy distribution, by the seed of the study.

    The mean of any number of them has that distribution too, so units of a pattern all have the
    same chance, however many weights they have. Means of uniform numbers do not: those of large
    units lie close together, so with ``mask.scope=global`` small ones would be first and last.
    """

    signed: ClassVar[bool] = True

    def scores(self, evidence: Evidence) -> dict[str, Array]:
        """The same in each round, so that rounds together remove what one would."""
        generator = evidence.generator()
        shapes: dict[str, tuple[int, ...]] = {p: evidence.weights[p].shape for p in evidence.paths}
        return {path: generator.standard_cauchy(shape) for path, shape in shapes.items()}
