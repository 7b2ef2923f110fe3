"""All combinations of the swept values, at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lottery import choices
from lottery.sweep.proposers import Candidate


@choices.search("grid")
@dataclass(frozen=True)
class Grid:
    """Every combination of the swept values, at once."""

    def proposer(self, candidates: Sequence[Candidate], parallel: int) -> "_All":
        """What asks for every candidate."""
        return _All(candidates)


class _All:
    adaptive = False

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self._left = [list(candidate.overrides) for candidate in candidates]

    def ask(self) -> list[list[str]]:
        """All candidates, once."""
        wave, self._left = self._left, []
        return wave

    def tell(self, cell: Sequence[str], result: Mapping[str, Any] | None) -> None:
        """Nothing more is asked for, whatever a cell has shown."""
