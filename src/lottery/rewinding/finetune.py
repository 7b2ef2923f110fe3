"""Fine-tuning (Han et al. 2015): no rewinding, for as many epochs as the others retrain."""

from lottery.rewinding import Origin, Start

CONTROL = False


def rewind(origin: Origin) -> Start:
    """The final weights at the last learning rate of the schedule."""
    return Start(origin.epoch, origin.final(), last_rate=True)
