"""The story: dense -> mask -> rewind -> retrain -> verdict. Each step is computed once, ever.

TensorFlow is imported only where something has to be trained.
"""

import dataclasses
import functools
import json
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from lottery import choices, files, provenance, rewinding
from lottery.analysis.verdict import doubt, matches
from lottery.config import Config, Data, Training
from lottery.data import EncodedSplit, Splits, describe, load
from lottery.errors import CheckpointError, ConfigError
from lottery.interrupts import StopSignals
from lottery.lineage import (
    Round,
    epoch_steps,
    lineage,
    sparse_identity,
    ticket_identity,
    training_identity,
)
from lottery.masking import Sources, make_mask, prunable
from lottery.points import START, Point
from lottery.pruning import masks
from lottery.pruning.dynamics import Course
from lottery.pruning.evidence import Passes
from lottery.pruning.units import Ties
from lottery.quiet import import_tensorflow
from lottery.rewinding import Origin, Start
from lottery.runs import Run
from lottery.store import Node, Store
from lottery.studies.prune import Pruned
from lottery.studies.train import Trained
from lottery.tracking import Tracker
from lottery.training import cluster
from lottery.training.checkpoints import CheckpointFolder, State, same_network
from lottery.training.recipe import Recipe, from_scratch, prepared
from lottery.training.setting import Setting, inexact

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Laboratory:
    """What every step of a study needs besides its config: where results and metrics go."""

    store: Store
    tracker: Tracker


def find_ticket(config: Config, lab: Laboratory) -> dict[str, Any]:
    """Train the dense network, prune, rewind, retrain, and judge the ticket on validation data.

    An iterative mask repeats the middle three, each round ranking the weights of the last.
    """
    dense = ranked = train_dense(config, lab)
    _warn_of_left_out(dense.whole.left_out)
    for step in lineage(config, lab.store).rounds:
        if step.mask is None:
            ranked = train_sparse(config, lab, dense)
            continue
        mask = make_mask(config, lab.store, dense, ranked, step, _sources(config, lab, dense))
        ranked = retrain(config, lab, dense, ranked, step, mask)
    return report(config, lab, dense, ranked)


def train_dense(config: Config, lab: Laboratory) -> Run:
    """The trained dense network, with its state kept where it is rewound to and at the end."""

    def attempt() -> Attempt:
        start, spe = Start(seed=config.seed), epoch_steps(config)
        points = {START, config.rewind.point, *config.rewind.kept}
        steps = sorted({point.step(spe) for point in points})
        kept = tuple(step for step in steps if step <= config.trainer.epochs * spe)
        return Attempt(start, replace(from_start(config, start), keep_steps=kept))

    return trained(config, lab, "dense", training_identity(config), attempt)


def prepare(config: Config, lab: Laboratory, cells: Iterable[Config]) -> dict[str, Any]:
    """Compute what the cells of a sweep share, so that none has to wait for another.

    That is their dense network, its states at their rewind epochs and their first masks. Returns
    what :func:`dense_result` does.
    """
    dense = train_dense(config, lab)
    for cell in cells:
        first = lineage(cell, lab.store).rounds[0]
        _dense_state(cell, lab, dense, first.first)
        if first.mask is None:
            continue
        make_mask(cell, lab.store, dense, dense, first, _sources(cell, lab, dense))
    return dense_result(config, lab)


def _sources(config: Config, lab: Laboratory, dense: Run) -> Sources:
    """What masks may be made from besides trained weights."""

    def initial() -> Mapping[str, np.ndarray[Any, Any]]:
        return _weights(_dense_state(config, lab, dense, START))

    def passes(work: Path) -> Passes:
        training_module(config)
        from lottery.training.passes import NetworkPasses

        return NetworkPasses(config, load_data, work)

    def tied() -> Ties:
        run = training_module(config)
        from lottery.export.ties import ties

        return ties(run.network(config, describe(config.data)))

    return Sources(initial, passes, tied)


def retrain(
    config: Config, lab: Laboratory, dense: Run, ranked: Run, step: Round, mask: Node
) -> Run:
    """The sparse network, rewound and trained to the end of the schedule."""

    def attempt() -> Attempt:
        start, noted = _rewound(config, lab, dense, ranked, step)
        sparse = Sparse(
            masks.read(mask.path / "mask.safetensors"), files.read_json(mask.path / "result.json")
        )
        return Attempt(
            start,
            from_start(config, start),
            sparse,
            noted=noted,
            compared=dense.result,
            tags=(f"percentile={step.percentile:g}", f"rewind={step.first}", step.rewinding.name),
            verdict=_against(config, dense),
        )

    about = ticket_identity(config, dense.key, mask.key, step.rewinding)
    return trained(config, lab, "ticket", about, attempt)


def _rewound(
    config: Config, lab: Laboratory, dense: Run, ranked: Run, step: Round
) -> tuple[Start, dict[str, Any]]:
    """Where a round's survivors start again, and what the result has to say of it."""
    noted: dict[str, Any] = {}

    def state_of_dense(at: Point | int) -> State:
        state, replayed = _dense_state_and_replay(config, lab, dense, Point.of(at))
        noted.update({"replayed": replayed} if replayed else {})
        return state

    origin = Origin(
        dense=state_of_dense,
        final=ranked.state,
        point=config.rewind.point,
        seed=config.seed,
    )
    begin: Start = step.rewinding.rewind(origin)
    state = begin.state
    fresh = state is None and begin.weights is None  # else weights say it themselves
    same = state is not None and same_network(state, origin.dense(START))
    pristine = fresh or (same and begin.weights is None)
    if state is not None and config.rewind.optimizer == "reset":
        state = rewinding.without_slots(state)
    return replace(begin, state=state, pristine=pristine), noted


def report(config: Config, lab: Laboratory, dense: Run, ticket: Run) -> dict[str, Any]:
    """Dense against ticket, as ``result.json`` has it. Only validation decides ``matched``."""
    return Pruned(
        dense={"key": dense.key, **dense.result},
        ticket={"key": ticket.key, **ticket.result},
        mask=files.read_json(ticket.path / "mask.json"),
        rewind=_rewinding(config),
        matched=matches(dense.result, ticket.result, config.verdict.tolerance),
        doubt=doubt(dense.result, config.verdict.tolerance),
        tolerance=config.verdict.tolerance,
        store=str(lab.store.root.resolve()),
    ).written()


def _rewinding(config: Config) -> dict[str, Any]:
    rewind = config.rewind
    if config.mask.during is not None:  # it starts afresh
        return {"name": None, "epoch": 0, "step": None, "optimizer": None}
    names = ("name", "epoch", "step", "optimizer")
    return {name: getattr(rewind, name) for name in names}


def dense_result(config: Config, lab: Laboratory) -> dict[str, Any]:
    """Train a dense network only; what train.py reports."""
    dense = train_dense(config, lab)
    found = {"key": dense.key, **dense.result}
    return Trained(dense=found, store=str(lab.store.root.resolve())).written()


def profile(config: Config, folder: Path) -> dict[str, Any]:
    """Where the time of training the dense network goes; trains nothing and stores nothing.

    Leaves a trace for TensorBoard in ``folder``. Returns what
    :func:`lottery.training.profile.measure` does. Raises :class:`ConfigError` in a job of several
    processes.
    """
    if cluster.task() is not None:
        raise ConfigError("profile=true measures one process: leave out hydra.launcher.nodes")
    training_module(config)
    from lottery.training.profile import measure

    return measure(config, load_data(config.data), folder / "tensorboard")


@dataclass(frozen=True)
class Sparse:
    """A mask, and what there is to say about it (:func:`lottery.pruning.masks.summary`)."""

    mask: masks.Mask
    summary: Mapping[str, Any]


@dataclass(frozen=True)
class Attempt:
    """One attempt at a training, and what there is to say of it."""

    start: Start
    recipe: Recipe
    sparse: Sparse | None = None
    origin: Mapping[str, Any] | None = None
    """Kept beside the run as ``origin.json``."""
    noted: Mapping[str, Any] = field(default_factory=dict)
    """Added to the result."""
    compared: Mapping[str, Any] = field(default_factory=dict)
    """The result of the run that it will be compared with."""
    tags: tuple[str, ...] = ()
    verdict: Callable[[dict[str, Any]], dict[str, Any]] = lambda result: {}
    """What to track of a result besides."""


def train_sparse(config: Config, lab: Laboratory, dense: Run) -> Run:
    """A network that is trained from fresh weights with a mask that changes as it goes.

    The dense network is its rival alone. Raises :class:`ConfigError` if the training is too short
    for the changes, or the percentile cannot be reached.
    """
    options = config.mask

    def attempt() -> Attempt:
        start = Start(seed=config.seed)
        recipe = from_start(config, start)
        first, last = recipe.first_step, recipe.last_step
        course = Course(options.during, options.percentile, options.scope, config.seed, first, last)
        weights = _weights(_dense_state(config, lab, dense, START))
        mask = course.start({path: weights[path] for path in prunable(config, dense)})
        about = {"percentile": options.percentile, "pattern": dataclasses.asdict(options.pattern)}
        return Attempt(
            start,
            replace(recipe, course=course),
            Sparse(mask, {**about, **masks.summary(mask, dense.whole)}),
            compared=dense.result,
            tags=(f"percentile={options.percentile:g}", options.during.name),
            verdict=_against(config, dense),
        )

    return trained(config, lab, "ticket", sparse_identity(config, dense.key), attempt)


def _against(config: Config, dense: Run) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """What to track of a ticket's result beside that of its dense network."""
    return lambda ticket: {
        "dense_val_top1": dense.result["val_top1"],
        "matched": matches(dense.result, ticket, config.verdict.tolerance),
    }


def from_start(config: Training, start: Start) -> Recipe:
    """A training from there to the end of the schedule, which keeps where it starts."""
    spe = epoch_steps(config)
    first_step = start.point.step(spe)
    return replace(
        from_scratch(config, spe),
        seed=start.seed,
        first_step=first_step,
        keep_steps=(first_step,),
        last_rate=start.last_rate,
    )


def trained(
    config: Training,
    lab: Laboratory,
    kind: str,
    about: Mapping[str, Any],
    attempt: Callable[[], Attempt],
) -> Run:
    """A finished training from the store; ``attempt`` is called only if one is needed.

    Beside the run are kept its config, and where it starts as ``start.json``. Raises what
    :func:`lottery.training.run.train` raises.
    """
    node = lab.store.node(kind, about)

    def produce(work: Path) -> None:
        run = training_module(config)
        provenance.record(work)
        files.write_json(work / "config.json", dataclasses.asdict(config))
        this = attempt()
        start, sparse = this.start, this.sparse
        if sparse is not None:
            files.write_json(work / "mask.json", dict(sparse.summary))
        if this.origin is not None:
            files.write_json(work / "origin.json", dict(this.origin))
        files.write_json(
            work / "start.json", {"point": str(start.point), "pristine": start.pristine}
        )
        mask = sparse.mask if sparse is not None else None
        recipe = prepared(work, this.recipe, state=start.state, weights=start.weights, mask=mask)
        with StopSignals() as signals, lab.tracker.run(node.key, kind, this.tags) as track:
            chief = run.Chief(signals, work, track.callbacks, this.noted, this.compared)
            run.train(recipe, load_data(config.data), chief)
            finished = Run(work)
            track.summarise(finished.summary | this.verdict(finished.result))

    return Run(lab.store.compute(kind, about, produce).path)


def _dense_state(config: Config, lab: Laboratory, dense: Run, point: Point) -> State:
    """The dense run's state at a point; replayed if it was not kept."""
    return _dense_state_and_replay(config, lab, dense, point)[0]


def _dense_state_and_replay(
    config: Config, lab: Laboratory, dense: Run, point: Point
) -> tuple[State, str | None]:
    """And, if it was replayed, ``exactly`` or why that is not the state that the run had."""
    try:
        return dense.state(point), None
    except CheckpointError as error:
        log.warning("%s; replaying the dense run up to %s", error, point.words)
    spe = dense.steps_per_epoch
    last_step = point.step(spe)

    def produce(work: Path) -> None:
        run = training_module(config)
        start = Start(seed=config.seed)
        before = (k for k in dense.points if k.step(spe) <= last_step)
        for kept in sorted(before, key=lambda k: k.step(spe), reverse=True):
            try:
                start = Start(kept, dense.state(kept), seed=config.seed)
                break
            except CheckpointError as error:
                log.warning("%s; going further back", error)
        here = run.devices.setting(
            run.devices.strategy(config.trainer.strategy), jit_compile=config.trainer.jit_compile
        )
        replays = start.point.step(spe) < last_step
        reason = inexact(here, Setting.of(dense.result)) if replays else None
        if reason:
            log.warning(
                "the state at %s that is trained now is not exactly the one that the dense run "
                "had: %s. For one that is, train the dense network again in a new paths.store, "
                "with rewind.keep=[%s] or trainer.deterministic=true",
                point.words, reason, point.label,
            )  # fmt: skip
        note = work / "replay.json"
        if reason or not note.exists():  # or an earlier attempt had a reason
            files.write_json(note, {"replayed": reason or "exactly"})
        recipe = replace(
            from_start(config, start), last_step=last_step, keep_steps=(), measure=False
        )
        recipe = prepared(work, recipe, state=start.state)
        with StopSignals() as signals:
            run.train(recipe, load_data(config.data), run.Chief(signals, work))

    node = lab.store.compute("state", {"dense": dense.key, "step": last_step}, produce)
    checkpoints = CheckpointFolder(node.path / "checkpoints")
    replayed = files.read_json(node.path / "replay.json")["replayed"]
    return checkpoints.load(checkpoints.steps()[-1])[0], replayed


def lead() -> None:
    """Meet the other processes of this job, if there are any and this is the first of them."""
    if cluster.task() is not None:
        _imported().workers.lead()


def follow() -> bool:
    """Take part in the trainings of the first process of this job until it ends.

    False, at once, in that process itself and in one that is alone.
    """
    task = cluster.task()
    if task is None or task.rank == 0:
        return False
    run = _imported()
    from lottery.training import passes

    joins = {run.PLAN: run.join, passes.PLAN: passes.join}
    run.workers.follow({k: functools.partial(join, load=load_data) for k, join in joins.items()})
    return True


def training_module(config: Training) -> Any:
    """The module that trains, and devices that can train this; imports TensorFlow."""
    run = _imported()
    run.devices.prepare(config)
    return run


def _imported() -> Any:
    import_tensorflow()
    from lottery.training import run

    return run


@functools.cache  # once in a process: cells and rounds of one network would say the same
def _warn_of_left_out(paths: tuple[str, ...]) -> None:
    if paths:
        log.warning(
            "never pruned, because no pruning knows their kind of layer: %s", ", ".join(paths)
        )


def _weights(state: State) -> dict[str, np.ndarray[Any, Any]]:
    prefix = "model/"
    return {n.removeprefix(prefix): a for n, a in state.items() if n.startswith(prefix)}


def load_data(data: Data) -> Splits:
    """The data set; the last one is remembered, since the jobs of a local sweep share it."""
    return _load_cached(json.dumps(dataclasses.asdict(data)))


@functools.lru_cache(maxsize=1)
def _load_cached(serialised: str) -> Splits:
    data: Data = choices.source.of(json.loads(serialised))
    splits = load(data)
    if isinstance(splits.train, EncodedSplit) and data.source != "records":
        log.info(
            "the images are decoded anew in every epoch; preprocess.py does it once, and "
            "data=records then reads them faster"
        )
    return splits
