"""Weight rewinding, or late resetting (Frankle et al. 2019, arXiv:1903.01611; epoch 0: LTH)."""

from lottery.rewinding import Origin, Start

CONTROL = False


def rewind(origin: Origin) -> Start:
    """Everything as the dense run had it after ``origin.epoch`` epochs."""
    return Start(origin.epoch, origin.dense(origin.epoch))
