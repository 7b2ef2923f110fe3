"""The error of the networks on the straight line between two, in each process that takes part."""

import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from lottery import tensors
from lottery.barriers import INTERPOLATED, RECOMPUTED, SPLITS
from lottery.config import Data
from lottery.data import Chunk, Splits
from lottery.training import workers
from lottery.training.loop import Loop
from lottery.training.recipe import Recipe
from lottery.training.run import build

PLAN = "line"  # the kind of plan by which followers join

Arrays = Mapping[str, np.ndarray[Any, Any]]
Errors = dict[str, dict[str, list[float]]]


def measure(
    recipe: Recipe,
    data: Splits,
    work: Path,
    ends: tuple[Arrays, Arrays],
    *,
    points: int,
    batches: int,
) -> Errors:
    """Top-1 errors in percent, by :data:`~lottery.barriers.STATISTICS` and split.

    At ``points`` evenly spaced places, of which the first and the last are the ``ends``: all
    variables of the network of a recipe, by path. Statistics of BatchNorm are recomputed from as
    many ``batches`` of its training images, augmented as in training, but at most an epoch's; a
    network without BatchNorm has none. Files that other processes read lie in ``work`` meanwhile.
    """
    file = work / f"line-{uuid.uuid4().hex}.safetensors"
    tensors.write(file, {f"{n}/{p}": a for n, end in enumerate(ends) for p, a in end.items()})
    plan = {
        "recipe": recipe.to_json(),
        "file": str(file),
        "points": points,
        "batches": batches,
    }
    try:
        with workers.together(PLAN, plan):
            return _take_part(plan, data)
    finally:
        file.unlink(missing_ok=True)


def join(plan: Mapping[str, Any], load: Callable[[Data], Splits]) -> None:
    """Take part in what another process measures; ``load`` gives the data of a configuration."""
    _take_part(plan, load(Recipe.from_json(plan["recipe"]).config.data))


def between(ends: tuple[Arrays, Arrays], share: float) -> dict[str, np.ndarray[Any, Any]]:
    """The variables at a share of the way from one end to the other.

    What is no floating-point number, such as the state of dropout's random numbers, is that of the
    first. A weight that is zero at both ends is zero between them, and the ends are exactly those.
    """
    first, second = ends

    def at_share(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        exact = (1 - share) * a.astype(np.float64) + share * b.astype(np.float64)
        return exact.astype(a.dtype)

    return {path: at_share(a, second[path]) if a.dtype.kind == "f" else a
            for path, a in first.items()}  # fmt: skip


def _take_part(plan: Mapping[str, Any], data: Splits) -> Errors:
    recipe = Recipe.from_json(plan["recipe"])
    arrays, _ = tensors.read(Path(plan["file"]))
    ends = _within("0/", arrays), _within("1/", arrays)
    loop, length = build(recipe, data, {})
    steps = min(plan["batches"], length.steps_per_epoch)
    statistics = _Statistics(loop, data, steps, length.steps_per_epoch)
    kinds = [INTERPOLATED, *([RECOMPUTED] if statistics.layers else [])]
    errors: Errors = {kind: {split: [] for split in SPLITS} for kind in kinds}
    for share in np.linspace(0, 1, plan["points"]):
        for kind in kinds:
            _assign(loop, between(ends, float(share)))
            if kind == RECOMPUTED:
                statistics.recompute()
            for split, images in zip(SPLITS, (data.validation, data.test), strict=True):
                errors[kind][split].append(100 * (1 - loop.evaluate(images).top1))
    return errors


def _assign(loop: Loop, values: Arrays) -> None:
    for variable in loop.model.variables:
        variable.assign(values[variable.path])


class _Statistics:
    """Recomputes the statistics of BatchNorm from the first steps of training.

    They become means over all images that were seen, and variances about those means. In each pass
    a layer normalises by its own batch, as in training.
    """

    def __init__(self, loop: Loop, data: Splits, steps: int, steps_per_epoch: int) -> None:
        self._loop, self._data = loop, data
        self._steps, self._steps_per_epoch = steps, steps_per_epoch
        kind = keras.layers.BatchNormalization
        self.layers = [n for n in loop.model._flatten_layers() if isinstance(n, kind)]
        for layer in self.layers:
            layer.momentum = 0.0  # what a pass leaves are the moments of its own batch
        self._call = tf.function(self._distributed, autograph=False)

    def recompute(self) -> None:
        """Set the statistics to those of the network as it is now."""
        totals: list[Any] = [0.0] * (2 * len(self.layers))
        for step, (images, labels) in enumerate(self._batches()):
            moments = self._call(images, labels, tf.constant(step, tf.int64))
            found = [np.asarray(m, np.float64) for m in moments]
            totals = [total + m for total, m in zip(totals, found, strict=True)]
        means = [total / self._steps for total in totals]
        for layer, mean, square in zip(self.layers, means[::2], means[1::2], strict=True):
            layer.moving_mean.assign(mean)
            layer.moving_variance.assign(np.maximum(square - mean**2, 0))

    def _batches(self) -> Iterator[Any]:
        chunks = [Chunk(step, 1) for step in range(self._steps)]
        return self._loop.batches(self._data.train, chunks, self._steps_per_epoch)

    # -- inside the compiled function --------------------------------------------------------

    def _distributed(self, images: Any, labels: Any, step: Any) -> list[Any]:
        strategy = self._loop.strategy
        found = strategy.run(self._moments, args=(images, labels, step))
        return [strategy.reduce(tf.distribute.ReduceOp.MEAN, m, axis=None) for m in found]

    def _moments(self, images: Any, labels: Any, step: Any) -> list[Any]:
        """Mean and mean square of each layer's inputs over this replica's part of the batch."""
        inputs, _ = self._loop.augmented(images[0], labels[0], step)
        self._loop.model(inputs, training=True)
        found = []
        for layer in self.layers:
            mean = tf.cast(layer.moving_mean.value, tf.float64)
            found += [mean, tf.cast(layer.moving_variance.value, tf.float64) + mean**2]
        return found


def _within(prefix: str, arrays: Arrays) -> dict[str, np.ndarray[Any, Any]]:
    return {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
