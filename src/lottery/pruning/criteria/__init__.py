"""Criteria that say how much a weight matters: one module each, found by name.

A module holds one class ``Criterion`` with one method::

    def score(self, trained, initial):
        '''Return an array of the shape of ``trained``; the lowest scores are pruned first.'''

where ``trained`` and ``initial`` are the same kernel after training and at initialisation.
"""

import pkgutil
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any, Protocol

import numpy as np

from lottery.errors import ConfigError
from lottery.options import did_you_mean

Array = np.ndarray[Any, Any]


class Criterion(Protocol):
    """What a criterion module's class looks like."""

    def score(self, trained: Array, initial: Array) -> Array:
        """Scores of one kernel's weights, of its shape; the lowest are pruned first."""
        ...


def known() -> tuple[str, ...]:
    """Names of all criteria."""
    return tuple(m.name for m in pkgutil.iter_modules(__path__))


def find(name: str) -> Criterion:
    """The criterion of that name. Raises :class:`ConfigError` if there is none."""
    if name not in known():
        raise ConfigError(f"mask.criterion={name} is unknown{did_you_mean(name, known())}")
    criterion: Criterion = import_module(f"{__name__}.{name}").Criterion()
    return criterion


def scores(
    name: str,
    trained: Mapping[str, Array],
    initial: Mapping[str, Array],
    paths: Iterable[str],
    within: Mapping[str, Array] | None = None,
) -> dict[str, Array]:
    """The scores of the kernels at ``paths`` by the criterion ``name``.

    ``trained`` and ``initial`` hold weights by path. What the mask ``within`` has pruned before
    scores 0, whatever the criterion says of zeros, as log |w| says minus infinity. Raises
    :class:`ConfigError` unless there is one finite number for each other weight.
    """
    criterion = find(name)
    found = {}
    for path in paths:
        with np.errstate(all="ignore"):  # what comes of it is checked
            given = criterion.score(trained[path], initial[path])
        alive = within[path] if within else None
        found[path] = _checked(name, path, trained[path], given, alive)
    return found


def _checked(name: str, path: str, weights: Array, given: Any, alive: Array | None) -> Array:
    score: Array = np.asarray(given)
    wrong = None
    if alive is not None and score.shape == alive.shape:
        score = np.where(alive, score, np.zeros((), score.dtype))
    if score.shape != weights.shape:
        wrong = f"in shape {score.shape}, but its weights have shape {weights.shape}"
    elif score.dtype.kind not in "biuf":
        wrong = f"by {score.dtype} values, which have no order"
    elif not np.isfinite(score).all():
        count = np.count_nonzero(~np.isfinite(score))
        wrong = f"with {count} values that are not finite, out of {score.size}"
    if wrong:
        raise ConfigError(f"mask.criterion={name} scores {path} {wrong}")
    return score
