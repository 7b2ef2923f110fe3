"""Two children of one state of the dense network, and the error on the line between them.

dense -> (mask) -> state at the rewind point -> two children, the same but for the order and
augmentation of the data -> line: instability analysis, Frankle et al. 2020 (arXiv:1912.05671),
section 2. Each child is a node of the store, and so is the line. TensorFlow is imported only where
something has to be computed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lottery import choices, experiment, files, lineage, models, provenance
from lottery.barriers import FILE, Line
from lottery.config import StabilityConfig
from lottery.data import describe
from lottery.errors import ConfigError, TicketError
from lottery.lineage import Branch, Lineage, Round, code_of, epoch_steps, shuffled_identity
from lottery.masking import MASK, make_mask, shuffled, taken_mask
from lottery.options import identity
from lottery.points import Point
from lottery.pruning import masks
from lottery.replay import dense_state, dense_state_and_replay
from lottery.rewinding import Start
from lottery.runs import Run
from lottery.store import Node, Store
from lottery.studies.stability import Measured
from lottery.tickets import Ticket, asked_for
from lottery.trainings import (
    Attempt,
    Laboratory,
    Sparse,
    from_start,
    load_data,
    trained,
    training_module,
)
from lottery.validation import check_reached
from lottery.verdict.single import at_chance

CHILDREN = (1, 2)
"""Numbers of the orders of the data; the dense network's own is neither."""


def stability(config: StabilityConfig, lab: Laboratory) -> dict[str, Any]:
    """Train the dense network and two children of its state at the rewind point; measure the line.

    Returns what ``result.json`` has. Raises :class:`TicketError` for a ticket that cannot be had,
    or is of another network.
    """
    dense = experiment.train_dense(config, lab)
    mask = _mask(config, lab, dense)
    children = [_train_child(config, lab, dense, mask, order) for order in CHILDREN]
    line = _measure(config, lab, dense, mask, children)
    return Measured(
        dense={"key": dense.key, **dense.result},
        mask=None if mask is None else {"key": mask.key, **_summary(mask)},
        children=[
            {"order": order, "key": child.key, **child.result}
            for order, child in zip(CHILDREN, children, strict=True)
        ],
        line=line.written(),
        barriers=line.barriers,
        barrier=line.barrier,
        store=str(lab.store.root.resolve()),
    ).written()


def chain(config: StabilityConfig, store: Store) -> Lineage:
    """The dense network, the rounds that the mask needs, the children and their line."""
    rounds: tuple[Round, ...] = ()
    made, worn, share = None, None, 1.0
    pruned = lineage.lineage(config, store)
    assert pruned.dense is not None
    reads = pruned.reads
    if config.ticket is not None:
        ticket = asked_for(config.ticket, config.paths.outputs)
        worn = _worn(config, store, ticket)
        reads += lineage.source(ticket.provenance["runs"], store)
        share = 1.0 if config.mask.shuffle else ticket.computed_share
    elif config.mask.percentile > 0:
        *before, last = pruned.rounds
        rounds, made, worn = tuple(before), last.mask, last.shuffled or last.mask
    dense, key = pruned.dense, None if worn is None else worn.key
    branches = tuple(
        Branch(
            store.node("child", child_identity(config, dense.key, key, order)),
            config.rewind.point,
            worn,
            made,
        )
        for order in CHILDREN
    )
    about = line_identity(config, [branch.node.key for branch in branches])
    return Lineage(
        dense,
        rounds,
        branches=branches,
        measured=store.node("line", about),
        computed={branch.node.key: share for branch in branches},
        reads=reads,
    )


def child_identity(
    config: StabilityConfig, dense: str, mask: str | None, order: int
) -> dict[str, Any]:
    """What determines a child: the state that it goes on from, and the order of its data."""
    return {"dense": dense, "mask": mask, "point": str(_point(config)), "order": order}


def line_identity(config: StabilityConfig, children: Sequence[str]) -> dict[str, Any]:
    """What determines the errors on a line: its ends, and how it is measured."""
    options = config.stability
    about = {"children": list(children), "points": options.points}
    if models.lacks(config.model, "batch_norm"):
        return about
    return about | {"batches": min(options.batches, epoch_steps(config))}


def order_seed(seed: int, order: int) -> int:
    """The seed of the data order and augmentation of a child of a study with ``seed``."""
    return int(np.random.SeedSequence([seed, 2, order]).generate_state(1)[0] % 2**31)


def prepare(
    config: StabilityConfig, lab: Laboratory, cells: Iterable[StabilityConfig]
) -> dict[str, Any]:
    """Compute what cells share: their dense network, its states, and the first masks they need.

    Returns what :func:`lottery.experiment.dense_result` does.
    """
    cells = list(cells)
    found = experiment.prepare(config, lab, [c for c in cells if c.mask.percentile > 0])
    dense = experiment.train_dense(config, lab)
    for cell in cells:
        dense_state(cell, lab, dense, cell.rewind.point)
    return found


def check(config: StabilityConfig) -> None:
    """Whether children can be trained as the options say. Imports no TensorFlow.

    Raises :class:`LotteryError` for the first thing that is wrong.
    """
    rewind, mask = config.rewind, config.mask
    if rewind.name != "weights" or rewind.optimizer != "restore":
        odd = (
            f"rewind={rewind.name}"
            if rewind.name != "weights"
            else f"rewind.optimizer={rewind.optimizer}"
        )
        raise ConfigError(
            f"{odd} changes the state that children go on from, which is the dense network's own: "
            "leave it out"
        )
    if mask.during is not None:
        raise ConfigError(
            f"mask.during={mask.during.name} changes the mask as a network trains, and children "
            "keep theirs: give the ticket that it led to, ticket=<its run folder>"
        )
    if config.ticket is not None and mask.percentile > 0:
        raise ConfigError(
            f"the mask is that of ticket={config.ticket}, so mask.percentile={mask.percentile:g} "
            "has no meaning: leave one of them out"
        )
    if config.ticket is None and mask.percentile == 0 and mask.shuffle:
        raise ConfigError(
            "mask.shuffle=true shuffles a mask, and there is none: add mask.percentile or ticket"
        )
    if config.ticket is not None:
        _check_ticket(config, asked_for(config.ticket, config.paths.outputs))
    check_reached(config, chain)


def _check_ticket(config: StabilityConfig, ticket: Ticket) -> None:
    """Raise :class:`TicketError` unless it is of the config's network, as far as names tell."""
    ticket.check_known(choices.model, choices.pattern)
    found, network = describe(config.data), ticket.network
    facts: dict[str, tuple[Any, Any]] = {
        "model.name": (network.name, config.model.name),
        "images of": (_size(network.input_shape), _size(found.input_shape)),
        "classes": (len(ticket.classes), len(found.classes)),
    }
    if network.name == config.model.name:
        theirs, ours = identity(network.choice), identity(config.model)
        facts |= {
            f"model.{name}": (theirs.get(name), ours.get(name))
            for name in sorted({*theirs, *ours})
        }  # fmt: skip
    for name, (theirs, ours) in facts.items():
        if theirs != ours:
            raise TicketError(
                f"the ticket {config.ticket} is of another network: it has {name} "
                f"{_shown(theirs)}, and the dense network here {_shown(ours)}"
            )


def _size(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _shown(value: Any) -> str:
    return "its default" if value is None else str(value)


def _point(config: StabilityConfig) -> Point:
    """The rewind point, written in one way only."""
    spe = epoch_steps(config)
    return Point.at(config.rewind.point.step(spe), spe)


# -- masks -----------------------------------------------------------------------------------------


def _mask(config: StabilityConfig, lab: Laboratory, dense: Run) -> Node | None:
    """The mask of the children; None if they are dense."""
    if config.ticket is not None:
        return _take_mask(config, lab, dense, asked_for(config.ticket, config.paths.outputs))
    if config.mask.percentile == 0:
        return None
    *before, last = lineage.lineage(config, lab.store).rounds
    sources, ranked = experiment.sources(config, lab, dense), dense
    for step in before:
        mask = make_mask(config, lab.store, dense, ranked, step, sources)
        ranked = experiment.retrain(config, lab, dense, ranked, step, mask)
    return make_mask(config, lab.store, dense, ranked, last, sources)


def _taken(ticket: Ticket) -> dict[str, Any]:
    """What determines the mask that a ticket brings, and how that would be shuffled."""
    pattern = ticket.pattern
    about = {"taken": masks.digest(ticket.mask), "pattern": identity(pattern)}
    return {**about, **code_of(pattern=pattern)}


def _worn(config: StabilityConfig, store: Store, ticket: Ticket) -> Node:
    taken = store.node("mask", _taken(ticket))
    if not config.mask.shuffle:
        return taken
    return store.node("mask", shuffled_identity(config, taken.key))


def _take_mask(config: StabilityConfig, lab: Laboratory, dense: Run, ticket: Ticket) -> Node:
    """The mask of a ticket. Raises :class:`TicketError` if the dense network has other kernels."""
    shapes = {kernel.path: tuple(kernel.shape) for kernel in dense.kernels}
    for path, kept in ticket.mask.items():
        if shapes.get(path) != kept.shape:
            raise TicketError(
                f"the ticket {config.ticket} is of another network: its mask has {path} of shape "
                f"{_size(kept.shape)}, and the dense network here "
                f"{_size(shapes[path]) if path in shapes else 'no such kernel'}"
            )
    mask = taken_mask(lab.store, _taken(ticket), ticket.mask, ticket.pattern, dense)
    if not config.mask.shuffle:
        return mask
    own = replace(config, mask=replace(config.mask, pattern=ticket.pattern))
    return shuffled(own, lab.store, mask, dense.whole, experiment.sources(own, lab, dense).ties)


def _summary(mask: Node) -> dict[str, Any]:
    about: dict[str, Any] = files.read_json(mask.path / "result.json")
    return about


# -- children and line -----------------------------------------------------------------------------


def _train_child(
    config: StabilityConfig, lab: Laboratory, dense: Run, mask: Node | None, order: int
) -> Run:
    point = _point(config)

    def attempt() -> Attempt:
        state, replayed = dense_state_and_replay(config, lab, dense, point)
        initial = point == Point()
        pristine = initial and not config.model.weights
        start = Start(point, state, pristine=pristine, initial=initial)
        sparse = None
        if mask is not None:
            sparse = Sparse(masks.read(mask.path / MASK), _summary(mask))
        return Attempt(
            start,
            from_start(own, start),
            sparse,
            origin={"dense": dense.key, "point": str(point), "order": order, **_runs(config)},
            noted={"replayed": replayed} if replayed else {},
            compared=dense.result,
            tags=(f"rewind={point.label}", f"order={order}"),
        )

    # The state is there, so this seed decides the order of the data and its augmentation alone.
    own = replace(config, seed=order_seed(config.seed, order))
    about = child_identity(config, dense.key, None if mask is None else mask.key, order)
    return trained(own, lab, "child", about, attempt)


def _runs(config: StabilityConfig) -> dict[str, Any]:
    """Where the mask comes from, if a ticket brings it."""
    if config.ticket is None:
        return {}
    return {"ticket": {"runs": asked_for(config.ticket, config.paths.outputs).provenance["runs"]}}


def _measure(
    config: StabilityConfig, lab: Laboratory, dense: Run, mask: Node | None, children: Sequence[Run]
) -> Line:
    first, second = children
    about = line_identity(config, [child.key for child in children])

    def produce(work: Path) -> None:
        training_module(config)
        from lottery.training import line

        provenance.record(work)
        point = _point(config)
        errors = line.measure(
            from_start(config, Start(point)),
            load_data(config.data),
            work,
            (first.weights(), second.weights()),
            points=config.stability.points,
            batches=config.stability.batches,
        )
        found = Line(
            dense=dense.key,
            point=str(point),
            steps_per_epoch=dense.steps_per_epoch,
            mask=None if mask is None else mask.key,
            children=[child.key for child in children],
            shares=np.linspace(0, 1, config.stability.points).tolist(),
            batches=about.get("batches"),
            errors=errors,
            at_chance=any(at_chance(child.result) for child in children),
        )
        files.write_json(work / FILE, found.written())

    return Line.read_file(lab.store.compute("line", about, produce).path / FILE)
