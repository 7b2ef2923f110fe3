"""What every training of a study goes through: from the store if it is done, else trained.

TensorFlow is imported only where something has to be trained.
"""

import dataclasses
import functools
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lottery import choices, files, provenance
from lottery.config import Data, Training
from lottery.data import EncodedSplit, Splits, describe, load
from lottery.going_on import go_on, rows_until
from lottery.interrupts import StopSignals
from lottery.lineage import (
    epoch_steps,
)
from lottery.pruning import masks
from lottery.pruning.units import prunes_channels
from lottery.quiet import import_tensorflow
from lottery.rewinding import Start
from lottery.runs import Run
from lottery.store import Store
from lottery.tracking import Tracker
from lottery.training import cluster
from lottery.training.recipe import Recipe, first_state, from_scratch, prepared

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Laboratory:
    """What every step of a study needs besides its config: where results and metrics go."""

    store: Store
    tracker: Tracker


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


def from_start(config: Training, start: Start) -> Recipe:
    """A training from there to the end of the schedule, which keeps where it starts."""
    spe = epoch_steps(config)
    first_step, steps = start.point.step(spe), config.trainer.epochs * spe
    kept = config.schedule.in_steps(spe).keeps(steps)
    return replace(
        from_scratch(config, spe),
        seed=start.seed,
        first_step=first_step,
        keep_steps=(first_step, *(step for step in kept if step > first_step)),
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
            work / "start.json",
            {"point": str(start.point), "pristine": start.pristine, "initial": start.initial},
        )
        mask, recipe = None, this.recipe
        if sparse is not None:
            mask, pattern = sparse.mask, choices.pattern.of(sparse.summary["pattern"])
            recipe = replace(recipe, whole_channels=prunes_channels(pattern))
        state = None if start.state is None else first_state(recipe, start.state, mask)
        track_run = lab.tracker.run(node.key, kind, this.tags, name_of(config, kind, this.tags))
        with StopSignals() as signals, track_run as track:
            went_on = go_on(work, lab.store, node, config, recipe, state)
            recipe = prepared(
                work, recipe, state=start.state, weights=start.weights, mask=mask,
                announce=went_on is None,
            )  # fmt: skip
            for row in rows_until(work, went_on):
                track.log(row)
            chief = run.Chief(signals, work, track.callbacks, this.noted, this.compared)
            run.train(recipe, load_data(config.data), chief)
            finished = Run(work)
            track.summarise(finished.summary | this.verdict(finished.result))

    return Run(lab.store.compute(kind, about, produce).path)


def name_of(config: Training, kind: str, tags: tuple[str, ...]) -> str:
    """What a person calls a training: ``ticket resnet20 cifar10 percentile=88 rewind=5 seed=0``."""
    data = describe(config.data).name
    if config.data.classes is not None:
        data += f" classes={','.join(map(str, config.data.classes))}"
    return " ".join((kind, config.model.name, data, *tags, f"seed={config.seed}"))


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
    from lottery.training import line, passes

    joins = {kind.PLAN: kind.join for kind in (run, passes, line)}
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


def load_data(data: Data) -> Splits:
    """The data set; the last one is remembered, since the jobs of a local sweep share it."""
    found = describe(data)  # files may have changed since
    content = json.dumps([found.fingerprint, found.classes])
    return _load_cached(json.dumps(dataclasses.asdict(data)), content)


@functools.lru_cache(maxsize=1)
def _load_cached(serialised: str, content: str) -> Splits:
    data: Data = choices.source.of(json.loads(serialised))
    splits = load(data)
    if isinstance(splits.train, EncodedSplit) and data.source != "records":
        log.info(
            "the images are decoded anew in every epoch; preprocess.py does it once, and "
            "data=records then reads them faster"
        )
    return splits
