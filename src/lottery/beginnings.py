"""Finished trainings that begin as another one does, so that it can go on from their states.

Two trainings that differ in nothing but their length and their schedule take the same steps for as
long as their learning rates are the same. So a longer one goes on from the last state which the
shorter one kept within that time, and a shorter one ends where a longer one has passed. Imports no
TensorFlow.
"""

import functools
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lottery import choices, files
from lottery.errors import LotteryError
from lottery.masking import MASK
from lottery.points import Point
from lottery.pruning import masks
from lottery.pruning.dynamics import Aim
from lottery.store import Node, Store, key_of
from lottery.training.checkpoints import CheckpointFolder
from lottery.training.schedules import Schedule, alike

log = logging.getLogger(__name__)

Identity = Mapping[str, Any]


@dataclass(frozen=True)
class Wanted:
    """A training that is still to be done."""

    node: Node
    """With its identity."""
    steps_per_epoch: int
    first: int = 0
    """Steps that lie behind where it begins."""
    kept: frozenset[int] = frozenset()
    """After which steps its states stay for good."""
    known: Mapping[str, Identity] = field(default_factory=dict)
    """By key the identities of nodes that it comes from, which may not be in the store yet."""


@dataclass(frozen=True)
class Beginning:
    """A finished training, the first steps of which are those of another."""

    node: Node
    steps: tuple[int, ...]
    """After which it kept a state that the other can go on from; the latest first."""
    schedule: Schedule
    epochs: int
    """How long the finished one was."""
    parts: bool
    """Whether their learning rates differ later on, and not just their lengths."""

    @property
    def step(self) -> int:
        """The step of the best of its states."""
        return self.steps[0]


@dataclass(frozen=True)
class Found:
    """What there is to go on from, the best first."""

    usable: tuple[Beginning, ...] = ()
    refusal: str | None = None
    """Why a shorter training with the same schedule is not among them, if there is one."""


def refused_words(kind: str, key: str, epochs: int, of_epochs: int, reason: str) -> str:
    """The line about a shorter training that cannot be gone on from."""
    return (
        f"{kind} {key} has {epochs} of the {of_epochs} epochs, but {reason}: trained from the start"
    )


@dataclass(frozen=True)
class _Rates:
    """What decides on the learning rates of a training, but for its peak."""

    name: str
    schedule: Schedule
    epochs: int


class Beginnings:
    """Those that a store has; looked up once, so for one plan or one training."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._relatives: dict[str, dict[str, list[Node]]] = {}
        self._known: dict[str, Identity] = {}

    def of(self, wanted: Wanted) -> Found:
        """What a training can go on from."""
        self._known.update(wanted.known)
        own, family = self._rates(wanted.node), self._family(wanted.node)
        if own is None or family is None or not self._has_related_dense(wanted.node):
            return Found()
        usable, refused = [], []
        for node in self._finished(wanted.node.kind).get(family, ()):
            other = self._rates(node) if node.key != wanted.node.key else None
            if other is None:
                continue
            found = self._common(wanted, own, node, other)
            if isinstance(found, Beginning):
                usable.append(found)
            elif other.schedule == own.schedule and other.epochs < own.epochs:
                epochs = _result(node).get("stopped_epoch", other.epochs)
                refused.append((epochs, node.key, found))
        refusal = None
        if refused:
            epochs, key, reason = max(refused)
            refusal = refused_words(wanted.node.kind, key, epochs, own.epochs, reason)
        return Found(tuple(sorted(usable, key=lambda b: (-b.step, b.node.key))), refusal)

    def _common(self, wanted: Wanted, own: _Rates, node: Node, other: _Rates) -> Beginning | str:
        """What a finished training of the same family has for another, or why it has nothing."""
        spe, first = wanted.steps_per_epoch, wanted.first
        if name := self._knows_length(wanted.node):
            return f"{name} may depend on how long the training is"
        if {"stopped_epoch", "restored_epoch"} & _result(node).keys():
            return "a callback has decided how it ended"
        lengths = own.epochs * spe, other.epochs * spe
        part = alike(own.schedule.pieces(lengths[0]), other.schedule.pieces(lengths[1]))
        common = min(lengths) if part is None else min(part, *lengths)
        where = "the first step" if common == 0 else f"step {common + 1}"
        differs = (
            f"the {own.name} schedule of {own.epochs} epochs differs from that of {other.epochs} "
            f"from {where} on"
        )
        if common <= first:
            return differs
        if not self._same_mask(wanted.node.identity, node, common, spe):
            return "its mask is another one"
        kept = {s for s in CheckpointFolder(node.path / "checkpoints").steps() if s <= common}
        if (change := self._own_change(wanted, lengths)) is not None and change <= common:
            kept = {step for step in kept if step < change}
            if not any(first < step for step in kept):
                return f"only one of them changes the mask after step {change}"
        lacking = min((s for s in wanted.kept if s not in kept), default=common + 1)
        steps = [s for s in kept if first < s and s < max(lacking, first)]
        if not steps:
            at = Point.at(lacking, spe).words
            if lacking <= common:
                return f"it kept no state at {at}, which must be kept now"
            return f"{differs}, and it kept no state before that"
        latest, parts = tuple(sorted(steps, reverse=True)), part == common < lengths[1]
        return Beginning(node, latest, other.schedule, other.epochs, parts)

    def _own_change(self, wanted: Wanted, lengths: tuple[int, int]) -> int | None:
        """The first step after which only one of two trainings changes its mask, if there is one.

        Masks do not change after the last step. What follows that step is measured with the new
        one, so it cannot be made up for.
        """
        assert wanted.node.identity is not None
        about = wanted.node.identity.get("during")
        if about is None:
            return None
        dynamics = choices.dynamics.of(choices.dynamics.known_part(about["during"]))
        allocation = choices.allocation.of(choices.allocation.known_part(about["scope"]))
        aim = Aim(about["percentile"], allocation)
        own, other = (set(dynamics.changes(n - wanted.first, aim)) for n in lengths)
        return min(odd) + wanted.first if (odd := own ^ other) else None

    def _knows_length(self, node: Node) -> str | None:
        """What in a training, besides its schedule, may depend on its length."""
        assert node.identity is not None
        about = node.identity.get("during")
        if about is not None:
            name = about["during"]["name"]
            if getattr(choices.dynamics.find(name), "knows_length", True):
                return f"mask.during={name}"
        for chosen in self._training(node)["config"].get("callback", ()):
            kind = choices.callback.find(chosen["name"])
            decides = hasattr(kind, "remembers") or getattr(kind, "may_stop", False)
            if decides or getattr(kind, "knows_length", True):
                return f"callback={chosen['name']}"
        return None

    # -- masks -------------------------------------------------------------------------------------

    def _same_mask(self, own: Identity | None, node: Node, common: int, spe: int) -> bool:
        """Whether a training has the mask that another has, or will have."""
        mine, theirs = ((about or {}).get("mask") for about in (own, node.identity))
        if mine == theirs:
            return True
        if mine is None or theirs is None:
            return False
        path = self._store.root / "mask" / mine / MASK
        if path.exists():
            try:
                return _digest(path) == _digest(node.path / MASK)
            except (OSError, LotteryError):
                return False
        return self._will_be_same(mine, theirs, common, spe)

    def _will_be_same(self, mine: str, theirs: str, common: int, spe: int) -> bool:
        """Of a mask that is still to be made, by what determines it, which is of one family."""
        a, b = (self._identity("mask", key) for key in (mine, theirs))
        if a is None or b is None:
            return False
        if "shuffled" in a and "shuffled" in b:
            if a["shuffled"] == b["shuffled"]:
                return True
            return self._will_be_same(a["shuffled"], b["shuffled"], common, spe)
        one_shot = all(about.get("dense") == about.get("ranked") is not None for about in (a, b))
        at = a.get("mask", {}).get("at", "end")
        return one_shot and at != "end" and Point.of(at).step(spe) <= common

    # -- who is alike ------------------------------------------------------------------------------

    def _finished(self, kind: str) -> dict[str, list[Node]]:
        """The finished nodes of a kind, by what determines them besides length and schedule."""
        if kind not in self._relatives:
            found: dict[str, list[Node]] = {}
            for path in sorted((self._store.root / kind).glob("*/done.json")):
                node = Node(kind, path.parent.name, path.parent, _read_identity(path))
                if (family := self._family(node)) is not None:
                    found.setdefault(family, []).append(node)
            self._relatives[kind] = found
        return self._relatives[kind]

    def _has_related_dense(self, node: Node) -> bool:
        """Whether what comes from a dense network can be alike; most stores have many tickets."""
        key = (node.identity or {}).get("dense")
        dense = self._node("dense", key) if key is not None else None
        if dense is None:
            return True
        alike = self._finished("dense").get(self._family(dense) or "", ())
        return any(other.key != key for other in alike)

    def _family(self, node: Node) -> str | None:
        """What all trainings have in common that may begin alike; None: not known."""
        about = node.identity
        if about is None:
            return None
        if "config" in about:
            config = {k: v for k, v in about["config"].items() if k != "schedule"}
            config["trainer"] = {k: v for k, v in config["trainer"].items() if k != "epochs"}
            code = {k: v for k, v in about.get("code", {}).items() if k != "schedule"}
            return key_of(node.kind, {**about, "config": config, "code": code})
        if "dense" not in about:
            return None
        dense = self._node("dense", about["dense"])
        parent = dense and self._family(dense)
        if parent is None:
            return None
        mask = about.get("mask")
        drawn = mask and self._mask_family(mask)
        if mask and drawn is None:
            return None
        return key_of(node.kind, {**about, "dense": parent, "mask": drawn})

    def _mask_family(self, key: str) -> str | None:
        about = self._identity("mask", key)
        if about is None:
            return None
        if "shuffled" in about:
            inner = self._mask_family(about["shuffled"])
            return inner and key_of("mask", {**about, "shuffled": inner})
        return key_of("mask", {k: v for k, v in about.items() if k not in ("dense", "ranked")})

    def _rates(self, node: Node) -> _Rates | None:
        """The schedule and length of a training; None if the code of its schedule is not here."""
        about = self._training(node)
        if not about:
            return None
        try:
            chosen = about["config"]["schedule"]
            schedule = choices.schedule.of(choices.schedule.known_part(chosen))
        except LotteryError:  # of a plug-in that this command does without
            return None
        if about.get("code", {}).get("schedule") != schedule.code:
            return None
        return _Rates(chosen["name"], schedule, about["config"]["trainer"]["epochs"])

    def _training(self, node: Node) -> Identity:
        """The identity that has its config: its own, or that of its dense network; or nothing."""
        about = node.identity or {}
        if "config" in about:
            return about
        return self._identity("dense", about["dense"]) or {} if "dense" in about else {}

    def _node(self, kind: str, key: str) -> Node:
        return Node(kind, key, self._store.root / kind / key, self._identity(kind, key))

    def _identity(self, kind: str, key: str) -> Identity | None:
        if key in self._known:
            return self._known[key]
        return _read_identity(self._store.root / kind / key / "done.json")


def of_nodes(nodes: Iterable[Node]) -> dict[str, Identity]:
    """By key the identities of nodes that know theirs, for :attr:`Wanted.known`."""
    return {node.key: node.identity for node in nodes if node.identity is not None}


def _result(node: Node) -> Mapping[str, Any]:
    """What a finished training has measured; nothing of one that is removed just now."""
    try:
        result: Mapping[str, Any] = files.read_json(node.path / "result.json")
    except (OSError, ValueError):
        return {}
    return result


def _read_identity(path: Path) -> Identity | None:
    try:
        return _identity_in(path)
    except (OSError, ValueError, KeyError):
        return None


@functools.lru_cache(maxsize=2**16)  # what is there once never changes; errors are not remembered
def _identity_in(path: Path) -> Identity:
    identity: Identity = files.read_json(path)["identity"]
    return identity


@functools.lru_cache(maxsize=2**16)
def _digest(path: Path) -> str:
    return masks.digest(masks.read(path))
