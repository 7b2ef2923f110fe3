"""The nodes of the run store that a config stands for, known before anything is computed.

A node's identity holds the keys of its parents, so the whole chain from the dense network to the
ticket is named by pure functions of the config.
"""

from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

from lottery import models, rewinding
from lottery.choices import code as choices
from lottery.config import DENSE, Config, Mask, Model, Training
from lottery.data import describe, sources
from lottery.options import identity
from lottery.pruning import criteria
from lottery.pruning.allocation import rounds
from lottery.store import Node, Store


@dataclass(frozen=True)
class Round:
    """One pruning and retraining; a one-shot mask has one, an iterative one several."""

    percentile: float
    mask: Node
    shuffled: Node | None
    rewinding: str
    ticket: Node
    first_epoch: int  # where the ticket's training starts


@dataclass(frozen=True)
class Lineage:
    """dense -> mask -> ticket -> mask -> ticket …; of train.py the dense network alone.

    Of transfer.py ``transfers``, the moved ticket first, then the controls; ``nameless`` is the
    number of those whose identity depends on what the others will have measured.
    """

    dense: Node | None = None
    rounds: tuple[Round, ...] = ()
    transfers: tuple[Node, ...] = ()
    nameless: int = 0

    @property
    def goals(self) -> tuple[Node, ...]:
        """What it is about: its transfers, its ticket, or the dense network if that is all."""
        return self.transfers or (self.last,)

    @property
    def parent(self) -> str | None:
        """Key of the dense network that the tickets wait for; None without tickets."""
        return self.dense.key if self.dense and self.rounds else None

    @property
    def done(self) -> bool:
        """Whether nothing is left to compute."""
        return not self.nameless and all(node.done for node in self.goals)

    @property
    def last(self) -> Node:
        """The ticket, moved or not, or the dense network if there is none."""
        if self.rounds:
            return self.rounds[-1].ticket
        last = self.transfers[0] if self.transfers else self.dense
        assert last is not None
        return last

    @property
    def runs(self) -> tuple[Node, ...]:
        """All that has to be trained, in order."""
        dense = () if self.dense is None else (self.dense,)
        return (*dense, *(r.ticket for r in self.rounds), *self.transfers)


def dense_lineage(config: Config, store: Store) -> Lineage:
    """The dense network of a config, which need not exist, alone."""
    return Lineage(store.node("dense", training_identity(config)))


def lineage(config: Config, store: Store) -> Lineage:
    """The chain of nodes of a config; none of them need exist."""
    dense = store.node("dense", training_identity(config))
    chain: list[Round] = []
    ladder = rounds(config.mask.percentile, config.mask.rate)
    for number, percentile in enumerate(ladder, start=1):
        last = number == len(ladder)
        ranked = chain[-1].ticket.key if chain else dense.key
        mask = store.node("mask", mask_identity(config, dense.key, ranked, percentile))
        shuffled = None
        if last and config.mask.shuffle and percentile > 0:  # else there is nothing to shuffle
            shuffled = store.node("mask", shuffled_identity(config, mask.key))
        name = config.rewind.name
        if rewinding.find(name).CONTROL and not last:  # replaces the last retraining only
            name = "weights"
        control = rewinding.find(name).CONTROL
        about = ticket_identity(config, dense.key, (shuffled or mask).key, name)
        chain.append(
            Round(
                percentile,
                mask,
                shuffled,
                name,
                store.node("ticket", about),
                first_epoch=0 if control else config.rewind.epoch,
            )
        )
    return Lineage(dense, tuple(chain))


def training_identity(config: Training) -> dict[str, Any]:
    """What determines a training from fresh weights, so all of a dense run.

    That is the options that have an effect, the content of the data, and the code of one's own
    network and source.
    """
    found = describe(config.data)
    model, trainer = config.model, config.trainer
    if models.lacks(model.name, "batch_norm"):
        model = replace(model, batch_norm_momentum=Model().batch_norm_momentum)
        trainer = replace(trainer, sync_batch_norm=False)
    effective = replace(config, data=found.effective, model=model, trainer=trainer)
    return {
        "config": {part: v for part, v in identity(effective).items() if part in DENSE},
        "data": {**found.fingerprint, "image_shape": list(found.image_shape)},
        **_code(model=(models, model.name), source=(sources, config.data.source)),
    }


def mask_identity(config: Config, dense: str, ranked: str, percentile: float) -> dict[str, Any]:
    """What determines the mask that removes ``percentile`` percent by the weights of ``ranked``."""
    mask = round_of(config.mask, percentile)
    if models.lacks(config.model.name, "depthwise"):
        mask = replace(mask, depthwise=False)
    code = _code(criterion=(criteria, mask.criterion)) if percentile > 0 else {}
    return {"dense": dense, "ranked": ranked, "mask": identity(mask), **code}


def round_of(mask: Mask, percentile: float) -> Mask:
    """The options of one round: what an iterative mask and a one-shot one have in common."""
    return replace(mask, percentile=percentile, rate=None, shuffle=False)


def shuffled_identity(config: Config, mask: str) -> dict[str, Any]:
    """What determines the control that permutes a mask within each layer."""
    return {"shuffled": mask, "seed": config.seed}


def ticket_identity(config: Config, dense: str, mask: str, rewinding_name: str) -> dict[str, Any]:
    """What determines the retrained network of one round."""
    if rewinding.find(rewinding_name).CONTROL:
        about = {"name": rewinding_name}  # starts afresh: neither epoch nor slots matter
    else:
        about = identity(replace(config.rewind, name=rewinding_name))
    if not config.optimizer.has_slots:  # there is nothing to reset
        about.pop("optimizer", None)
    code = _code(rewinding=(rewinding, rewinding_name))
    return {"dense": dense, "mask": mask, "rewind": about, **code}


def _code(**chosen: tuple[ModuleType, str]) -> dict[str, Any]:
    """``{"code": …}`` for the choices whose names do not say all, by kind; else nothing."""
    found = {k: choices.code(kind.__name__, name) for k, (kind, name) in chosen.items()}
    code = {kind: identified for kind, identified in found.items() if identified is not None}
    return {"code": code} if code else {}
