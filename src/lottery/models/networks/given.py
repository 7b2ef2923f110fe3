"""A Keras network of one's own, by its configuration: what ``lottery.Study`` is given."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lottery import choices
from lottery.models.networks import Network
from lottery.options import option

if TYPE_CHECKING:
    import keras


@choices.model("given")
@dataclass(frozen=True)
class Given(Network):
    """A Keras network of one's own, that lottery.Study was given."""

    architecture: str = option("", "the configuration of the network, as JSON that Keras reads")

    @property
    def lacks(self) -> frozenset[str]:  # type: ignore[override]
        """BatchNorm, if its configuration names none. Any convolution may be depthwise."""
        return frozenset(() if "BatchNormalization" in self.architecture else ("batch_norm",))

    def build(self, input_shape: tuple[int, ...], classes: int) -> "keras.Model":
        """The network with fresh weights, and a head for that number of classes.

        Raises :class:`ValueError` for examples of a shape that it does not take.
        """
        from lottery.models.networks import _given

        return _given.build(self.architecture, input_shape, classes)
