"""What a training costs, as its result has it: multiply-adds, energy, the step against dense."""

from dataclasses import replace

import pytest
from conftest import TINY, composed, laboratory

from lottery import experiment
from lottery.analysis import collect, price
from lottery.analysis.collect import Cell
from lottery.runs import Run, runs_of
from lottery.training import loop, telemetry, timing
from lottery.training.checkpoints import Progress, equal
from lottery.training.tally import Tally

# LeNet on digits of 8 x 8 pixels: 30 and 10 units, 10 classes.
LAYERS = {"fc1/kernel": 64 * 30, "fc2/kernel": 30 * 10, "classifier/kernel": 10 * 10}
WHOLE = sum(LAYERS.values())
CONFIG = composed(*TINY, "mask.percentile=80")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    return laboratory(tmp_path_factory.mktemp("price"))


def measuring(asked: bool | None):
    return replace(CONFIG, trainer=replace(CONFIG.trainer, measure_step=asked))


@pytest.fixture(scope="module")
def priced(lab) -> dict[str, Run]:
    return runs_of(experiment.find_ticket(measuring(True), lab))


def test_a_result_tells_what_an_image_and_all_images_cost(priced):
    steps = priced["dense"].steps_per_epoch
    mask = priced["ticket"].mask
    assert {path: m.size for path, m in mask.items()} == LAYERS  # each weight is used once an image
    kept = sum(int(m.sum()) for m in mask.values())
    training = 3 * WHOLE - LAYERS["fc1/kernel"]  # the image needs no gradient
    for kind, surviving, epochs in (("dense", WHOLE, 2), ("ticket", kept, 1)):
        result = priced[kind].result
        assert result["multiply_adds"] == {
            "network": WHOLE, "surviving": surviving, "computed": WHOLE, "training": training,
        }  # fmt: skip
        assert result["images_trained"] == epochs * steps * 256
        assert result["training_multiply_adds"] == epochs * steps * 256 * training
        assert priced[kind].summary["multiply_adds_surviving"] == surviving
        assert ("gpu_energy_joules" in result) == bool(telemetry.gpus())


def test_a_mask_that_changes_is_counted_as_it_is_at_the_end(lab):
    config = composed(*TINY, "mask=gradual", "mask.percentile=80", "mask.during.frequency=1")
    ticket = runs_of(experiment.find_ticket(config, lab))["ticket"]
    kept = sum(int(m.sum()) for m in ticket.mask.values())
    assert ticket.result["multiply_adds"]["surviving"] == kept < WHOLE / 4


def test_the_step_is_timed_against_dense_and_changes_no_result(priced, tmp_path, monkeypatch):
    found = priced["ticket"].result["step_time"]
    assert min(found.values()) > 0
    assert found["rounds"] == timing.ROUNDS
    assert "step_time" not in priced["dense"].result
    # Another store, and nothing measured: the same networks, and the same figures.
    monkeypatch.setattr(timing, "against_dense", None)  # it would be called
    plain = runs_of(experiment.find_ticket(measuring(None), laboratory(tmp_path)))["ticket"]
    assert "step_time" not in plain.result
    assert equal(plain.state(), priced["ticket"].state())
    clocks = {"seconds", "images_per_second", "step_time"}
    told = (
        {k: v for k, v in r.result.items() if k not in clocks} for r in (plain, priced["ticket"])
    )
    assert next(told) == next(told)


def test_both_networks_take_steps_in_turn_on_the_same_batch(lab, priced, monkeypatch):
    """The one with the mask and the one without it, as often, in the process of the training."""
    taken = []
    train = loop.Loop.train

    def noting(self, images, labels, first_step):
        taken.append((bool(self.mask), images))
        return train(self, images, labels, first_step)

    monkeypatch.setattr(loop.Loop, "train", noting)
    monkeypatch.setattr(timing, "SECONDS", 0.0)  # a call of each in a round
    config = measuring(True)
    ticket = experiment.find_ticket(replace(config, rewind=replace(config.rewind, epoch=0)), lab)
    assert ticket["ticket"]["step_time"]["ratio"] > 0
    assert len({id(images) for _, images in taken}) == 1
    sparse = [masked for masked, _ in taken]
    assert sparse[-2 * timing.ROUNDS :] == [True, False] * timing.ROUNDS


def test_no_memory_for_a_second_network_is_no_reason_to_lose_the_first(lab, monkeypatch, caplog):
    import tensorflow as tf

    def full(*_):
        raise tf.errors.ResourceExhaustedError(None, None, "no memory")

    monkeypatch.setattr(timing, "alternating", full)
    config = measuring(True)
    config = replace(config, mask=replace(config.mask, percentile=70.0))
    ticket = runs_of(experiment.find_ticket(config, lab))["ticket"]
    assert "step_time" not in ticket.result
    assert "no memory for the dense network" in caplog.text


@pytest.mark.parametrize(
    ("asked", "seconds", "calls", "worth"),
    [
        (None, 601, 100, True), (None, 599, 10_000, False), (None, 3600, 99, False),
        (True, 0.1, 1, True), (False, 3600, 10_000, False),
    ],
)  # fmt: skip
def test_timing_takes_a_small_part_of_the_training_unless_asked_for(asked, seconds, calls, worth):
    assert timing.worth_it(asked, seconds, calls) == worth


def test_a_ratio_is_the_median_of_those_of_the_rounds():
    seconds = {"own": [1.0, 8.0, 3.0], "dense": [2.0, 2.0, 2.0]}
    assert timing.ratios(seconds, "dense") == {"own": 1.5, "dense": 1.0}


def test_rounds_on_the_way_are_part_of_a_studys_cost_each_counted_once(tmp_path):
    """Dense and two rounds of iterative pruning, in a report on the last and one on all."""
    lab = laboratory(tmp_path)
    config = composed(*TINY, "mask=iterative", "mask.rate=50", "mask.percentile=75")
    result = experiment.find_ticket(config, lab)
    done = [Run(path.parent).result for path in lab.store.root.glob("*/*/metrics.csv")]
    assert len(done) == 3
    images = sum(run["images_trained"] for run in done)
    last = Cell(
        "0", "done", {}, store=lab.store.root, dense=result["dense"], ticket=result["ticket"]
    )
    every = collect.from_store(lab.store.root, {})
    for cells, alone in (((last,), 3), (every.cells, 2 + 3)):
        cost, unshared = price.of_study(replace(every, cells=cells))
        assert (cost.trainings, cost.images) == (3, images)
        assert cost.seconds == pytest.approx(sum(run["seconds"] for run in done))
        assert unshared.trainings == alone


def test_energy_adds_up_over_attempts_and_is_none_where_a_part_is_unknown():
    first = Tally(Progress(0)).progress(30.0)
    assert Tally(first).progress(12.0).joules == 42.0
    assert Tally(Tally(first).progress(None)).progress(12.0).joules is None
