"""Keras callbacks of one's own: where they run, what they may change, what keys hold of them."""

import sys
from dataclasses import replace
from types import SimpleNamespace

import conftest
import keras
import pytest
import tensorflow as tf
from conftest import TINY, composed, laboratory, run
from test_choices import HEAD, NODES, keys_of
from test_choices import plug_in as plug_in

from lottery import choices
from lottery.errors import ConfigError
from lottery.experiment import find_ticket, train_dense
from lottery.interrupts import StopSignals
from lottery.options import bound_errors
from lottery.points import Point
from lottery.replay import dense_state
from lottery.runs import runs_of
from lottery.training import cluster, devices
from lottery.training.callbacks import Acting
from lottery.training.checkpoints import equal
from lottery.training.roles import Follower

CALLBACKS = f"""{HEAD}
from typing import ClassVar

SEEN = []

@choices.callback("noted")
@dataclass(frozen=True)
class Noted:
    watches_only: ClassVar[bool] = True
    what: str = option("epoch", "a word")

    def build(self):
        import keras
        word = self.what
        class Callback(keras.callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None):
                SEEN.append((word, epoch, self.model.name, "val_top1" in logs))
        return Callback()

@choices.callback("shrunk")
@dataclass(frozen=True)
class Shrunk:
    factor: float = option(0.5, "of the biases", gt=0, le=1)

    def build(self):
        import keras
        factor = self.factor
        class Callback(keras.callbacks.Callback):
            def on_train_begin(self, logs=None):
                for weight in self.model.trainable_weights:
                    weight.assign(weight * factor)
        return Callback()
"""


ADDED = """
@choices.callback("added")
@dataclass(frozen=True)
class Added:
    def build(self):
        import keras

        class Callback(keras.callbacks.Callback):
            def add(self, *_):
                for weight in self.model.trainable_weights:
                    weight.assign(1.01 * weight + 1e-3)

            on_train_begin = on_train_end = on_epoch_begin = on_epoch_end = add
            on_train_batch_begin = on_train_batch_end = on_validation = add

        return Callback()
"""


LYING = """
@choices.callback("lying")
@dataclass(frozen=True)
class Lying:
    watches_only: ClassVar[bool] = True

    def build(self):
        import keras

        class Callback(keras.callbacks.Callback):
            def HOOK(self, *_):
                kernel = self.model.trainable_weights[0]
                kernel.assign(kernel.numpy()[::-1])

        return Callback()
"""
ASKING = """
@choices.callback("asking")
@dataclass(frozen=True)
class Asking:
    watches_only: ClassVar[bool] = True

    def build(self):
        import keras

        class Callback(keras.callbacks.Callback):
            def on_epoch_end(self, *_):
                self.model.stop_training = True

        return Callback()
"""


@pytest.fixture
def loaded(plug_in):
    plug_in("my_lab.callbacks", CALLBACKS)
    yield plug_in
    conftest._chosen.cache_clear()


def test_several_are_chosen_each_with_its_options(loaded):
    own = ("callback=[shrunk,noted]", "callback.noted.what=word")
    config = composed(*TINY, *own)
    assert list(config.callback) == ["shrunk", "noted"]
    assert config.callback["noted"].what == "word"
    assert config.callback["shrunk"].factor == 0.5
    wrong = composed(*TINY, "callback=[shrunk]", "callback.shrunk.factor=2")
    assert bound_errors(wrong) == ["callback.shrunk.factor=2.0 must be > 0 and <= 1"]
    with pytest.raises(ConfigError, match=r"option callback\.other\.fact is unknown to .*factor"):
        choices.callback.all_of({"other": {"name": "shrunk", "fact": 1}})
    with pytest.raises(ConfigError, match=r"callback=shrank is unknown; did you mean shrunk"):
        choices.callback.all_of({"shrank": {"name": "shrank"}})


def test_what_may_change_a_result_is_part_of_the_key(loaded):
    def keys(*chosen: str) -> dict[str, str]:
        return keys_of(composed(*TINY, *chosen))

    plain = keys()
    assert keys("callback=[noted]", "callback.noted.what=other") == plain
    shrunk = keys("callback=[shrunk]")
    assert all(shrunk[n] != plain[n] for n in NODES)
    assert keys("callback=[noted,shrunk]") == shrunk
    assert keys("callback=[shrunk]", "callback.shrunk.factor=0.25")["dense"] != shrunk["dense"]
    loaded("my_lab.callbacks", CALLBACKS.replace("weight * factor", "weight * factor**2"))
    conftest._chosen.cache_clear()  # which holds the class of before
    assert keys("callback=[shrunk]")["dense"] != shrunk["dense"]
    assert keys("callback=[noted]") == plain


def test_they_run_in_every_training_and_in_the_chief_alone(loaded, tmp_path):
    config = composed(*TINY, "callback=[noted,shrunk]")
    result = find_ticket(config, laboratory(tmp_path / "with"))
    seen = sys.modules["my_lab.callbacks"].SEEN
    network = "lenet_300_100"
    assert seen == [("epoch", epoch, network, True) for epoch in (0, 1, 1)]  # dense, ticket
    watched = find_ticket(replace(config, callback={}), laboratory(tmp_path / "without"))
    assert result["dense"]["val_loss"] != watched["dense"]["val_loss"]
    follower = Follower(StopSignals())
    assert follower.begin(None, None, None, None) == []  # type: ignore[arg-type]


def test_a_training_with_one_that_acts_goes_on_exactly_from_any_state(loaded, tmp_path, caplog):
    """From a replayed state within an epoch, and with what is pruned at zero."""
    loaded("my_lab.callbacks", CALLBACKS + ADDED)
    lab, base = laboratory(tmp_path / "0"), ("trainer.batch_size=512", "trainer.validation_steps=1")
    short = (*base, "callback=[added]")
    dense = train_dense(composed(*TINY, *short, "rewind.epoch=0"), lab)
    assert dense.steps_per_epoch > 1
    plain = train_dense(composed(*TINY, *base, "rewind.epoch=0"), lab)
    assert equal(dense.state(0), plain.state(0))
    assert not equal(dense.state(), plain.state())
    inside = ("rewind.step=1", "mask.percentile=0")
    same = runs_of(find_ticket(composed(*TINY, *short, *inside), lab))["ticket"]
    assert equal(same.state(), dense.state())
    # Which is after each step, wherever else a call would end.
    config = composed(*TINY, *base[:1], "callback=[added]", "rewind.epoch=0")
    ends = [
        train_dense(replace(config, trainer=replace(config.trainer, steps_per_call=steps)), other)
        for steps, other in ((1, lab), (3, laboratory(tmp_path / "3")))
    ]
    assert ends[0].key == ends[1].key
    assert equal(ends[0].state(), ends[1].state())
    ticket = runs_of(find_ticket(composed(*TINY, *short, "mask.percentile=80"), lab))["ticket"]
    assert not any(ticket.weights()[path][~kept].any() for path, kept in ticket.mask.items())
    assert caplog.text.count("callback=added has changed") == 1
    assert "weights that the mask prunes; they are zero again after each" in caplog.text


HOOKS = ("on_train_begin", "on_epoch_begin", "on_train_batch_begin", "on_train_batch_end",
         "on_epoch_end", "on_train_end")  # fmt: skip


@pytest.mark.parametrize("hook", HOOKS)
def test_one_that_says_that_it_watches_is_held_to_it(loaded, tmp_path, hook):
    """If it shuffles weights, too."""
    loaded("my_lab.callbacks", CALLBACKS + LYING.replace("HOOK", hook))
    config = composed(*TINY, "callback=[lying]")
    with pytest.raises(ConfigError, match=f"callback=lying .* has changed fc1/kernel in {hook}:"):
        train_dense(config, laboratory(tmp_path))


def test_one_that_asks_to_stop_must_say_what_it_remembers(loaded, tmp_path):
    loaded("my_lab.callbacks", CALLBACKS + ASKING)
    with pytest.raises(ConfigError, match="a callback asks to stop the training, and would not"):
        train_dense(composed(*TINY, "callback=[asking]"), laboratory(tmp_path))


def test_the_last_state_is_what_is_measured_whatever_one_does_at_the_end():
    weight = keras.Variable([1.0])

    class Ends(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            weight.assign([2.0])

    masking = SimpleNamespace(zero_pruned=lambda strategy: None, moved=lambda: 0)
    loop = SimpleNamespace(
        state=lambda: weight.numpy(), load=weight.assign, strategy=tf.distribute.get_strategy(),
        masking=masking,
    )  # fmt: skip
    Acting({"ends": Ends()}, loop, 0).on_train_end()
    assert weight.numpy() == 1.0


def test_one_that_acts_is_refused_where_several_processes_train(loaded, monkeypatch):
    monkeypatch.setattr(cluster, "task", lambda: cluster.Task(0, ("a:1", "b:1")))
    with pytest.raises(ConfigError, match="callback=shrunk may change weights, and only the first"):
        devices.prepare(composed(*TINY, "callback=[noted,shrunk]"))


def test_without_any_the_message_says_where_they_come_from():
    process = run("prune.py", "callback=[mine]")
    assert process.returncode == 1
    assert process.stderr == "error: callback=mine is unknown (known: early_stopping)\n"
    said = run("prune.py", "augmentation=[cutuot]").stderr
    assert said == "error: augmentation=cutuot is unknown; did you mean cutout? (known: cutout)\n"
    said = run("prune.py", "augmentation.cutout.size=3").stderr
    assert said == (
        "error: option augmentation.cutout.size is unknown: augmentation=[cutout] brings it\n"
    )


STOPPING = """
@choices.callback("stopping")
@dataclass(frozen=True)
class Stopping:
    remembers: ClassVar[tuple[str, ...]] = ()
    may_stop: ClassVar[bool] = True
    after: int = option(2, "epochs", ge=1)
    sets: bool = option(False, "zeros in the end")

    def build(self):
        import keras
        after, sets = self.after, self.sets
        class Callback(keras.callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None):
                self.model.stop_training = epoch + 1 == after

            def on_train_end(self, logs=None):
                if sets:
                    self.model.set_weights([0 * w for w in self.model.get_weights()])
        return Callback()
"""


def test_one_that_says_nothing_of_its_stop_is_known_to_have_stopped(loaded, tmp_path, monkeypatch):
    """Killed once the last state was written, too, though it remembers nothing."""
    loaded("my_lab.callbacks", CALLBACKS + STOPPING)
    lab = laboratory(tmp_path)
    own = ("trainer.epochs=4", "callback=[stopping]", "callback.stopping.sets=true")
    config = composed(*TINY, *own)
    with monkeypatch.context() as patch:
        patch.setattr("lottery.training.roles.Chief.end", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train_dense(config, lab)
    dense = train_dense(config, lab)
    told = {name: dense.result[name] for name in ("stopped_epoch", "restored_epoch", "epochs")}
    assert told == {"stopped_epoch": 2, "restored_epoch": None, "epochs": 2}
    with pytest.raises(ConfigError, match="epoch 3 lies after epoch 2, after which the dense"):
        dense_state(config, lab, dense, Point(3))
    assert not any(array.any() for array in dense.weights().values())
    replayed = dense_state(config, lab, dense, Point(2))
    plain = train_dense(replace(config, callback={}, rewind=replace(config.rewind, epoch=2)), lab)
    assert equal(replayed, plain.state(2))


def interrupted(*_):
    raise KeyboardInterrupt


def test_one_that_sets_weights_before_the_end_is_refused(loaded, tmp_path):
    """A state that is replayed would be without that."""
    loaded("my_lab.callbacks", CALLBACKS + STOPPING.replace("on_train_end", "on_train_begin"))
    config = composed(*TINY, "callback=[stopping]", "callback.stopping.sets=true")
    with pytest.raises(ConfigError, match="callback=stopping sets weights in a training that goes"):
        train_dense(config, laboratory(tmp_path))


def test_one_cannot_only_watch_and_decide(plug_in):
    both = STOPPING.replace("may_stop: ", "watches_only: ")
    with pytest.raises(ConfigError, match=r"Stopping says both watches_only, .* and remembers"):
        plug_in("my_lab.callbacks", CALLBACKS + both)
