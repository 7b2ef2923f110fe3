"""stability.py: two children of a state, the error on the line between them, and its barrier."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from conftest import TINY, composed, laboratory, run
from hypothesis import given
from hypothesis import strategies as st

from lottery import experiment, lineage, stability, studies, tickets
from lottery.analysis.stability import Summary, conclude, read
from lottery.barriers import Line, barrier_of, barriers, height
from lottery.files import read_json, write_json
from lottery.points import Point
from lottery.pruning import masks
from lottery.runs import Run, runs_of
from lottery.store import Store
from lottery.studies.stability import Measured
from lottery.sweep import plan
from lottery.training import line
from lottery.training.checkpoints import equal
from lottery.training.recipe import from_scratch

pytestmark = pytest.mark.usefixtures("shallow")

QUICK = (*TINY, "stability.points=5", "stability.batches=2")
NORMALISED = ("model=resnet20", "model.width=0.25")  # with BatchNorm; of 4 layers here
STUDY = studies.find("stability")


def asked(*overrides):
    return composed(*QUICK, *overrides, name="stability")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    return laboratory(tmp_path_factory.mktemp("stability"))


def measured(lab, *overrides):
    return STUDY.result.read(STUDY.run(asked(*overrides), lab))


def nodes(lab, kind):
    return sorted(path.name for path in (lab.store.root / kind).glob("*"))


# -- children ------------------------------------------------------------------------------------


def test_children_begin_with_the_complete_state_and_differ_in_the_order_of_data(lab):
    result = measured(lab, *NORMALISED)
    dense, *children = result.trainings.values()
    for child in children:
        assert child.points == [Point(1), Point(2)]
        assert equal(child.state(1), dense.state(1))  # weights, slots, step: all of it
    ends = [run.weights() for run in (dense, *children)]
    assert not any(equal(a, b) for a, b in zip(ends, [*ends[1:], ends[0]], strict=True))
    assert len({child.config["seed"] for child in (dense, *children)}) == 3


def test_a_child_in_the_dense_networks_order_is_the_dense_network(tmp_path, monkeypatch):
    """So that nothing but the order tells them apart."""
    monkeypatch.setattr(stability, "order_seed", lambda seed, order: seed)
    result = measured(laboratory(tmp_path), "model.dropout=0.2")
    dense, *children = result.trainings.values()
    assert all(equal(child.state(), dense.state()) for child in children)
    assert result.barrier == 0


def test_orders_are_the_childrens_own():
    seeds = [stability.order_seed(s, order) for s in range(50) for order in stability.CHILDREN]
    assert len({*seeds, *range(50)}) == 150
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_children_of_the_last_epoch_are_one_network_without_a_barrier(lab):
    result = measured(lab, *NORMALISED, "rewind.epoch=2")
    dense, *children = result.trainings.values()
    assert all(equal(child.state(), dense.state()) for child in children)
    assert result.barriers == {
        "recomputed": {"val": 0.0, "test": 0.0},
        "interpolated": {"val": 0.0, "test": 0.0},
    }
    assert all(len(set(e)) == 1 for kind in result.measured.errors.values() for e in kind.values())


@pytest.mark.slow
def test_a_child_that_was_interrupted_ends_as_the_unbroken_one(lab, tmp_path, monkeypatch):
    from lottery.training.loop import Loop

    options = ("rewind.epoch=1", "trainer.epochs=3")
    whole = measured(lab, *options)
    other = laboratory(tmp_path)
    experiment.train_dense(asked(*options), other)
    evaluate, left = Loop.evaluate, iter([True])

    def killed(self, split):
        if next(left, False):
            return evaluate(self, split)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "evaluate", killed)
        with pytest.raises(KeyboardInterrupt):
            measured(other, *options)
    assert not nodes(other, "child")
    resumed = measured(other, *options)
    for name, run_ in resumed.trainings.items():
        assert equal(run_.state(), whole.trainings[name].state()), name
    assert resumed.line == whole.line


@pytest.mark.slow
def test_what_is_measured_once_is_never_computed_again(lab, monkeypatch):
    before = measured(lab)

    def never(*args, **kwargs):
        raise AssertionError("something is trained or measured again")

    monkeypatch.setattr("lottery.training.run.train", never)
    monkeypatch.setattr("lottery.training.line.measure", never)
    assert measured(lab) == before
    assert STUDY.lineage(asked(), lab.store).done


# -- the line ------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", [(), NORMALISED], ids=["plain", "normalised"])
def test_the_ends_of_the_line_are_the_children(lab, network):
    result = measured(lab, *network)
    found = result.measured
    assert found.shares == [0, 0.25, 0.5, 0.75, 1]
    for split, errors in found.errors["interpolated"].items():
        ends = [100 * (1 - child[f"{split}_top1"]) for child in result.children]
        assert [errors[0], errors[-1]] == ends
    assert set(found.errors) == ({"interpolated", "recomputed"} if network else {"interpolated"})
    decides = found.barriers["recomputed" if network else "interpolated"]["val"]
    assert result.barrier == found.barrier == decides


def test_statistics_are_those_of_the_images_whatever_they_were_before(lab):
    """Of the first layer they are moments over all images together, not means of batches."""
    config = asked(*NORMALISED, "trainer.batch_size=100", "data.crop_padding=1", "data.flip=true")
    data = experiment.load_data(config.data)
    found = []
    for moving in (0.0, 5.0):
        loop, length = line.build(from_scratch(config, 3), data, {})
        first = next(n for n in loop.model.layers if hasattr(n, "moving_mean"))
        first.moving_mean.assign(np.full(first.moving_mean.shape, moving))
        statistics = line._Statistics(loop, data, 3, length.steps_per_epoch)
        statistics.recompute()
        found.append([first.moving_mean.numpy(), first.moving_variance.numpy()])
    before = type(loop.model)(loop.model.inputs, first.input)
    seen = [
        loop.augmented(i[0], y[0], np.int64(s)) for s, (i, y) in enumerate(statistics._batches())
    ]
    inputs = np.concatenate([before(images).numpy() for images, _ in seen]).astype(np.float64)
    assert len(inputs) == 300
    for mean, variance in found:
        np.testing.assert_allclose(mean, inputs.mean((0, 1, 2)), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(variance, inputs.var((0, 1, 2)), rtol=1e-4, atol=1e-6)


values = st.lists(st.floats(-1e6, 1e6, width=32) | st.just(0.0), min_size=1, max_size=9)


@given(values, values, st.floats(0, 1))
def test_between_two_networks(one, other, share):
    size = min(len(one), len(other))
    a = {"w": np.array(one[:size], np.float32), "seed": np.array([1, 2], np.uint32)}
    b = {"w": np.array(other[:size], np.float32), "seed": np.array([3, 4], np.uint32)}
    at = line.between((a, b), share)
    assert at["w"].dtype == np.float32
    assert (at["w"][(a["w"] == 0) & (b["w"] == 0)] == 0).all()  # pruned weights stay so
    low, high = np.minimum(a["w"], b["w"]), np.maximum(a["w"], b["w"])
    assert ((low <= at["w"]) & (at["w"] <= high)).all()
    for pair, where, end in (((a, b), 0.0, a), ((a, b), 1.0, b), ((a, a), share, a)):
        np.testing.assert_array_equal(line.between(pair, where)["w"], end["w"])
    assert (at["seed"] == a["seed"]).all()


def test_between_a_network_and_itself_is_no_other_network():
    weights = {"w": np.random.default_rng(0).normal(size=1000).astype(np.float32)}
    for share in np.linspace(0, 1, 31):
        assert equal(line.between((weights, weights), float(share)), weights)


@pytest.mark.parametrize(
    ("errors", "barrier"),
    [([10, 10, 10], 0), ([10, 40, 20], 25), ([10, 5, 20], 5), ([30, 20, 30], 0)],
)
def test_the_barrier_is_the_highest_error_above_the_mean_of_the_ends(errors, barrier):
    assert height(errors) == barrier


# -- masks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [(), ("mask.rate=50", "mask.shuffle=true")])
def test_masked_children_have_the_mask_that_prune_makes(lab, how):
    options = ("mask.percentile=75", *how)
    result = measured(lab, *options)
    last = lineage.lineage(asked(*options), lab.store).rounds[-1]
    assert result.mask["key"] == (last.shuffled or last.mask).key
    dense, *children = result.trainings.values()
    assert result.mask["kept"] == result.mask["prunable"] - int(0.75 * result.mask["prunable"])
    weights = [child.weights() for child in children]
    for child in children:
        assert child.mask
        for path, kept in child.mask.items():
            assert (child.weights(1)[path] == dense.weights(1)[path] * kept).all()
            between = line.between((weights[0], weights[1]), 0.4)[path]
            assert not between[~kept].any()
    rounds = lineage.lineage(asked(*options), lab.store).rounds
    assert [step.ticket.done for step in rounds] == [True] * (len(rounds) - 1) + [False]
    assert STUDY.lineage(asked(*options), lab.store).done


@pytest.fixture(scope="module")
def ticket(lab, tmp_path_factory):
    result = experiment.find_ticket(
        composed(*TINY, "mask.percentile=90", "mask.skip_last=true"), lab
    )
    file = tmp_path_factory.mktemp("ticket") / tickets.FILE
    tickets.write(tickets.of_run(runs_of(result)["ticket"]), file)
    return file


def test_children_may_have_the_mask_of_a_ticket(lab, ticket):
    mask, options = tickets.read(ticket).mask, f"ticket={ticket}"
    by_lot = measured(lab, options, "mask.shuffle=true").main.mask
    assert not equal(by_lot, mask)
    assert {p: m.sum() for p, m in by_lot.items()} == {p: m.sum() for p, m in mask.items()}
    assert STUDY.lineage(asked(options, "mask.shuffle=true"), lab.store).done
    dense = experiment.train_dense(asked(), lab)
    taken = stability._mask(asked(options), lab, dense)
    assert equal(masks.read(taken.path / "mask.safetensors"), mask)
    planned = STUDY.lineage(asked(options), lab.store)
    about = stability.child_identity(asked(options), dense.key, taken.key, 1)
    assert planned.branches[0].node == lab.store.node("child", about)


# -- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("rewind.epoch=3",), "rewind.epoch=3 lies after trainer.epochs=2"),
        (("rewind.step=400",), "rewind.step=400 lies after the"),
        (("rewind=finetune",), "rewind=finetune changes the state that children go on from"),
        (("rewind=reinit",), "rewind=reinit changes the state"),
        (("rewind=lr",), "rewind=lr changes the state"),
        (("rewind.optimizer=reset",), "rewind.optimizer=reset changes the state"),
        (
            ("mask=rigl", "mask.percentile=50", "mask.during.frequency=1"),
            "mask.during=rigl changes the mask",
        ),
        (("mask.shuffle=true",), "there is none: add mask.percentile or ticket"),
        (("stability.points=2",), "stability.points=2 must be >= 3"),
        (("stability.batches=0",), "stability.batches=0 must be >= 1"),
        (("ticket=nowhere",), "there is no ticket nowhere"),
    ],
)
def test_what_cannot_be_is_one_line_before_anything_is_trained(options, said):
    (message,) = STUDY.check(asked(*options))
    assert said in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("mask.percentile=50",), "mask.percentile=50 has no meaning: leave one of them out"),
        (("model.width=0.2",), "is of another network: it has model.width 0.1, and the dense net"),
        (("model=conv_2",), "it has model.name lenet_300_100, and the dense network here conv_2"),
        (("data.image_size=6",), "it has images of 8x8x1, and the dense network here 6x6x1"),
        (("data.classes=[1,2,3]",), "it has classes 10, and the dense network here 3"),
    ],
)
def test_a_ticket_must_be_of_the_network(ticket, options, said):
    (message,) = STUDY.check(asked(f"ticket={ticket}", *options))
    assert said in message


def test_a_damaged_ticket_is_refused(ticket, tmp_path):
    damaged = bytearray(ticket.read_bytes())
    damaged[-1] ^= 1
    (tmp_path / tickets.FILE).write_bytes(damaged)
    (message,) = STUDY.check(asked(f"ticket={tmp_path}"))
    assert "damaged" in message


def test_a_mask_of_other_kernels_is_refused_where_names_do_not_tell(lab, ticket, tmp_path):
    """As of another version of the program."""
    whole = tickets.read(ticket)
    path = next(iter(whole.mask))
    renamed = {p.replace(path, "other/kernel"): m for p, m in whole.mask.items()}
    dense = experiment.train_dense(asked(), lab)
    other = replace(whole, mask=renamed)
    with pytest.raises(tickets.ticket.TicketError, match=r"other/kernel .* no such kernel"):
        stability._take_mask(asked(f"ticket={ticket}"), lab, dense, other)


# -- plans and sweeps ----------------------------------------------------------------------------


def cells_of(*values):
    return [((f"rewind.epoch={k}",), asked("trainer.epochs=30", f"rewind.epoch={k}"))
            for k in values]  # fmt: skip


def test_a_sweep_trains_the_dense_network_once_and_two_children_a_point(tmp_path):
    points = (0, 1, 2, 5, 10)
    made = plan.make(cells_of(*points), Store(tmp_path), chain=STUDY.lineage)
    assert made.epochs == 30 + 2 * sum(30 - k for k in points)
    (parent,) = made.parents
    assert {*parent.config.rewind.kept} >= set(map(Point, points))
    assert len(made.jobs) == len(points)
    assert not made.early
    again = plan.make(cells_of(5, 5), Store(tmp_path), chain=STUDY.lineage)
    assert [len(job) for job in again.jobs] == [2]  # of one job, so neither waits


def test_parents_leave_every_state_and_mask_that_children_begin_with(tmp_path):
    own = laboratory(tmp_path)
    cells = [asked("rewind.epoch=0"), asked("rewind.step=3", "mask.percentile=50")]  # of 4
    STUDY.parents(cells).run(cells[1], own)
    assert len(nodes(own, "dense")) == len(nodes(own, "mask")) == 1
    made = plan.make([((), cell) for cell in cells], own.store, chain=STUDY.lineage)
    assert made.parents == ()
    assert made.epochs == 2 * 2 + 2 * (2 - 3 / 4)


@pytest.mark.slow
def test_the_command_sweeps_without_being_told_to(tmp_path):
    arguments = ("stability.py", *QUICK, "rewind.epoch=0,2", f"paths.outputs={tmp_path}")
    process = run(*arguments)
    assert process.returncode == 0, process.stdout + process.stderr
    kinds = ("dense", "child", "line")
    made = {kind: len(list((tmp_path / "store" / kind).iterdir())) for kind in kinds}
    assert made == {"dense": 1, "child": 4, "line": 2}
    table = r"\n epoch 2 +0\.00 +0\.00 +1 +(yes|at chance) ?\n"
    assert re.search(table, process.stdout)
    (folder,) = (tmp_path / "stability").iterdir()
    found = Summary.read_file(folder / "stability.json")
    assert [(p["point"], p["seeds"]) for p in found.places] == [("0ep", 1), ("2ep", 1)]
    result = read_json(folder / "0" / "result.json")
    assert found.places[0]["barrier"] == {"mean": result["barrier"], "sd": None}
    assert found.places[0]["lines"] == [result["line"]]

    again = run(*arguments, "-m")
    assert "nothing to compute" in again.stdout
    one = run("stability.py", *QUICK, "rewind.epoch=0", f"paths.outputs={tmp_path}")
    assert one.returncode == 0, one.stderr
    assert re.search(r"cells +1: 1 done", one.stdout)
    refused = run("stability.py", *QUICK, "rewind.epoch=0,9", f"paths.outputs={tmp_path}")
    assert refused.returncode == 1
    assert "rewind.epoch=9 lies after trainer.epochs=2" in refused.stderr
    report = run("report.py", f"sweep={folder}")
    assert "is a sweep of stability.py: children of dense networks" in report.stderr


RUN = {"key": "0", "val_top1": 0.9, "test_top1": 0.9}


def line_of(point="1ep", key="d", middle=2.0, **others):
    along = {"val": [1.0, middle, 1.0], "test": [1.0, middle, 1.0]}
    values = {
        "dense": key, "point": point, "steps_per_epoch": 5, "mask": None,
        "children": [f"{key}{point}1", f"{key}{point}2"], "shares": [0, 0.5, 1], "batches": None,
        "errors": {"interpolated": along}, "at_chance": False,
    }  # fmt: skip
    return Line(**values | others)


def left(folder, *cells):
    """What a sweep leaves whose cells have these overrides and lines; no line: no result."""
    listed = [{"num": n, "overrides": own} for n, (own, _) in enumerate(cells)]
    write_json(folder / "sweep.json", {"cells": listed})
    for number, (_, found) in enumerate(cells):
        (folder / str(number)).mkdir()
        if found is not None:
            result = Measured(
                store="/store", dense=RUN, mask=None, children=[RUN, RUN], line=found.written(),
                barriers=found.barriers, barrier=found.barrier,
            )  # fmt: skip
            write_json(folder / str(number) / "result.json", result.written())


def test_a_sweep_ends_with_the_barriers_by_point_over_seeds(tmp_path, capsys):
    left(
        tmp_path,
        (["seed=0", "rewind.epoch=1"], line_of("1ep", "a", 9.0)),
        (["seed=1", "rewind.epoch=1"], line_of("1ep", "b", 5.0)),
        (["seed=0", "rewind.epoch=0"], line_of("0ep", "a", 41.0)),
        (["seed=1", "rewind.epoch=0"], None),
        (["seed=0", "rewind.step=5"], line_of("1ep", "a", 9.0)),  # the first one again
        (["seed=0", "rewind.epoch=2"], line_of("2ep", "a", 1.5)),
        (["seed=0", "rewind.epoch=3"], line_of("3ep", "a", 1.0, at_chance=True)),
    )
    conclude(tmp_path)
    printed = capsys.readouterr().out
    rows = re.findall(
        r"^ (epoch \d)  +(\S.*?)  +\S.*?  +(\d) +(yes|no|at chance) *$", printed, re.M
    )
    assert rows == [
        ("epoch 0", "40.00", "1", "no"),
        ("epoch 1", "6.00 ± 2.83", "2", "no"),
        ("epoch 2", "0.50", "1", "yes"),
        ("epoch 3", "0.00", "1", "at chance"),
    ]
    places = Summary.read_file(tmp_path / "stability.json").places
    assert [(p["barrier"]["mean"], p["seeds"], p["stable"]) for p in places] == [
        (40, 1, False), (6, 2, False), (0.5, 1, True), (0, 1, None),
    ]  # fmt: skip
    for name in ("barrier.png", "barrier.svg"):
        assert (tmp_path / name).stat().st_size > 1000


def test_what_else_is_swept_makes_series(tmp_path):
    cells = [([f"mask.percentile={p}", f"rewind.epoch={k}"], line_of(f"{k}ep", f"{p}"))
             for p in (0, 80) for k in (1, 0)]  # fmt: skip
    left(tmp_path, *cells)
    assert [(p.series, p.point.epochs) for p in read(tmp_path)] == [
        ("mask.percentile=0", 0), ("mask.percentile=0", 1),
        ("mask.percentile=80", 0), ("mask.percentile=80", 1),
    ]  # fmt: skip


def test_a_sweep_without_results_ends_without_a_word(tmp_path, capsys):
    left(tmp_path, (["rewind.epoch=1"], None))
    conclude(tmp_path)
    assert capsys.readouterr().out == ""
    assert not (tmp_path / "stability.json").exists()


# -- for the search and the report -----------------------------------------------------------------


def test_barriers_are_found_by_dense_network_and_point(lab, tmp_path):
    wanted = asked("rewind.step=4")  # a whole epoch
    result = measured(lab, "rewind.step=4")
    masked = measured(lab, "mask.percentile=75")
    lines = barriers(lab.store)
    assert {result.measured.point, masked.measured.point} == {"1ep"}
    dense = lineage.lineage(wanted, lab.store).dense.key
    assert barrier_of(lines, dense, Point(1)) == result.barrier
    assert barrier_of(lines, dense, Point(steps=4)) == result.barrier
    assert barrier_of(lines, dense, Point(0)) is None
    assert barrier_of(lines, "another", Point(1)) is None
    finer = measured(lab, "stability.points=7")
    assert barrier_of(barriers(lab.store), dense, Point(1)) == finer.barrier
    assert barriers(Store(tmp_path)) == []


def test_lines_that_are_damaged_or_unfinished_count_as_none(tmp_path):
    line_ = line_of()
    store = Store(tmp_path)
    written = line_.written()
    broken = {**written, "errors": {"interpolated": {"val": [1], "test": [1, 2, 1]}}}
    for key, content in (("0", written), ("1", broken), ("2", {}), ("3", written)):
        folder = tmp_path / "line" / key
        folder.mkdir(parents=True)
        write_json(folder / "line.json", content)
        if key != "3":
            write_json(folder / "done.json", {})
    (tmp_path / "line" / "4").mkdir()
    write_json(tmp_path / "line" / "4" / "done.json", {})
    assert barriers(store) == [line_]


def test_a_result_reads_what_it_wrote(lab):
    result = measured(lab)
    about = json.loads(json.dumps(result.written()))
    assert studies.read(about) == result
    for run_ in result.trainings.values():
        assert Run(run_.path).result
    assert read_json(result.main.path / "origin.json")["order"] == 1
