"""The nodes of the run store that a config stands for, known before anything is computed.

A node's identity holds the keys of its parents, so the whole chain from the dense network to the
ticket is named by pure functions of the config.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from lottery import choices, models, pretrained
from lottery.config import DENSE, Config, Mask, Training
from lottery.data import Description, describe
from lottery.data.splits import steps_per_epoch
from lottery.options import acting, identity
from lottery.points import START, Point
from lottery.pruning.allocation import rounds
from lottery.pruning.scores import any_target
from lottery.store import Node, Store
from lottery.training import class_weights


@dataclass(frozen=True)
class Round:
    """One pruning and retraining; a one-shot mask has one, an iterative one several."""

    percentile: float
    before: float
    """The percentile of the round before; 0 in the first."""
    mask: Node | None
    """None if the mask changes while the ticket is trained, and is part of that."""
    shuffled: Node | None
    rewinding: Any
    """The choice of ``rewind`` by which it starts."""
    ticket: Node
    first: Point
    """Where the ticket's training starts."""
    early: bool = False
    """Whether neither its mask nor its start needs a trained network."""


@dataclass(frozen=True)
class Branch:
    """A training that goes on from a state of the dense network, in another way than that did."""

    node: Node
    first: Point
    """Where it leaves the dense network's training."""
    mask: Node | None = None
    """The mask that it has; None if it is dense."""
    made: Node | None = None
    """The mask that has to be made of the dense network for that."""


@dataclass(frozen=True)
class Lineage:
    """dense -> mask -> ticket -> mask -> ticket …; of train.py the dense network alone.

    Of stability.py ``branches`` and ``measured``, what is measured between them; ``rounds`` are
    those that their mask needs. Of transfer.py ``transfers``, the moved ticket first, then the
    controls; ``nameless`` is the number of those whose identity depends on what the others will
    have measured, and ``computed`` is, by key, the share of a network's multiply-adds that is
    known to be left where the mask is that of a given ticket. ``reads`` are finished nodes that it
    begins with.
    """

    dense: Node | None = None
    rounds: tuple[Round, ...] = ()
    transfers: tuple[Node, ...] = ()
    nameless: int = 0
    computed: Mapping[str, float] = field(default_factory=dict)
    branches: tuple[Branch, ...] = ()
    measured: Node | None = None
    reads: tuple[Node, ...] = ()

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All of them, each once."""
        masks = [m for step in self.rounds for m in (step.mask, step.shuffled)]
        masks += [m for branch in self.branches for m in (branch.made, branch.mask)]
        named = (*self.reads, *self.runs, *masks, self.measured)
        return tuple(dict.fromkeys(node for node in named if node is not None))

    @property
    def goals(self) -> tuple[Node, ...]:
        """What it is about: its transfers, its ticket, or the dense network if that is all."""
        return self.transfers or (self.last,)

    @property
    def parent(self) -> str | None:
        """Key of the dense network that its other trainings wait for; None if there are none."""
        return self.dense.key if self.dense and (self.rounds or self.branches) else None

    @property
    def early(self) -> bool:
        """Whether its ticket can be trained before, or beside, its dense network."""
        return bool(self.rounds) and not self.branches and all(step.early for step in self.rounds)

    @property
    def told(self) -> tuple[Node, ...]:
        """What its result tells of, so must be there first: its goals, and a ticket's rival."""
        rival = (self.dense,) if self.dense and self.parent else ()
        return (*rival, *self.goals)

    @property
    def starts(self) -> frozenset[Point]:
        """Points in the dense network's training whose states other trainings begin with."""
        own = (step.first for step in self.rounds)
        return frozenset((*own, *(branch.first for branch in self.branches)))

    @property
    def masks(self) -> tuple[Node, ...]:
        """The masks that are made on the way, by themselves and not while a ticket is trained."""
        made = [step.mask for step in self.rounds] + [branch.made for branch in self.branches]
        return tuple(mask for mask in made if mask is not None)

    @property
    def done(self) -> bool:
        """Whether nothing is left to compute."""
        needed = (*self.told, *(branch.node for branch in self.branches))
        return not self.nameless and all(node.done for node in needed)

    @property
    def last(self) -> Node:
        """What is measured in the end, or the ticket, moved or not, or the dense network."""
        if self.measured:
            return self.measured
        if self.rounds:
            return self.rounds[-1].ticket
        last = self.transfers[0] if self.transfers else self.dense
        assert last is not None
        return last

    @property
    def runs(self) -> tuple[Node, ...]:
        """All that has to be trained, in order."""
        dense = () if self.dense is None else (self.dense,)
        branches = (branch.node for branch in self.branches)
        return (*dense, *(r.ticket for r in self.rounds), *branches, *self.transfers)


def dense_lineage(config: Config, store: Store) -> Lineage:
    """The dense network of a config, which need not exist, alone."""
    return Lineage(store.node("dense", training_identity(config)), reads=begins_with(config, store))


def lineage(config: Config, store: Store) -> Lineage:
    """The chain of nodes of a config; none of them need exist."""
    dense = store.node("dense", training_identity(config))
    if config.mask.during is not None:
        ticket = store.node("ticket", sparse_identity(config, dense.key))
        changing = Round(
            config.mask.percentile, 0.0, None, None, config.rewind, ticket, START, early=True
        )
        return Lineage(dense, (changing,), reads=begins_with(config, store))
    chain: list[Round] = []
    ladder = rounds(config.mask.percentile, config.mask.rate)
    for number, percentile in enumerate(ladder, start=1):
        last = number == len(ladder)
        ranked = chain[-1].ticket.key if chain else dense.key
        before = ladder[number - 2] if chain else 0.0
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
        first = START if rewind.afresh else rewind.point
        early = config.mask.scored == first == START and not rewind.takes_final
        ticket = store.node("ticket", about)
        chain.append(Round(percentile, before, mask, shuffled, rewind, ticket, first, early))
    return Lineage(dense, tuple(chain), reads=begins_with(config, store))


def begins_with(config: Training, store: Store) -> tuple[Node, ...]:
    """The run whose weights the dense network begins with, if it is in the store."""
    place = config.model.weights
    return source(pretrained.runs(place), store) if place else ()


def source(runs: Mapping[str, Any], store: Store) -> tuple[Node, ...]:
    """The finished run that a ticket, or weights, were taken of, if it is in the store.

    ``runs`` are the keys in their provenance, by kind: those of a ticket before itself too.
    """
    kind = next((kind for kind in ("transfer", "ticket") if kind in runs), next(iter(runs), None))
    if kind is None:
        return ()
    node = Node(kind, str(runs[kind]), store.root / kind / str(runs[kind]))
    return (node,) if node.done else ()


def training_identity(config: Training) -> dict[str, Any]:
    """What determines a training from fresh weights, so all of a dense run.

    That is the options that have an effect, the content of the data, and the code of one's own
    network and source.
    """
    found = describe(config.data)
    model, trainer = config.model, config.trainer
    if models.lacks(model, "batch_norm"):
        trainer = replace(trainer, sync_batch_norm=False)
    weights = class_weights.effective(trainer.class_weights, found.classes)
    trainer = replace(trainer, class_weights=weights)
    schedule = config.schedule.in_steps(_steps(config, found))  # a point is the same in any form
    effective = replace(
        config, data=found.effective, model=model, trainer=trainer, schedule=schedule
    )
    return {
        "config": {part: v for part, v in identity(effective).items() if part in DENSE},
        "data": {**found.fingerprint, "image_shape": list(found.image_shape)},
        **({"weights": pretrained.digest(model.weights)} if model.weights else {}),
        **code_of(
            source=config.data,
            model=model,
            optimizer=config.optimizer,
            schedule=config.schedule,
            **{f"augmentation {i}": a for i, a in enumerate(acting(config.augmentation))},
            **{f"callback {i}": c for i, c in enumerate(acting(config.callback))},
        ),
    }


def mask_identity(config: Config, dense: str, ranked: str, percentile: float) -> dict[str, Any]:
    """What determines the mask that removes ``percentile`` percent.

    That is the run ``ranked`` whose weights are scored, or, for one that is made at the start, what
    determines the initialisation: such masks need no trained network.
    """
    mask = round_of(_effective(config), percentile)
    about: dict[str, Any] = {"mask": identity(mask)}
    if percentile == 0:
        return {"dense": dense, "ranked": ranked, **about}
    about |= code_of(score=mask.score, scope=mask.scope, pattern=mask.pattern)
    if mask.scored == START:
        return {"initial": initial_identity(config), **about}
    return {"dense": dense, "ranked": ranked, **about}


def scored(config: Config) -> tuple[Point, ...]:
    """The point in the dense network's training whose weights are scored, if it is not the end."""
    at = None if config.mask.during is not None else config.mask.scored
    return () if at is None else (at,)


def score_identity(config: Config, ranked: str, percentile: float) -> dict[str, Any]:
    """What determines the scores of a round: less than its mask, where they serve any target."""
    mask = _effective(config)
    about: dict[str, Any] = {
        "score": identity(mask.score),
        "kernels": [mask.depthwise, mask.skip_first, mask.skip_last],
    }
    chosen = {"score": mask.score}
    if not any_target(mask.score):
        about |= {"percentile": percentile}
        about |= {"scope": identity(mask.scope), "pattern": identity(mask.pattern)}
        chosen |= {"scope": mask.scope, "pattern": mask.pattern}
    about |= code_of(**chosen)
    if mask.scored == START:
        return {"initial": initial_identity(config), **about}
    at = {} if mask.at == "end" else {"at": mask.at}
    return {"ranked": ranked, **at, **about}


def initial_identity(config: Training) -> dict[str, Any]:
    """What determines the weights at initialisation, and the examples that scores look at."""
    about = training_identity(config)
    parts = {k: v for k, v in about["config"].items() if k in ("seed", "data", "model")}
    batch = {"batch_size": config.trainer.batch_size}
    code = {k: v for k, v in about.get("code", {}).items() if k in ("source", "model")}
    determined = {"config": {**parts, **batch}, "data": about["data"]}
    given = {k: about[k] for k in ("weights",) if k in about}
    return {**determined, **given, **({"code": code} if code else {})}


def _effective(config: Config) -> Mask:
    """The mask's options, with those at their defaults that have no effect on the network.

    The point that is scored is written in one way only.
    """
    mask, at = config.mask, config.mask.scored
    if models.lacks(config.model, "depthwise"):
        mask = replace(mask, depthwise=False)
    if at is not None and at != START:
        spe = epoch_steps(config)
        at = Point.at(at.step(spe), spe)
    last = at == Point(config.trainer.epochs)
    name = "end" if at is None or last else "start" if at == START else str(at)
    return replace(mask, at=name)


def round_of(mask: Mask, percentile: float) -> Mask:
    """The options of one round: what an iterative mask and a one-shot one have in common."""
    return replace(mask, percentile=percentile, rate=None, shuffle=False)


def shuffled_identity(config: Config, mask: str) -> dict[str, Any]:
    """What determines the control that permutes a mask within each layer."""
    return {"shuffled": mask, "seed": config.seed}


def ticket_identity(config: Config, dense: str, mask: str, rewind: Any) -> dict[str, Any]:
    """What determines the retrained network of one round."""
    about = identity(rewind)
    about = {k: v for k, v in about.items() if k not in ("epoch", "step")}
    if rewind.afresh:  # neither point nor slots matter
        about.pop("optimizer", None)
    else:  # the same point, however it was written
        spe = epoch_steps(config)
        about["point"] = str(Point.at(rewind.point.step(spe), spe))
    if not config.optimizer.has_slots:  # there is nothing to reset
        about.pop("optimizer", None)
    return {"dense": dense, "mask": mask, "rewind": about, **code_of(rewinding=rewind)}


def epoch_steps(config: Training) -> int:
    """Optimizer steps of an epoch."""
    return _steps(config, describe(config.data))


def _steps(config: Training, data: Description) -> int:
    return steps_per_epoch(data.sizes["train"], config.trainer.batch_size)


def sparse_identity(config: Config, dense: str) -> dict[str, Any]:
    """What determines a network whose mask changes while it is trained."""
    mask = _effective(config)
    code = code_of(during=mask.during, scope=mask.scope)
    return {"dense": dense, "mask": None, "during": identity(mask), **code}


def code_of(**chosen: Any) -> dict[str, Any]:
    """``{"code": …}`` for the choices whose names do not say all, by kind; else nothing."""
    code = {kind: choice.code for kind, choice in chosen.items() if choice.code is not None}
    return {"code": code} if code else {}
