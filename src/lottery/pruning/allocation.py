"""How many weights to remove, and in how many rounds. Exact decimals: 0.1 % means 0.1 %."""

import math
from decimal import ROUND_FLOOR, Decimal, localcontext

from lottery.errors import ConfigError

MOST = 1000
"""Rounds of an iterative mask."""
DECIMALS = 8
"""Of the percentiles between its rounds."""


def removed(percentile: float, size: int) -> int:
    """``floor(percentile / 100 * size)``, computed exactly in decimals."""
    return int((_decimal(percentile) * size / 100).to_integral_value(ROUND_FLOOR))


def rounds(percentile: float, rate: float | None) -> list[float]:
    """The cumulative percentiles of iterative pruning, ending exactly at ``percentile``.

    Each round removes ``rate`` percent of the survivors (Frankle & Carbin 2019: 20); the last
    one is trimmed. ``rate=None`` is one-shot: a single round. Two ladders of the same rate share
    their rungs: ``rounds(50, 20) == [20.0, 36.0, 48.8, 50.0]``. Rungs have :data:`DECIMALS`.

    Raises :class:`ConfigError` for a target that has more, and so lies beyond the last rung, or
    that takes more than :data:`MOST` rounds: each is a training.
    """
    target, ladder = _decimal(percentile), []
    if rate is not None and percentile > 0:
        if target != round(target, DECIMALS):
            raise ConfigError(
                f"mask.percentile={percentile!r} has more than {DECIMALS} decimals: with mask.rate "
                f"they tell no masks apart"
            )
        count = math.ceil(math.log1p(-percentile / 100) / math.log1p(-rate / 100))
        if count > MOST:
            raise ConfigError(
                f"mask.rate={rate:g} takes {count:,} rounds of training to mask.percentile="
                f"{percentile:g}, and {MOST} at most are allowed: raise mask.rate"
            )
        with localcontext(prec=28) as context:
            context.rounding = ROUND_FLOOR
            survivors = keep = 1 - _decimal(rate) / 100
            while (rung := round(100 * (1 - survivors), DECIMALS)) < target:
                ladder.append(float(rung))
                survivors *= keep
    return [*ladder, float(target)]


def _decimal(value: float) -> Decimal:
    return Decimal(repr(float(value)))  # the shortest decimal that reads back: what was typed
