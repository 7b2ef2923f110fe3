"""Masks that change during training: when they do, how many weights go, and which come."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lottery import choices
from lottery.errors import ConfigError
from lottery.pruning.allocation import removed
from lottery.pruning.dynamics import Course

SHAPES = st.lists(
    st.one_of(
        st.tuples(st.integers(2, 12), st.integers(2, 12)),
        st.tuples(st.just(3), st.just(3), st.integers(1, 4), st.integers(1, 4)),
    ),
    min_size=1,
    max_size=4,
)
PERCENTILES = st.decimals(0, 99, places=1).map(float)
SEEDS = st.integers(0, 2**31 - 1)


def course(name, percentile, *, scope="global", seed=0, first=0, last=100, **options) -> Course:
    dynamics = choices.dynamics.of({"name": name, **options})
    allocation = choices.allocation.of({"name": scope})
    return Course(dynamics, percentile, allocation, seed, first, last)


def drawn(shapes, seed) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {f"layer{i}/kernel": generator.normal(size=shape) for i, shape in enumerate(shapes)}


def pruned(weights, mask):
    return {path: w * mask[path] for path, w in weights.items()}


def counts(mask) -> list[int]:
    return [int(m.sum()) for m in mask.values()]


def walk(chosen: Course, shapes, seed):
    """The masks of a training whose weights and gradients are random, by step."""
    found = {chosen.first_step: chosen.start(drawn(shapes, seed))}
    mask = found[chosen.first_step]
    for step in chosen.changes:
        weights = pruned(drawn(shapes, [seed, step]), mask)
        mask = chosen.change(step, mask, weights, drawn(shapes, [seed, step, 1]))
        found[step] = mask
    return found


# -- GMP ---------------------------------------------------------------------------------------


@given(
    SHAPES,
    PERCENTILES,
    SEEDS,
    st.sampled_from(["global", "layer"]),
    st.integers(1, 30),
    st.decimals(0, "0.4", places=2),
    st.decimals("0.75", 1, places=2),
    st.integers(0, 10**6),
)
def test_gradual_pruning_follows_the_formula_of_the_paper(
    shapes, final, seed, scope, frequency, begin, end, first
):
    steps, initial = 120, final / 4
    chosen = course(
        "gradual", final, scope=scope, first=first, last=first + steps, frequency=frequency,
        begin=float(begin), end=float(end), initial=initial,
    )  # fmt: skip
    masks = walk(chosen, shapes, seed)
    t0 = math.floor(Fraction(str(begin)) * steps)
    n = (math.floor(Fraction(str(end)) * steps) - t0) // frequency
    times = [t0 + k * frequency for k in range(n + 1)]
    assert [first + t for t in times] == [s for s in masks if s - first >= t0]
    sizes = [math.prod(shape) for shape in shapes]
    for t, mask in ((step - first, mask) for step, mask in masks.items()):
        share = final + (initial - final) * (1 - (t - t0) / (n * frequency)) ** 3
        share = share if t in times else 0
        wanted = [share * size / 100 for size in (sizes if scope == "layer" else [sum(sizes)])]
        gone = [size - kept for size, kept in zip(sizes, counts(mask), strict=True)]
        gone = gone if scope == "layer" else [sum(gone)]
        # Whole but for the last bit of a float, where the formula comes to a whole number.
        assert all(math.floor(w - 1e-9) <= g <= w + 1e-9 for g, w in zip(gone, wanted, strict=True))
    last = list(masks.values())[-1]
    gone = [size - kept for size, kept in zip(sizes, counts(last), strict=True)]
    if scope == "layer":
        assert gone == [removed(final, size) for size in sizes]
    assert sum(gone) == sum(
        removed(final, s) for s in (sizes if scope == "layer" else [sum(sizes)])
    )


@given(SHAPES, SEEDS)
def test_gradual_pruning_removes_the_smallest_that_are_left_and_never_grows(shapes, seed):
    chosen = course("gradual", 90.0, frequency=10, begin=0.2)
    masks = list(walk(chosen, shapes, seed).items())
    for (_, before), (step, after) in itertools.pairwise(masks):
        weights = drawn(shapes, [seed, step])
        gone = [np.abs(weights[p][before[p] & ~after[p]]) for p in before]
        left = [np.abs(weights[p][after[p]]) for p in before]
        assert all((after[p] <= before[p]).all() for p in before)
        if (lost := np.concatenate(gone)).size:
            assert lost.max() <= np.concatenate(left).min()


def test_gradual_pruning_ends_where_it_says():
    chosen = course("gradual", 80.0, frequency=10, begin=0.25, end=0.8, last=200)
    assert list(chosen.changes) == list(range(50, 161, 10))
    assert list(course("gradual", 80.0, frequency=100, end=1.0).changes) == [100]


# -- SET and RigL --------------------------------------------------------------------------------


@given(SHAPES, PERCENTILES, SEEDS, st.sampled_from(["set", "rigl"]))
def test_a_layer_is_as_dense_as_it_began(shapes, percentile, seed, name):
    masks = list(walk(course(name, percentile, scope="erk", frequency=7), shapes, seed).values())
    assert sum(counts(masks[0])) == sum(map(math.prod, shapes)) - removed(
        percentile, sum(map(math.prod, shapes))
    )
    assert all(counts(mask) == counts(masks[0]) for mask in masks)


@given(SHAPES, PERCENTILES, SEEDS, st.floats(0.05, 0.95))
def test_rigl_drops_the_smallest_and_grows_where_the_gradient_is_largest(
    shapes, percentile, seed, drop
):
    chosen = course("rigl", percentile, seed=seed, last=100, frequency=10, drop=drop, end=0.75)
    mask = chosen.start(drawn(shapes, seed))
    for step in chosen.changes:
        weights = pruned(drawn(shapes, [seed, step]), mask)
        gradients = drawn(shapes, [seed, step, 1])
        after = chosen.change(step, mask, weights, gradients)
        for path, before in mask.items():
            share = Fraction(drop / 2 * (1 + math.cos(math.pi * step / 75)))
            number = math.floor(share * int(before.sum()))
            # By plain sorting, one weight after the other.
            active = sorted(np.argwhere(before).tolist(), key=lambda i: abs(weights[path][*i]))
            stay = {tuple(i) for i in active[number:]}
            others = [i for i in np.ndindex(before.shape) if i not in stay]
            grown = sorted(others, key=lambda i: -abs(gradients[path][i]))[:number]
            assert {tuple(i) for i in np.argwhere(after[path]).tolist()} == stay | set(grown)
        mask = after


def test_rigl_stops_changing_and_replaces_less_and_less():
    chosen = course("rigl", 80.0, frequency=10, last=100)
    assert list(chosen.changes) == [10, 20, 30, 40, 50, 60, 70]
    shares = [chosen.dynamics.share(step, 100) for step in (0, *chosen.changes, 75)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == 0.3
    assert shares[-1] == 0


def test_rigl_changes_nothing_by_gradients_that_have_overflowed():
    chosen = course("rigl", 50.0, frequency=10)
    mask = chosen.start(drawn([(6, 6)], 0))
    gradients = drawn([(6, 6)], 1)
    weights = pruned(drawn([(6, 6)], 2), mask)
    assert (
        chosen.change(10, mask, weights, gradients)["layer0/kernel"] != mask["layer0/kernel"]
    ).any()
    gradients["layer0/kernel"][0, 0] = np.inf
    same = chosen.change(10, mask, weights, gradients)
    np.testing.assert_array_equal(same["layer0/kernel"], mask["layer0/kernel"])


@given(SEEDS)
def test_set_grows_by_seed_and_step_anywhere_but_where_weights_are(seed):
    chosen = course("set", 60.0, seed=seed, frequency=10, drop=0.5)
    weights = drawn([(12, 12)], 0)
    (path,) = weights
    mask = chosen.start(weights)
    weights = pruned(weights, mask)
    after = chosen.change(10, mask, weights)[path]
    np.testing.assert_array_equal(chosen.change(10, mask, weights)[path], after)
    number = int(mask[path].sum()) // 2
    smallest = np.sort(np.abs(weights[path][mask[path]]))[:number]
    stay = mask[path] & (np.abs(weights[path]) > smallest[-1])
    assert after[stay].all()
    assert (after & ~stay).sum() == number
    for other in (
        chosen.change(20, mask, weights),
        course("set", 60.0, seed=seed + 1, frequency=10, drop=0.5).change(10, mask, weights),
    ):
        assert other[path][stay].all()
        assert (other[path] != after).any()


def test_set_changes_to_the_end_but_not_after_it():
    assert list(course("set", 50.0, frequency=25).changes) == [25, 50, 75]


def test_another_seed_begins_elsewhere():
    weights = drawn([(12, 12)], 0)
    one, other = (course("set", 60.0, seed=s, frequency=9).start(weights) for s in (0, 1))
    assert counts(one) == counts(other)
    assert (one["layer0/kernel"] != other["layer0/kernel"]).any()


# -- what cannot be ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        (course("rigl", 50.0, frequency=75), "mask.during.frequency=75 changes the mask never"),
        (course("set", 50.0, last=100), "mask.during.frequency=100 changes the mask never"),
        (
            course("gradual", 50.0, begin=0.5, end=0.6, frequency=11),
            "leaves no second change between the steps 50 and 60 of 100",
        ),
        (course("gradual", 50.0, initial=60.0, frequency=5), "mask.during.initial=60 is above"),
    ],
)
def test_a_training_too_short_for_its_changes_is_refused_at_the_start(chosen, said):
    with pytest.raises(ConfigError, match=said):
        chosen.start(drawn([(4, 4)], 0))
