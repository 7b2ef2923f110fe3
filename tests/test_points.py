"""Points in training: how they are written, and rewinding to a step within an epoch."""

import numpy as np
import pytest
from conftest import TINY, composed
from hypothesis import given
from hypothesis import strategies as st

from lottery import experiment, studies
from lottery.errors import ConfigError
from lottery.lineage import epoch_steps, lineage
from lottery.points import Point
from lottery.runs import runs_of
from lottery.store import Store

counts = st.integers(0, 10**6)


@given(counts, counts)
def test_what_is_written_reads_back(epochs, steps):
    point = Point(epochs, steps)
    assert Point.of(str(point)) == Point.of(point) == point


@given(counts, st.integers(1, 10**4))
def test_every_step_is_a_point(step, steps_per_epoch):
    point = Point.at(step, steps_per_epoch)
    assert point.step(steps_per_epoch) == step
    assert point.steps < steps_per_epoch


@pytest.mark.parametrize(
    ("value", "point", "label", "words"),
    [
        (5, Point(5), "5", "epoch 5"),
        ("5", Point(5), "5", "epoch 5"),
        ("0ep", Point(0), "0", "epoch 0"),
        ("2000it", Point(0, 2000), "2000it", "step 2000"),
        ("5ep100it", Point(5, 100), "5ep100it", "epoch 5, step 100"),
    ],
)
def test_points_by_hand(value, point, label, words):
    assert Point.of(value) == point
    assert (point.label, point.words) == (label, words)


@pytest.mark.parametrize("value", ["", "ep", "5it3ep", "-1", -1, 2.5, True, None, "5 ep"])
def test_what_is_no_point_is_said(value):
    with pytest.raises(ConfigError, match="is no point in training: write epochs and steps"):
        Point.of(value)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("rewind.step=9", "rewind.step=9 lies after the 8 steps of trainer.epochs=2"),
        ("rewind.keep=[1,x]", "rewind.keep: 'x' is no point in training"),
    ],
)
def test_a_point_that_cannot_be_is_refused(override, said):
    (found,) = studies.find("prune").check(composed(*TINY, override))
    assert found.startswith(said)


def test_a_whole_epoch_in_steps_is_the_same_ticket():
    config = composed(*TINY)
    spe = epoch_steps(config)
    one, other, third = (
        lineage(composed(*TINY, option), Store("nowhere")).rounds[-1].ticket.key
        for option in ("rewind.epoch=1", f"rewind.step={spe}", f"rewind.step={spe - 1}")
    )
    assert one == other != third


def test_a_ticket_is_rewound_to_a_step_within_an_epoch(lab):
    config = composed(*TINY, "mask.percentile=0", "rewind.step=3")
    result = experiment.find_ticket(config, lab)
    dense, ticket = runs_of(result)["dense"], runs_of(result)["ticket"]
    assert (result["rewind"]["epoch"], result["rewind"]["step"]) == (None, 3)
    assert ticket.points[0] == Point(steps=3)
    assert ticket.state("3it")["optimizer/iteration"] == 3
    ends = dense.weights(), ticket.weights()
    assert all(np.array_equal(ends[0][path], ends[1][path]) for path in ends[0])
    assert ticket.result["epochs"] == pytest.approx(2 - 3 / 4)
    assert {str(p) for p in dense.points} >= {"0ep", "3it", "2ep"}  # kept, not replayed
    assert "replayed" not in ticket.result


def test_a_step_that_was_not_kept_is_replayed(lab):
    experiment.train_dense(composed(*TINY), lab)
    config = composed(*TINY, "rewind.step=7")
    ticket = runs_of(experiment.find_ticket(config, lab))["ticket"]
    assert ticket.points[0] == Point(1, 3)
    assert ticket.result["replayed"] == "exactly"
