"""Weight rewinding, or late resetting (Frankle et al. 2019, arXiv:1903.01611; epoch 0: LTH)."""

from dataclasses import dataclass

from lottery import choices
from lottery.rewinding import Origin, Rewinding, Start


@choices.rewinding("weights")
@dataclass(frozen=True)
class Weights(Rewinding):
    """Everything as the dense run had it at ``origin.point``."""

    takes_final = False

    def rewind(self, origin: Origin) -> Start:
        """Everything as the dense run had it at ``origin.point``."""
        return Start(origin.point, origin.dense(origin.point))
