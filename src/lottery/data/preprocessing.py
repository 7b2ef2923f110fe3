"""What happens to a batch of images on the device, inside the compiled step."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from lottery.data.augmentations import Augmentation
from lottery.data.interface import Shape
from lottery.errors import ConfigError

_ATTEMPTS = 10  # at an area and aspect ratio that fits, before the whole image is taken
_FURTHER = 3  # the first stream of draws of further augmentation
_QUANTILES = 1025  # of mixup's Beta distribution


@dataclass(frozen=True)
class Preprocessing:
    """Random crop, flip and mixup for training, centre crop for evaluation, and normalisation.

    Every operation works on the whole batch with static shapes, so that XLA can compile it. The
    draws for an image are a pure function of (seed, step, its row in the global batch), so they
    depend neither on what ran before nor on how many replicas share the batch.
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
    crop_area: tuple[float, float] | None = None
    """Smallest and largest share of the image that a random-resized crop takes (Szegedy et al.
    2015, arXiv:1409.4842, section 6); None: crops are windows of the result's size."""
    crop_aspect: tuple[float, float] = (3 / 4, 4 / 3)
    """Smallest and largest width over height of a random-resized crop."""
    mixup: float = 0.0
    """Alpha of the Beta distribution of :meth:`mixed`; 0: not used."""
    crop_size: int | None = None
    """Side of the crop, which is then resized to ``input_shape``; None: they are the same."""
    further: tuple[Augmentation, ...] = ()
    """What happens to training images when they are normalised, in this order."""

    def __hash__(self) -> int:
        """Of a value whose augmentations may have lists for options."""
        return hash(repr(self))

    def training(
        self,
        images: tf.Tensor,
        *,
        seed: int | tf.Tensor,
        step: tf.Tensor,
        first_row: int | tf.Tensor = 0,
        global_batch: int | None = None,
    ) -> tf.Tensor:
        """Augmented and normalised float32 [B, H, W, C] from uint8 [B, S, S, C].

        ``step`` counts optimizer steps from the start of epoch 0, an int64 scalar. A replica with
        a part of the batch passes ``global_batch``, the number of rows in all, and ``first_row``,
        where its own begin.
        """
        if self._as_they_are(images):
            return self._normalise(images)
        height, width = self._crop
        padding, count = self.crop_padding, tf.shape(images)[0]
        tall = int(images.shape[1]) + 2 * padding
        wide = int(images.shape[2]) + 2 * padding
        if not self.flip and not self.crop_area and (tall, wide) == (height, width):
            return self._finish(images)

        batch = images.shape[0] if global_batch is None else global_batch
        rows = first_row, images.shape[0] or count, count if batch is None else batch
        draws = _draws(rows, 3, seed, step)
        mirrored = draws[:, 2] < 0.5 if self.flip else tf.zeros([count], tf.bool)
        if padding:
            images = tf.pad(images, [[0, 0], [padding, padding], [padding, padding], [0, 0]])
        if self.crop_area:
            shapes = _draws(rows, 2 * _ATTEMPTS, seed, step, stream=1)
            share_tall, share_wide = self._crop_shares(shapes[:, :_ATTEMPTS], shapes[:, _ATTEMPTS:])
            height, width, _ = self.input_shape  # at once, with no crop in between
            y = _sample_positions(draws[:, 0], share_tall, tall, height)
            x = _sample_positions(draws[:, 1], share_wide, wide, width)
            x = tf.where(mirrored[:, None], x[:, ::-1], x)
            return self._normalise(_interpolated(_interpolated(images, y, axis=1), x, axis=2))

        top = _offsets(draws[:, 0], tall - height)
        left = _offsets(draws[:, 1], wide - width)
        columns = tf.range(width)
        columns = tf.where(mirrored[:, None], columns[::-1], columns)
        if tall != height:
            images = tf.gather(images, top[:, None] + tf.range(height), axis=1, batch_dims=1)
        images = tf.gather(images, left[:, None] + columns, axis=2, batch_dims=1)
        return self._finish(images)

    def augmented(
        self,
        inputs: tf.Tensor,
        *,
        seed: int | tf.Tensor,
        step: tf.Tensor,
        first_row: int | tf.Tensor = 0,
        global_batch: int | None = None,
    ) -> tf.Tensor:
        """What :attr:`further` makes of :meth:`training`'s images. Rows as there.

        Raises :class:`ConfigError` for an augmentation that changes the shape of images.
        """
        count = inputs.shape[0] or tf.shape(inputs)[0]
        rows = first_row, count, global_batch or count
        for place, augmentation in enumerate(self.further):
            number = augmentation.draws(self.input_shape)
            draws = _draws(rows, number, seed, step, stream=_FURTHER + place)
            made = tf.cast(augmentation.apply(inputs, draws), tf.float32)
            if made.shape != inputs.shape:
                raise ConfigError(
                    f"augmentation={getattr(augmentation, 'name', augmentation)} makes images of "
                    f"shape {tuple(made.shape)} of those of shape {tuple(inputs.shape)}"
                )
            inputs = made
        return inputs

    def mixed(
        self,
        inputs: tf.Tensor,
        targets: tf.Tensor,
        *,
        seed: int | tf.Tensor,
        step: tf.Tensor,
        first_row: int | tf.Tensor = 0,
        global_batch: int | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Mixup (Zhang et al. 2018, arXiv:1710.09412) of inputs [B, ...] and targets [B, classes].

        Each example keeps a share of max(p, 1 - p), with p from Beta(alpha, alpha), drawn for the
        example, and gets the rest from its partner: rows 0 and 1 of the batch, 2 and 3, and so on;
        the last of an odd number takes the one before. So a replica with an even number of rows
        has all partners, and their number changes nothing. Rows as in :meth:`training`.
        """
        if not self.mixup:
            return inputs, targets
        count = inputs.shape[0] or tf.shape(inputs)[0]
        rows = first_row, count, global_batch or count
        draw = _draws(rows, 1, seed, step, stream=2)[:, 0]
        own = _larger_share(draw, self.mixup)
        partner = tf.bitwise.bitwise_xor(tf.range(count), 1)
        partner = tf.where(partner < count, partner, tf.maximum(count - 2, 0))

        def mix(values: tf.Tensor) -> tf.Tensor:
            share = tf.reshape(tf.cast(own, values.dtype), [-1] + [1] * (len(values.shape) - 1))
            return share * values + (1 - share) * tf.gather(values, partner)

        return mix(inputs), mix(targets)

    def evaluation(self, images: tf.Tensor) -> tf.Tensor:
        """The centre, normalised: float32 [B, H, W, C] from uint8 [B, S, S, C]."""
        if self._as_they_are(images):
            return self._normalise(images)
        height, width = self._crop
        top, left = (images.shape[1] - height) // 2, (images.shape[2] - width) // 2
        return self._finish(images[:, top : top + height, left : left + width])

    def _as_they_are(self, images: tf.Tensor) -> bool:
        """Whether these examples are no square images, of which nothing is cut out."""
        return len(images.shape) != 4 or images.shape[1] != images.shape[2]

    @property
    def _crop(self) -> tuple[int, int]:
        if self.crop_size is None:
            height, width, _ = self.input_shape
            return height, width
        return self.crop_size, self.crop_size

    def _finish(self, images: tf.Tensor) -> tf.Tensor:
        """A crop resized, if need be, and normalised."""
        height, width, _ = self.input_shape
        if self._crop != (height, width):
            images = resized(images, height, width)
        return self._normalise(images)

    def _crop_shares(self, area: tf.Tensor, aspect: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Height and width of each crop as shares of the (square) image, [B] each.

        Of the attempts [B, attempts] the first that fits; the whole image if none does.
        """
        assert self.crop_area is not None
        smallest, largest = self.crop_area
        low, high = np.log(self.crop_aspect).astype(np.float32)
        area = smallest + area * (largest - smallest)
        ratio = tf.exp(low + aspect * (high - low))
        wide, tall = tf.sqrt(area * ratio), tf.sqrt(area / ratio)
        fits = (wide <= 1) & (tall <= 1)
        first = tf.argmax(fits, axis=1, output_type=tf.int32)
        any_fits = tf.reduce_any(fits, axis=1)

        def chosen(shares: tf.Tensor) -> tf.Tensor:
            return tf.where(any_fits, tf.gather(shares, first, axis=1, batch_dims=1), 1.0)

        return chosen(tall), chosen(wide)

    def _normalise(self, images: tf.Tensor) -> tf.Tensor:
        """``(images / 255 - mean) / std``, as one multiplication and one addition."""
        mean, std = np.array(self.mean, np.float64), np.array(self.std, np.float64)
        scale, shift = 1 / (255 * std), -mean / std
        return tf.cast(images, tf.float32) * scale.astype(np.float32) + shift.astype(np.float32)


def resized(images: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """Images [B, H, W, C] of any size as float32 [B, height, width, C].

    Linear interpolation to a larger size; to a smaller one its triangle is as much wider, so that
    every pixel counts (``antialias`` in ``tf.image.resize``). Two matrix products, which XLA
    compiles on every device.
    """
    images = tf.cast(images, tf.float32)
    rows = tf.constant(_resizing_weights(int(images.shape[1]), height))
    columns = tf.constant(_resizing_weights(int(images.shape[2]), width))
    return tf.einsum("bhwc,Hh,Ww->bHWc", images, rows, columns)


def _resizing_weights(source: int, target: int) -> np.ndarray[Any, Any]:
    """What each of ``source`` pixels adds to each of ``target``: float32 [target, source]."""
    scale = source / target
    centres = (np.arange(target) + 0.5) * scale - 0.5
    distance = np.abs(centres[:, None] - np.arange(source)) / max(scale, 1)
    weights = np.maximum(1 - distance, 0)
    weights /= weights.sum(1, keepdims=True)
    return np.asarray(weights, np.float32)


@functools.lru_cache(maxsize=8)
def compiled_augmentation(
    preprocessing: Preprocessing, classes: int, global_batch: int
) -> Callable[..., Any]:
    """``(images, labels, seed, step, first_row)`` to augmented images and targets [B, classes].

    Always by XLA, which makes augmentation several times as fast on any device; the arguments are
    those of :meth:`Preprocessing.training`, with labels [B]. All trainings of a process share it,
    since it takes a second to compile, as long as a small network takes to train.
    """

    def prepare(
        images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor, step: tf.Tensor, first_row: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        place = {"seed": seed, "step": step, "first_row": first_row, "global_batch": global_batch}
        inputs = preprocessing.augmented(preprocessing.training(images, **place), **place)
        # Mixup makes blends of classes.
        return preprocessing.mixed(inputs, tf.one_hot(labels, classes), **place)

    compiled: Callable[..., Any] = tf.function(prepare, autograph=False, jit_compile=True)
    return compiled


def _draws(
    rows: tuple[Any, Any, Any],
    columns: int,
    seed: int | tf.Tensor,
    step: tf.Tensor,
    stream: int = 0,
) -> tf.Tensor:
    """Uniform in [0, 1), float32 [count, columns], the same with and without XLA.

    ``rows`` are (first, count, rows of the global batch). Each ``stream`` is independent of the
    others. TensorFlow and XLA agree on Philox's bits, but make different floats of them.
    """
    first, count, batch = rows
    bits = tf.random.stateless_uniform(
        [batch, columns],
        tf.stack([tf.convert_to_tensor(seed, tf.int64) + (stream << 32), tf.cast(step, tf.int64)]),
        minval=None,
        maxval=None,
        dtype=tf.int32,
        alg="philox",
    )
    bits = tf.slice(bits, [first, 0], [count, columns])
    return tf.cast(tf.bitwise.bitwise_and(bits, 2**24 - 1), tf.float32) / 2**24


def _offsets(draws: tf.Tensor, largest: int) -> tf.Tensor:
    """Integers from 0 to ``largest``, equally likely, from draws in [0, 1)."""
    return tf.cast(draws * (largest + 1), tf.int32)


def _sample_positions(draws: tf.Tensor, share: tf.Tensor, size: int, samples: int) -> tf.Tensor:
    """Where to sample an axis of ``size`` pixels for a crop of this share of it, [B, samples].

    Positions are those of pixel centres, so that pixel i lies at i.
    """
    start = draws * (1 - share) * size
    centres = (tf.range(samples, dtype=tf.float32) + 0.5) / samples
    return start[:, None] + centres * (share * size)[:, None] - 0.5


def _interpolated(images: tf.Tensor, positions: tf.Tensor, axis: int) -> tf.Tensor:
    """Linear interpolation along axis 1 or 2 at float ``positions`` [B, n]; edges are repeated."""
    last = int(images.shape[axis]) - 1
    below = tf.floor(positions)
    share = positions - below
    share = share[:, :, None, None] if axis == 1 else share[:, None, :, None]
    below = tf.cast(below, tf.int32)

    def pixels(index: tf.Tensor) -> tf.Tensor:
        index = tf.clip_by_value(index, 0, last)
        return tf.cast(tf.gather(images, index, axis=axis, batch_dims=1), tf.float32)

    low, high = pixels(below), pixels(below + 1)
    return low + share * (high - low)


def _larger_share(draws: tf.Tensor, alpha: float) -> tf.Tensor:
    """max(p, 1 - p) for p from Beta(alpha, alpha), by inverting its upper half, from a table."""
    from scipy.stats import beta

    table = beta.ppf(np.linspace(0.5, 1, _QUANTILES), alpha, alpha).astype(np.float32)
    place = draws * (_QUANTILES - 1)
    low = tf.cast(place, tf.int32)
    start, end = tf.gather(table, low), tf.gather(table, low + 1)
    return start + (place - tf.cast(low, tf.float32)) * (end - start)
