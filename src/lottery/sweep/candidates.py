"""The grid that a command line spans, as plain values for whoever asks for its cells."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from lottery import choices
from lottery.barriers import Line, barrier_of
from lottery.options import identity
from lottery.sweep.plan import Cell
from lottery.sweep.proposers import Candidate

OWN = ("mask.percentile", "seed")  # what tells the cells of a row apart


def candidates(cells: Sequence[Cell], lines: Sequence[Line] = ()) -> list[Candidate]:
    """The cells of a grid, in its order. ``lines`` tell the barriers of their dense networks."""
    common = set.intersection(*(set(cell.overrides) for cell in cells)) if cells else set()
    return [_candidate(cell, common, lines) for cell in cells]


def _candidate(cell: Cell, common: set[str], lines: Sequence[Line]) -> Candidate:
    config = cell.config
    own = [o for o in cell.overrides if o not in common and o.partition("=")[0] not in OWN]
    shares = {key: share.value for key, share in cell.shares.items()}
    if not cell.lineage.rounds or cell.lineage.branches:  # not about a ticket
        row = " ".join(own)
        return Candidate(cell.overrides, row, None, config.seed, cell.epochs, shares=shares)
    behind = cell.epochs[cell.lineage.last.key]
    return Candidate(
        cell.overrides,
        " ".join(own),
        config.mask.percentile,
        config.seed,
        cell.epochs,
        network=_network(config),
        dense=cell.lineage.dense.key if cell.lineage.dense else "",
        position=None if config.rewind.afresh else 1 - behind / config.trainer.epochs,
        iterative=config.mask.rate is not None,
        control=_control(config),
        tolerance=config.verdict.tolerance,
        level=config.verdict.level,
        barrier=_barrier(cell, lines),
        shares=shares,
    )


def _barrier(cell: Cell, lines: Sequence[Line]) -> float | None:
    dense = cell.lineage.dense
    if dense is None or cell.config.rewind.afresh:
        return None
    return barrier_of(lines, dense.key, cell.lineage.rounds[-1].first)


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
