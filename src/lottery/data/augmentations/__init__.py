"""Further augmentation on the device: one module each, named as its choice of ``augmentation``.

Each is a pure function of images and of numbers drawn for them, so that neither the number of
devices nor an interruption changes what happens to an image.
"""

from typing import TYPE_CHECKING, Protocol

from lottery.data.interface import Shape

if TYPE_CHECKING:  # a command line is checked without it
    import tensorflow as tf


class Augmentation(Protocol):
    """What a choice of ``augmentation`` is. Compiled by XLA, so all shapes must be static."""

    def draws(self, shape: Shape) -> int:
        """How many random numbers an image [H, W, C] needs."""
        ...

    def apply(self, images: "tf.Tensor", draws: "tf.Tensor") -> "tf.Tensor":
        """Images like ``images``, float32 [B, H, W, C], cropped, flipped and normalised.

        ``draws`` [B, n] are uniform in [0, 1), independent, and those of (seed, step, row of the
        global batch). A row may depend on nothing but its own image and draws.
        """
        ...
