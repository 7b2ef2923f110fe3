"""Magnitude (Han et al. 2015; Frankle & Carbin 2019): small trained weights go first."""

from dataclasses import dataclass

import numpy as np

from lottery.pruning.criteria import Array


@dataclass(frozen=True)
class Criterion:
    """Score = absolute value after training."""

    def score(self, trained: Array, initial: Array) -> Array:
        """Return ``|trained|``."""
        return np.abs(trained)
