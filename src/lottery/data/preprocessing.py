"""What happens to a batch of images on the device, inside the compiled step."""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from lottery.data.interface import Shape


@dataclass(frozen=True)
class Preprocessing:
    """Random crop and flip for training, centre crop for evaluation, and normalisation.

    Every operation works on the whole batch with static shapes, so that XLA can compile it.
    """

    input_shape: Shape
    """(H, W, C) of the result."""
    crop_padding: int
    """Zero pixels on every side of a training image before its random crop."""
    flip: bool
    """Mirror each training image with probability one half."""
    mean: tuple[float, ...]
    """Of pixels scaled to [0, 1]; one value, or one per channel."""
    std: tuple[float, ...]

    def training(
        self,
        images: tf.Tensor,
        *,
        seed: int,
        step: tf.Tensor,
        first_row: int | tf.Tensor = 0,
        global_batch: int | None = None,
    ) -> tf.Tensor:
        """Augmented and normalised float32 [B, H, W, C] from uint8 [B, S, S, C].

        The draws for an image are a pure function of (``seed``, ``step``, its row in the global
        batch). ``step`` counts optimizer steps from the start of epoch 0, an int64 scalar. A
        replica with a part of the batch passes ``global_batch``, the number of rows in all, and
        ``first_row``, where its own begin.
        """
        height, width, _ = self.input_shape
        padding, count = self.crop_padding, tf.shape(images)[0]
        tall = int(images.shape[1]) + 2 * padding
        wide = int(images.shape[2]) + 2 * padding
        if not self.flip and (tall, wide) == (height, width):
            return self._normalise(images)

        batch = images.shape[0] if global_batch is None else global_batch
        batch = count if batch is None else batch
        draws = tf.slice(_draws(batch, seed, step), [first_row, 0], [images.shape[0] or count, 3])
        top = _offsets(draws[:, 0], tall - height)
        left = _offsets(draws[:, 1], wide - width)
        mirrored = draws[:, 2] < 0.5 if self.flip else tf.zeros([count], tf.bool)

        rows, columns = tf.range(height), tf.range(width)
        columns = tf.where(mirrored[:, None], columns[::-1], columns)
        if padding:
            images = tf.pad(images, [[0, 0], [padding, padding], [padding, padding], [0, 0]])
        if tall != height:
            images = tf.gather(images, top[:, None] + rows, axis=1, batch_dims=1)
        images = tf.gather(images, left[:, None] + columns, axis=2, batch_dims=1)
        return self._normalise(images)

    def evaluation(self, images: tf.Tensor) -> tf.Tensor:
        """The centre, normalised: float32 [B, H, W, C] from uint8 [B, S, S, C]."""
        height, width, _ = self.input_shape
        top, left = (images.shape[1] - height) // 2, (images.shape[2] - width) // 2
        return self._normalise(images[:, top : top + height, left : left + width])

    def _normalise(self, images: tf.Tensor) -> tf.Tensor:
        """``(images / 255 - mean) / std``, as one multiplication and one addition."""
        mean, std = np.array(self.mean, np.float64), np.array(self.std, np.float64)
        scale, shift = 1 / (255 * std), -mean / std
        return tf.cast(images, tf.float32) * scale.astype(np.float32) + shift.astype(np.float32)


def _draws(rows: int | tf.Tensor, seed: int, step: tf.Tensor) -> tf.Tensor:
    """Uniform in [0, 1), float32 [rows, 3], the same with and without XLA.

    TensorFlow and XLA agree on Philox's bits, but make different floats of them.
    """
    bits = tf.random.stateless_uniform(
        [rows, 3],
        tf.stack([tf.constant(seed, tf.int64), tf.cast(step, tf.int64)]),
        minval=None,
        maxval=None,
        dtype=tf.int32,
        alg="philox",
    )
    return tf.cast(tf.bitwise.bitwise_and(bits, 2**24 - 1), tf.float32) / 2**24


def _offsets(draws: tf.Tensor, largest: int) -> tf.Tensor:
    """Integers from 0 to ``largest``, equally likely, from draws in [0, 1)."""
    return tf.cast(draws * (largest + 1), tf.int32)
