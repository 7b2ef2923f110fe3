"""Three epochs and then six are six at once, bit for bit; and why not, where they are not."""

import logging
from dataclasses import replace
from typing import Any

import pytest
from conftest import TINY, composed, laboratory

from lottery import experiment
from lottery.runs import Run, runs_of
from lottery.training.checkpoints import equal

# 4 steps an epoch, dropout, momentum.
SHORT = (*TINY, "model.dropout=0.3", "mask.percentile=60", "rewind.epoch=1")
CONSTANT = (*SHORT, "schedule=constant")
CLOCKS = {"seconds", "images_per_second", "went_on_from"}
TIMINGS = {"images_per_second", "step_seconds", "input_wait"}


def study(epochs: int, *overrides: str) -> Any:
    return composed(*overrides, f"trainer.epochs={epochs}")


def assert_same(one: Run, other: Run) -> None:
    """Every kept state bit for bit, every figure that is no timing, the mask."""
    assert one.key == other.key
    assert one.points == other.points
    assert all(equal(one.state(point), other.state(point)) for point in one.points)
    assert equal(one.mask, other.mask)
    for rows in zip(one.metrics, other.metrics, strict=True):
        a, b = ({k: v for k, v in row.items() if k not in TIMINGS} for row in rows)
        assert a == b
    a, b = ({k: v for k, v in r.result.items() if k not in CLOCKS} for r in (one, other))
    assert a == b


def said(caplog: Any) -> list[str]:
    """What the log had to say about going on, since this was asked last."""
    words = ("goes on from", "trained from the start")
    lines = [r.getMessage() for r in caplog.records if r.getMessage().startswith(words)]
    caplog.clear()
    return lines


@pytest.fixture(autouse=True)
def listening(caplog):
    caplog.set_level(logging.INFO)


@pytest.fixture
def labs(tmp_path):
    """The one in which a study gets longer, and one in which it is made at once."""
    return laboratory(tmp_path / "longer"), laboratory(tmp_path / "at once")


def steps_taken(monkeypatch) -> list[int]:
    """Which first steps of calls are trained from now on."""
    from lottery.training.loop import Loop

    taken, train = [], Loop._train_chunk

    def noting(self, chunk, *rest):
        taken.append(chunk.first_step)
        return train(self, chunk, *rest)

    monkeypatch.setattr(Loop, "_train_chunk", noting)
    return taken


SCHEDULES = {
    "constant": ("schedule=constant",),
    "warm-up": ("schedule=constant", "schedule.warmup=1ep"),
    "step": ("schedule=step", "schedule.milestones=[2ep,4ep]"),
    "keras": ("schedule=exponential_decay", "schedule.decay_rate=0.5", "schedule.decay_steps=5"),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_three_epochs_and_then_six_are_six_at_once(labs, caplog, monkeypatch, name):
    longer, at_once = labs
    options = (*SHORT, *SCHEDULES[name])
    short = experiment.train_dense(study(3, *options), longer)
    before = {p: p.read_bytes() for p in short.path.rglob("*") if p.is_file()}
    assert said(caplog) == []
    taken = steps_taken(monkeypatch)
    six = experiment.train_dense(study(6, *options), longer)
    spe = six.steps_per_epoch
    assert taken == list(range(3 * spe, 6 * spe))
    assert said(caplog) == [
        f"goes on from epoch 3 of dense {short.key}: {3 * spe} of {6 * spe} steps are left"
    ]
    assert_same(six, experiment.train_dense(study(6, *options), at_once))
    told = six.result["went_on_from"]
    assert (told["kind"], told["key"], told["epochs"]) == ("dense", short.key, 3)
    assert 0 < told["seconds"] < six.result["seconds"]
    assert "went_on_from" not in short.result
    assert before == {p: p.read_bytes() for p in short.path.rglob("*") if p.is_file()}
    assert not list((longer.store.root / "work").iterdir())


def test_a_shorter_training_ends_where_a_longer_one_has_passed(labs, caplog, monkeypatch):
    longer, at_once = labs
    options = (*CONSTANT, "rewind.keep=[2]")
    experiment.train_dense(study(3, *options), longer)
    taken = steps_taken(monkeypatch)
    two = experiment.train_dense(study(2, *options), longer)
    assert taken == []
    assert ": 0 of" in said(caplog)[0]
    assert_same(two, experiment.train_dense(study(2, *options), at_once))


@pytest.mark.parametrize(
    "options",
    [
        ("mask=snip",),  # made at the start, rewound to it
        ("mask.at=1ep",),  # made early, of another dense network's weights: the same ones
        ("mask.at=1ep", "mask.shuffle=true"),
        ("mask.at=start", "rewind=reinit"),
        ("mask=set", "mask.during.frequency=5"),  # steps 5 and 10 of 12, 15 and 20 of the rest
    ],
)
def test_a_ticket_goes_on_with_the_same_mask(labs, caplog, monkeypatch, options):
    longer, at_once = labs
    rewind = [] if options[0] == "mask=snip" else ["rewind.epoch=1"]
    short = runs_of(experiment.find_ticket(study(3, *CONSTANT, *options, *rewind), longer))
    said(caplog)
    six = study(6, *CONSTANT, *options, *rewind)
    taken = steps_taken(monkeypatch)
    found = runs_of(experiment.find_ticket(six, longer))
    assert [line.partition(":")[0] for line in said(caplog)] == [
        f"goes on from epoch 3 of {kind} {run.key}" for kind, run in short.items()
    ]
    assert min(taken) == 3 * found["dense"].steps_per_epoch
    whole = runs_of(experiment.find_ticket(six, at_once))
    for kind, run in found.items():
        assert_same(run, whole[kind])


def test_a_mask_that_only_the_longer_training_makes_is_another_one(labs, caplog):
    longer, _ = labs
    short = runs_of(experiment.find_ticket(study(3, *CONSTANT), longer))
    said(caplog)
    ticket = runs_of(experiment.find_ticket(study(6, *CONSTANT), longer))["ticket"]
    assert said(caplog) == [
        f"goes on from epoch 3 of dense {short['dense'].key}: 12 of 24 steps are left",
        f"trained from the start, and not on from ticket {short['ticket'].key}, 3 of the 6 epochs: "
        "its mask is another one",
    ]
    assert "went_on_from" not in ticket.result


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (
            ("schedule=cosine", "schedule.warmup=0"),
            "the cosine schedule of 6 epochs differs from that of 3 from the first step on",
        ),
        (
            ("schedule=constant", "schedule.warmup=0.1"),
            "the constant schedule of 6 epochs differs from that of 3 from the first step on",
        ),
        (
            ("schedule=step", "schedule.milestones=[0.1]"),
            "it kept no state before step 1, where they part",
        ),
    ],
)
def test_where_it_cannot_go_on_one_line_says_why(labs, caplog, options, reason):
    longer, at_once = labs
    short = experiment.train_dense(study(3, *SHORT, *options), longer)
    six = experiment.train_dense(study(6, *SHORT, *options), longer)
    assert said(caplog) == [
        f"trained from the start, and not on from dense {short.key}, 3 of the 6 epochs: {reason}"
    ]
    assert "went_on_from" not in six.result
    assert_same(six, experiment.train_dense(study(6, *SHORT, *options), at_once))


def test_a_stable_rate_goes_on_from_where_it_began_to_fall(labs, caplog):
    """The state there is kept; and a constant rate is the same until it falls."""
    longer, at_once = labs
    wsd = (*SHORT, "schedule=wsd", "schedule.decay=2ep")
    constant = experiment.train_dense(study(5, *CONSTANT), longer)
    short = experiment.train_dense(study(4, *wsd, "rewind.epoch=0"), longer)
    assert [str(point) for point in short.points] == ["0ep", "2ep", "4ep"]
    said(caplog)
    seven = experiment.train_dense(study(7, *wsd), longer)
    assert said(caplog) == [f"goes on from epoch 5 of dense {constant.key}: 8 of 28 steps are left"]
    assert_same(seven, experiment.train_dense(study(7, *wsd), at_once))
    (at_once.store.root / "dense" / seven.key).rename(at_once.store.root / "gone")
    experiment.train_dense(study(4, *wsd), at_once)
    said(caplog)
    again = experiment.train_dense(study(7, *wsd), at_once)
    assert said(caplog) == [
        f"goes on from epoch 2 of dense {short.key}, and parts from it there: 20 of 28 steps are "
        "left"
    ]
    assert_same(seven, again)


def test_a_state_that_must_be_kept_is_trained_where_the_shorter_one_did_not(labs, caplog):
    longer, at_once = labs
    short = experiment.train_dense(study(4, *CONSTANT), longer)
    kept = study(6, *CONSTANT, "rewind.keep=[2]")
    six = experiment.train_dense(kept, longer)
    assert said(caplog) == [f"goes on from epoch 1 of dense {short.key}: 20 of 24 steps are left"]
    assert_same(six, experiment.train_dense(kept, at_once))


def test_a_damaged_beginning_is_said_and_the_state_before_it_serves(labs, caplog):
    longer, at_once = labs
    short = experiment.train_dense(study(3, *CONSTANT), longer)
    file = short.path / "checkpoints" / "step_00000012" / "state.safetensors"
    file.write_bytes(file.read_bytes()[:-4] + b"gone")
    six = experiment.train_dense(study(6, *CONSTANT), longer)
    assert "is damaged" in caplog.text
    assert said(caplog) == [f"goes on from epoch 1 of dense {short.key}: 20 of 24 steps are left"]
    assert_same(six, experiment.train_dense(study(6, *CONSTANT), at_once))
