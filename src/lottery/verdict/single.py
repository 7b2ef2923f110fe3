"""When a ticket counts as winning. Looks at validation data only."""

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

CHANCE_LEVEL = 0.05
"""Level of the test that a dense network has learnt anything."""


def matches(dense: Mapping[str, Any], ticket: Mapping[str, Any], tolerance: float) -> bool:
    """Whether the ticket's validation top-1 is at most ``tolerance`` points below the dense one.

    Compared in whole examples, so that exactly ``tolerance`` points less still matches. A dense
    network at chance is matched by nothing: whatever is as good has learnt as little.
    """
    return not at_chance(dense) and share(dense) - share(ticket) <= points(tolerance)


def at_chance(dense: Mapping[str, Any]) -> bool:
    """Whether a run is not shown to beat naming the most frequent class of the validation split.

    One-sided binomial test of its hits, level :data:`CHANCE_LEVEL`. False if nobody has recorded
    how frequent that class is.
    """
    examples, most = dense["val_examples"], dense.get("val_majority")
    if most is None:
        return False
    return _upper_tail(round(dense["val_top1"] * examples), examples, most / examples) > (
        CHANCE_LEVEL
    )


def one_image(result: Mapping[str, Any]) -> float:
    """Points of top-1 that a single validation image is worth."""
    return 100 / float(result["val_examples"])


def too_coarse(result: Mapping[str, Any], tolerance: float) -> str | None:
    """What to say of a validation split whose single image weighs more than the tolerance."""
    weight = one_image(result)
    return f"one validation image is {weight:.2g} points" if weight > tolerance else None


def doubt(dense: Mapping[str, Any], tolerance: float) -> str | None:
    """Why a comparison with this dense network is worth little, if so."""
    if at_chance(dense):
        return (
            "the dense network is at chance (no better than always naming the most frequent class: "
            f"{100 * dense['val_majority'] / dense['val_examples']:.2f} % of the validation "
            "images), so nothing can match it"
        )
    coarse = too_coarse(dense, tolerance)
    return f"{coarse}, more than the tolerance of {tolerance:g}" if coarse else None


def share(result: Mapping[str, Any]) -> Fraction:
    """Share of the validation images that a run got right, exactly."""
    examples = result["val_examples"]
    return Fraction(round(result["val_top1"] * examples), examples)


def points(value: float) -> Fraction:
    """Percentage points as typed, e.g. a tolerance, as an exact share of 1."""
    return Fraction(repr(float(value))) / 100


def _upper_tail(hits: int, trials: int, p: float) -> float:
    """P(X >= hits) of a binomial X, without SciPy, which takes half a second to import."""
    if hits <= trials * p:
        return 1.0  # at least about one half, which is all that matters here
    if p == 0:
        return 0.0
    log = math.lgamma(trials + 1) - math.lgamma(hits + 1) - math.lgamma(trials - hits + 1)
    term = math.exp(log + hits * math.log(p) + (trials - hits) * math.log1p(-p))
    total = 0.0
    for k in range(hits, trials + 1):  # terms fall from here on: beyond the mean
        total += term
        if term < 1e-12 * total:
            break
        term *= (trials - k) / (k + 1) * p / (1 - p)
    return total
