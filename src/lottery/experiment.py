"""The story: dense -> mask -> rewind -> retrain -> verdict. Each step is computed once, ever.

TensorFlow is imported only where something has to be trained.
"""

import dataclasses
import functools
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lottery import files, pretrained, rewinding
from lottery.config import Config, Mask
from lottery.data import describe
from lottery.errors import ClusterError, ConfigError, StoreError
from lottery.lineage import (
    Round,
    epoch_steps,
    lineage,
    scored,
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
from lottery.replay import dense_or_untrained, dense_state, dense_state_and_replay, weights_of
from lottery.rewinding import Origin, Start
from lottery.runs import Run, with_answers
from lottery.store import Node
from lottery.studies.prune import Pruned
from lottery.studies.train import Trained
from lottery.training import cluster
from lottery.training.checkpoints import State, same_network
from lottery.training.setting import Setting, mixture
from lottery.trainings import (
    Attempt,
    Laboratory,
    Sparse,
    from_start,
    load_data,
    trained,
    training_module,
)
from lottery.verdict.comparison import compare
from lottery.verdict.single import doubt, matches

log = logging.getLogger(__name__)


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
        mask = make_mask(config, lab.store, dense, ranked, step, sources(config, lab, dense))
        ranked = retrain(config, lab, dense, ranked, step, mask)
    return report(config, lab, dense, ranked)


def train_dense(config: Config, lab: Laboratory) -> Run:
    """The trained dense network, with its state kept where it is rewound to and at the end."""

    def attempt() -> Attempt:
        (start, about), spe = pretrained.begin(config), epoch_steps(config)
        points = {START, config.rewind.point, *config.rewind.kept, *scored(config)}
        recipe = from_start(config, start)
        steps = sorted({*recipe.keep_steps, *(point.step(spe) for point in points)})
        kept = tuple(step for step in steps if step <= recipe.last_step)
        noted = {"weights": about["noted"]} if about else {}
        recipe = replace(recipe, keep_steps=kept)
        return Attempt(start, recipe, origin=about or None, noted=noted)

    return trained(config, lab, "dense", training_identity(config), attempt)


def train_early(config: Config, lab: Laboratory) -> Run:
    """The ticket of a config whose dense network need not be trained: :attr:`Lineage.early`."""
    chain = lineage(config, lab.store)
    assert chain.early
    assert chain.dense is not None
    dense = dense_or_untrained(config, lab, chain.dense)
    (only,) = chain.rounds
    if only.mask is None:
        return train_sparse(config, lab, dense)
    mask = make_mask(config, lab.store, dense, dense, only, sources(config, lab, dense))
    return retrain(config, lab, dense, dense, only, mask)


def prepare(config: Config, lab: Laboratory, cells: Iterable[Config]) -> dict[str, Any]:
    """Compute what the cells of a sweep share, so that none has to wait for another.

    That is their dense network, its states at their rewind epochs and their first masks. A mask
    that cannot be made, or a state that there is not, is left to the jobs of its cells, which fail
    by it. Returns what
    :func:`dense_result` does.
    """
    dense = train_dense(config, lab)
    for cell in cells:
        first = lineage(cell, lab.store).rounds[0]
        try:
            if first.rewinding.takes_point:
                dense_state(cell, lab, dense, first.first)
        except ConfigError as error:  # its dense network was stopped before, so this cell fails
            log.warning("%s", error)
            continue
        if first.mask is None:
            continue
        try:
            make_mask(cell, lab.store, dense, dense, first, sources(cell, lab, dense))
        except (StoreError, ClusterError):  # which no cell is to blame for
            raise
        except Exception as error:  # also of a plug-in; the other cells can do without this one
            mask = cell.mask
            log.warning(
                "the mask with mask.percentile=%g, mask.score=%s, mask.scope=%s, mask.pattern=%s "
                "cannot be made, so the jobs that need it will fail: %s",
                mask.percentile, mask.score.name, mask.scope.name, mask.pattern.name, error,
            )  # fmt: skip
    return dense_result(config, lab)


def sources(config: Config, lab: Laboratory, dense: Run) -> Sources:
    """What masks may be made from besides trained weights."""

    def weights(point: Point) -> tuple[Mapping[str, np.ndarray[Any, Any]], str | None]:
        state, replayed = dense_state_and_replay(config, lab, dense, point)
        return weights_of(state), replayed

    def passes(work: Path) -> Passes:
        training_module(config)
        from lottery.training.passes import NetworkPasses

        return NetworkPasses(config, load_data, work)

    def tied() -> Ties:
        run = training_module(config)
        from lottery.compaction.ties import ties

        return ties(run.network(config, describe(config.data)))

    def share(mask: masks.Mask) -> float:
        run = training_module(config)
        from lottery.training.severance import share_of_channels

        return share_of_channels(run.network(config, describe(config.data)), mask)

    return Sources(weights, passes, tied, share)


def retrain(
    config: Config, lab: Laboratory, dense: Run, ranked: Run, step: Round, mask: Node
) -> Run:
    """The sparse network, rewound and trained to the end of the schedule."""

    def attempt() -> Attempt:
        start, noted = _rewound(config, lab, dense, ranked, step)
        about = files.read_json(mask.path / "result.json")
        if about.get("replayed", "exactly") != "exactly":
            noted["replayed"] = about["replayed"]
        sparse = Sparse(masks.read(mask.path / "mask.safetensors"), about)
        return Attempt(
            start,
            from_start(config, start),
            sparse,
            noted=noted,
            compared=dense.result,
            tags=(
                f"percentile={step.percentile:g}",
                f"rewind={step.first.label}",
                step.rewinding.name,
                *_told_apart(config.mask),
            ),
            verdict=_against(config, dense),
        )

    about = ticket_identity(config, dense.key, mask.key, step.rewinding)
    return trained(config, lab, "ticket", about, attempt)


def _told_apart(mask: Mask) -> tuple[str, ...]:
    """What a mask is made by, where that is not the usual."""
    usual = {"score": "magnitude", "scope": "global", "pattern": "weight"}
    parts = {name: getattr(mask, name).name for name in usual} if mask.percentile else {}
    unusual = [f"{name}={chosen}" for name, chosen in parts.items() if chosen != usual[name]]
    return (*unusual, *(["shuffled"] if mask.shuffle else []))


def _rewound(
    config: Config, lab: Laboratory, dense: Run, ranked: Run, step: Round
) -> tuple[Start, dict[str, Any]]:
    """Where a round's survivors start again, and what the result has to say of it."""
    noted: dict[str, Any] = {}

    def state_of_dense(at: Point | int) -> State:
        state, replayed = dense_state_and_replay(config, lab, dense, Point.of(at))
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
    initial = step.rewinding.afresh or (
        begin.weights is None and (state is None or same_network(state, origin.dense(START)))
    )
    # Of given weights signs or magnitudes may be left in what starts afresh.
    pristine = initial and (state is None or not config.model.weights)
    if state is not None and config.rewind.optimizer == "reset":
        state = rewinding.without_slots(state)
    return replace(begin, state=state, pristine=pristine, initial=initial), noted


def report(config: Config, lab: Laboratory, dense: Run, ticket: Run) -> dict[str, Any]:
    """Dense against ticket, as ``result.json`` has it. Only validation decides ``matched``."""
    settings = [s for s in map(Setting.of, (dense.result, ticket.result)) if s is not None]
    tolerance, level = config.verdict.tolerance, config.verdict.level
    answers = [with_answers(run.result, run.path) for run in (dense, ticket)]
    found = compare([(answers[0], answers[1])], tolerance, level)
    # One that was trained before its dense network could not say so itself.
    mixed = {"mixed": text} if (text := mixture(settings)) else {}
    return Pruned(
        dense={"key": dense.key, **dense.result},
        ticket={"key": ticket.key, **mixed, **ticket.result},
        mask=files.read_json(ticket.path / "mask.json"),
        rewind=_rewinding(config),
        matched=matches(dense.result, ticket.result, tolerance),
        doubt=doubt(dense.result, tolerance),
        tolerance=tolerance,
        level=level,
        interval=list(found.interval),
        shown=None if level is None else found.passes,
        store=str(lab.store.root.resolve()),
    ).written()


def _rewinding(config: Config) -> dict[str, Any]:
    rewind, changing = config.rewind, config.mask.during is not None
    name = None if changing else rewind.name
    if changing or rewind.afresh:  # then it starts at the beginning, whatever the options say
        return {"name": name, "epoch": 0, "step": None, "optimizer": None}
    epoch = rewind.epoch if rewind.step is None else None
    return {"name": name, "epoch": epoch, "step": rewind.step, "optimizer": rewind.optimizer}


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


def train_sparse(config: Config, lab: Laboratory, dense: Run) -> Run:
    """A network that is trained from fresh weights with a mask that changes as it goes.

    The dense network is its rival alone. Raises :class:`ConfigError` if the training is too short
    for the changes, or the percentile cannot be reached.
    """
    options = config.mask

    def attempt() -> Attempt:
        start, _ = pretrained.begin(config)
        recipe = from_start(config, start)
        first, last = recipe.first_step, recipe.last_step
        course = Course(options.during, options.percentile, options.scope, config.seed, first, last)
        weights = weights_of(dense_state(config, lab, dense, START))
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
    """What to track of a ticket's result beside that of its dense network, if it has one yet."""
    if not dense.result:
        return lambda ticket: {}
    return lambda ticket: {
        "dense_val_top1": dense.result["val_top1"],
        "matched": matches(dense.result, ticket, config.verdict.tolerance),
    }


@functools.cache  # once in a process: cells and rounds of one network would say the same
def _warn_of_left_out(paths: tuple[str, ...]) -> None:
    if paths:
        log.warning(
            "never pruned, because no pruning knows their kind of layer: %s", ", ".join(paths)
        )
