"""Conv-4 of Frankle & Carbin 2019 (arXiv:1803.03635), figure 2."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lottery import choices
from lottery.models.networks import PLAIN, Scaled

if TYPE_CHECKING:
    import keras


@choices.model("conv_4")
@dataclass(frozen=True)
class Conv4(Scaled):
    """Conv-4: 4 convolutions and 3 dense layers, for CIFAR-10 (Frankle & Carbin 2019)."""

    lacks = PLAIN

    def build(self, input_shape: tuple[int, int, int], classes: int) -> "keras.Model":
        """:func:`lottery.models.networks._conv.build` with 4 convolutions."""
        from lottery.models.networks import _conv

        return _conv.build(4, input_shape, classes, width=self.width, dropout=self.dropout)
