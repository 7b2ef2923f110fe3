"""LeNet-300-100, fully connected (LeCun et al. 1998)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lottery import choices
from lottery.models.networks import PLAIN, Scaled

if TYPE_CHECKING:
    import keras


@choices.model("lenet_300_100")
@dataclass(frozen=True)
class LeNet300100(Scaled):
    """LeNet-300-100, for MNIST (LeCun et al. 1998; Frankle & Carbin 2019, arXiv:1803.03635)."""

    lacks = PLAIN

    def build(self, input_shape: tuple[int, int, int], classes: int) -> "keras.Model":
        """:func:`lottery.models.networks._lenet_300_100.build`."""
        from lottery.models.networks import _lenet_300_100

        return _lenet_300_100.build(input_shape, classes, width=self.width, dropout=self.dropout)
