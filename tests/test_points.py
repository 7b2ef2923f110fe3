"""Points in training: how they are written, rewinding to one, and scoring the weights of one."""

import numpy as np
import pytest
from conftest import TINY, composed, pruned
from hypothesis import given
from hypothesis import strategies as st

from lottery import experiment, replay, studies
from lottery.errors import ConfigError
from lottery.lineage import epoch_steps, lineage
from lottery.points import Point
from lottery.pruning import masks
from lottery.runs import runs_of
from lottery.store import Store
from lottery.sweep import plan

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
        ("mask.at=9it", "mask.at=9it lies after the 8 steps of trainer.epochs=2"),
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


@pytest.mark.parametrize(
    ("one", "other"), [("start", "0"), ("start", "0ep"), ("end", "2ep"), ("1ep", "{spe}it")]
)
def test_weights_of_the_same_point_give_the_same_mask(one, other):
    spe = epoch_steps(composed(*TINY))
    for kind in ("magnitude", "snip"):
        rounds = (
            lineage(composed(*TINY, f"mask={kind}", f"mask.at={at}"), Store("nowhere")).rounds
            for at in (one, other.format(spe=spe))
        )
        first, second = (r[0].mask.key for r in rounds)
        assert first == second


def test_weights_are_scored_as_they_were_at_a_point_in_training(lab):
    """By a plain score and by one that takes passes; the dense network has kept that point."""
    found = {}
    for at in ("start", "3it", "1ep", "end"):
        for score in ("magnitude", "taylor"):
            config = composed(*TINY, f"mask={score}", f"mask.at={at}", "mask.percentile=50")
            experiment.prepare(config, lab, [config])
            found[score, at] = lineage(config, lab.store).rounds[0].mask
    keys = [node.key for node in found.values()]
    assert len(set(keys)) == len(keys)
    dense = experiment.train_dense(composed(*TINY), lab)
    for at in ("start", "3it", "1ep", "end"):
        mask = masks.read(found["magnitude", at].path / "mask.safetensors")
        weights = dense.weights() if at == "end" else replay.weights_of(
            replay.dense_state(composed(*TINY), lab, dense, Point.of(0 if at == "start" else at))
        )  # fmt: skip
        wanted = pruned({path: np.abs(weights[path]) for path in mask}, 50)
        assert all(np.array_equal(mask[path], wanted[path]) for path in mask)
    scores = sorted(lab.store.root.glob("score/*/scores.safetensors"))
    assert len(scores) == 4  # Taylor's, of four points
    assert len({file.read_bytes() for file in scores}) == 4


def test_a_dense_network_keeps_the_point_that_is_scored(lab):
    config = composed(*TINY, "mask.at=3it")
    assert Point(steps=3) in experiment.train_dense(config, lab).points
    assert cells_plan([config], lab.store).parents == ()
    (parent,) = cells_plan([composed(*TINY, "mask.at=5it")], lab.store).parents
    assert "5it" in parent.config.rewind.keep  # replayed once, before the cells


def cells_plan(configs, store):
    return plan.make([((), config) for config in configs], store)


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
