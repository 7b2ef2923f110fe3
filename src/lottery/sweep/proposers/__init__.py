"""Who asks for the cells of a sweep: one module each, named as its choice of ``search``.

A choice has ``proposer(candidates)``: what asks, of the grid that the command line spans, as
override lists, in Hydra's order.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

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


class Search(Protocol):
    """What a choice of ``search`` is."""

    def proposer(self, candidates: Sequence[Overrides]) -> Proposer:
        """Who asks for cells of one sweep."""
        ...
