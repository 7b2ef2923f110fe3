"""Allocations and patterns: exact counts, ties, nesting, rounds, and the control, in every pair."""

import logging
from itertools import product
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lottery import choices
from lottery.errors import ConfigError
from lottery.pruning import masks
from lottery.pruning.allocation import removed, rounds
from lottery.pruning.units import Target, Ties

ALLOCATIONS = ("erk", "global", "lamp", "layer", "rates")
UNIT_PATTERNS = ("block", "channel", "weight")
PAIRS = list(product(ALLOCATIONS, UNIT_PATTERNS))

percentiles = st.integers(0, 99_999).map(lambda i: i / 1000)
shapes = st.lists(
    st.one_of(
        st.tuples(st.integers(1, 9), st.integers(2, 9)),
        st.tuples(st.just(2), st.just(1), st.integers(1, 4), st.integers(2, 6)),
    ),
    min_size=1,
    max_size=4,
)


@st.composite
def networks(draw):
    """Scores by path, few distinct values or many, and the ties of channels."""
    generator = np.random.default_rng(draw(st.integers(0, 99)))
    few = draw(st.booleans())
    scores = {}
    for i, shape in enumerate(draw(shapes)):
        drawn = generator.random(shape)
        scores[f"layer_{i}/kernel"] = np.round(3 * drawn) if few else drawn
    return scores, tied(scores, draw(st.booleans()))


def tied(scores, residual=False):
    """Every channel by itself, or the i-th channels of all kernels tied."""
    made, first = {}, 0
    for path, s in scores.items():
        made[path] = list(range(first, first + s.shape[-1]))
        first += 0 if residual else s.shape[-1]
    return Ties(made)


def named(allocation, pattern, **options):
    return {
        "allocation": choices.allocation.find(allocation)(),
        "pattern": choices.pattern.find(pattern)(**options),
    }


def weight(allocation):
    return named(allocation, "weight")


def gone(mask):
    return {path: int((~m).sum()) for path, m in mask.items()}


def total(mask):
    return sum(gone(mask).values())


def nested(sparse, dense):
    return all((dense[p] | ~m).all() for p, m in sparse.items())


def units(pattern, mask, ties):
    """Each unit of a mask, as the values that its weights have there."""
    for path, m in mask.items():
        flat = m.reshape(-1, m.shape[-1])
        if pattern == "channel":
            labels = ties.made[path]
            for label in set(labels):
                yield np.concatenate(
                    [
                        x.reshape(-1, x.shape[-1])[:, np.array(ties.made[p]) == label].ravel()
                        for p, x in mask.items()
                    ]
                )
        elif pattern == "block":
            for row in flat:
                yield from (row[i : i + 4] for i in range(0, len(row), 4))
        else:
            yield from flat.reshape(-1, 1)


@given(networks(), percentiles, st.sampled_from(["global", "erk", "lamp"]))
def test_all_layers_together_lose_exactly_the_floor(network, percentile, allocation):
    mask = masks.make(network[0], percentile, **weight(allocation))
    assert total(mask) == removed(percentile, sum(m.size for m in mask.values()))


@given(networks(), percentiles)
def test_layer_loses_exactly_the_floor_of_each(network, percentile):
    mask = masks.make(network[0], percentile, **weight("layer"))
    assert gone(mask) == {p: removed(percentile, m.size) for p, m in mask.items()}


@given(networks(), percentiles, st.sampled_from(["global", "layer"]))
def test_lowest_go_and_ties_break_by_position(network, percentile, allocation):
    scores = network[0]
    mask = masks.make(scores, percentile, **weight(allocation))
    for group in [list(scores)] if allocation == "global" else [[p] for p in scores]:
        values = np.concatenate([scores[p].ravel() for p in group])
        kept = np.concatenate([mask[p].ravel() for p in group])
        order = np.argsort(values, kind="stable")
        count = int((~kept).sum())
        assert not kept[order[:count]].any()


@pytest.mark.parametrize(("allocation", "pattern"), PAIRS)
@given(network=networks(), a=percentiles, b=percentiles)
def test_masks_nest_and_consist_of_whole_units(allocation, pattern, network, a, b):
    scores, ties = network
    options = named(allocation, pattern, **({"alive": 0} if pattern == "channel" else {}))
    dense, sparse = (masks.make(scores, p, ties=ties, **options) for p in sorted((a, b)))
    assert nested(sparse, dense)
    assert all(len(set(unit)) == 1 for unit in units(pattern, sparse, ties))
    assert masks.digest(sparse) == masks.digest(masks.make(scores, max(a, b), ties=ties, **options))


@pytest.mark.parametrize(("allocation", "pattern"), PAIRS)
@given(network=networks(), a=percentiles, b=percentiles, seed=st.integers(0, 9))
def test_a_round_counts_what_went_before_and_never_revives(
    allocation, pattern, network, a, b, seed
):
    scores, ties = network
    low, high = sorted((a, b))
    options = named(allocation, pattern, **({"alive": 0} if pattern == "channel" else {}))
    first = masks.make(scores, low, ties=ties, **options)
    generator = np.random.default_rng(seed)
    retrained = {p: generator.random(s.shape) * first[p] for p, s in scores.items()}
    second = masks.make(retrained, high, within=first, before=low, ties=ties, **options)
    assert nested(second, first)
    size = sum(s.size for s in scores.values())
    if allocation == "rates":
        return
    assert total(second) <= removed(high, size)
    if pattern == "weight" and allocation != "layer":
        assert total(second) == removed(high, size)
    if pattern == "weight" and allocation == "layer":
        assert gone(second) == {p: removed(high, s.size) for p, s in scores.items()}


@pytest.mark.parametrize("pattern", ["block", "channel"])
@given(network=networks(), percentile=percentiles)
def test_larger_units_go_while_they_fit(pattern, network, percentile):
    """Against the plainest way to say it."""
    scores, ties = network
    options = named("global", pattern, **({"alive": 0} if pattern == "channel" else {}))
    labelled, number = {}, 0
    for path, s in scores.items():
        outputs = np.arange(s.shape[-1])
        if pattern == "channel":
            labelled[path] = np.broadcast_to(np.array(ties.made[path]), s.shape)
        else:
            rows, blocks = prod(s.shape[:-1]), -(-s.shape[-1] // 4)
            labels = np.arange(rows)[:, None] * blocks + outputs // 4 + number
            labelled[path] = labels.reshape(s.shape)
            number = int(labels.max()) + 1
    flat = np.concatenate([x.ravel() for x in labelled.values()])
    values = np.concatenate([s.ravel() for s in scores.values()])
    left = removed(percentile, flat.size)
    sizes = np.bincount(flat)
    means = np.bincount(flat, values) / sizes
    kept = np.ones(len(sizes), bool)
    for unit in np.argsort(means, kind="stable"):
        if sizes[unit] > left:
            break
        left -= sizes[unit]
        kept[unit] = False
    mask = masks.make(scores, percentile, ties=ties, **options)
    assert all((mask[p] == kept[labelled[p]]).all() for p in scores)


@pytest.mark.parametrize("pattern", UNIT_PATTERNS)
@given(network=networks(), percentile=percentiles, seed=st.integers(0, 9))
def test_shuffling_keeps_the_pattern_and_the_count_of_every_kernel(
    pattern, network, percentile, seed
):
    scores, ties = network
    options = named("global", pattern, **({"alive": 0} if pattern == "channel" else {}))
    mask = masks.make(scores, percentile, ties=ties, **options)
    control = masks.shuffle(mask, seed, pattern=options["pattern"], ties=ties)
    assert gone(control) == gone(mask)
    assert all(len(set(unit)) == 1 for unit in units(pattern, control, ties))


@pytest.mark.parametrize("pattern", ["block", "channel", "n_of_m", "weight"])
def test_shuffling_shuffles_by_the_seed(pattern):
    scores = {"k": np.random.default_rng(0).random((64, 200))}
    options = named("global", pattern)
    ties = tied(scores)
    mask = masks.make(scores, 50, ties=ties, **options)
    controls = [
        masks.shuffle(mask, seed, pattern=options["pattern"], ties=ties)["k"] for seed in (0, 0, 1)
    ]
    assert (controls[0] == controls[1]).all()
    for other in (mask["k"], controls[2]):
        assert 0.4 < (controls[0] == other).mean() < 0.6


# -- allocations


def erk_of_the_paper(sizes, shares, keep):
    """RigL's loop: whatever saturates is dense, and the factor of the others is solved again."""
    dense = np.zeros(len(sizes), bool)
    while True:
        factor = (keep - sizes[dense].sum()) / max(shares[~dense].sum(), 1e-9)
        more = ~dense & (factor * shares >= sizes)
        if not more.any():
            return np.where(dense, sizes, factor * shares)
        dense |= more


@given(networks(), percentiles)
def test_erk_is_that_of_the_paper_rounded(network, percentile):
    scores = network[0]
    sizes = np.array([s.size for s in scores.values()], float)
    shares = np.array([sum(s.shape) for s in scores.values()], float)
    keep = sizes.sum() - removed(percentile, int(sizes.sum()))
    mask = masks.make(scores, percentile, **weight("erk"))
    kept = np.array([m.sum() for m in mask.values()])
    assert abs(kept - erk_of_the_paper(sizes, shares, keep)).max() < 1 + len(sizes) / 2


def test_what_saturated_layers_cannot_take_goes_to_the_others():
    scores = {"small": np.ones((4, 4)), "a": np.ones((100, 100)), "b": np.ones((300, 100))}
    mask = masks.make(scores, 50, **weight("erk"))
    kept = {p: int(m.sum()) for p, m in mask.items()}
    # 20,008 stay: 16, and 19,992 as 200 to 400. Without solving again "b" would get too few.
    assert kept == {"small": 16, "a": 6664, "b": 13328}


def test_equal_layers_share_an_odd_number_in_their_order():
    scores = {p: np.ones((3, 3)) for p in ("a", "b", "c")}
    assert gone(masks.make(scores, 100 * 11 / 27 + 1e-6, **weight("erk"))) == {
        "a": 3, "b": 4, "c": 4,
    }  # fmt: skip


def test_erk_takes_from_others_what_a_kernel_must_keep():
    scores = {"a": np.random.default_rng(0).random((4, 8)), "b": np.ones((40, 8))}
    mask = masks.make(scores, 25, ties=tied(scores), **named("erk", "channel", alive=6))
    assert gone(mask) == {"a": 2 * 4, "b": 2 * 40}  # all that can go


def test_lamp_by_hand():
    scores = {"a": np.array([[3.0, 1.0], [2.0, 2.0]]), "b": np.array([[30.0, 10.0]])}
    # a: 1, 1/18 (= 1 / (9 + 4 + 4 + 1)), 4/17, 4/13; b: 1, 1/10
    order = [("a", (0, 1)), ("b", (0, 1)), ("a", (1, 0)), ("a", (1, 1))]
    for count in range(1, 5):
        mask = masks.make(scores, 100 * count / 6 + 1e-6, **weight("lamp"))
        assert {(p, tuple(map(int, i))) for p, m in mask.items() for i in np.argwhere(~m)} == set(
            order[:count]
        )


@given(networks(), percentiles)
def test_lamp_is_the_formula(network, percentile):
    scores = network[0]
    adapted = {}
    for path, s in scores.items():
        flat = s.ravel()
        at = np.arange(flat.size)
        adapted[path] = np.array(
            [
                x * x / max((flat[(flat > x) | ((flat == x) & (at >= i))] ** 2).sum(), 1e-300)
                for i, x in enumerate(flat)
            ]
        ).reshape(s.shape)
    mask = masks.make(scores, percentile, **weight("lamp"))
    if total(mask):
        highest = max(adapted[p][~m].max() for p, m in mask.items() if not m.all())
        lowest = min(adapted[p][m].min() for p, m in mask.items() if m.any())
        assert highest <= lowest * (1 + 1e-9)


def test_lamp_refuses_scores_below_zero():
    with pytest.raises(ConfigError, match=r"mask\.scope=lamp squares scores, and some of k"):
        masks.make({"k": np.array([[1.0, -2.0]])}, 50, **weight("lamp"))


def test_the_output_layer_loses_half_as_much_in_each_round():
    generator = np.random.default_rng(0)
    sizes = {"first": (784, 300), "second": (300, 100), "output": (100, 10)}
    scores = {p: generator.random(s) for p, s in sizes.items()}
    mask, before = None, 0.0
    for percentile in rounds(67.232, 20):  # five rounds
        mask = masks.make(scores, percentile, within=mask, before=before, **weight("rates"))
        before = percentile
    assert int(mask["output"].sum()) == 592  # 1000, 900, 810, 729, 657 (72.9 less), 592
    for path in ("first", "second"):
        assert mask[path].mean() == pytest.approx(0.8**5, abs=2e-4)


def test_rates_by_path_and_a_dense_first_layer():
    scores = {p: np.random.default_rng(0).random((10, 10)) for p in ("stem", "a/k", "b/k", "out")}
    rates = choices.allocation.find("rates")(factors={"a/*": 0.25}, first=0.0)
    mask = masks.make(scores, 40, allocation=rates, pattern=choices.pattern.find("weight")())
    assert gone(mask) == {"stem": 0, "a/k": 10, "b/k": 40, "out": 20}
    unknown = choices.allocation.find("rates")(factors={"b/kernel": 0.25})
    with pytest.raises(ConfigError, match=r"names b/kernel, which is no kernel.*did you mean b/k"):
        masks.make(scores, 40, allocation=unknown, pattern=choices.pattern.find("weight")())


def test_where_the_pattern_leaves_the_output_layer_out_no_other_loses_half():
    scores = {p: np.random.default_rng(0).random((10, 10)) for p in ("a", "b", "head")}
    ties = Ties({"a": list(range(10)), "b": list(range(10, 20)), "head": [-1] * 10})
    mask = masks.make(scores, 40, ties=ties, **named("rates", "channel"))
    assert gone(mask) == {"a": 40, "b": 40}


# -- channels

RESIDUAL = {
    "stem": np.zeros((3, 3, 1, 4)), "depthwise": np.zeros((3, 3, 4, 1)),
    "block": np.zeros((1, 1, 4, 4)), "wide": np.zeros((1, 1, 4, 6)), "head": np.zeros((6, 3)),
}  # fmt: skip
RESIDUAL_TIES = Ties(
    {
        "stem": [0, 1, 2, 3], "block": [0, 1, 2, 3], "wide": [4, 5, 6, 7, 8, 9],
        "head": [-1, -1, -1],
    },
    {"depthwise": [0, 1, 2, 3]},
)  # fmt: skip


def scored_channels(**by_path):
    """Scores of kernels whose channels have these."""
    scores = {}
    for path, values in by_path.items():
        shape = RESIDUAL[path].shape
        last = shape[-1:] if len(values) == shape[-1] else shape[-2:]
        scores[path] = np.broadcast_to(np.array(values, float).reshape(last), shape).copy()
    return scores


def test_tied_channels_go_together_by_the_mean_of_all_their_weights():
    scores = scored_channels(
        stem=[9, 9, 0, 9], block=[1, 9, 9, 9], depthwise=[5, 5, 5, 5], wide=[9] * 6, head=[0] * 3
    )
    # Means over 9 + 4 + 9 weights: channel 2 has (0 + 36 + 45) / 22, channel 0 (81 + 4 + 45) / 22.
    mask = masks.make(scores, 20, ties=RESIDUAL_TIES, **named("global", "channel"))
    assert "head" not in mask
    for path in ("stem", "block"):
        assert mask[path].all(axis=(0, 1, 2)).tolist() == [True, True, False, True]
        assert mask[path].any(axis=(0, 1, 2)).tolist() == [True, True, False, True]
    assert mask["depthwise"][0, 0, :, 0].tolist() == [True, True, False, True]
    assert mask["wide"].all()


def test_channels_that_a_dense_kernel_makes_too_must_stay():
    scores = scored_channels(block=[0, 0, 0, 0], wide=[1, 2, 3, 4, 5, 6])
    mask = masks.make(scores, 40, ties=RESIDUAL_TIES, **named("global", "channel"))
    assert list(mask) == ["wide"]  # the stem, which is not pruned, makes those of the block
    assert mask["wide"].any(axis=(0, 1, 2)).tolist() == [False, False, True, True, True, True]


def test_a_kernel_keeps_a_channel_and_that_is_said(caplog):
    scores = scored_channels(stem=[0, 0, 0, 0], block=[0, 0, 0, 0], wide=[1] * 6)
    options = named("global", "channel")
    with caplog.at_level(logging.WARNING):
        mask = masks.make(scores, 75, ties=RESIDUAL_TIES, **options)
    assert mask["stem"].any(axis=(0, 1, 2)).tolist() == [False, False, False, True]
    assert "mask.pattern.alive=1 keeps channels, which score too low, of stem, block" in caplog.text
    emptied = named("global", "channel", alive=0)
    assert not masks.make(scores, 75, ties=RESIDUAL_TIES, **emptied)["stem"].any()
    caplog.clear()
    masks.make(scores, 30, ties=RESIDUAL_TIES, **options)
    assert not caplog.text


def test_a_kernel_with_fewer_channels_than_must_stay_keeps_them_all():
    scores = {"a": np.ones((5, 4)), "b": 2 + np.random.default_rng(0).random((5, 40))}
    within = {"a": np.tile([False, False, True, True], (5, 1)), "b": np.ones((5, 40), bool)}
    options = {"ties": tied(scores), **named("global", "channel", alive=3)}
    mask = masks.make(scores, 50, within=within, before=5, **options)
    assert gone(mask) == {"a": 2 * 5, "b": 20 * 5}


def test_a_percentile_out_of_reach_names_the_highest():
    scores = scored_channels(stem=[1, 2, 3, 4], block=[1, 2, 3, 4], wide=[1] * 6)
    options = {"ties": RESIDUAL_TIES, **named("global", "channel", alive=3)}
    # 13 of 52 weights and 3 x 4 of 24 can go: 25 of 76.
    with pytest.raises(ConfigError, match=r"mask.percentile=60 cannot.*highest possible is 32\.89"):
        masks.make(scores, 60, **options)
    assert total(masks.make(scores, 32.89, **options)) == 13 + 8
    with pytest.raises(ConfigError, match=r"of the 24 weights of wide have to stay.*is 50.00"):
        masks.make(
            {"wide": scores["wide"]}, 70, ties=RESIDUAL_TIES, **named("layer", "channel", alive=3)
        )


@pytest.mark.parametrize("allocation", ["layer", "erk", "global"])
def test_what_is_short_of_a_channel_is_not_out_of_reach(allocation):
    scores = {"k": np.random.default_rng(0).random((5, 4))}
    mask = masks.make(scores, 99, ties=tied(scores), **named(allocation, "channel"))
    assert gone(mask) == {"k": 15}


def test_channels_without_ties_are_an_error():
    with pytest.raises(ConfigError, match="must know which channels are tied"):
        masks.make({"k": np.ones((2, 2))}, 50, **named("global", "channel"))
    with pytest.raises(ConfigError, match="channel finds nothing to prune in k"):
        masks.make({"k": np.ones((2, 2))}, 50, ties=Ties(), **named("global", "channel"))


# -- n of m


def groups(mask, m):
    """(groups, m) along the input channels."""
    return np.moveaxis(mask, -2, -1).reshape(-1, m)


@given(
    st.lists(st.tuples(st.integers(1, 3), st.integers(1, 5)), min_size=1, max_size=3),
    st.sampled_from([(2, 4), (1, 4), (4, 8), (1, 2)]),
    st.integers(0, 9),
)
def test_of_every_m_inputs_n_stay(sizes, n_m, seed):
    n, m = n_m
    generator = np.random.default_rng(seed)
    scores = {f"k{i}": generator.random((2, 2, m * a, b)) for i, (a, b) in enumerate(sizes)}
    scores["dense"] = np.round(3 * generator.random((m, 3)))
    options = named("global", "n_of_m", n=n, m=m)
    mask = masks.make(scores, 100 * (1 - n / m), **options)
    control = masks.shuffle(mask, seed, pattern=options["pattern"])
    for path, s in scores.items():
        kept, values = groups(mask[path], m), groups(s, m)
        assert (kept.sum(axis=1) == n).all()
        assert (groups(control[path], m).sum(axis=1) == n).all()
        order = np.argsort(values, axis=1, kind="stable")
        assert not np.take_along_axis(kept, order[:, : m - n], axis=1).any()


def test_inputs_that_do_not_divide_name_the_ways_out():
    scores = {"stem": np.ones((3, 3, 3, 8)), "next": np.ones((1, 1, 8, 8))}
    with pytest.raises(ConfigError, match=r"stem do not.*skip_first=true.*mask\.pattern\.pad=true"):
        masks.make(scores, 50, **named("global", "n_of_m"))


def test_padding_goes_first():
    scores = {"k": np.arange(7.0)[:, None] * np.ones((1, 2))}
    options = named("global", "n_of_m", pad=True)
    mask = masks.make(scores, 50, **options)["k"]
    assert mask[:, 0].tolist() == [False, False, True, True, False, True, True]
    control = masks.shuffle({"k": mask}, 3, pattern=options["pattern"])["k"]
    assert (control[:4].sum(axis=0) == 2).all()
    assert (control[4:].sum(axis=0) == 2).all()
    assert masks.make({"k": np.ones((1, 1))}, 50, **options)["k"].all()


@given(st.integers(0, 9))
def test_n_of_m_never_revives(seed):
    generator = np.random.default_rng(seed)
    within = {"k": generator.random((8, 6)) < 0.5}
    mask = masks.make(
        {"k": generator.random((8, 6))}, 50, within=within, **named("global", "n_of_m")
    )
    assert nested(mask, within)
    assert (
        groups(mask["k"], 4).sum(axis=1) == np.minimum(groups(within["k"], 4).sum(axis=1), 2)
    ).all()


@pytest.mark.parametrize(
    ("allocation", "options", "percentile", "said"),
    [
        ("global", {}, 60, r"mask.percentile=60 is not what 2 of 4.*set mask.percentile=50"),
        ("global", {"n": 1, "m": 3}, 60, r"set mask.percentile=66\.67"),
        ("global", {"n": 4}, 50, r"mask.pattern.n=4 must be less than mask.pattern.m=4"),
        ("erk", {}, 50, r"mask.scope=erk has no effect"),
    ],
)
def test_what_n_of_m_cannot_be_is_said_before_there_are_scores(
    allocation, options, percentile, said
):
    chosen = named(allocation, "n_of_m", **options)
    with pytest.raises(ConfigError, match=said):
        chosen["pattern"].check(Target(percentile, chosen["allocation"]))
    with pytest.raises(ConfigError, match=said):
        masks.make({"k": np.ones((12, 2))}, percentile, **chosen)


# -- blocks


@pytest.mark.parametrize(
    ("rows", "columns", "expected"),
    [
        (1, 4, [[0, 0, 0, 0, 1], [0, 0, 0, 0, 1], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1]]),
        (4, 1, [[0, 0, 1, 1, 1], [0, 0, 1, 1, 1], [0, 0, 1, 1, 1], [0, 0, 1, 1, 1]]),
    ],
)
def test_blocks_lie_in_the_matrix_of_inputs_and_outputs(rows, columns, expected):
    scores = np.array([[0, 0, 0, 0, 9], [0, 0, 1, 3, 9], [0, 1, 8, 8, 9], [0, 1, 8, 8, 9.0]])
    options = named("global", "block", rows=rows, columns=columns)
    mask = masks.make({"k": scores.reshape(2, 1, 2, 5)}, 40, **options)["k"]
    assert mask.reshape(4, 5).astype(int).tolist() == expected


def test_choices_are_found_by_name():
    assert choices.allocation.names() == ALLOCATIONS
    assert choices.pattern.names() == ("block", "channel", "n_of_m", "weight")
    assert choices.pattern.of({"name": "n_of_m", "n": 1}).n == 1
    with pytest.raises(ConfigError, match=r"mask/scope=lapm is unknown; did you mean lamp\?"):
        choices.allocation.find("lapm")
    with pytest.raises(ConfigError, match=r"option mask\.pattern\.column is unknown.*columns"):
        choices.pattern.of({"name": "block", "column": 1})


def test_a_score_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="not a number"):
        masks.make({"k": np.array([[1.0, np.nan]])}, 50, **weight("global"))
