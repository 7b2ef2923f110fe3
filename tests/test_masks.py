"""Masks: exact counts, ties, nesting, and what peers got wrong about them."""

import numpy as np
import pytest
from conftest import pruned
from hypothesis import given
from hypothesis import strategies as st

from lottery import choices
from lottery.models.kernels import Kernel
from lottery.pruning import masks
from lottery.pruning.allocation import removed, rounds
from lottery.pruning.evidence import Evidence
from lottery.pruning.scores import scored

percentiles = st.integers(0, 99_999).map(lambda i: i / 1000)
# Few distinct values, so that ties are the rule.
layers = st.lists(
    st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0]), min_size=1, max_size=30), min_size=1, max_size=4
).map(lambda lists: {f"layer_{i}/kernel": np.array(x) for i, x in enumerate(lists)})


def test_negative_weights_survive_by_magnitude():
    evidence = Evidence({"k": np.array([-3.0, 0.1, 2.0, -0.2])}, ("k",), 50)
    scores = scored(choices.score.of({"name": "magnitude"}), evidence)
    np.testing.assert_array_equal(pruned(scores, 50)["k"], [True, False, True, False])


def test_decimals_are_exact():
    assert removed(99.9, 1000) == 999  # 99.9 / 100 * 1000 is 998.9999… in binary
    assert removed(0.29, 10_000) == 29
    assert removed(0, 10) == 0


def test_a_score_that_is_no_number_is_an_error():
    with pytest.raises(ValueError, match="not a number"):
        pruned({"k": np.array([1.0, np.nan])}, 50)


@given(st.sampled_from([10.0, 20.0, 50.0]), percentiles)
def test_rounds_end_exactly_and_ladders_share_their_rungs(rate, percentile):
    ladder = rounds(percentile, rate)
    assert ladder[-1] == percentile
    assert ladder == sorted(set(ladder))
    assert ladder[:-1] == rounds(99.9999, rate)[: len(ladder) - 1]


def test_rounds_by_hand():
    assert rounds(50, 20) == [20.0, 36.0, 48.8, 50.0]
    assert rounds(48.8, 20) == [20.0, 36.0, 48.8]
    assert rounds(50, None) == [50.0]
    assert rounds(0, 20) == [0.0]


KERNELS = [
    Kernel("stem/kernel", (3, 3, 1, 8), "conv"),
    Kernel("depthwise/kernel", (3, 3, 8, 1), "depthwise"),
    Kernel("head/kernel", (8, 10), "dense"),
]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ["stem", "head"]),
        ({"depthwise": True}, ["stem", "depthwise", "head"]),
        ({"skip_first": True}, ["head"]),
        ({"skip_last": True}, ["stem"]),
        ({"skip_first": True, "skip_last": True}, []),
    ],
)
def test_prunable_layers(options, expected):
    options = {"depthwise": False, "skip_first": False, "skip_last": False} | options
    assert masks.prunable(KERNELS, **options) == [f"{name}/kernel" for name in expected]


@given(layers, percentiles)
def test_files_give_back_the_mask(scores, percentile):
    import tempfile
    from pathlib import Path

    mask = pruned(scores, percentile)
    with tempfile.TemporaryDirectory() as folder:
        masks.write(mask, Path(folder) / "mask.safetensors")
        read = masks.read(Path(folder) / "mask.safetensors")
    assert list(read) == list(mask)
    assert all(np.array_equal(read[p], mask[p]) for p in mask)


def test_summary_counts_three_ways():
    whole = masks.Whole(parameters=10, kernels=6, left_out=("b",))
    summary = masks.summary({"a": np.array([True, False, False, False])}, whole)
    densities = summary["density"], summary["density_of_kernels"], summary["density_of_all"]
    assert densities == (0.25, 0.5, 0.7)
    assert (summary["kernels"], summary["left_out"]) == (6, ["b"])
    assert summary["layers"] == {"a": {"size": 4, "kept": 1}}
