"""How much each weight matters: one module each, named as its choice of ``mask.score``."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from lottery.errors import ConfigError
from lottery.pruning.evidence import Array, Evidence


class Score(Protocol):
    """What a choice of ``mask.score`` is.

    A class variable ``needs`` names what it looks at besides the weights: ``initial`` (weights at
    initialisation), ``labels`` (passes over labelled examples), ``network`` (passes without
    data). Without one it needs none of them. ``any_target`` says that its scores are the same
    whatever is to be removed, so that masks of all percentiles share them. ``signed`` says that
    scores may be negative, so that nothing may square them.

    One that prunes in rounds of its own says by a method ``inner_densities(before, after)`` which
    shares of the weights it leaves on the way from one density to the other.
    """

    def scores(self, evidence: Evidence) -> Mapping[str, Any]:
        """A number for each weight of the kernels at ``evidence.paths``, in their shapes.

        The lowest are removed first. What earlier rounds have removed may score anything.
        """
        ...


def needs(score: Score) -> frozenset[str]:
    """What a score looks at besides weights: ``initial``, ``labels``, ``network``."""
    return frozenset(getattr(score, "needs", ()))


def any_target(score: Score) -> bool:
    """Whether a score is the same whatever is to be removed."""
    return bool(getattr(score, "any_target", False))


def signed(score: Score) -> bool:
    """Whether scores may be negative."""
    return bool(getattr(score, "signed", False))


def inner_percentiles(score: Score, percentile: float, before: float = 0.0) -> list[float]:
    """What a score prunes to in rounds of its own, on the way between two percentiles."""
    if not hasattr(score, "inner_densities"):
        return []
    densities = score.inner_densities(1 - before / 100, 1 - percentile / 100)
    return [100 * (1 - density) for density in densities]


def scored(score: Score, evidence: Evidence) -> dict[str, Array]:
    """The scores of the kernels at ``evidence.paths``.

    What earlier rounds have removed scores 0, whatever the score says of zeros, as log |w| says
    minus infinity. Raises :class:`ConfigError` unless there is one finite number for each other
    weight, and where the evidence lacks what the score asks for.
    """
    label = f"mask.score={getattr(score, 'name', type(score).__name__)}"
    try:
        with np.errstate(all="ignore"):  # what comes of it is checked
            given = score.scores(evidence)
    except ConfigError as error:
        raise ConfigError(f"{label}: {error}") from error
    if missing := [path for path in evidence.paths if path not in given]:
        raise ConfigError(f"{label} gives no scores of {', '.join(missing)}")
    return {path: _checked(label, path, evidence, given[path]) for path in evidence.paths}


def _checked(label: str, path: str, evidence: Evidence, given: Any) -> Array:
    score: Array = np.asarray(given)
    shape = evidence.weights[path].shape
    wrong = None
    if score.shape == shape:
        score = np.where(evidence.alive(path), score, np.zeros((), score.dtype))
    if score.shape != shape:
        wrong = f"in shape {score.shape}, but its weights have shape {shape}"
    elif score.dtype.kind not in "biuf":
        wrong = f"by {score.dtype} values, which have no order"
    elif not np.isfinite(score).all():
        count = np.count_nonzero(~np.isfinite(score))
        wrong = f"with {count} values that are not finite, out of {score.size}"
    if wrong:
        raise ConfigError(f"{label} scores {path} {wrong}")
    return score
