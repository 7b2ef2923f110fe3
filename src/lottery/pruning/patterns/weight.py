"""Single weights: unstructured pruning."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lottery import choices
from lottery.pruning.layers import Layer
from lottery.pruning.units import Array, Mask, Target, Ties


@choices.pattern("weight")
@dataclass(frozen=True)
class Weight:
    """Every weight by itself."""

    def check(self, target: Target) -> None:
        """Any target may be reached."""

    def mask(
        self, scores: Mapping[str, Array], target: Target, within: Mask | None, ties: Ties | None
    ) -> dict[str, Array]:
        """The mask that removes the lowest scores. Raises what the allocation raises."""
        order, layers, alive = list(scores), [], {}
        for path, score in scores.items():
            there = np.arange(score.size) if within is None else np.flatnonzero(within[path])
            alive[path] = there
            count = len(there)
            layers.append(
                Layer(
                    (path,),
                    (score.shape,),
                    score.size,
                    score.size - count,
                    score.ravel()[there],
                    np.ones(count, np.int64),
                    np.ones(count, bool),
                    first=path == order[0],
                    last=path == order[-1],
                )
            )
        removals = target.allocation.removals(layers, target.percentile, target.before)
        mask = {}
        for (path, score), layer, count in zip(scores.items(), layers, removals, strict=True):
            kept = np.zeros(score.size, bool)
            kept[alive[path][~layer.lowest(count)]] = True
            mask[path] = kept.reshape(score.shape)
        return mask

    def shuffled(
        self, mask: Mask, generator: np.random.Generator, ties: Ties | None
    ) -> dict[str, Array]:
        """As many survivors in each kernel, at random places."""
        return {path: generator.permutation(m.ravel()).reshape(m.shape) for path, m in mask.items()}
