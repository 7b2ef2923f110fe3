"""Criteria that say how much a weight matters: one module each, found by name.

A module holds one class ``Criterion`` with one method::

    def score(self, trained, initial):
        '''Return an array of the shape of ``trained``; the lowest scores are pruned first.'''

where ``trained`` and ``initial`` are the same kernel after training and at initialisation.
"""

import pkgutil
from typing import Any, Protocol

import numpy as np

from lottery import choices
from lottery.config import did_you_mean
from lottery.errors import ConfigError

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
    criterion: Criterion = choices.module(__name__, name).Criterion()
    return criterion
