"""ResNet-20 for small images (He et al. 2016, arXiv:1512.03385, section 4.2)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lottery import choices
from lottery.models.networks import Normalised

if TYPE_CHECKING:
    import keras


@choices.model("resnet20")
@dataclass(frozen=True)
class ResNet20(Normalised):
    """ResNet-20 for CIFAR (He et al. 2016)."""

    lacks = frozenset({"depthwise"})

    def build(self, input_shape: tuple[int, int, int], classes: int) -> "keras.Model":
        """:func:`lottery.models.networks._resnet20.build`."""
        from lottery.models.networks import _resnet20

        return _resnet20.build(
            input_shape,
            classes,
            width=self.width,
            dropout=self.dropout,
            batch_norm_momentum=self.batch_norm_momentum,
        )
