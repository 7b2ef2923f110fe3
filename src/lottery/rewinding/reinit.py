"""Random reinitialisation (Frankle & Carbin 2019, section 2): the weights or the structure?"""

from dataclasses import dataclass

from lottery import choices
from lottery.rewinding import Origin, Rewinding, Start, fresh_seed


@choices.rewinding("reinit")
@dataclass(frozen=True)
class Reinit(Rewinding):
    """Fresh weights from another seed, and the whole schedule."""

    control = afresh = True
    takes_final = False

    def rewind(self, origin: Origin) -> Start:
        """Fresh weights from another seed, and the whole schedule."""
        return Start(seed=fresh_seed(origin.seed))
