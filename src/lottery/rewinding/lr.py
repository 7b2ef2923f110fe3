"""Learning-rate rewinding (Renda et al. 2020, arXiv:2003.02389)."""

from lottery.rewinding import Origin, Start, with_counters

CONTROL = False


def rewind(origin: Origin) -> Start:
    """The final weights, with the schedule from ``origin.epoch`` on."""
    state = with_counters(origin.final(), of=origin.dense(origin.epoch))
    return Start(origin.epoch, state)
