"""Random reinitialisation (Frankle & Carbin 2019, section 2): the weights or the structure?"""

import numpy as np

from lottery.rewinding import Origin, Start

CONTROL = True


def rewind(origin: Origin) -> Start:
    """Fresh weights from another seed, and the whole schedule."""
    fresh = np.random.SeedSequence([origin.seed, 1]).generate_state(1)[0]
    return Start(0, None, seed=int(fresh))
