"""The waves of a sweep: what a proposer asks for, planned; and what it is told of.

A proposer hears of every candidate that is in the store, whether or not it asked for it: of those
that were there before, and of rounds that were trained on the way to others.
"""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig, open_dict, read_write

from lottery import files
from lottery.config import typed
from lottery.errors import LotteryError
from lottery.runs import Run, with_answers
from lottery.store import Store
from lottery.sweep import claims, plan
from lottery.sweep.plan import Cell, Chain, Plan
from lottery.sweep.proposers import Overrides, Proposer

Composed = tuple[DictConfig, Any]
"""A config as Hydra composed it, and the same as typed options."""


@dataclass(frozen=True)
class Wave:
    """Cells that are computed together: their plan, and of each its config."""

    plan: Plan
    configs: list[DictConfig]
    asked: bool
    """Whether the proposer asked for them; the others are in the store."""
    number: int = 0
    """Of those that were asked for, from 1."""


@dataclass
class Waves:
    """Of one sweep. ``grid`` are the candidates; ``compose`` gives checked configs of cells."""

    proposer: Proposer
    grid: Sequence[Cell]
    compose: Callable[[Sequence[Overrides]], Sequence[Composed]]
    store: Store
    chain: Chain
    apart: str | None = None
    """A SLURM job whose claims do not count: the one that this runs in."""
    count: int = 0
    """The cells so far, of all waves."""
    ended: bool = False
    """Whether the proposer has nothing left to ask."""
    _seen: set[tuple[str, ...]] = field(default_factory=set)
    _asked: list[Cell] = field(default_factory=list)
    _number: int = 0

    def next(self) -> Wave | None:
        """What is in the store and was not told yet; else what the proposer asks for; else None."""
        if self.proposer.adaptive:
            there = [c for c in self.grid if c.overrides not in self._seen and c.done]
            for cell in there:
                self.proposer.tell(cell.overrides, stored(cell))
            if there:
                return self._wave([cell.overrides for cell in there], asked=False)
        asked = self.proposer.ask()
        self.ended = not asked
        return self._wave(asked, asked=True) if asked else None

    def tell(self, results: Iterable[tuple[Cell, Mapping[str, Any] | None]]) -> None:
        """Let the proposer hear of cells that it asked for, and that have ended."""
        asked = {cell.overrides for cell in self._asked}
        for cell, result in results:
            if cell.overrides in asked:
                self.proposer.tell(cell.overrides, result)
            if result is None:
                self._give_up_with(cell)

    def _give_up_with(self, failed: Cell) -> None:
        """Tell that all cells of a dense network that could not be trained have failed with it."""
        dense = failed.lineage.dense
        if not self.proposer.adaptive or dense is None or dense.done:
            return
        for cell in self.grid:
            if cell.lineage.dense == dense and cell.overrides not in self._seen:
                self._seen.add(cell.overrides)
                self.proposer.tell(cell.overrides, None)

    def again(self, cells: Sequence[Overrides]) -> Wave:
        """A wave that was planned before, by a process that is gone."""
        return self._wave(cells, asked=True)

    def record(self) -> dict[str, Any]:
        """What there is to keep of the search in ``sweep.json``; nothing of a mere grid."""
        if not self.proposer.adaptive:
            return {}
        told: dict[str, Any] = getattr(self.proposer, "record", dict)()
        return {
            "candidates": [list(cell.overrides) for cell in self.grid],
            "grid": _cost(self.grid),
            "asked": _cost(self._asked),
            "ended": self.ended,
            **told,
        }

    def _wave(self, cells: Sequence[Overrides], *, asked: bool) -> Wave:
        composed = self.compose(cells)
        self._seen |= set(map(tuple, cells))
        made = plan.make(
            zip(cells, [options for _, options in composed], strict=True),
            self.store,
            claims.underway(self.store, apart=self.apart),
            chain=self.chain,
            first=self.count,
            candidates=self.grid if self.proposer.adaptive else (),
        )
        self.count += len(made.cells)
        if asked:
            self._asked += made.cells
            self._number += 1
        return Wave(made, [config for config, _ in composed], asked, self._number)


@dataclass(frozen=True)
class ComposedBefore:
    """Gives the configs of candidates, and of the same with other seeds, composed at submission.

    A job that asks for the next wave composes nothing: a YAML file may have been edited since.
    """

    configs: Mapping[tuple[str, ...], DictConfig]

    def __call__(self, cells: Sequence[Overrides]) -> list[Composed]:
        """Raises :class:`LotteryError` for a cell that is none of those."""
        configs = [self._config(tuple(overrides)) for overrides in cells]
        return [(config, typed(config)) for config in configs]

    def _config(self, overrides: tuple[str, ...]) -> DictConfig:
        if overrides in self.configs:
            return self.configs[overrides].copy()
        rest = _without_seed(overrides)
        like = next((c for o, c in self.configs.items() if _without_seed(o) == rest), None)
        seeds = [o for o in overrides if o.startswith("seed=")]
        if like is None or not seeds:
            raise LotteryError(
                f"{' '.join(overrides)} is no cell of the grid with another seed: a search that "
                "asks for such cells cannot go on alone, so leave out sweep.detach"
            )
        config = copy.deepcopy(like)
        with read_write(config), open_dict(config):
            config.seed = int(seeds[-1].partition("=")[2])
            config.hydra.overrides.task = list(overrides)
        return config


def stored(cell: Cell) -> dict[str, Any]:
    """What the store has of a cell that is done."""
    dense, ticket = cell.lineage.dense, cell.lineage.last
    found: dict[str, Any] = {
        kind: with_answers({"key": node.key, **Run(node.path).result}, node.path)
        for kind, node in (("dense", dense), ("ticket", ticket))
        if node is not None
    }
    if (path := ticket.path / "mask.json").exists():
        found["mask"] = files.read_json(path)
    return found


def _cost(cells: Iterable[Cell]) -> dict[str, float]:
    """How many cells, and the epochs of all their runs, whether or not they were in the store."""
    cells = list(cells)
    runs = {key: epochs for cell in cells for key, epochs in cell.epochs.items()}
    return {"cells": len(cells), "epochs": sum(runs.values())}


def _without_seed(overrides: Iterable[str]) -> tuple[str, ...]:
    return tuple(o for o in overrides if not o.startswith("seed="))
