"""transfer.py: what moves, what stays zero, what each control starts from, and what is refused."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from conftest import composed, laboratory, result_folder, run

import lottery
from lottery import studies, tickets, transfer
from lottery.data.preprocessing import Preprocessing, resized
from lottery.errors import DivergedError, TicketError
from lottery.files import read_json
from lottery.points import Point
from lottery.runs import Run, runs_of
from lottery.store import Store
from lottery.sweep import plan

TARGET = ("data.classes=[6,7,8,9]", "trainer.epochs=2", "trainer.batch_size=64", "logger=csv")
HEAD = {"classifier/kernel", "classifier/bias"}
ALL = ("transfer.controls=all", "transfer.longest=3")


@pytest.fixture(scope="module")
def study(ticket_study, shallow):
    return ticket_study.lab, ticket_study.result, ticket_study.file


def moving(study, *overrides):
    lab, _, file = study
    options = [f"ticket={file}", f"paths.store={lab.store.root}", *TARGET, *overrides]
    return composed(*options, name="transfer")


@pytest.fixture(scope="module")
def moved(study):
    result = transfer.transfer(moving(study, *ALL), study[0])
    return result, runs_of(result)


def test_every_control_is_there_in_order(moved):
    result, runs = moved
    assert [r["name"] for r in result["runs"]] == ["ticket", *transfer.CONTROLS]
    assert len({run.key for run in runs.values()}) == 6
    for row in result["runs"]:
        assert 0 <= row["test_top1"] <= row["test_top5"] <= 1
    for each in runs.values():
        assert each.correct("test").mean() == each.result["test_top1"]
    assert json.dumps(result, allow_nan=False)


@pytest.mark.parametrize("name", ["ticket", "fresh", "random"])
def test_pruned_weights_are_exactly_zero_at_every_kept_state(moved, name):
    run = moved[1][name]
    assert run.points == [Point(0), Point(2)]
    assert HEAD.isdisjoint(run.mask)
    for epoch in run.points:
        state = run.state(epoch)
        for path, mask in run.mask.items():
            assert not state[f"model/{path}"][~mask].any()
            momentum = state[f"optimizer/{path.replace('/', '_')}_momentum"]
            assert not momentum[~mask].any()


def test_the_mask_is_the_tickets_but_for_the_new_head(study, moved):
    ticket, runs = lottery.load_ticket(study[2]), moved[1]
    for name in ("ticket", "fresh"):
        assert set(runs[name].mask) == set(ticket.mask) - HEAD
        for path, mask in runs[name].mask.items():
            np.testing.assert_array_equal(mask, ticket.mask[path])
    random = runs["random"].mask
    assert {p: m.sum() for p, m in random.items()} == {
        p: m.sum() for p, m in runs["fresh"].mask.items()
    }
    assert any((random[p] != ticket.mask[p]).any() for p in random)
    for name in ("dense", "scratch", "scratch_time"):
        assert not runs[name].mask


def test_densities_of_a_moved_ticket_count_the_dense_head(moved):
    run = moved[1]["ticket"]
    summary = read_json(run.path / "mask.json")
    pruned = sum(int((~m).sum()) for m in run.mask.values())
    matrices = [v.size for path, v in run.weights().items() if path.endswith("/kernel")]
    assert summary["kernels"] == sum(matrices) > summary["prunable"]
    assert summary["density_of_kernels"] == (sum(matrices) - pruned) / sum(matrices)
    assert summary["left_out"] == []


def test_each_run_starts_where_it_says(study, moved):
    ticket, runs = lottery.load_ticket(study[2]), moved[1]
    parent = runs_of(study[1])["dense"].weights()
    begun = {name: run.weights(0) for name, run in runs.items()}
    for path, trained in ticket.trained.items():
        if path in HEAD or "seed_generator" in path:
            continue
        np.testing.assert_array_equal(begun["ticket"][path], trained)
        np.testing.assert_array_equal(begun["dense"][path], parent[path])
    assert begun["ticket"]["classifier/kernel"].shape[-1] == 4
    kernel = next(iter(set(ticket.mask) - HEAD))
    first = runs_of(study[1])["dense"].weights(0)[kernel]
    kept = runs["fresh"].mask[kernel]
    for name in ("fresh", "scratch"):
        assert not np.array_equal(begun[name][kernel][kept], ticket.trained[kernel][kept])
    # Not the initialisation that the mask was found in: that would be the lottery ticket again.
    assert not np.array_equal(begun["fresh"][kernel][kept], first[kept])


def test_fresh_weights_get_the_full_learning_rate(study, moved):
    rates = {row["name"]: row["learning_rate"] for row in moved[0]["runs"]}
    full = moving(study).optimizer.learning_rate
    low = pytest.approx(0.1 * full)
    assert rates["ticket"] == rates["dense"] == low
    assert {rates[n] for n in ("fresh", "random", "scratch", "scratch_time")} == {full}
    peak = max(row["learning_rate"] for row in moved[1]["ticket"].metrics)
    assert peak <= 0.1 * full


def test_a_new_head_gets_the_full_rate_while_the_rest_hardly_moves(study, moved):
    slow = moving(study, "transfer.rate=1e-6")
    run = runs_of(transfer.transfer(slow, study[0]))["ticket"]
    body = next(iter(set(run.mask) - HEAD))

    def moves(run, path):
        return float(np.abs(run.weights()[path] - run.weights(0)[path]).max())

    assert moves(run, body) < 0.01 * moves(moved[1]["ticket"], body)
    assert moves(run, "classifier/kernel") > 0.3 * moves(moved[1]["ticket"], "classifier/kernel")


def test_what_was_rewound_to_its_initialisation_is_fresh(study):
    ticket = lottery.load_ticket(study[2])
    first = replace(ticket, provenance={**ticket.provenance, "pristine": True})
    config = transfer.fitted(moving(study, "transfer.weights=rewound"), ticket)
    rates = [
        transfer.make("ticket", config, t, study[0].store).config.optimizer.learning_rate
        for t in (ticket, first)
    ]
    assert rates == [pytest.approx(0.1 * config.optimizer.learning_rate), rates[1]]
    assert rates[1] == config.optimizer.learning_rate


def test_same_time_is_that_of_finding_and_moving_the_ticket(study, moved):
    rows = {row["name"]: row for row in moved[0]["runs"]}
    ticket = lottery.load_ticket(study[2])
    spent = ticket.provenance["seconds"] + rows["ticket"]["seconds"]
    epoch = rows["scratch"]["seconds"] / rows["scratch"]["epochs"]
    assert rows["scratch"]["epochs"] == 2
    affordable = max(1, round(spent / epoch))
    assert rows["scratch_time"]["epochs"] == min(3, affordable)
    longer = moving(study, f"transfer.longest={affordable + 1}")
    assert transfer._affordable(longer, ticket, moved[1]) == affordable


def test_nothing_is_computed_twice(study, moved):
    lab, result, _ = study[0], *moved
    before = {p: p.stat().st_mtime_ns for p in lab.store.root.rglob("*") if p.is_file()}
    again = transfer.transfer(moving(study, *ALL), lab)
    assert again == result
    assert before == {p: p.stat().st_mtime_ns for p in lab.store.root.rglob("*") if p.is_file()}
    assert transfer.lineage(moving(study, *ALL), lab.store).done
    # Another store has the ticket from its file, and none of the runs.
    assert not transfer.lineage(moving(study), Store(lab.store.root / "other")).done


def test_scratch_does_not_depend_on_the_ticket(study, moved):
    ticket = lottery.load_ticket(study[2])
    other = replace(ticket, trained=ticket.rewound)
    assert other.digest != ticket.digest
    config, store = transfer.fitted(moving(study), ticket), study[0].store
    for name in ("fresh", "random", "scratch", "dense"):  # none of them has the ticket's weights
        assert transfer.make(name, config, other, store).node(store).done
    assert not transfer.make("ticket", config, other, store).node(store).done


def test_rewound_weights_and_the_head_alone(study):
    ticket = lottery.load_ticket(study[2])
    result = transfer.transfer(
        moving(study, "transfer.weights=rewound", "transfer.train=head"), study[0]
    )
    found = runs_of(result)["ticket"]
    before, after = found.weights(0), found.weights()
    for path, array in before.items():
        if path in HEAD:
            assert not np.array_equal(after[path], array)
        elif "seed_generator" not in path:  # of dropout, which the head still has
            np.testing.assert_array_equal(array, ticket.rewound[path])
            np.testing.assert_array_equal(after[path], array)


def test_the_moved_ticket_is_a_ticket(study, moved):
    run = moved[1]["ticket"]
    ticket = lottery.load_ticket(run.path)
    assert ticket.classes == ("6", "7", "8", "9")
    assert ticket.provenance["moved_from"] == "digits, classes 0 1 2 3 4 5"
    assert ticket.provenance["runs"]["transfer"] == run.key
    assert ticket.model().output_shape == (None, 4)
    assert ticket.key == run.key  # not that of the ticket before
    assert ticket.provenance["variant"] == "ticket"


# -- images of another size --------------------------------------------------------------------


@pytest.mark.parametrize(("source", "target"), [(8, 13), (8, 32), (28, 8), (9, 4), (7, 7)])
def test_resizing_is_tensorflows_with_antialiasing(source, target):
    images = np.random.default_rng(0).integers(0, 256, (3, source, source, 2), np.uint8)
    expected = tf.image.resize(images, (target, target), antialias=True)
    compiled = tf.function(lambda x: resized(x, target, target), jit_compile=True)
    np.testing.assert_allclose(resized(tf.constant(images), target, target), expected, atol=0.02)
    np.testing.assert_allclose(compiled(tf.constant(images)), expected, atol=0.02)


def test_a_crop_is_resized_after_it_is_cut():
    images = tf.constant(np.random.default_rng(0).integers(0, 256, (4, 12, 12, 1), np.uint8))
    p = Preprocessing((16, 16, 1), 0, False, (0.0,), (1 / 255,), crop_size=8)
    np.testing.assert_allclose(
        p.evaluation(images), resized(images[:, 2:10, 2:10], 16, 16), rtol=1e-5, atol=1e-3
    )
    trained = p.training(images, seed=0, step=tf.constant(3, tf.int64))
    assert trained.shape == (4, 16, 16, 1)
    windows = [resized(images[:, y : y + 8, x : x + 8], 16, 16) for y in range(5) for x in range(5)]
    for i in range(4):
        assert min(np.abs(trained[i] - w[i]).max() for w in windows) < 1e-3


@pytest.mark.slow
def test_a_ticket_takes_images_of_another_size(study, real_data):
    tfds = real_data / "tensorflow_datasets"
    config = moving(
        study, "data=fashion_mnist", f"data.root={tfds}", "data.classes=[0,8]", "trainer.epochs=1",
        "trainer.batch_size=512",
    )  # fmt: skip
    result = transfer.transfer(config, study[0])
    found = runs_of(result)["ticket"]
    assert found.input_shape == (8, 8, 1)
    assert found.config["data"]["resize"] == 8
    assert found.config["data"]["mean"] == list(lottery.load_ticket(study[2]).mean)
    assert result["runs"][0]["test_top1"] > 0.7  # T-shirts and bags


@pytest.mark.parametrize("stored", [8, 6])
def test_images_are_resized_whether_or_not_the_user_says_so(study, stored):
    """Fitting a config that fits changes nothing, and a size given twice is not thrown away."""
    ticket = lottery.load_ticket(study[2])
    for overrides in (
        (f"data.image_size={stored}",),
        (f"data.image_size={stored}", "data.resize=8"),
    ):
        once = transfer.fitted(moving(study, *overrides), ticket)
        assert once.data.resize == (None if stored == 8 else 8)
        assert transfer.fitted(once, ticket) == once


# -- what is planned -----------------------------------------------------------------------------


def planned(study, *cells, underway=lambda node: None):
    made = plan.make(
        [((), moving(study, *c, "seed=77")) for c in cells], study[0].store, underway,
        chain=transfer.lineage,
    )  # fmt: skip
    numbers = [c.number for job in made.jobs for c in job]
    assert sorted([*numbers, *(c.number for c in (*made.done, *made.underway))]) == [
        *range(len(cells))
    ]
    assert not made.parents
    return made


def test_every_cell_of_a_sweep_has_its_job(study, tmp_path):
    other = replace(lottery.load_ticket(study[2]), classes=tuple("abcdef"))
    tickets.write(other, tmp_path / tickets.FILE)
    of_other = f"ticket={tmp_path / tickets.FILE}"
    # One ticket, other controls: one job, for both need the ticket's run.
    made = planned(study, (), ("transfer.controls=fresh",))
    assert [[c.number for c in job] for job in made.jobs] == [[0, 1]]
    assert made.epochs == 4
    # Two tickets: two jobs, though they share a control; the lease lets one wait.
    scratch = "transfer.controls=[scratch]"
    made = planned(study, (scratch,), (scratch, of_other))
    assert [[c.number for c in job] for job in made.jobs] == [[0], [1]]
    assert made.epochs == 6


def test_a_cell_is_underway_only_if_all_of_it_is(study):
    ticket = transfer.lineage(moving(study, "seed=77"), study[0].store).last.key
    made = planned(
        study, (), ("transfer.controls=fresh",),
        underway=lambda node: "job 7" if node.key == ticket else None,
    )  # fmt: skip
    assert [c.number for c in made.underway] == [0]
    assert [[c.number for c in job] for job in made.jobs] == [[1]]


# -- what is refused -----------------------------------------------------------------------------


def refused(config) -> str:
    (message,) = studies.find("transfer").check(config)
    assert "\n" not in message
    return message


def test_what_cannot_be_is_said_before_anything_runs(study, tmp_path, real_data):
    tfds = f"data.root={real_data / 'tensorflow_datasets'}"
    assert "1 channel" in (message := refused(moving(study, "data=cifar10", tfds)))
    assert "cifar10 has 3" in message
    message = refused(moving(study, "transfer.controls=[fresh,densely]"))
    assert "transfer.controls=densely is unknown; did you mean dense" in message
    assert "there is no ticket" in refused(moving(study, f"ticket={tmp_path / 'none'}"))
    message = refused(moving(study, "ticket=null", f"paths.outputs={tmp_path}"))
    assert message == "say which: ticket=<ticket file, run folder or report>"
    (tmp_path / "prune" / "one").mkdir(parents=True)
    shutil.copy(study[2], tmp_path / "prune" / "one")
    message = refused(moving(study, "ticket=null", f"paths.outputs={tmp_path}"))
    assert message.endswith(f"; the newest in {tmp_path / 'prune'} is {tmp_path / 'prune' / 'one'}")
    message = refused(moving(study, "transfer.controls=dense", f"paths.store={tmp_path}"))
    assert "dense parent" in message
    assert "paths.store" in message
    assert "batch" in refused(moving(study, "trainer.batch_size=5000"))
    assert "fewer than two classes" in refused(moving(study, "data.classes=[3]"))
    ticket = lottery.load_ticket(study[2])
    unknown = replace(ticket, network=replace(ticket.network, name="resnet200"))
    tickets.write(unknown, tmp_path / "unknown.safetensors")
    message = refused(moving(study, f"ticket={tmp_path / 'unknown.safetensors'}"))
    assert "model=resnet200 is unknown; did you mean resnet20" in message


@pytest.mark.parametrize(
    "change",
    [
        lambda t: replace(t, network=replace(t.network, options={"width": 0.5})),
        lambda t: replace(t, mask={**t.mask, "nowhere/kernel": np.ones(3, bool)}),
        lambda t: replace(t, trained={k: v for k, v in t.trained.items() if "stem" not in k}),
    ],
    ids=["shapes", "mask", "missing"],
)
def test_a_ticket_of_another_network_is_refused_before_it_trains(study, tmp_path, change):
    tickets.write(change(lottery.load_ticket(study[2])), tmp_path / tickets.FILE)
    with pytest.raises(TicketError, match=r"does not fit resnet20.*keras"):
        transfer.transfer(moving(study, f"ticket={tmp_path}"), laboratory(tmp_path))


@pytest.mark.parametrize("controls", ["5", "true", "[all,fresh]"])
def test_controls_that_mean_nothing(study, controls):
    assert "is unknown" in refused(moving(study, f"transfer.controls={controls}"))


def test_a_control_that_diverges_leaves_the_rest(study, monkeypatch):
    run = transfer._run

    def diverging(variant, ticket, lab):
        if variant.name == "scratch":
            raise DivergedError("the loss is not a finite number by step 1")
        return run(variant, ticket, lab)

    monkeypatch.setattr(transfer, "_run", diverging)
    result = transfer.transfer(moving(study, "transfer.controls=[scratch,scratch_time]"), study[0])
    rows = {row["name"]: row for row in result["runs"]}
    assert "key" in rows["ticket"]
    assert "not a finite number" in rows["scratch"]["missing"]
    assert "from scratch failed" in rows["scratch_time"]["missing"]


def test_a_schedule_that_its_time_is_too_short_for_leaves_the_rest(study):
    """That is known after the ticket and the run from scratch alone."""
    own = ("transfer.controls=[scratch,scratch_time]", "transfer.longest=1", "schedule.warmup=1ep")
    config = moving(study, *own)
    rows = {row["name"]: row for row in transfer.transfer(config, study[0])["runs"]}
    assert {"key"} <= rows["ticket"].keys() & rows["scratch"].keys()
    assert rows["scratch_time"]["missing"].startswith(
        "trainer.epochs=1 is what that time and transfer.longest allow, but schedule.warmup=1ep is "
        "not shorter than the training"
    )
    assert transfer.lineage(config, study[0].store).done


@pytest.mark.slow
def test_without_its_parent_the_other_controls_are_run(study, tmp_path):
    other = laboratory(tmp_path)
    config = moving(
        study, "transfer.controls=all", f"paths.store={tmp_path}", "trainer.epochs=1",
        "transfer.longest=1",
    )  # fmt: skip
    assert not studies.find("transfer").check(config)
    rows = {row["name"]: row for row in transfer.transfer(config, other)["runs"]}
    assert "is not in the store" in rows["dense"]["missing"]
    assert all("key" in row for name, row in rows.items() if name != "dense")


# -- as a user types it --------------------------------------------------------------------------


@pytest.mark.slow
def test_one_command_moves_a_ticket_and_a_sweep_moves_it_again(study, tmp_path):
    common = (f"ticket={study[2]}", f"paths.outputs={tmp_path}", *TARGET, "trainer.epochs=1")
    process = run("transfer.py", *common, "transfer.controls=[fresh]")
    assert process.returncode == 0, process.stderr
    folder = result_folder(process.stdout)
    assert {p.name for p in folder.iterdir()} == {
        "result.json", "config.yaml", "metrics.csv", "status.json", "transfer.log", ".hydra",
        "ticket.safetensors",
    }  # fmt: skip
    table = process.stdout[process.stdout.index("resnet20 from") :]
    assert "resnet20 from digits, classes 0 1 2 3 4 5 to digits, classes 6 7 8 9" in table
    percent = r"\d+\.\d\d"  # top-5 says nothing of four classes
    assert re.search(rf"\n ?ticket +{percent} +{percent} +\d\d\.\d % +1 +\d:\d\d", table)
    assert "mask, fresh weights" in table
    assert max(map(len, table.splitlines()[:-1])) <= 80
    assert lottery.load_run(folder).kind == "transfer"
    assert lottery.load_ticket(folder).classes == ("6", "7", "8", "9")
    rows = (folder / "metrics.csv").read_text().splitlines()[1:]
    assert [row.partition(",")[0] for row in rows] == ["ticket", "fresh"]

    sweep = run("transfer.py", "-m", *common, "seed=0,1", "transfer.controls=[fresh]")
    assert sweep.returncode == 0, sweep.stderr
    assert re.search(r"cells +2: 1 done, 0 underway elsewhere, 1 to run", sweep.stdout)
    (outputs,) = (p.parent for p in (tmp_path / "transfer").glob("*/sweep.json"))
    results = [read_json(outputs / n / "result.json") for n in "01"]
    assert results[0]["runs"] == read_json(folder / "result.json")["runs"]
    assert results[1]["transfer"]["seed"] == 1
    for cell in "01":
        assert Run(runs_of(results[int(cell)])["ticket"].path).config["seed"] == int(cell)
        assert (outputs / cell / "ticket.safetensors").exists()
    again = run("transfer.py", "-m", *common, "seed=0,1", "transfer.controls=[fresh]")
    assert "nothing to compute" in again.stdout


@pytest.mark.parametrize("option", ["model=resnet20", "mask.percentile=50", "transfer.epochs=3"])
def test_options_that_a_transfer_does_not_have_are_unknown(option):
    process = run("transfer.py", "ticket=x", option)
    assert process.returncode == 1
    assert re.fullmatch(r"error: .*(unknown|no choice of model).*\n", process.stderr)


# -- which weights are fresh -------------------------------------------------------------------


def test_the_weights_that_a_moved_ticket_began_with_were_trained_before(study, moved):
    """Its training began at epoch 0 too, but of a transfer."""
    full = moving(study).optimizer.learning_rate
    for variant, pristine in (("ticket", False), ("fresh", True), ("random", True)):
        again = tickets.of_run(moved[1][variant])
        assert again.provenance["rewound_to"] == "0ep"
        assert again.pristine == pristine
        config = transfer.fitted(moving(study, "transfer.weights=rewound"), again)
        made = transfer.make("ticket", config, again, study[0].store)
        rate = made.config.optimizer.learning_rate
        assert rate == (full if pristine else pytest.approx(0.1 * full))
        assert made.pristine == pristine


def test_the_random_mask_depends_on_the_pattern_in_which_it_is_drawn(study):
    ticket = lottery.load_ticket(study[2])
    config = transfer.fitted(moving(study), ticket)
    drawn = {"name": "n_of_m", "n": 2, "m": 4}
    mask = {**ticket.provenance["mask"], "pattern": drawn}
    other = replace(ticket, provenance={**ticket.provenance, "mask": mask})
    for name, same in (("fresh", True), ("random", False)):
        one, two = (transfer.make(name, config, t, study[0].store) for t in (ticket, other))
        assert (one.identity == two.identity) == same, name


def test_what_trains_the_head_alone_has_no_use_for_a_lower_rate(study):
    ticket = lottery.load_ticket(study[2])
    keys = set()
    for rate in (0.1, 0.01):
        config = transfer.fitted(
            moving(study, "transfer.train=head", f"transfer.rate={rate}"), ticket
        )
        for name in ("ticket", "dense"):
            made = transfer.make(name, config, ticket, study[0].store)
            assert made.config.optimizer.learning_rate == config.optimizer.learning_rate
            assert made.head_rate == 1
            keys.add(made.node(study[0].store).key)
    assert len(keys) == 2


def test_the_head_learns_at_the_full_rate_in_every_run(study, monkeypatch):
    """In the dense control too, which is to differ from the ticket by its mask alone."""
    ticket, lab = lottery.load_ticket(study[2]), study[0]
    config = transfer.fitted(moving(study), ticket)
    rates = {}
    for name in ("ticket", *transfer.CONTROLS):

        def note(config, lab, kind, about, attempt, name=name):
            recipe = attempt().recipe
            assert recipe.config.optimizer == config.optimizer
            rates[name] = config.optimizer.learning_rate, recipe.head_rate

        monkeypatch.setattr(transfer, "trained", note)
        transfer._run(transfer.make(name, config, ticket, lab.store), ticket, lab)
    full = config.optimizer.learning_rate
    for name, (rate, head_rate) in rates.items():
        assert rate * head_rate == pytest.approx(full), name
        assert (rate < full) == (name in ("ticket", "dense")), name
