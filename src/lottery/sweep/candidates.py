"""The grid that a command line spans, as plain values for whoever asks for its cells."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from lottery import choices
from lottery.options import identity
from lottery.sweep.plan import Cell
from lottery.sweep.proposers import Candidate

OWN = ("mask.percentile", "seed")  # what tells the cells of a row apart


def candidates(cells: Sequence[Cell]) -> list[Candidate]:
    """The cells of a grid, in its order."""
    common = set.intersection(*(set(cell.overrides) for cell in cells)) if cells else set()
    return [_candidate(cell, common) for cell in cells]


def _candidate(cell: Cell, common: set[str]) -> Candidate:
    config = cell.config
    own = [o for o in cell.overrides if o not in common and o.partition("=")[0] not in OWN]
    if not cell.lineage.rounds or cell.lineage.branches:  # not about a ticket
        return Candidate(cell.overrides, " ".join(own), None, config.seed, cell.epochs)
    behind = cell.epochs[cell.lineage.last.key]
    return Candidate(
        cell.overrides,
        " ".join(own),
        config.mask.percentile,
        config.seed,
        cell.epochs,
        network=_network(config),
        position=None if config.rewind.afresh else 1 - behind / config.trainer.epochs,
        iterative=config.mask.rate is not None,
        control=_control(config),
        tolerance=config.verdict.tolerance,
        level=config.verdict.level,
    )


def _network(config: Any) -> str:
    """What decides which weights a percentile is a share of."""
    mask = config.mask
    prunable = [mask.depthwise, mask.skip_first, mask.skip_last]
    classes = config.data.classes and len(config.data.classes)
    return json.dumps([identity(config.model), dataclasses.asdict(mask.pattern), prunable, classes])


def _control(config: Any) -> bool:
    mask = config.mask
    by_lot = mask.during is None and mask.score == choices.score.of({"name": "random"})
    return bool(mask.shuffle or by_lot or config.rewind.control)
