"""Random reinitialisation (Frankle & Carbin 2019, section 2): the weights or the structure?"""

from lottery.rewinding import Origin, Start, fresh_seed

CONTROL = True


def rewind(origin: Origin) -> Start:
    """Fresh weights from another seed, and the whole schedule."""
    return Start(0, None, seed=fresh_seed(origin.seed))
