"""How far training has moved a weight (Zhou et al. 2019, arXiv:1905.01067, section 2).

Not the movement pruning of Sanh et al. 2020 (arXiv:2005.07683), which learns its scores.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lottery import choices
from lottery.options import option
from lottery.pruning.evidence import Array, Evidence


@choices.score("movement")
@dataclass(frozen=True)
class Movement:
    """|w| - |w at initialisation|: what has shrunk goes first, then what has hardly grown."""

    needs: ClassVar[frozenset[str]] = frozenset({"initial"})
    any_target: ClassVar[bool] = True

    of: str = option(
        "magnitude",
        "what moves: the magnitude, |w| - |w0| (magnitude_increase of Zhou et al.), or the weight, "
        "|w - w0| (their movement)",
        choices=("magnitude", "weight"),
    )

    @property
    def signed(self) -> bool:
        """A magnitude may have shrunk."""
        return self.of == "magnitude"

    def scores(self, evidence: Evidence) -> dict[str, Array]:
        """Differences to the initialisation."""
        pairs = {path: (evidence.weights[path], evidence.initial[path]) for path in evidence.paths}
        if self.of == "weight":
            return {path: np.abs(now - first) for path, (now, first) in pairs.items()}
        return {path: np.abs(now) - np.abs(first) for path, (now, first) in pairs.items()}
