"""Which examples belong to which split: pure functions of labels and a seed."""

from collections.abc import Sequence
from fractions import Fraction
from math import floor

import numpy as np
import numpy.typing as npt

from lottery.data.interface import Labels, Rows
from lottery.errors import ConfigError


def held_out(size: int, fraction: float) -> int:
    """``size * fraction`` rounded half up, exact for the decimal that was typed."""
    return floor(size * _exact(fraction) + Fraction(1, 2))


def stratified(
    labels: npt.NDArray[np.integer], fraction: float, seed: int
) -> npt.NDArray[np.bool_]:
    """True for the examples to hold out, [N] for integer ``labels`` [N].

    Exactly :func:`held_out` examples in total, and of each class its proportional share rounded
    down or up: by largest remainder, with ties broken at random. Members are drawn at random
    within each class. A pure function of its arguments.
    """
    classes, counts = np.unique(labels, return_counts=True)
    shares = [int(count) * _exact(fraction) for count in counts]
    quotas = [floor(share) for share in shares]
    missing = held_out(len(labels), fraction) - sum(quotas)
    lottery = np.random.Generator(np.random.PCG64([seed])).permutation(len(classes))
    by_remainder = sorted(
        range(len(classes)), key=lambda i: (quotas[i] - shares[i], int(lottery[i]))
    )
    for i in by_remainder[:missing]:
        quotas[i] += 1

    chosen = np.zeros(len(labels), bool)
    for label, quota in zip(classes, quotas, strict=True):
        # A stream of its own for each class: its members do not depend on the other classes.
        generator = np.random.Generator(np.random.PCG64([seed, int(label)]))
        chosen[generator.permutation(np.flatnonzero(labels == label))[:quota]] = True
    return chosen


def keep_classes(labels: Labels, classes: Sequence[int] | None) -> tuple[Rows, Labels]:
    """Positions of the examples of ``classes``, and their labels renumbered in the order given.

    ``None`` keeps everything.
    """
    if classes is None:
        return np.arange(len(labels)), labels
    renumbered = np.full(max(int(labels.max(initial=0)), *classes) + 1, -1, np.int32)
    renumbered[list(classes)] = np.arange(len(classes))
    rows = np.flatnonzero(renumbered[labels] >= 0)
    return rows, renumbered[labels[rows]]


def steps_per_epoch(size: int, batch_size: int) -> int:
    """Full batches in ``size`` examples.

    Raises :class:`ConfigError` if there is none.
    """
    if batch_size > size:
        raise ConfigError(f"a batch of {batch_size} is larger than the training split of {size}")
    return size // batch_size


def _exact(fraction: float) -> Fraction:
    # 0.285 * 100 is 28.499... in binary; what the user typed is 28.5.
    return Fraction(repr(float(fraction)))
