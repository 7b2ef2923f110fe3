"""Every kind of mask from one command, what they share in the store, and what cannot be."""

import numpy as np
import pytest
from conftest import REPOSITORY, TINY, composed, laboratory

from lottery import experiment, tickets
from lottery.analysis import collect
from lottery.errors import ConfigError, LotteryError, TicketError
from lottery.lineage import lineage
from lottery.runs import Run, runs_of
from lottery.store import Store
from lottery.training.checkpoints import equal

PRESETS = sorted(path.stem for path in (REPOSITORY / "conf" / "mask").glob("*.yaml"))
# Enough to train one epoch on, and small layers: their inputs do not divide.
OWN = {
    "2_of_4": ["mask.pattern.pad=true"], "4_of_8": ["mask.pattern.pad=true"],
    "iterative": ["mask.percentile=36"], "lenet": ["mask.percentile=36"],
    "gradual": ["mask.during.frequency=2"], "set": ["mask.during.frequency=2"],
    "rigl": ["mask.during.frequency=2"], "snip": ["mask.score.per_class=2"],
    "grasp": ["mask.score.per_class=2"], "taylor": ["mask.score.per_class=2"],
    "synflow": ["mask.score.rounds=5"],
}  # fmt: skip
# Of 30 or 10 inputs the last 2 or 6, which fill no group, lose less than half.
EXPECTED = {"iterative": 36.0, "2_of_4": 45.0, "4_of_8": 45.0, "channel": 50.0}


def options(preset: str) -> tuple[str, ...]:
    start = ("trainer.epochs=2", "trainer.batch_size=128", "rewind.keep=[]")
    usual = [o for o in TINY if not o.startswith(("rewind", "mask"))]
    return (*usual, *start, f"mask={preset}", "rewind.epoch=0", *OWN.get(preset, []))


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One dense network for all."""
    return laboratory(tmp_path_factory.mktemp("shared"))


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_ends_in_a_ticket(shared, preset):
    result = experiment.find_ticket(composed(*options(preset)), shared)
    ticket = runs_of(result)["ticket"]
    mask, weights = ticket.mask, ticket.weights()
    assert all(not weights[path][~kept].any() for path, kept in mask.items())
    removed = 100 * (1 - result["mask"]["density"])
    if preset == "lenet":  # the output layer at half the rate
        shares = {p: 1 - kept.mean() for p, kept in mask.items()}
        assert shares["fc1/kernel"] == pytest.approx(0.36, abs=0.01)
        assert shares["classifier/kernel"] == pytest.approx(0.19, abs=0.02)
    else:
        assert removed == pytest.approx(EXPECTED.get(preset, 88.0), abs=2)
    order = [k.path for k in runs_of(result)["dense"].kernels if k.path in mask]
    assert list(result["mask"]["layers"]) == order
    (dense,) = (shared.store.root / "dense").iterdir()
    assert result["dense"]["key"] == dense.name


@pytest.mark.parametrize(
    "chosen", [("mask=snip", "mask.shuffle=true"), ("mask=rigl",), ("mask=random", "rewind=signs")]
)
def test_a_ticket_that_is_trained_before_its_dense_network_is_the_same(shared, tmp_path, chosen):
    preset = chosen[0].removeprefix("mask=")
    config = composed(*options(preset), *chosen[1:], "rewind.epoch=0", "mask.percentile=70")
    ahead = laboratory(tmp_path)
    early = experiment.train_early(config, ahead)
    assert not (ahead.store.root / "dense").exists()
    with pytest.raises(TicketError, match="is not trained yet: the command that trained"):
        tickets.of_run(early)
    with pytest.raises(LotteryError, match=r"its dense network .* is not trained yet"):
        collect.from_store(ahead.store.root, {})
    late = runs_of(experiment.find_ticket(config, shared))["ticket"]
    assert early.key == late.key
    assert early.points == late.points
    assert all(equal(early.state(point), late.state(point)) for point in late.points)
    assert equal(early.mask, late.mask)
    assert early.result["val_loss"] == late.result["val_loss"]


@pytest.mark.parametrize("preset", ["gradual", "rigl"])
def test_a_ticket_whose_mask_changed_begins_with_the_weights_of_the_dense_network(
    shared, preset, tmp_path
):
    """What its first mask pruned and has grown since is not zero among them."""
    runs = runs_of(experiment.find_ticket(composed(*options(preset)), shared))
    ticket, first = tickets.of_run(runs["ticket"]), runs["dense"].weights(0)
    for path, mask in ticket.mask.items():
        assert (ticket.rewound[path] == np.where(mask, first[path], 0)).all(), path
    assert ticket.pristine
    tickets.write(ticket, tmp_path / tickets.FILE)
    assert tickets.read(tmp_path / tickets.FILE).digest == ticket.digest


@pytest.mark.parametrize(
    ("preset", "own", "dense"),
    [
        ("gradual", [], False),
        ("snip", [], False),
        ("snip", ["mask.shuffle=true"], False),
        ("snip", ["rewind=finetune"], True),
        ("magnitude", [], True),
    ],
)
def test_a_ticket_cost_the_training_of_what_it_was_found_in(shared, preset, own, dense):
    runs = runs_of(experiment.find_ticket(composed(*options(preset), *own), shared))
    parts = [runs["ticket"], *([runs["dense"]] if dense else [])]
    seconds = sum(run.result["seconds"] for run in parts)
    assert tickets.of_run(runs["ticket"]).provenance["seconds"] == pytest.approx(seconds)


def test_scores_that_cost_passes_are_computed_once(shared):
    before = len(list((shared.store.root / "score").glob("*/done.json")))
    made = [
        runs_of(experiment.find_ticket(composed(*options("snip"), *own), shared))["ticket"].mask
        for own in (["mask.percentile=40"], ["mask.percentile=70"], ["mask.shuffle=true"])
    ]
    nodes = list((shared.store.root / "score").glob("*/done.json"))
    assert len(nodes) <= max(before, 1)
    assert all((made[0][path] | ~kept).all() for path, kept in made[1].items())  # nested


def test_scores_that_depend_on_the_target_are_not_shared(shared):
    for percentile in (40, 70):
        config = composed(*options("synflow"), f"mask.percentile={percentile}")
        experiment.find_ticket(config, shared)
    keys = {
        lineage(composed(*options("synflow"), f"mask.percentile={p}"), shared.store).rounds[0].mask
        for p in (40, 70)
    }
    assert len(keys) == 2
    stored = list((shared.store.root / "score").glob("*/done.json"))
    assert len(stored) >= 2


def test_a_mask_made_before_training_is_shared_by_all_trainings():
    def mask(*own):
        return lineage(composed(*options("synflow"), *own), Store("nowhere")).rounds[0].mask.key

    first = mask()
    assert mask("trainer.epochs=7") == mask("optimizer=adam") == mask("schedule=constant") == first
    assert mask("seed=1") != first
    assert mask("model.width=0.2") != first


def test_a_percentile_that_the_pattern_cannot_reach_says_the_highest(shared):
    config = composed(*options("channel"), "mask.percentile=99")
    # One channel with its 64 inputs stays, and one with its 30.
    with pytest.raises(ConfigError, match=r"99 cannot be reached: 94 .* possible is 95\.76"):
        experiment.find_ticket(config, shared)


def test_channels_go_whole_with_all_that_reads_them(shared):
    result = experiment.find_ticket(composed(*options("channel")), shared)
    ticket = Run(shared.store.root / "ticket" / result["ticket"]["key"])
    for path, kept in ticket.mask.items():
        columns = kept.reshape(-1, kept.shape[-1])
        assert (columns.all(axis=0) | ~columns.any(axis=0)).all(), path
    assert "classifier/kernel" not in ticket.mask
    assert np.isfinite(ticket.result["val_loss"])


def test_a_mask_that_cannot_be_made_leaves_the_others_of_a_sweep_alone(shared, caplog):
    cells = [composed(*options("channel"), f"mask.percentile={p}") for p in (99, 41)]
    experiment.prepare(cells[0], shared, cells)
    done = [lineage(cell, shared.store).rounds[0].mask.done for cell in cells]
    assert done == [False, True]
    assert "mask.percentile=99, mask.score=magnitude" in caplog.text
    assert "mask.pattern=channel cannot be made" in caplog.text
    assert "The highest possible is" in caplog.text
