"""Every optimizer and schedule of Keras by its name."""

import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import TINY, composed

from lottery import choices
from lottery.errors import ConfigError
from lottery.options import identity
from lottery.training.schedules import unchanging


@pytest.mark.parametrize("name", choices.optimizer.names())
def test_every_optimizer_keeps_zeros_and_goes_on_from_its_state(name):
    options = choices.optimizer.of({"name": name, "learning_rate": 0.01, "weight_decay": 0.1})
    mask = np.arange(12).reshape(3, 4) % 3 > 0

    def begin(weights, state=None):
        v = keras.Variable(weights, name="kernel")
        optimizer = options.build(unchanging(0.01))
        optimizer.build([v])
        for slot, value in zip(optimizer.variables, state or [], strict=False):
            slot.assign(value)
        return v, optimizer

    def step(v, optimizer, number):
        gradient = np.random.default_rng(number).normal(size=(3, 4)).astype(np.float32) * mask
        optimizer.apply([tf.constant(gradient)], [v])
        v.assign(v * mask)

    v, optimizer = begin(np.ones((3, 4), np.float32) * mask)
    step(v, optimizer, 0)
    middle = np.array(v), [np.array(slot) for slot in optimizer.variables]
    step(v, optimizer, 1)
    other, resumed = begin(*middle)
    step(other, resumed, 1)
    np.testing.assert_array_equal(v, other)
    assert np.all(np.array(v)[~mask] == 0)
    assert np.all(np.array(v)[mask] != 1)


def test_the_keras_optimizers_are_all_there():
    known = {
        n for n, c in vars(keras.optimizers).items()
        if isinstance(c, type) and issubclass(c, keras.optimizers.Optimizer)
    }  # fmt: skip
    expected = {n.lower() for n in known - {"Optimizer", "LossScaleOptimizer", "MultiOptimizer"}}
    assert expected == set(choices.optimizer.names())


def test_options_of_a_keras_optimizer_have_its_defaults_and_reach_it():
    config = composed(*TINY, "optimizer=lion", "optimizer.beta_2=0.5").optimizer
    assert (config.learning_rate, config.beta_1, config.beta_2) == (0.001, 0.9, 0.5)
    assert config.build(unchanging(0.1)).beta_2 == 0.5
    assert identity(config) == {
        "name": "lion", "learning_rate": 0.001, "weight_decay": 0.0, "beta_1": 0.9, "beta_2": 0.5,
    }  # fmt: skip
    assert pickle.loads(pickle.dumps(config)) == config


@pytest.mark.parametrize("name", sorted({*choices.schedule.names()} - {"step"}))
def test_every_schedule_begins_at_the_peak_and_never_rises_above(name):
    needed = {"decay_rate": 0.5} if name in ("exponential_decay", "inverse_time_decay") else {}
    schedule = choices.schedule.of({"name": name, **needed})
    assert schedule.contradictions() == []
    rates = [float(schedule.build(0.1, steps=20)(step)) for step in range(20)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(0.1)
    assert pickle.loads(pickle.dumps(schedule)) == schedule


def test_a_keras_schedule_says_what_it_needs():
    schedule = choices.schedule.of({"name": "exponential_decay"})
    assert schedule.contradictions() == ["schedule.decay_rate has no value"]


@pytest.mark.parametrize(
    ("kind", "values", "said"),
    [
        ("optimizer", {"name": "lyon"}, "optimizer=lyon is unknown; did you mean lion or muon?"),
        (
            "optimizer",
            {"name": "sgd", "beta_1": 0.5},
            "option optimizer.beta_1 is unknown to optimizer=sgd",
        ),
        (
            "optimizer",
            {"name": "sgd", "nesterof": True},
            "optimizer.nesterof is unknown to optimizer=sgd; did you mean nesterov?",
        ),
        ("optimizer", {"name": "sgd", "momentum": "much"}, "optimizer.momentum: Value 'much'"),
        ("optimizer", {}, "optimizer has no value"),
        ("schedule", {"name": "constant", "final": 0.1}, "schedule.final is unknown to"),
    ],
)
def test_options_that_a_choice_does_not_have(kind, values, said):
    with pytest.raises(ConfigError, match=said.replace("?", r"\?")):
        getattr(choices, kind).of(values)
