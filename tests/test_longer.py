"""Three epochs and then six are six at once, bit for bit; and why not, where they are not."""

import contextlib
import itertools
import logging
import shutil
import signal
from dataclasses import dataclass, replace
from logging import LogRecord
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY, composed, laboratory, resnet_4, result_folder
from test_kill import seeded, start

from lottery import choices, experiment, files
from lottery.analysis import price
from lottery.runs import Run, load_run, runs_of
from lottery.sweep import plan
from lottery.tracking import Track, Tracker
from lottery.training import rates, schedules
from lottery.training.checkpoints import equal
from lottery.transfer import transfer

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
    words = ("goes on from", ": trained from the start")
    lines = [m for m in map(LogRecord.getMessage, caplog.records) if any(w in m for w in words)]
    caplog.clear()
    return lines


@pytest.fixture(autouse=True)
def listening(caplog):
    caplog.set_level(logging.INFO)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Three epochs at a constant rate, and in another place six."""
    labs = [laboratory(tmp_path_factory.mktemp(name)) for name in ("three", "six")]
    for lab, epochs in zip(labs, (3, 6), strict=True):
        experiment.train_dense(study(epochs, *CONSTANT), lab)
    return labs


@pytest.fixture
def labs(trained, tmp_path):
    """The one in which the study of three epochs gets longer, and one in which it is six."""
    return [copied(lab, tmp_path) for lab in trained]


def copied(lab: Any, folder: Path) -> Any:
    folder /= lab.store.root.parent.name
    shutil.copytree(lab.store.root, folder / "store")
    return laboratory(folder)


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
    "step": ("schedule=step", "schedule.warmup=1ep", "schedule.milestones=[2ep,4ep]"),
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


VARIED = (
    {"name": "constant"},
    {"name": "constant", "warmup": "3it"},
    {"name": "constant", "warmup": 0.25},
    {"name": "step", "milestones": [0.5, 0.75]},
    {"name": "step", "milestones": ["9it", "40it"], "warmup": "3it"},
    {"name": "step", "milestones": ["9it", "11it"], "factor": 0.5},
    {"name": "wsd", "warmup": "3it"},
    {"name": "wsd", "decay": "10it", "shape": "sqrt"},
    {"name": "cosine", "final": 0.1},
    {"name": "exponential_decay", "decay_rate": 0.5, "decay_steps": 5},
    {"name": "polynomial_decay"},
)
LENGTHS = (12, 16, 24)  # steps
BUILT = [(choices.schedule.of(values), steps) for values in VARIED for steps in LENGTHS]


def test_what_schedules_say_of_themselves_is_true():
    """Whatever two of them: as long as they say that they are alike, each rate is the same."""
    found = [rates.of_steps(s, 0.1, steps=n, until=n) for s, n in BUILT]
    pieces = [s.pieces(n) for s, n in BUILT]
    common = []
    for (a, ours), (b, theirs) in itertools.combinations(zip(pieces, found, strict=True), 2):
        part = schedules.alike(a, b)
        assert part == schedules.alike(b, a)
        until = min(len(ours), len(theirs), *([] if part is None else [part]))
        assert ours[:until].tobytes() == theirs[:until].tobytes()
        common.append(part)
    assert None in common  # the constant one of 12 steps and of 24
    assert 9 in common  # that and the first milestone
    assert common.count(0) > len(common) / 4


def test_a_shorter_training_ends_where_a_longer_one_has_passed(labs, caplog, monkeypatch):
    longer, at_once = labs
    six = experiment.train_dense(study(6, *CONSTANT), at_once)
    taken = steps_taken(monkeypatch)
    one = experiment.train_dense(study(1, *CONSTANT), at_once)
    assert taken == []
    assert said(caplog) == [f"goes on from epoch 1 of dense {six.key}: 0 of 4 steps are left"]
    (longer.store.root / "dense").rename(longer.store.root / "gone")
    assert_same(one, experiment.train_dense(study(1, *CONSTANT), longer))


@pytest.mark.parametrize(
    "options",
    [
        ("mask.at=start",),  # rewound to there, too
        # Made early, of weights of another dense network: the same ones.
        ("mask.at=1ep", "mask.shuffle=true", "rewind.epoch=1"),
        ("mask=set", "mask.during.frequency=5"),  # steps 5 and 10 of 12, 15 and 20 of the rest
    ],
)
def test_a_ticket_goes_on_with_the_same_mask(labs, caplog, monkeypatch, options):
    longer, at_once = labs
    short = runs_of(experiment.find_ticket(study(3, *CONSTANT, *options), longer))
    said(caplog)
    six = study(6, *CONSTANT, *options)
    taken = steps_taken(monkeypatch)
    found = runs_of(experiment.find_ticket(six, longer))
    assert [line.partition(":")[0] for line in said(caplog)] == [
        f"goes on from epoch 3 of {kind} {run.key}" for kind, run in short.items()
    ]
    assert min(taken) == 3 * found["dense"].steps_per_epoch
    whole = runs_of(experiment.find_ticket(six, at_once))
    for kind, run in found.items():
        assert_same(run, whole[kind])


@pytest.fixture(scope="module")
def both(trained, tmp_path_factory):
    """A laboratory with dense networks of three epochs and of six."""
    lab = copied(trained[0], tmp_path_factory.mktemp("both"))
    experiment.train_dense(study(6, *CONSTANT), lab)
    return lab


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ((), "its mask is another one"),  # made of the weights at the end
        (("mask.at=1ep", "rewind=lr"), "it began with another state"),
        (
            ("mask=set", "mask.during.frequency=4"),
            "only one of them changes the mask after step 12",
        ),
        (
            ("mask=gradual", "mask.during.frequency=2"),
            "mask.during=gradual may depend on how long the training is",
        ),
    ],
)
def test_a_ticket_that_begins_otherwise_is_trained_from_its_start(both, caplog, options, reason):
    short = runs_of(experiment.find_ticket(study(3, *CONSTANT, *options), both))["ticket"]
    said(caplog)
    ticket = runs_of(experiment.find_ticket(study(6, *CONSTANT, *options), both))["ticket"]
    assert said(caplog) == [
        f"ticket {short.key} has 3 of the 6 epochs, but {reason}: trained from the start"
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
            "the step schedule of 6 epochs differs from that of 3 from step 2 on, and it kept no "
            "state before that",
        ),
    ],
)
def test_where_it_cannot_go_on_one_line_says_why(labs, caplog, options, reason):
    longer, at_once = labs
    short = experiment.train_dense(study(3, *SHORT, *options), longer)
    six = experiment.train_dense(study(6, *SHORT, *options), longer)
    assert said(caplog) == [
        f"dense {short.key} has 3 of the 6 epochs, but {reason}: trained from the start"
    ]
    assert "went_on_from" not in six.result
    assert_same(six, experiment.train_dense(study(6, *SHORT, *options), at_once))


def test_a_stable_rate_goes_on_from_where_it_began_to_fall(trained, tmp_path, caplog):
    """The state there is kept; and a constant rate is the same until it falls."""
    longer, wsd = copied(trained[0], tmp_path), (*SHORT, "schedule=wsd", "schedule.decay=2ep")
    constant = experiment.train_dense(study(3, *CONSTANT), longer)
    short = experiment.train_dense(study(5, *wsd), longer)
    assert [str(point) for point in short.points] == ["0ep", "1ep", "3ep", "5ep"]
    shutil.rmtree(constant.path)
    seven = experiment.train_dense(study(7, *wsd), longer)
    assert said(caplog) == [
        f"goes on from epoch 3 of dense {constant.path.name}: 8 of 20 steps are left",
        f"goes on from epoch 3 of dense {short.key}, and parts from it there: 16 of 28 steps are "
        "left",
    ]
    assert_same(seven, experiment.train_dense(study(7, *wsd), laboratory(tmp_path / "at once")))


def test_a_state_that_must_be_kept_is_trained_where_the_shorter_one_did_not(labs, caplog):
    longer, at_once = labs
    short = experiment.train_dense(study(3, *CONSTANT), longer)
    kept = study(6, *CONSTANT, "rewind.keep=[2]")
    six = experiment.train_dense(kept, longer)
    assert said(caplog) == [f"goes on from epoch 1 of dense {short.key}: 20 of 24 steps are left"]
    shutil.rmtree(at_once.store.root / "dense")
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


def test_a_transfer_goes_on(ticket_study, tmp_path, caplog):
    moved = (
        "data=digits_5_to_9", "data.classes=[6,7,8]", f"ticket={ticket_study.file}", "logger=csv",
        "trainer.batch_size=128", "schedule=constant",
    )  # fmt: skip

    def run(folder: str, epochs: int) -> Run:
        config = composed(*moved, f"trainer.epochs={epochs}", name="transfer")
        return runs_of(transfer(config, laboratory(tmp_path / folder)))["ticket"]

    with resnet_4():
        short = run("longer", 1)
        said(caplog)
        longer = run("longer", 2)
        spe = longer.steps_per_epoch
        assert said(caplog) == [
            f"goes on from epoch 1 of transfer {short.key}: {spe} of {2 * spe} steps are left"
        ]
        assert_same(longer, run("at once", 2))


@choices.callback("acts")
@dataclass(frozen=True)
class Acts:
    """Changes nothing, but does not say so."""

    def build(self):
        return keras_callback()


@choices.callback("tells")
@dataclass(frozen=True)
class Tells:
    """Says that it does not depend on the length."""

    knows_length = False

    def build(self):
        return keras_callback()


def keras_callback() -> Any:
    import keras

    return keras.callbacks.Callback()


@pytest.mark.parametrize(
    ("cls", "says"),
    [
        (Acts, "callback=acts may depend on how long the training is"),
        (Tells, "goes on from epoch 1"),
    ],
)
def test_a_callback_that_acts_may_know_the_length(tmp_path, caplog, cls, says):
    own, lab = {"own": cls()}, laboratory(tmp_path)
    for epochs in (1, 2):
        experiment.train_dense(replace(study(epochs, *CONSTANT), callback=own), lab)
    (line,) = said(caplog)
    assert says in line


@choices.callback("stops_at_2")
@dataclass(frozen=True)
class StopsAt2:
    """Remembers nothing, and says that it does not depend on the length."""

    knows_length = False
    remembers = ()

    def build(self):
        class Stops(type(keras_callback())):
            def on_epoch_end(self, epoch, logs=None):
                self.model.stop_training = epoch == 1

        return Stops()


def test_one_that_was_stopped_is_no_beginning_and_has_the_epochs_that_it_has(tmp_path, caplog):
    own, lab = {"own": StopsAt2()}, laboratory(tmp_path)
    short, longer = (
        experiment.train_dense(replace(study(epochs, *CONSTANT), callback=own), lab)
        for epochs in (3, 6)
    )
    assert said(caplog) == [
        f"dense {short.key} has 2 of the 6 epochs, but callback=stops_at_2 may depend on how long "
        "the training is: trained from the start"
    ]
    assert longer.result["stopped_epoch"] == 2


@pytest.mark.parametrize("told", ["stopped_epoch", "restored_epoch"])
def test_what_a_result_says_of_its_end_counts(labs, caplog, told):
    """Whatever the class of a callback says today."""
    longer, _ = labs
    (short,) = (Run(path.parent) for path in longer.store.root.glob("dense/*/done.json"))
    files.write_json(short.path / "result.json", {**short.result, told: 2})
    six = experiment.train_dense(study(6, *CONSTANT), longer)
    assert "a callback has decided how it ended: trained from the start" in said(caplog)[0]
    assert "went_on_from" not in six.result


def test_a_plan_prices_the_epochs_that_are_left(trained):
    store = trained[0].store
    options = [
        ("mask.at=start", "rewind.epoch=0"),
        ("mask.at=start", "rewind.epoch=1"),
        ("rewind.keep=[2]",),
    ]
    cells = [((), study(6, *CONSTANT, *own)) for own in options[:2]]
    made = plan.make(cells, store)
    assert (made.epochs, made.begun) == (3 + 6 + 5, 3)
    # A state that a cell needs and that was not kept.
    made = plan.make([*cells, ((), study(6, *CONSTANT, *options[2]))], store)
    assert (made.epochs, made.begun) == (5 + 6 + 5 + 5, 1)
    made = plan.make([((), study(6, *SHORT, "mask.at=start"))], store)
    assert (made.epochs, made.begun) == (6 + 5, 0)


def test_a_plan_knows_tickets_by_their_masks(labs):
    longer, _ = labs
    for at in ("start", "1ep", "end"):
        own = [f"mask.at={at}", "rewind.epoch=1"]
        experiment.find_ticket(study(3, *CONSTANT, *own), longer)
        made = plan.make([((), study(6, *CONSTANT, *own))], longer.store)
        assert made.begun == (3 if at == "end" else 3 + 2)


def test_a_report_counts_what_is_gone_on_from_once(labs):
    longer, _ = labs
    three = experiment.train_dense(study(3, *CONSTANT), longer)
    six = experiment.train_dense(study(6, *CONSTANT), longer)
    nine = experiment.train_dense(study(9, *CONSTANT), longer)
    images = 4 * 256
    results = {run.key: run.result for run in (three, six, nine)}
    cost = price.Cost.once(results)
    assert (cost.trainings, cost.images) == (3, 9 * images)
    assert cost.multiply_adds == nine.result["training_multiply_adds"]
    assert cost.seconds == pytest.approx(nine.result["seconds"])
    del results[three.key]
    assert price.Cost.once(results).images == 9 * images


def test_wandb_shows_the_whole_history(labs, monkeypatch):
    rows: list[dict[str, Any]] = []

    @contextlib.contextmanager
    def run(self, key, job_type, tags=(), name=None):
        yield Track([], log=rows.append)

    monkeypatch.setattr(Tracker, "run", run)
    longer, _ = labs
    six = experiment.train_dense(study(6, *CONSTANT), longer)
    assert rows == six.metrics[:3]


def test_wandb_shows_no_rows_of_another_training(tmp_path, monkeypatch):
    """Of a ticket, which begins after the epoch that it is rewound to."""
    own, lab = (*SHORT, "schedule=wsd", "schedule.decay=2ep", "mask.at=start"), laboratory(tmp_path)
    experiment.find_ticket(study(4, *own), lab)
    rows: list[dict[str, Any]] = []

    @contextlib.contextmanager
    def run(self, key, job_type, tags=(), name=None):
        yield Track([], log=rows.append if job_type == "ticket" else lambda row: None)

    monkeypatch.setattr(Tracker, "run", run)
    ticket = runs_of(experiment.find_ticket(study(6, *own), lab))["ticket"]
    assert ticket.result["went_on_from"]["point"] == "2ep"
    assert rows == ticket.metrics[:1]


@pytest.mark.kill
def test_a_kill_in_what_is_added_changes_nothing(tmp_path):
    """The process goes on from a finished training, is killed, and the next one from there."""
    options = ("schedule=constant", "mask.at=start", "rewind.epoch=0", "rewind.keep=[3]")
    code, text = start(tmp_path, *options, "trainer.epochs=12").end()
    assert code == 0, text
    attempt = start(tmp_path, *options)
    attempt.interrupt("dense", signal.SIGKILL, seeded())
    code, text = attempt.end()
    assert code == -signal.SIGKILL, text
    assert "goes on from epoch 12 of dense" in text
    code, text = start(tmp_path, *options).end()
    assert code == 0, text
    assert "resuming after step" in text
    assert "goes on from epoch 12 of ticket" in text
    ticket = load_run(result_folder(text))
    code, text = start(tmp_path / "at once", *options).end()
    assert code == 0, text
    unbroken = load_run(result_folder(text))
    assert_same(ticket, unbroken)
    assert_same(ticket.parent, unbroken.parent)
    assert ticket.parent.result["went_on_from"]["epochs"] == 12
