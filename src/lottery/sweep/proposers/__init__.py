"""Who asks for the cells of a sweep: one module each, found by name (``hydra.sweeper.search``).

A module holds one class ``Proposer``, made with the candidates: the grid that the command line
spans, as override lists, in Hydra's order.
"""

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from lottery.errors import ConfigError
from lottery.options import did_you_mean

Overrides = Sequence[str]


class Proposer(Protocol):
    """Asks for cells in waves, each computed before the next is asked for."""

    adaptive: bool
    """Whether there may be another wave, which depends on what the cells before have shown."""

    def ask(self) -> list[list[str]]:
        """The override lists of the next wave's cells; empty if there is nothing left to ask."""
        ...

    def tell(self, cell: Overrides, result: Mapping[str, Any] | None) -> None:
        """What a cell that was asked for has shown: its ``result.json``; None if it failed."""
        ...


def known() -> tuple[str, ...]:
    """Names of all proposers."""
    return tuple(m.name for m in pkgutil.iter_modules(__path__))


def find(name: str) -> Callable[[Sequence[Overrides]], Proposer]:
    """What makes the proposer of that name. Raises :class:`ConfigError` if there is none."""
    if name not in known():
        raise ConfigError(f"hydra.sweeper.search={name} is unknown{did_you_mean(name, known())}")
    make: Callable[[Sequence[Overrides]], Proposer]
    make = importlib.import_module(f"{__name__}.{name}").Proposer
    return make
