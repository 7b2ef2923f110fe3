"""How much of the dense network's work a ticket's training is expected to be.

A network that is trained without what its mask has cut off (``trainer.compact``) computes fewer
multiply-adds an epoch. How many is known where the mask is in the store and says so, or a ticket
that has it; else it is estimated.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lottery import files
from lottery.lineage import Lineage
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
        found = {key: Share(value) for key, value in lineage.computed.items()}
        for step in lineage.rounds:
            own = step.shuffled or step.mask
            found[step.ticket.key] = self._of(config, own, step.percentile)
        for branch in lineage.branches:
            key, own = branch.node.key, branch.mask
            if found.get(key, Share(1.0)).value == 1:
                found[key] = self._of(config, own, config.mask.percentile)
        return {key: share for key, share in found.items() if share.value < 1}

    def _of(self, config: Any, node: Node | None, percentile: float) -> Share:
        """Of a training with the mask ``node`` that prunes ``percentile`` percent."""
        if node is None:  # it is dense, or its mask changes, so that nothing is cut off for good
            return Share(1.0)
        known = self._known(config, node) if node.done else None
        if known is not None:
            return Share(known)
        if config.mask.pattern.name != "channel":
            return Share(1.0)
        left = 1 - percentile / 100
        # A channel that goes takes its outputs' share of one kernel, and the inputs' of the next.
        # If layers may differ, the cheap ones lose most: in MobileNetV2, where 50 % of the weights
        # go, 0.6 to 0.8 of the multiply-adds are left, and 0.3 if each layer loses 50 %.
        return Share(left**2 if config.mask.scope.name == "layer" else left, guessed=True)

    def _known(self, config: Any, mask: Node) -> float | None:
        about = _read(mask.path / "result.json")
        if "computed_share" in about:
            return float(about["computed_share"])
        return self._by_mask.get((mask.key, config.trainer.compact))

    @functools.cached_property
    def _by_mask(self) -> dict[tuple[str, bool | None], float]:
        """What tickets computed, by the key of their mask and their ``trainer.compact``."""
        found = {}
        for path in (self._store.root / "ticket").glob("*/done.json"):
            mask = _read(path).get("identity", {}).get("mask")
            if mask is None:
                continue
            config = _read(path.with_name("config.json"))
            work = _read(path.with_name("result.json")).get("multiply_adds")
            if config and work:
                share = work["computed"] / work["network"]
                found[mask, config["trainer"].get("compact")] = share
        return found


def _read(path: Path) -> Mapping[str, Any]:
    """A JSON object of a finished node; nothing where the node is removed just now."""
    try:
        about: Mapping[str, Any] = files.read_json(path)
    except FileNotFoundError:
        return {}
    return about


def priced(epochs: Mapping[str, float], shares: Mapping[str, float]) -> dict[str, float]:
    """Epochs of runs in those of the dense network that cost as many multiply-adds."""
    return {key: count * shares.get(key, 1.0) for key, count in epochs.items()}
