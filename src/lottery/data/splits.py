"""Which examples belong to which split: pure functions of the examples and a seed.

An example is drawn by a number of its own (its *key*: see :meth:`lottery.data.sources.Source.keys`)
among those of its own class, before any class filter. So it is in the same split whatever other
classes are kept, and in whatever order.
"""

import functools
import hashlib
from collections.abc import Sequence
from fractions import Fraction
from math import floor

import numpy as np
import numpy.typing as npt

from lottery.data.interface import Labels, Rows
from lottery.errors import ConfigError

Keys = npt.NDArray[np.uint64]  # [N]


@functools.lru_cache(4096)  # every cell of a sweep asks of every class
def held_out(count: int, fraction: float) -> int:
    """How many of the ``count`` examples of one class are held out, if it is large enough.

    ``count * fraction`` rounded half up, exact for the decimal that was typed; but at least one
    example stays for training. 0 for a :func:`small` class.
    """
    return min(floor(count * _exact(fraction) + Fraction(1, 2)), max(count - 1, 0))


def small(count: int, fraction: float) -> bool:
    """Whether a class has so few examples that its share rounds to none, though it has several."""
    return count > 1 and held_out(count, fraction) == 0


def stratified(
    labels: npt.NDArray[np.integer], keys: Keys, fraction: float, seed: str
) -> npt.NDArray[np.bool_]:
    """True for the examples to hold out, [N], for their integer ``labels`` [N] and ``keys`` [N].

    Of each class :func:`held_out` of its examples, of a :func:`small` one a single example with
    probability ``count * fraction``, and of a class of one example none. They are those whose keys,
    mixed with the seed, are the smallest. Neither their number nor which they are depends on other
    classes, on what the classes are called, or on the order of the examples. As each class is
    rounded by itself, all of C classes may differ from the share of all examples by C / 2.
    """
    mixed = _mixed(keys, seed)
    order = np.lexsort((mixed, labels))
    _, first, classes, counts = np.unique(
        labels[order], return_index=True, return_inverse=True, return_counts=True
    )
    quotas = np.array([held_out(int(count), fraction) for count in counts], np.int64)
    lots = _mixed(mixed[order][first], f"{seed} rounding") / 2.0**64  # in [0, 1), one a class
    of_few = np.array([small(int(count), fraction) for count in counts], bool)
    rounded_up = of_few & (lots < counts * fraction)
    rank = np.arange(len(labels)) - first[classes]
    chosen = np.zeros(len(labels), bool)
    chosen[order] = rank < (quotas + rounded_up)[classes]
    return chosen


def mislabelled(labels: Labels, keys: Keys, classes: int, seed: str) -> Labels:
    """Another label for each example, [N]: any of the others, by its key and the seed alone.

    ``labels`` [N] are those of ``classes`` classes, of which there must be two.
    """
    shifts = 1 + (_mixed(keys, seed) % np.uint64(classes - 1)).astype(np.int64)
    return ((labels + shifts) % classes).astype(labels.dtype)


def drawn(labels: Labels, per_class: int, seed: int, half: int | None = None) -> Rows:
    """Positions of ``per_class`` examples of each class, of a smaller class all, in a mixed order.

    Which they are depends on the seed and, for each class, on the positions of its own examples;
    fewer of a class are among more. ``half``, 0 or 1, is every other one of them. Classes come in
    turn, so that consecutive examples are of as many classes as possible.
    """
    mixed = _mixed(np.arange(len(labels), dtype=np.uint64), f"{seed} drawn")
    order = np.lexsort((mixed, labels))
    _, first, classes = np.unique(labels[order], return_index=True, return_inverse=True)
    rank = np.arange(len(labels)) - first[classes]
    kept = rank < per_class
    if half is not None:
        kept &= rank % 2 == half
    rows = order[kept]
    return rows[np.lexsort((mixed[rows], rank[kept]))]


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


def name_key(name: str) -> int:
    """A key of 64 bits for an example that is known by a name."""
    digest = hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _mixed(keys: Keys, seed: str) -> Keys:
    """Numbers that look random and differ where ``keys`` do: SplitMix64's finaliser, with a seed.

    Source: Steele, Lea and Flood, Fast Splittable Pseudorandom Number Generators, OOPSLA 2014.
    """
    mixed = keys.astype(np.uint64) ^ np.uint64(name_key(f"split seed {seed}"))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    return mixed


def _exact(fraction: float) -> Fraction:
    # 0.285 * 100 is 28.499... in binary; what the user typed is 28.5.
    return Fraction(repr(float(fraction)))
