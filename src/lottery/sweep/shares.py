"""How much of the dense network's work a ticket's training is expected to be.

A network that is trained without what its mask has cut off (``trainer.compact``) computes fewer
multiply-adds an epoch. How many is known where the mask is in the store and says so, or a ticket
that has it; else it is estimated.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lottery import files
from lottery.lineage import Lineage, Round
from lottery.store import Node, Store
from lottery.training.recipe import may_be_smaller


@dataclass(frozen=True)
class Share:
    """A share of the multiply-adds of the dense network; ``guessed`` if no mask has told it."""

    value: float
    guessed: bool = False


class Shares:
    """Of the cells of a plan; looks into the ``store`` only for masks that are there."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def of(self, config: Any, lineage: Lineage) -> dict[str, Share]:
        """By the key of each training that does not compute all of the dense network."""
        if not may_be_smaller(config):
            return {}
        found = {step.ticket.key: self._of_round(config, step) for step in lineage.rounds}
        return {key: share for key, share in found.items() if share.value < 1}

    def _of_round(self, config: Any, step: Round) -> Share:
        mask = step.shuffled or step.mask
        if mask is None:  # it changes in training, so nothing is cut off for good
            return Share(1.0)
        known = self._known(config, mask) if mask.done else None
        if known is not None:
            return Share(known)
        if config.mask.pattern.name != "channel":
            return Share(1.0)
        # A channel that goes takes its outputs' share of one kernel, and the inputs' of the next.
        return Share((1 - step.percentile / 100) ** 2, guessed=True)

    def _known(self, config: Any, mask: Node) -> float | None:
        about = files.read_json(mask.path / "result.json")
        if "computed_share" in about:
            return float(about["computed_share"])
        return self._by_mask.get((mask.key, config.trainer.compact))

    @functools.cached_property
    def _by_mask(self) -> dict[tuple[str, bool | None], float]:
        """What tickets computed, by the key of their mask and their ``trainer.compact``."""
        found = {}
        for path in (self._store.root / "ticket").glob("*/done.json"):
            mask = files.read_json(path).get("identity", {}).get("mask")
            if mask is None:
                continue
            if work := files.read_json(path.with_name("result.json")).get("multiply_adds"):
                asked = files.read_json(path.with_name("config.json"))["trainer"].get("compact")
                found[mask, asked] = work["computed"] / work["network"]
        return found


def priced(epochs: Mapping[str, float], shares: Mapping[str, float]) -> dict[str, float]:
    """Epochs of runs in those of the dense network that cost as many multiply-adds."""
    return {key: count * shares.get(key, 1.0) for key, count in epochs.items()}
