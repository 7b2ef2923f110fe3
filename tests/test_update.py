"""The update of a step: one function compiled by XLA, with the mask in it; and who keeps zeros."""

import logging
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from test_laws import Restless

from lottery import choices
from lottery.errors import DivergedError, MaskError
from lottery.training import optimizers, update
from lottery.training.masking import Masking
from lottery.training.schedules import unchanging
from lottery.training.update import Update

SHAPES = {"kernel": (4, 3), "bias": (3,)}


def started(optimizer, mask, constraint=None):
    """Two variables, pruned, and a step of the optimizer that takes their gradients."""
    keras.backend.clear_session()
    weights = []
    for path, shape in SHAPES.items():
        values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        values = np.where(mask.get(path, True), values, 0)
        weights.append(keras.Variable(values, name=path))
        weights[-1].constraint = constraint
    optimizer.build(weights)
    network = SimpleNamespace(trainable_variables=weights, variables=weights)
    masking = Masking(network, optimizer, mask, None)
    for v in optimizer.variables:  # as a start has it
        for path, kept in mask.items():
            if v.path.startswith(f"optimizer/{path}_"):
                v.assign(np.where(kept, v, 0))
    made = Update(optimizer, weights, masking, tf.distribute.get_strategy())
    call = tf.function(made, autograph=False)

    def step(gradients):
        call([tf.constant(g, v.dtype) for g, v in zip(gradients, weights, strict=True)])
        named = {f"model/{v.path}": v for v in weights} | {v.path: v for v in optimizer.variables}
        return {name: np.array(v) for name, v in named.items()}

    return masking, step


def gradients(number):
    generator = np.random.default_rng(number)
    return [generator.normal(size=shape).astype(np.float32) for shape in SHAPES.values()]


HALF = {"kernel": np.arange(12).reshape(4, 3) % 2 == 0, "bias": np.array([True, False, True])}


@pytest.mark.parametrize("half_precision", [False, True])
@pytest.mark.parametrize("name", choices.optimizer.names())
def test_xla_and_the_kernels_of_tensorflow_make_the_same_update(monkeypatch, name, half_precision):
    """With a schedule, clipping, decay and loss scaling; biases are pruned too."""

    def after(most_variables):
        monkeypatch.setattr(update, "MOST_VARIABLES", most_variables)
        rate = keras.optimizers.schedules.CosineDecay(0.05, 10)
        about = {"name": name, "learning_rate": 0.05, "weight_decay": 0.1, "clip_norm": 0.5}
        optimizer = choices.optimizer.of(about).build(rate)
        if half_precision:
            optimizer = keras.mixed_precision.LossScaleOptimizer(optimizer, name="loss_scale")
        masking, step = started(optimizer, HALF)
        states = [step(gradients(i)) for i in range(3)]
        if half_precision:  # as overflows do: nothing but the scale changes
            states.append(step([g * np.inf for g in gradients(3)]))
            assert all(
                (states[-1][n] == a).all() for n, a in states[-2].items() if "loss_scale" not in n
            )
        masking.check(states[-1], 4)
        return states

    for compiled, plain in zip(after(64), after(0), strict=True):
        for path, array in plain.items():
            # Muon's iteration of five rounds of matrix products enlarges what is rounded.
            tolerance = 1e-2 if name == "muon" else 2e-6
            np.testing.assert_allclose(compiled[path], array, atol=tolerance, err_msg=path)


@pytest.mark.parametrize("name", sorted(optimizers.KEEP_ZEROS))
def test_an_elementwise_optimizer_keeps_zeros_without_help(name):
    about = {"name": name.lower(), "learning_rate": 0.1, "weight_decay": 0.1}
    optimizer = choices.optimizer.of(about).build(unchanging(0.1))
    masking, step = started(optimizer, {})
    assert not masking.zeroes
    (weight, *_), first = optimizer._trainable_variables, [np.array(v) for v in optimizer.variables]

    @given(st.integers(1, 2**12 - 1), st.integers(0, 9), st.integers(-60, 60))
    @settings(max_examples=20, deadline=None)
    def holds(bits, number, scale):
        kept = np.array([bits >> i & 1 for i in range(12)], bool).reshape(4, 3)
        weight.assign(np.where(kept, gradients(number)[0], 0))
        for v, array in zip(optimizer.variables, first, strict=True):
            v.assign(np.where(kept, array, 0) if "kernel" in v.path else array)
        for i in range(2):
            kernel, bias = gradients(number + i)
            state = step([np.where(kept, kernel * 2.0**scale, 0), bias])
        for path, array in state.items():
            assert "kernel" not in path or not array[~kept].any(), path

    holds()


def test_only_who_is_known_to_keep_zeros_is_trusted():
    known = {n for n in choices.optimizer.names() if optimizers.keeps_zeros(built(n))}
    assert set(choices.optimizer.names()) - known == {"muon"}
    assert not optimizers.keeps_zeros(Restless(0.1))
    assert not optimizers.keeps_zeros(type("SGD", (keras.optimizers.SGD,), {})(0.1))
    assert not optimizers.keeps_zeros(keras.optimizers.Adam(0.1, epsilon=0.0))
    assert not optimizers.keeps_zeros(keras.optimizers.SGD(0.1, use_ema=True))
    scaled = keras.mixed_precision.LossScaleOptimizer(keras.optimizers.Adam(0.1))
    assert optimizers.keeps_zeros(scaled)


def built(name):
    return choices.optimizer.of({"name": name}).build(unchanging(0.1))


def test_a_constraint_that_moves_pruned_weights_does_not_leave_them_there():
    masking, step = started(built("sgd"), HALF, constraint=lambda w: w + 1)
    assert masking.zeroes
    assert not step(gradients(0))["model/kernel"][~HALF["kernel"]].any()


@keras.saving.register_keras_serializable("tests")
class Outside(keras.optimizers.SGD):
    """Computes in Python, which XLA cannot compile."""

    def update_step(self, gradient, variable, learning_rate):
        step = tf.numpy_function(lambda g: 2 * g, [gradient], gradient.dtype)
        variable.assign_sub(learning_rate * tf.ensure_shape(step, variable.shape))


def test_what_xla_cannot_compile_is_computed_without_it_and_said_once(caplog):
    with caplog.at_level(logging.INFO):
        _, step = started(Outside(unchanging(0.1), name="optimizer"), HALF)
        first, second = (step(gradients(0))["model/kernel"] for _ in range(2))
    expected = np.where(HALF["kernel"], -0.2 * gradients(0)[0], 0)
    np.testing.assert_allclose(second - first, expected, atol=1e-6)
    (line,) = [r.message for r in caplog.records if "XLA" in r.message]
    assert line.startswith("the update of Outside is not compiled by XLA, so it is slower: ")
    assert "\n" not in line


def test_ones_own_optimizer_that_xla_can_compile_is_compiled(caplog):
    with caplog.at_level(logging.INFO):
        _, step = started(Restless(unchanging(0.1), name="optimizer"), HALF)
        state = step(gradients(0))
    assert not caplog.records
    assert not state["model/kernel"][~HALF["kernel"]].any()


def test_a_mask_that_prunes_nothing_is_none():
    whole = {path: np.ones(shape, bool) for path, shape in SHAPES.items()}
    (masked, one), (_, other) = started(Restless(0.1), whole), started(Restless(0.1), {})
    assert masked.mask().keys() == whole.keys()
    given = [tf.constant(g) for g in gradients(0)]
    assert all(a is b for a, b in zip(masked.survivors(given), given, strict=True))
    for i in range(3):
        a, b = one(gradients(i)), other(gradients(i))
        assert all(a[n].tobytes() == b[n].tobytes() for n in a)


@pytest.mark.parametrize("name", ["model/kernel", "optimizer/kernel_momentum"])
def test_a_state_with_something_where_the_mask_has_zeros_is_refused(name):
    optimizer = choices.optimizer.of({"name": "sgd", "momentum": 0.9}).build(unchanging(0.1))
    masking, step = started(optimizer, HALF)
    state = step(gradients(0))
    masking.check(state, 1)
    for odd, error, said in (
        (1e-30, MaskError, rf"^by step 1 SGD has moved 1 of 6 pruned values of {name} away from"),
        (np.nan, DivergedError, "not a finite number by step 1"),
    ):
        spoilt = np.where(np.arange(12).reshape(4, 3) == 1, odd, state[name])
        with pytest.raises(error, match=said):
            masking.check({**state, name: spoilt}, 1)
