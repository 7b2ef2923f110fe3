"""Checkpoints that are written while training goes on."""

import threading
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import TINY, composed, laboratory
from test_laws import loop_of

from lottery import experiment
from lottery.data.preprocessing import Preprocessing
from lottery.errors import MaskError
from lottery.interrupts import StopSignals
from lottery.training.checkpoints import CheckpointFolder, Progress
from lottery.training.length import Length
from lottery.training.saving import Saver

STATE = {"model/w": np.zeros(3)}


class Slow(CheckpointFolder):
    """Writes when it is told to."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        object.__setattr__(self, "go", threading.Event())

    def save(self, state, progress, memory=None):
        assert self.go.wait(60)
        super().save(state, progress, memory)


def accepted(state, step):
    pass


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path):
    slow = Slow(tmp_path)
    with Saver(slow, accepted) as saver:
        saver.save(STATE, Progress(1))
        assert slow.steps() == []
        slow.go.set()
    assert slow.steps() == [1]


def test_one_is_written_at_a_time_and_in_order(tmp_path):
    slow, begun = Slow(tmp_path), threading.Event()
    with Saver(slow, accepted) as saver:
        saver.save(STATE, Progress(1))

        def second():
            begun.set()
            saver.save(STATE, Progress(2))
            seen.extend(slow.steps())

        seen: list[int] = []
        thread = threading.Thread(target=second)
        thread.start()
        assert begun.wait(60)
        slow.go.set()
        thread.join()
        assert seen[:1] == [1]
        saver.settle()
        assert slow.steps() == [1, 2]


def full(tmp_path):
    """A folder that nothing can be written to, as when the lease is lost."""
    return CheckpointFolder(tmp_path / "gone" / "checkpoints")


def test_what_goes_wrong_is_raised_by_the_next_save_or_at_the_end(tmp_path):
    def train():
        with Saver(full(tmp_path), accepted) as saver:
            saver.save(STATE, Progress(1))
            with pytest.raises(FileNotFoundError, match="gone"):
                saver.save(STATE, Progress(2))
            saver.save(STATE, Progress(3))

    with pytest.raises(FileNotFoundError, match="gone"):
        train()


def interrupted(folder, error):
    with Saver(folder, accepted) as saver:
        saver.save(STATE, Progress(1))
        raise error


def test_the_error_that_ended_the_training_is_the_one_that_counts(tmp_path, caplog):
    with pytest.raises(KeyError, match="mine"):
        interrupted(full(tmp_path), KeyError("mine"))
    assert "a checkpoint could not be written: [Errno 2]" in caplog.text


def test_what_is_being_written_is_finished_whatever_ends_the_training(tmp_path):
    folder = CheckpointFolder(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        interrupted(folder, KeyboardInterrupt)
    assert [p.name for p in tmp_path.iterdir()] == ["step_00000001"]
    folder.load(1)


def test_a_later_step_does_not_change_what_is_being_written(tmp_path):
    loop = loop_of(
        lambda: keras.optimizers.SGD(0.1, name="optimizer"),
        Preprocessing((2, 2, 1), 0, False, (0.5,), (0.5,)),
    )
    slow = Slow(tmp_path)
    with Saver(slow, accepted) as saver:
        saver.save(loop.state(), Progress(0))
        for v in loop.variables().values():
            v.assign(v.value * 0 + 7)
        slow.go.set()
    state, _ = slow.load(0)
    assert (state["model/head/kernel"] == 1).all()


@keras.saving.register_keras_serializable("tests")
class Counting(keras.optimizers.SGD):
    """Has a slot that grows with every step, whatever the gradient."""

    def build(self, variables):
        super().build(variables)
        self.counts = self.add_optimizer_variables(variables, "count")

    def update_step(self, gradient, variable, learning_rate):
        super().update_step(gradient, variable, learning_rate)
        count = self.counts[self._get_variable_index(variable)]
        self.assign_add(count, np.ones(count.shape, np.float32))


def test_a_training_whose_slots_do_not_stay_zero_writes_no_checkpoint(tmp_path):
    from lottery import trainings

    data = trainings.load_data(composed(*TINY).data)
    rate = keras.optimizers.schedules.PiecewiseConstantDecay([0], [0.1, 0.1])
    preprocessing = Preprocessing(data.description.input_shape, 0, False, (0.5,), (0.5,))
    inputs = int(np.prod(data.description.input_shape))
    mask = {"head/kernel": np.arange(inputs * 10).reshape(inputs, 10) % 2 == 0}
    loop = loop_of(lambda: Counting(rate, name="optimizer"), preprocessing, mask=mask, classes=10)
    said = (
        rf"step 2 Counting has moved {inputs * 5} of {inputs * 5} pruned values of optimizer/head_"
    )
    with StopSignals() as signals, pytest.raises(MaskError, match=said):
        loop.fit(
            data, Length(2, 2), Progress(0), checkpoints=CheckpointFolder(tmp_path),
            checkpoint_steps=2, callbacks=[], signals=signals,
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_that_cannot_be_written_fails_the_training(tmp_path, monkeypatch):
    """It would otherwise seem to be done, with a state missing."""

    def refused(self, state, progress, memory):
        raise OSError(28, "No space left on device")

    lab = laboratory(tmp_path)
    monkeypatch.setattr(CheckpointFolder, "save", refused)
    with pytest.raises(OSError, match="No space left"):
        experiment.train_dense(composed(*TINY), lab)
    assert not list((lab.store.root / "dense").glob("*"))
