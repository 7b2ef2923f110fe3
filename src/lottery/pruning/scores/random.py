"""No evidence at all: the control that every other score has to beat."""

from dataclasses import dataclass

from lottery import choices
from lottery.pruning.evidence import Array, Evidence


@choices.score("random")
@dataclass(frozen=True)
class Random:
    """Uniform random numbers, by the seed of the study."""

    def scores(self, evidence: Evidence) -> dict[str, Array]:
        """The same in each round, so that rounds together remove what one would."""
        generator = evidence.generator()
        zeros = evidence.zeros()
        return {path: generator.random(out=empty) for path, empty in zeros.items()}
