"""The nodes of the run store that a config stands for, known before anything is computed.

A node's identity holds the keys of its parents, so the whole chain from the dense network to the
ticket is named by pure functions of the config.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

from lottery import choices, models
from lottery.config import DENSE, Config, Mask, Training
from lottery.data import describe
from lottery.options import identity
from lottery.pruning.allocation import rounds
from lottery.store import Node, Store


@dataclass(frozen=True)
class Round:
    """One pruning and retraining; a one-shot mask has one, an iterative one several."""

    percentile: float
    mask: Node
    shuffled: Node | None
    rewinding: Any
    """The choice of ``rewind`` by which it starts."""
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
        rewind = config.rewind
        if rewind.control and not last:  # replaces the last retraining only
            rewind = choices.rewinding.of(
                choices.rewinding.known_part(asdict(rewind), name="weights")
            )
        about = ticket_identity(config, dense.key, (shuffled or mask).key, rewind)
        chain.append(
            Round(
                percentile,
                mask,
                shuffled,
                rewind,
                store.node("ticket", about),
                first_epoch=0 if rewind.control else rewind.epoch,
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
    if models.lacks(model, "batch_norm"):
        trainer = replace(trainer, sync_batch_norm=False)
    effective = replace(config, data=found.effective, model=model, trainer=trainer)
    return {
        "config": {part: v for part, v in identity(effective).items() if part in DENSE},
        "data": {**found.fingerprint, "image_shape": list(found.image_shape)},
        **_code(
            source=config.data,
            model=model,
            optimizer=config.optimizer,
            schedule=config.schedule,
        ),
    }


def mask_identity(config: Config, dense: str, ranked: str, percentile: float) -> dict[str, Any]:
    """What determines the mask that removes ``percentile`` percent by the weights of ``ranked``."""
    mask = round_of(config.mask, percentile)
    if models.lacks(config.model, "depthwise"):
        mask = replace(mask, depthwise=False)
    return {"dense": dense, "ranked": ranked, "mask": identity(mask)}


def round_of(mask: Mask, percentile: float) -> Mask:
    """The options of one round: what an iterative mask and a one-shot one have in common."""
    return replace(mask, percentile=percentile, rate=None, shuffle=False)


def shuffled_identity(config: Config, mask: str) -> dict[str, Any]:
    """What determines the control that permutes a mask within each layer."""
    return {"shuffled": mask, "seed": config.seed}


def ticket_identity(config: Config, dense: str, mask: str, rewind: Any) -> dict[str, Any]:
    """What determines the retrained network of one round."""
    about = identity(rewind)
    if rewind.control:  # starts afresh: neither epoch nor slots matter
        about = {k: v for k, v in about.items() if k not in ("epoch", "optimizer")}
    if not config.optimizer.has_slots:  # there is nothing to reset
        about.pop("optimizer", None)
    return {"dense": dense, "mask": mask, "rewind": about, **_code(rewinding=rewind)}


def _code(**chosen: Any) -> dict[str, Any]:
    """``{"code": …}`` for the choices whose names do not say all, by kind; else nothing."""
    code = {kind: choice.code for kind, choice in chosen.items() if choice.code is not None}
    return {"code": code} if code else {}
