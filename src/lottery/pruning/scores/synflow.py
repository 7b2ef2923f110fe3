"""SynFlow: iterated synaptic flow, without data (Tanaka et al. 2020, arXiv:2006.05467)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lottery import choices
from lottery.errors import ConfigError
from lottery.options import option
from lottery.pruning.evidence import Array, Evidence


@choices.score("synflow")
@dataclass(frozen=True)
class SynFlow:
    """|w| times the flow through it, scored anew after each of many small rounds."""

    needs: ClassVar[frozenset[str]] = frozenset({"network"})

    rounds: int = option(100, "rounds in which the density falls exponentially", ge=1)

    @property
    def signed(self) -> bool:
        """What a round has removed scores below zero."""
        return self.rounds > 1

    def inner_densities(self, before: float, after: float) -> list[float]:
        """After all rounds but the last."""
        if after >= before:
            return []
        ratio = after / before
        return [before * ratio ** (i / self.rounds) for i in range(1, self.rounds)]

    def scores(self, evidence: Evidence) -> dict[str, Array]:
        """Scores whose ranking ends at the mask of the last round (algorithm 1).

        Survivors of all rounds but the last have the synaptic flow of the last, in float64; what a
        round removed scores below zero, and below what later ones removed.
        """
        alive = {path: evidence.alive(path) for path in evidence.paths}
        scores = self._flow(evidence, alive)
        for i, percentile in enumerate(self._percentiles(evidence), start=1):
            try:
                mask = evidence.prune(scores, percentile)
            except ConfigError as error:
                raise ConfigError(
                    f"{error} (in round {i} of mask.score.rounds={self.rounds})"
                ) from error
            flow = self._flow(evidence, {p: mask.get(p, a) & a for p, a in alive.items()})
            for path, was in alive.items():
                now = mask.get(path, was) & was
                removed = np.where(was & ~now, i - self.rounds - 1.0, scores[path])
                scores[path] = np.where(now, flow[path], removed)
                alive[path] = now
        return scores

    def _percentiles(self, evidence: Evidence) -> list[float]:
        """Of all rounds but the last."""
        size = sum(evidence.weights[path].size for path in evidence.paths)
        left = sum(int(np.count_nonzero(evidence.alive(path))) for path in evidence.paths)
        densities = self.inner_densities(left / size, 1 - evidence.percentile / 100)
        return [100 * (1 - density) for density in densities]

    def _flow(self, evidence: Evidence, alive: dict[str, Array]) -> dict[str, Array]:
        masked = {path: evidence.weights[path] * alive[path] for path in alive}
        flow = evidence.passes.flow({**evidence.weights, **masked})
        return {path: np.abs(masked[path]) * flow[path] for path in alive}
