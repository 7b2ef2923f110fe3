"""Magnitude (Han et al. 2015, arXiv:1506.02626; Frankle & Carbin 2019, arXiv:1803.03635)."""

from dataclasses import dataclass

import numpy as np

from lottery import choices
from lottery.pruning.evidence import Array, Evidence


@choices.score("magnitude")
@dataclass(frozen=True)
class Magnitude:
    """|w|: small weights go first."""

    def scores(self, evidence: Evidence) -> dict[str, Array]:
        """Absolute values at the point that is scored."""
        return {path: np.abs(evidence.weights[path]) for path in evidence.paths}
