"""MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lottery import choices
from lottery.models.networks import Normalised

if TYPE_CHECKING:
    import keras


@choices.model("mobilenet_v2")
@dataclass(frozen=True)
class MobileNetV2(Normalised):
    """MobileNetV2 (Sandler et al. 2018); strides adapt to images below 96 pixels."""

    def build(self, input_shape: tuple[int, int, int], classes: int) -> "keras.Model":
        """:func:`lottery.models.networks._mobilenet_v2.build`."""
        from lottery.models.networks import _mobilenet_v2

        return _mobilenet_v2.build(
            input_shape,
            classes,
            width=self.width,
            dropout=self.dropout,
            batch_norm_momentum=self.batch_norm_momentum,
        )
