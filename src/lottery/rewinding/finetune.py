"""Fine-tuning (Han et al. 2015): no rewinding, for as many epochs as the others retrain."""

from dataclasses import dataclass

from lottery import choices
from lottery.rewinding import Origin, Rewinding, Start


@choices.rewinding("finetune")
@dataclass(frozen=True)
class Finetune(Rewinding):
    """The final weights at the last learning rate of the schedule."""

    takes_point = False

    def rewind(self, origin: Origin) -> Start:
        """The final weights at the last learning rate of the schedule."""
        return Start(origin.point, origin.final(), last_rate=True)
