"""Training with a mask that changes: exact zeros, exact resumption, and what a run leaves."""

import contextlib
import csv
import dataclasses
import signal
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import TINY, composed, laboratory

from lottery import choices, experiment, files, rewinding, trainings
from lottery.data import Chunk
from lottery.errors import CheckpointError, DivergedError, StoppedError
from lottery.interrupts import StopSignals
from lottery.models.kernels import kernels
from lottery.pruning import masks
from lottery.pruning.allocation import removed
from lottery.pruning.dynamics import Course
from lottery.runs import Run
from lottery.training import run as training
from lottery.training.checkpoints import NoCheckpoints, Progress, equal
from lottery.training.recipe import from_scratch

NAMES = ("gradual", "set", "rigl")
OPTIONS = ("trainer.epochs=4", "optimizer=adam", "optimizer.clip_norm=1.0", "mask.percentile=70")
STEPS = 16  # four an epoch


def chosen(name: str) -> tuple[Any, Any]:
    """The dynamics, and an allocation that suits them."""
    scope = "global" if name == "gradual" else "erk"
    dynamics = choices.dynamics.of({"name": name, "frequency": 3})
    return dynamics, choices.allocation.of({"name": scope})


@dataclass
class Walked:
    """The states of a training after every call of the compiled loop, by step."""

    loop: Any
    length: Any
    states: dict[int, Any]

    @property
    def changes(self) -> list[int]:
        return list(self.length.changes)

    def mask(self, step: int) -> dict[str, np.ndarray]:
        state = self.states[step]
        return {n.removeprefix("mask/"): a for n, a in state.items() if n.startswith("mask/")}


def built(config: Any, data: Any, name: str, per_call: int = 1) -> tuple[Any, Any]:
    """A loop with its first mask, and its length."""
    config = replace(config, trainer=replace(config.trainer, steps_per_call=per_call))
    recipe = from_scratch(config, STEPS // 4)
    dense, _ = training.build(recipe, data, {})
    weights = {k.path: dense.state()[f"model/{k.path}"] for k in kernels(dense.model)}
    course = Course(chosen(name)[0], 70.0, chosen(name)[1], 0, 0, STEPS)
    loop, length = training.build(replace(recipe, course=course), data, course.start(weights))
    loop.load(rewinding.masked(loop.state(), loop.mask))
    return loop, length


def walk(data: Any, loop: Any, length: Any, first: int = 0) -> Walked:
    states = {first: loop.state()}

    class Watch(keras.callbacks.Callback):
        step = first

        def on_train_batch_end(self, batch, logs=None):
            states[self.step // 4 * 4 + batch + 1] = loop.state()
            self.step = self.step // 4 * 4 + batch + 1

    loop.fit(
        data, length, Progress(first), checkpoints=NoCheckpoints(), checkpoint_steps=4,
        callbacks=[Watch()], signals=StopSignals(),
    )  # fmt: skip
    return Walked(loop, length, states)


@pytest.fixture(scope="module")
def config():
    return composed(*TINY, *OPTIONS)


@pytest.fixture(scope="module")
def data(config):
    return trainings.load_data(config.data)


@pytest.fixture(scope="module", params=NAMES)
def walked(request, config, data):
    found = walk(data, *built(config, data, request.param))
    assert sorted(found.states) == list(range(STEPS + 1))
    assert len(found.changes) >= 3
    return request.param, found


def test_what_is_pruned_is_exactly_zero_after_every_step(walked):
    _, found = walked
    for step, state in found.states.items():
        mask = found.mask(step)
        paths = frozenset(n.removeprefix("model/") for n in state if n.startswith("model/"))
        seen = set()
        for name, array in state.items():
            if (path := rewinding.owner(name, paths)) in mask:
                assert not array[~mask[path]].any(), (step, name)
                seen.add(name)
        assert len(seen) == 3 * len(mask)  # the weights and both slots of Adam


def test_the_mask_changes_when_it_should_and_keeps_its_counts(walked):
    name, found = walked
    assert found.changes == ([3, 6, 9, 12, 15] if name == "set" else found.changes[:4])
    for step in range(1, STEPS + 1):
        before, after = found.mask(step - 1), found.mask(step)
        assert (not equal(before, after)) == (step in found.changes), step
        if name == "gradual":
            assert all((after[p] <= before[p]).all() for p in after)
            percentile = found.loop.course.dynamics.percentile(step, STEPS, 70.0)
            size = sum(m.size for m in after.values())
            gone = size - sum(int(m.sum()) for m in after.values())
            assert gone == removed(percentile, size)
        else:
            assert all(before[p].sum() == after[p].sum() for p in after)


def test_what_has_grown_begins_at_zero_and_then_trains(walked):
    name, found = walked
    if name == "gradual":
        return
    step = found.changes[0]
    before, after, state = found.mask(step - 1), found.mask(step), found.states[step]
    for path, mask in after.items():
        grown = mask & ~before[path]
        assert grown.any()
        for slot in ("momentum", "velocity"):
            assert not state[f"optimizer/{path.replace('/', '_')}_{slot}"][grown].any()
        assert not state[f"model/{path}"][grown].any()
    later = found.states[step + 1]
    assert all(later[f"model/{p}"][m & ~before[p]].any() for p, m in after.items())


def test_a_training_goes_on_from_any_step_as_if_unbroken(walked, config, data):
    name, found = walked
    loop, length = built(config, data, name)
    for step in (1, 2, 3, 4, 8, 11, 12):
        loop.load(found.states[step])
        assert equal(loop.state(), found.states[step])
        again = walk(data, loop, length, step)
        assert equal(again.states[STEPS], found.states[STEPS]), step


def test_steps_per_call_change_nothing(walked, config, data):
    name, found = walked
    other = walk(data, *built(config, data, name, per_call=4))
    assert len(other.states) < len(found.states)
    for step, state in other.states.items():
        assert equal(state, found.states[step]), step


def test_rigl_measures_the_gradient_of_all_weights_where_it_changes(config):
    """Against a gradient taken by hand, of the same batch at the same weights."""
    config = replace(config, data=replace(config.data, crop_padding=0, flip=False))
    data = trainings.load_data(config.data)
    found = walk(data, *built(config, data, "rigl"))
    loop, model = found.loop, found.loop.model
    for step in found.changes:
        before, after = found.states[step - 1], found.states[step]
        loop.load(before)
        batch = data.train.training(
            [Chunk(step - 1, 1)], batch_size=loop.batch_size, steps_per_epoch=4, seed=loop.seed
        )
        images, labels = next(iter(batch))
        with tf.GradientTape() as tape:
            logits = model(loop.preprocessing.evaluation(images[0]), training=True)
            loss = keras.losses.sparse_categorical_crossentropy(labels[0], logits, from_logits=True)
            loss = tf.reduce_mean(loss)
        slopes = tape.gradient(loss, [v.value for v in model.trainable_variables])
        for v, slope in zip(model.trainable_variables, slopes, strict=True):
            if v.path not in loop.mask:
                np.testing.assert_array_equal(before[f"model/{v.path}"], after[f"model/{v.path}"])
                continue
            was, now = found.mask(step - 1)[v.path], found.mask(step)[v.path]
            new, steep = now & ~was, np.abs(slope.numpy())
            assert steep[new].min() >= steep[~now & ~was].max() * (1 - 1e-4)
            stays = was & now  # this step trains nothing
            name = f"model/{v.path}"
            np.testing.assert_array_equal(before[name][stays], after[name][stays])
        assert after["optimizer/iteration"] == step  # but the schedule goes on


def test_set_grows_by_its_seed(config, data):
    loop, length = built(config, data, "set")
    start = loop.state()
    found = []
    for seed in (0, 0, 1):
        loop.masking.course = replace(loop.course, seed=seed)
        loop.load(start)
        found.append(walk(data, loop, replace(length, last_step=4)).mask(3))
    assert equal(found[0], found[1])
    assert not equal(found[0], found[2])


def test_weights_that_are_not_finite_have_no_order(config, data):
    loop, _ = built(config, data, "set")
    state = dict(loop.state())
    state["model/fc1/kernel"] = np.full_like(state["model/fc1/kernel"], np.nan)
    loop.load(state)
    with pytest.raises(DivergedError, match="not a finite number by step 3"):
        loop.masking.change(3, None)


def test_a_state_without_a_mask_is_refused_where_it_changes(config, data):
    loop, _ = built(config, data, "set")
    state = {n: a for n, a in loop.state().items() if not n.startswith("mask/")}
    with pytest.raises(CheckpointError, match="does not fit the network: mask/"):
        loop.load(state)


# -- a run in the store ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dense(config, tmp_path_factory):
    return experiment.train_dense(config, laboratory(tmp_path_factory.mktemp("dense")))


def ticket(config: Any, lab: Any, dense: Run, name: str) -> Run:
    """A sparse training as a study makes one."""
    during, scope = chosen(name)
    mask = replace(config.mask, during=during, scope=scope)
    return experiment.train_sparse(replace(config, mask=mask), lab, dense)


@pytest.mark.parametrize("name", NAMES)
def test_a_run_leaves_its_last_mask_and_the_density_over_time(config, dense, tmp_path, name):
    run = ticket(config, laboratory(tmp_path), dense, name)
    last = {f"mask/{path}": m for path, m in run.mask.items()}
    assert equal(last, {n: a for n, a in run.state().items() if n.startswith("mask/")})
    about = files.read_json(run.path / "mask.json")
    assert about == {"percentile": 70.0, "pattern": {"name": "weight"}} | masks.summary(
        run.mask, dense.whole
    )
    assert about["kept"] == about["prunable"] - removed(70.0, about["prunable"])
    density = [row["density"] for row in run.metrics]
    assert density == sorted(density, reverse=True)
    assert density[-1] == pytest.approx(about["density"])
    assert (density[0] > density[-1]) == (name == "gradual")
    with Path(dense.path / "metrics.csv").open() as file:  # where no mask changes
        assert [row["density"] for row in csv.DictReader(file)] == [""] * 4


def test_a_stopped_run_leaves_the_same(config, dense, tmp_path):
    labs = [laboratory(tmp_path / part) for part in ("whole", "broken")]
    whole = ticket(config, labs[0], dense, "rigl")
    stops = iter((4, 3))  # within the first epoch after a change, at the end of the next one

    class StopAt(keras.callbacks.Callback):
        def __init__(self, calls: int) -> None:
            super().__init__()
            self.left = calls

        def on_train_batch_end(self, batch, logs=None):
            self.left -= 1
            if self.left == 0:
                signal.raise_signal(signal.SIGUSR2)

    original = type(labs[1].tracker).run

    @contextlib.contextmanager
    def stopping(self, *about):
        with original(self, *about) as track:
            track.callbacks.extend(StopAt(step) for step in [next(stops, None)] if step)
            yield track

    tracker = type("Stopping", (type(labs[1].tracker),), {"run": stopping})(
        labs[1].tracker.logger, tmp_path, "test", {}
    )
    lab = dataclasses.replace(labs[1], tracker=tracker)
    monkey = signal.signal(signal.SIGUSR2, signal.SIG_DFL)
    try:
        for _ in range(2):
            with pytest.raises(StoppedError):
                ticket(config, lab, dense, "rigl")
        run = ticket(config, lab, dense, "rigl")
    finally:
        signal.signal(signal.SIGUSR2, monkey)
    assert equal(run.state(), whole.state())
    assert equal(run.mask, whole.mask)
    assert [r["density"] for r in run.metrics] == [r["density"] for r in whole.metrics]
    assert [r["val_loss"] for r in run.metrics] == [r["val_loss"] for r in whole.metrics]
