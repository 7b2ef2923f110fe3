"""When a ticket counts as winning. Looks at validation data only."""

from collections.abc import Mapping
from fractions import Fraction
from typing import Any


def matches(dense: Mapping[str, Any], ticket: Mapping[str, Any], tolerance: float) -> bool:
    """Whether the ticket's validation top-1 is at most ``tolerance`` points below the dense one.

    Compared in whole examples, so that exactly ``tolerance`` points less still matches.
    """
    loss = _share(dense) - _share(ticket)
    return loss * 100 <= Fraction(repr(float(tolerance)))


def _share(result: Mapping[str, Any]) -> Fraction:
    examples = result["val_examples"]
    return Fraction(round(result["val_top1"] * examples), examples)
