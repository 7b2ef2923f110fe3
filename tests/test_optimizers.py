"""Every optimizer and schedule of Keras by its name."""

import pickle
from contextlib import nullcontext
from dataclasses import dataclass
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import TINY, composed
from hydra.errors import MissingConfigException

from lottery import choices
from lottery.cli import explain
from lottery.errors import ConfigError
from lottery.options import identity
from lottery.rewinding import masked, owner, without_slots
from lottery.training.masking import Masking
from lottery.training.optimizers import Optimizer
from lottery.training.schedules import unchanging
from lottery.training.update import Update


@pytest.mark.parametrize(
    ("name", "own"),
    [
        *((name, {}) for name in choices.optimizer.names()),
        ("rmsprop", {"momentum": 0.9, "centered": True}),
        ("sgd", {"nesterov": True}),
    ],
)
def test_every_optimizer_keeps_zeros_and_goes_on_from_its_state(name, own):
    """Of a matrix and of a kernel with more axes, which some treat in another way."""
    about = {"name": name, "learning_rate": 0.01, "weight_decay": 0.1, **own}
    options = choices.optimizer.of(about)
    shapes = {"kernel": (3, 4), "conv/kernel": (2, 2, 3, 4)}
    mask = {p: np.arange(np.prod(s)).reshape(s) % 3 > 0 for p, s in shapes.items()}

    def begin(state=None, rate=0.01):
        keras.backend.clear_session()  # as a training begins
        weights = []
        for path, shape in shapes.items():
            with keras.name_scope(path.rpartition("/")[0]) if "/" in path else nullcontext():
                weights.append(keras.Variable(np.ones(shape, np.float32), name="kernel"))
        optimizer = options.build(unchanging(rate))
        optimizer.build(weights)
        named = {f"model/{v.path}": v for v in weights} | {v.path: v for v in optimizer.variables}
        assert len(named) == len(weights) + len(optimizer.variables)
        state = state or {n: np.array(v) for n, v in named.items()}
        for path, array in masked(state, mask).items():
            named[path].assign(array)
        network = SimpleNamespace(trainable_variables=weights, variables=weights)
        masking = Masking(network, optimizer, mask, None)
        update = Update(optimizer, weights, masking, tf.distribute.get_strategy())
        return named, masking, tf.function(update, autograph=False)

    def step(begun, number):
        named, masking, update = begun
        generator = np.random.default_rng(number)
        weights = [named[f"model/{path}"] for path in shapes]
        update([tf.constant(generator.normal(size=v.shape), tf.float32) for v in weights])
        state = {n: np.array(v) for n, v in named.items()}
        masking.check(state, number)
        return state

    begun = begin()
    first = step(begun, 0)
    last = step(begun, 1)
    resumed = step(begin(first), 1)
    reset = step(begin(without_slots(first), rate=1e-6), 1)
    for path, kept in mask.items():
        of_this = [n for n in last if owner(n, frozenset(shapes)) == path]
        assert not any(last[n][~kept].any() for n in of_this)
        assert np.all(last[f"model/{path}"][kept] != 1)
        np.testing.assert_allclose(reset[f"model/{path}"], first[f"model/{path}"], atol=1e-3)
    for n, array in last.items():
        np.testing.assert_array_equal(array, resumed[n])


def test_the_keras_optimizers_are_all_there():
    known = {
        n for n, c in vars(keras.optimizers).items()
        if isinstance(c, type) and issubclass(c, keras.optimizers.Optimizer)
    }  # fmt: skip
    bases = {"Optimizer", "LossScaleOptimizer", "MultiOptimizer"}
    excluded = {"adafactor", "ftrl", "schedulefreeadamw"}
    assert {n.lower() for n in known - bases} - excluded == set(choices.optimizer.names())


def test_an_optimizer_that_no_mask_can_hold_is_refused_with_the_reason():
    with pytest.raises(ConfigError, match="optimizer=ftrl cannot be chosen: it computes weights"):
        choices.optimizer.of({"name": "ftrl"})
    missing = MissingConfigException("", missing_cfg_file="optimizer/ftrl", options=["adam"])
    assert explain(missing).startswith("optimizer=ftrl cannot be chosen: it computes weights")


def test_what_keras_refuses_of_an_optimizer_is_told_with_its_name():
    lion = choices.optimizer.of({"name": "lion", "beta_1": 2.0})
    with pytest.raises(ConfigError, match=r"optimizer=lion: Keras refuses it: .*`beta_1` must be"):
        lion.build(unchanging(0.1))


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "lamb"])
def test_weight_decay_spares_biases_and_normalisation(name):
    names = ("kernel", "bias", "gamma", "beta")
    weights = [keras.Variable(np.ones(3, np.float32), name=n) for n in names]
    optimizer = choices.optimizer.of({"name": name, "weight_decay": 0.5}).build(unchanging(0.1))
    optimizer.build(weights)
    optimizer.apply([tf.zeros(3)] * len(weights))
    assert [float(w[0]) < 1 for w in weights] == [True, False, False, False]


def test_an_optimizer_of_ones_own_may_know_no_weight_decay():
    class Plain(keras.optimizers.SGD):
        def __init__(self, learning_rate, global_clipnorm, name):
            super().__init__(learning_rate, global_clipnorm=global_clipnorm, name=name)

    @dataclass(frozen=True)
    class Own(Optimizer):
        def keras_class(self):
            return Plain

    assert Own().build(unchanging(0.1)).weight_decay is None
    with pytest.raises(ConfigError, match=r"optimizer=Own: Keras refuses it: .*weight_decay"):
        Own(weight_decay=0.1).build(unchanging(0.1))


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


def test_the_rate_drops_with_the_first_step_after_each_milestone():
    """Shares of all steps, whether there is a warm-up or not."""
    for warmup in 0.0, 0.2:
        schedule = choices.schedule.of(
            {"name": "step", "milestones": [0.5, 0.75], "factor": 0.1, "warmup": warmup}
        )
        rate = schedule.build(0.1, steps=20)
        rates = [float(rate(step)) for step in range(20)]
        begun = round(warmup * 20)
        assert rates[begun:] == pytest.approx([0.1] * (10 - begun) + [0.01] * 5 + [0.001] * 5)
        assert rates[:begun] == sorted(rates[:begun])


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
