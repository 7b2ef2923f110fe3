"""Who asks for the cells of a sweep: one module each, named as its choice of ``search``.

A choice has ``proposer(candidates, parallel)``: what asks, of the grid that the command line spans,
in Hydra's order, for a launcher that runs ``parallel`` jobs at a time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from lottery.sweep.shares import priced

Overrides = Sequence[str]


@dataclass(frozen=True)
class Candidate:
    """A cell that may be asked for, and what is known of it before.

    ``row`` is what it is besides percentile and seed, as typed: ``rewind.epoch=5``. ``epochs`` are
    those to be trained for it from nothing, by the key of each run: its dense network, the rounds
    on the way, its ticket. Runs that cells have in common have one key. Rows of one ``network``
    keep equal shares of the same weights at equal percentiles. ``dense`` is the key of the dense
    network that it is compared with. ``position`` is the point rewound to
    as a share of the training, None if that does not matter; ``control`` is one that cannot win.
    ``percentile`` is None in a study that has no masks of its own. ``barrier`` is the error, in
    points, on the line between two children of the state rewound to; None if nobody measured it.
    ``shares`` are of the dense network's multiply-adds, by the key of each run that computes less.
    """

    overrides: tuple[str, ...]
    row: str
    percentile: float | None
    seed: int
    epochs: Mapping[str, float]
    network: str = ""
    dense: str = ""
    position: float | None = None
    iterative: bool = False
    control: bool = False
    tolerance: float = 1.0
    level: float | None = 0.05
    barrier: float | None = None
    shares: Mapping[str, float] = field(default_factory=dict)

    @property
    def price(self) -> dict[str, float]:
        """Its epochs in those of the dense network that cost as many multiply-adds."""
        return priced(self.epochs, self.shares)


@dataclass(frozen=True)
class Outlook:
    """Least and most that a search is expected to ask for, beside the grid; all that is not done.

    Cells are those of a sweep: one percentile, row and seed. Fresh seeds and controls are among
    those of the search. More may be needed where accuracy rises and falls along a row, or fresh
    seeds refute a winner.
    """

    cells_from: int
    cells_to: int
    epochs_from: float
    epochs_to: float
    waves_from: int
    waves_to: int
    grid_cells: int
    grid_epochs: float
    price_from: float = 0.0
    price_to: float = 0.0
    grid_price: float = 0.0
    """The epochs in those of the dense network (:attr:`Candidate.price`)."""


class Proposer(Protocol):
    """Asks for cells in waves, each computed before the next is asked for."""

    adaptive: bool
    """Whether there may be another wave, which depends on what the cells before have shown."""

    def ask(self) -> list[list[str]]:
        """The override lists of the next wave's cells; empty if there is nothing left to ask."""
        ...

    def tell(self, cell: Overrides, result: Mapping[str, Any] | None) -> None:
        """What a cell has shown: its ``result.json``; None if it failed.

        That is of every cell that was asked for, and before that of candidates that the store has
        already, or that were rounds on the way of others: of these ``dense``, ``ticket`` and
        ``mask``. Results of runs also have which validation images they got right
        (:data:`lottery.verdict.images.ANSWERS`), if that was kept.
        """
        ...


class Search(Protocol):
    """What a choice of ``search`` is."""

    def proposer(self, candidates: Sequence[Candidate], parallel: int) -> Proposer:
        """Who asks for cells of one sweep."""
        ...
