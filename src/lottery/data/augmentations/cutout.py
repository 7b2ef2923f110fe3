"""Cutout: a square of each training image goes."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lottery import choices
from lottery.data.interface import Shape
from lottery.options import option

if TYPE_CHECKING:
    import tensorflow as tf


@choices.augmentation("cutout")
@dataclass(frozen=True)
class Cutout:
    """A square of each image becomes the mean colour (DeVries & Taylor 2017, arXiv:1708.04552)."""

    size: int = option(8, "side of the square in pixels; the paper has 16 for 32x32", ge=1)

    def draws(self, shape: Shape) -> int:
        """The row and the column of the centre."""
        return 2

    def apply(self, images: "tf.Tensor", draws: "tf.Tensor") -> "tf.Tensor":
        """Zeros around a centre that is any pixel, so the square may reach over the edge.

        Zero is the mean colour of normalised images (section 3.2).
        """
        import tensorflow as tf

        rows = self._inside(draws[:, 0], int(images.shape[1]))
        columns = self._inside(draws[:, 1], int(images.shape[2]))
        cut = rows[:, :, None, None] & columns[:, None, :, None]
        return tf.where(cut, tf.zeros([], images.dtype), images)

    def _inside(self, draws: "tf.Tensor", length: int) -> "tf.Tensor":
        """Which of ``length`` places lie in the square of each image: bool [B, length]."""
        import tensorflow as tf

        centre = tf.cast(draws * length, tf.int32)
        first = centre[:, None] - self.size // 2
        places = tf.range(length)
        return (places >= first) & (places < first + self.size)
