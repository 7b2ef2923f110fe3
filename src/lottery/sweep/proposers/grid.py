"""All combinations of the swept values, at once."""

from collections.abc import Mapping, Sequence
from typing import Any


class Proposer:
    """Every candidate, in one wave."""

    adaptive = False

    def __init__(self, candidates: Sequence[Sequence[str]]) -> None:
        self._left = [list(cell) for cell in candidates]

    def ask(self) -> list[list[str]]:
        """All candidates, once."""
        wave, self._left = self._left, []
        return wave

    def tell(self, cell: Sequence[str], result: Mapping[str, Any] | None) -> None:
        """Nothing more is asked for, whatever a cell has shown."""
