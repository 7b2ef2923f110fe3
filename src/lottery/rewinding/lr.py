"""Learning-rate rewinding (Renda et al. 2020, arXiv:2003.02389)."""

from dataclasses import dataclass

from lottery import choices
from lottery.rewinding import Origin, Rewinding, Start, with_counters


@choices.rewinding("lr")
@dataclass(frozen=True)
class LearningRate(Rewinding):
    """The final weights, with the schedule from ``origin.point`` on."""

    def rewind(self, origin: Origin) -> Start:
        """The final weights, with the schedule from ``origin.point`` on."""
        state = with_counters(origin.final(), of=origin.dense(origin.point))
        return Start(origin.point, state)
