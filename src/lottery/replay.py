"""States of a dense run at any point, trained again where they were not kept."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lottery import files, pretrained
from lottery.config import Config
from lottery.errors import CheckpointError, ConfigError
from lottery.interrupts import StopSignals
from lottery.points import START, Point
from lottery.rewinding import Start
from lottery.runs import Run
from lottery.store import Node
from lottery.training.checkpoints import CheckpointFolder, State
from lottery.training.recipe import prepared
from lottery.training.setting import Setting, inexact
from lottery.trainings import Laboratory, from_start, load_data, training_module

log = logging.getLogger(__name__)


def dense_state(config: Config, lab: Laboratory, dense: Run, point: Point) -> State:
    """The dense run's state at a point; replayed if it was not kept."""
    return dense_state_and_replay(config, lab, dense, point)[0]


def dense_state_and_replay(
    config: Config, lab: Laboratory, dense: Run, point: Point
) -> tuple[State, str | None]:
    """And, if it was replayed, ``exactly`` or why that is not the state that the run had."""
    refuse_beyond(dense, point)
    try:
        return _as_trained(dense, point), None
    except CheckpointError as error:
        log.warning("%s; replaying the dense run up to %s", error, point.words)
    spe = dense.steps_per_epoch
    last_step = point.step(spe)

    def produce(work: Path) -> None:
        run = training_module(config)
        start = None
        before = (k for k in dense.points if k.step(spe) <= last_step)
        for kept in sorted(before, key=lambda k: k.step(spe), reverse=True):
            try:
                start = Start(kept, _as_trained(dense, kept), seed=config.seed)
                break
            except CheckpointError as error:
                log.warning("%s; going further back", error)
        start = start or pretrained.begin(config)[0]
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
        recipe = prepared(work, recipe, state=start.state, weights=start.weights)
        with StopSignals() as signals:
            run.train(recipe, load_data(config.data), run.Chief(signals, work))

    node = lab.store.compute("state", {"dense": dense.key, "step": last_step}, produce)
    checkpoints = CheckpointFolder(node.path / "checkpoints")
    replayed = files.read_json(node.path / "replay.json")["replayed"]
    return checkpoints.load(checkpoints.steps()[-1])[0], replayed


def _as_trained(dense: Run, point: Point) -> State:
    """The state that was kept at a point. Raises :class:`CheckpointError` if none was.

    Or if its weights are not those that training had there: a callback may have set others when it
    ended, as early stopping goes back to the best ones.
    """
    result, spe = dense.result, dense.steps_per_epoch
    others = "restored_epoch" in result and result["restored_epoch"] != result["epochs"]
    if others and point.step(spe) == result["epochs"] * spe:
        raise CheckpointError(
            f"run {dense.key} ended at {point.words} with weights that a callback set there"
        )
    return dense.state(point)


def refuse_beyond(dense: Run, point: Point) -> None:
    """Raise :class:`ConfigError` for a point that the dense network was stopped before."""
    if (epochs := dense.result.get("stopped_epoch")) and point.step(
        dense.steps_per_epoch
    ) > epochs * dense.steps_per_epoch:
        raise ConfigError(
            f"{point.words} lies after epoch {epochs}, after which the dense network was stopped "
            "by one of its callbacks: take an earlier point"
        )


@dataclass(frozen=True)
class Untrained(Run):
    """A dense network before its first step, under the key that it will have.

    Its initial state, its kernels and how it will be trained are known; it has no result.
    """

    dense: Node

    @property
    def key(self) -> str:
        """The dense network's."""
        return self.dense.key

    @property
    def result(self) -> dict[str, Any]:
        """Nothing yet."""
        return {}

    def state(self, at: Point | int | str | None = None) -> State:
        """The initial state. Raises :class:`ConfigError` for any other."""
        if at is None or Point.of(at) != START:
            raise ConfigError(
                "a rewinding with takes_final=False may draw on the initial state of the dense "
                "network alone, which may not be trained yet"
            )
        return super().state(at)


def dense_or_untrained(config: Config, lab: Laboratory, dense: Node) -> Run:
    """The dense network, or, unless it is in the store, what is known of it before it is trained.

    Its initial state is the one that the training will begin with.
    """
    if dense.done:
        return Run(dense.path)

    def produce(work: Path) -> None:
        run = training_module(config)
        start, _ = pretrained.begin(config)
        recipe = replace(from_start(config, start), last_step=0, measure=False)
        recipe = prepared(work, recipe, weights=start.weights)
        with StopSignals() as signals:
            run.train(recipe, load_data(config.data), run.Chief(signals, work))

    node = lab.store.compute("state", {"dense": dense.key, "untrained": True}, produce)
    return Untrained(node.path, dense)


def weights_of(state: State) -> dict[str, np.ndarray[Any, Any]]:
    """All variables of the network in a state, by path."""
    prefix = "model/"
    return {n.removeprefix(prefix): a for n, a in state.items() if n.startswith(prefix)}
