"""Begin a training with the states of a finished one: as if it had been interrupted there.

Whether that may be is asked of keys first (:mod:`lottery.beginnings`), then of contents: the state
that both begin with, bit for bit, and the learning rate of every step. Imports no TensorFlow
unless there is something to go on from.
"""

import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lottery import files
from lottery.beginnings import Beginning, Beginnings, Wanted, refused_words
from lottery.config import Training
from lottery.errors import CheckpointError
from lottery.lineage import epoch_steps, training_identity
from lottery.points import Point
from lottery.runs import Run
from lottery.store import Node, Store, key_of
from lottery.training.checkpoints import STATE, CheckpointFolder, Progress, State, equal
from lottery.training.recipe import BEGINNING, Recipe

log = logging.getLogger(__name__)

TOLD = ("metrics.csv", "validation.csv", "trained_on.json")
"""What a training adds to as it goes."""


def go_on(
    work: Path, store: Store, node: Node, config: Training, recipe: Recipe, state: State | None
) -> Point | None:
    """Fill the work folder of ``node`` with what a finished training has of it, if one has.

    Returns how far that is.

    ``state`` is what the training would begin with; None: fresh weights, by its seed. Nothing is
    done where an earlier attempt has left a state. Logs what it goes on from, or why it cannot.
    """
    if recipe.checkpoints(work).steps():
        return None
    _clear(work)  # of an attempt that was killed between these files and its states
    spe = epoch_steps(config)
    wanted = Wanted(
        node, spe, recipe.first_step, frozenset(recipe.keep_steps), _parents(node, config)
    )
    found = Beginnings(store).of(wanted)
    refusal = found.refusal
    for beginning in found.usable:
        try:
            reason = _difference(beginning, config, recipe, state, spe)
            if reason is None and (progress := _last_whole(beginning)) is not None:
                _lay_out(work, beginning, recipe, progress, spe)
                return Point.at(progress.step, spe)
        except (CheckpointError, OSError) as error:  # damaged, or removed just now
            log.warning("not going on from %s %s: %s", node.kind, beginning.node.key, error)
            _clear(work)
            continue
        shorter = beginning.epochs < config.trainer.epochs
        if reason is not None and shorter and beginning.schedule == config.schedule.in_steps(spe):
            refusal = refusal or refused_words(
                node.kind, beginning.node.key, beginning.epochs, config.trainer.epochs, reason
            )
    if refusal:
        log.info("%s", refusal)
    return None


def rows_until(work: Path, point: Point | None) -> list[dict[str, float]]:
    """What metrics.csv has of the complete epochs up to a point; None: of none."""
    rows = [] if point is None else Run(work).metrics
    return [row for row in rows if point is not None and row["epoch"] <= point.epochs]


def _clear(work: Path) -> None:
    for name in (BEGINNING, *TOLD):
        (work / name).unlink(missing_ok=True)


def _parents(node: Node, config: Training) -> Mapping[str, Any]:
    """The identity of the dense network, which may be trained after this one."""
    assert node.identity is not None
    dense = node.identity.get("dense")
    if dense is None:
        return {}
    about = training_identity(config)
    return {dense: about} if key_of("dense", about) == dense else {}


def _difference(
    beginning: Beginning, config: Training, recipe: Recipe, state: State | None, spe: int
) -> str | None:
    """In what the contents differ, if so. Raises :class:`CheckpointError` for a damaged one."""
    run = Run(beginning.node.path)
    if state is not None:
        first = Point.at(recipe.first_step, spe)
        if not equal(run.state(first), state):
            return "it began with another state"
    if recipe.last_rate:
        return "its learning rate is the last one of another schedule"
    from lottery.training import rates  # from here on the training itself needs TensorFlow

    until, peak = beginning.step, config.optimizer.learning_rate
    own, other = (
        rates.of_steps(s.in_steps(spe), peak, steps=epochs * spe, until=until)
        for s, epochs in (
            (config.schedule, config.trainer.epochs),
            (beginning.schedule, beginning.epochs),
        )
    )
    if own.tobytes() != other.tobytes():
        step = int(np.flatnonzero(own != other)[0]) + 1
        return f"its learning rate differs from step {step} on"
    return None


def _last_whole(beginning: Beginning) -> Progress | None:
    """How far the latest of its states has got that can be read; None: it has none."""
    checkpoints = CheckpointFolder(beginning.node.path / "checkpoints")
    for step in beginning.steps:
        try:
            return checkpoints.load(step)[1]
        except CheckpointError as error:
            log.warning("%s", error)
    return None


def _lay_out(
    work: Path, beginning: Beginning, recipe: Recipe, progress: Progress, spe: int
) -> None:
    """Leave what an attempt would have left that was interrupted there: states last, all at once.

    States are links to the same files where the file system has these: no checkpoint is ever
    written into, only replaced.
    """
    node, last = beginning.node, progress.step
    for name in TOLD:
        if (node.path / name).exists():
            shutil.copyfile(node.path / name, work / name)
    point = Point.at(last, spe)
    steps = last - recipe.first_step
    epochs = steps / spe
    about = {
        "kind": node.kind,
        "key": node.key,
        "point": str(point),
        "epochs": int(epochs) if epochs == int(epochs) else epochs,
        "seconds": progress.seconds,
        "images_trained": steps * recipe.config.trainer.batch_size,
        **({} if progress.joules is None else {"gpu_energy_joules": progress.joules}),
    }
    files.write_json(work / BEGINNING, about)
    theirs, ours = CheckpointFolder(node.path / "checkpoints"), recipe.checkpoints(work)
    new = work / ".checkpoints"
    shutil.rmtree(new, ignore_errors=True)
    for step in theirs.steps():
        if step == last or (step < last and step in ours.keep_steps):
            (new / ours.path(step).name).mkdir(parents=True)
            _link(theirs.path(step) / STATE, new / ours.path(step).name / STATE)
    shutil.rmtree(ours.root, ignore_errors=True)  # it holds no state
    new.rename(ours.root)
    files.sync(work)
    rest = ", and parts from it there" if beginning.parts and last == beginning.step else ""
    log.info(
        "goes on from %s of %s %s%s: %d of %d steps are left",
        point.words, node.kind, node.key, rest, recipe.last_step - last,
        recipe.last_step - recipe.first_step,
    )  # fmt: skip


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copyfile(source, target)
