"""Networks: one module per choice of ``model``, and those of ``keras.applications`` by name.

Importing a module does not import TensorFlow; building its network does. The class of a choice has
one method::

    build(input_shape, classes) -> keras.Model

from (height, width, channels) and a number of classes to a Keras functional model from normalised
float images ``(batch, height, width, channels)`` to raw logits ``(batch, classes)``. Model, input
and layers have fixed names, because masks and checkpoints refer to variables by path. Its
``lacks``, if it has one, names the parts which its networks do not have, so that options about them
are in no key: ``batch_norm``, ``depthwise`` convolutions.
"""

from dataclasses import dataclass
from typing import ClassVar

from lottery.options import option


@dataclass(frozen=True)
class Network:
    """Any network."""

    lacks: ClassVar[frozenset[str]] = frozenset()


@dataclass(frozen=True)
class Scaled(Network):
    """A network whose channels can be multiplied."""

    width: float = option(1.0, "multiplier of the number of channels", gt=0, le=1000)
    dropout: float = option(0.0, "share of features dropped before the classifier", ge=0, lt=1)


@dataclass(frozen=True)
class Normalised(Scaled):
    """One with BatchNorm."""

    batch_norm_momentum: float = option(0.99, "momentum of moving statistics", ge=0, lt=1)


PLAIN = frozenset({"batch_norm", "depthwise"})
"""What a network without BatchNorm and depthwise convolutions lacks."""
