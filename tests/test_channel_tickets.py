"""Tickets of whole channels, end to end: each round trains a smaller network, and nothing else is
different."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import SMALL, composed, laboratory

from lottery import experiment, files, stability, tickets, transfer
from lottery.compaction.inference import compact
from lottery.lineage import lineage
from lottery.models.cost import multiply_adds
from lottery.runs import Run, runs_of
from lottery.store import Store
from lottery.sweep import plan
from lottery.sweep.shares import Share, Shares
from lottery.trainings import load_data

CHANNELS = (*SMALL, "mask=channel", "mask.percentile=60", "mask.rate=40", "trainer.batch_size=64")


@pytest.fixture(scope="module")
def study(tmp_path_factory, shallow):
    """An iterative ticket of two rounds, from a ResNet of 4 layers on six digits."""
    lab = laboratory(tmp_path_factory.mktemp("channels"))
    config = composed(*CHANNELS)
    return config, lab, runs_of(experiment.find_ticket(config, lab))["ticket"]


def state_of(ticket: Run):
    return {name: a for name, a in ticket.state().items() if name.startswith("model/")}


def test_each_round_trains_a_smaller_network(study):
    _, _, ticket = study
    dense, first = ticket.ancestors
    work = [r.result["multiply_adds"]["computed"] for r in (dense, first, ticket)]
    assert work[0] == dense.result["multiply_adds"]["network"]
    assert work[1] < 0.6 * work[0]
    assert work[2] < 0.6 * work[1]
    assert ticket.result["training_multiply_adds"] < 0.3 * dense.result["training_multiply_adds"]


def test_its_states_are_those_of_the_whole_network(study):
    _, _, ticket = study
    shapes = {name: array.shape for name, array in ticket.parent.state().items()}
    for point in ticket.points:
        assert {n: a.shape for n, a in ticket.state(point).items()} == shapes
    final = state_of(ticket)
    for path, kept in ticket.mask.items():
        assert not final[f"model/{path}"][~kept].any()
        gone = ~kept.any(axis=tuple(range(kept.ndim - 1)))
        norm = path.replace("_conv/kernel", "_norm")
        for name in ("gamma", "beta", "moving_mean", "moving_variance"):
            assert not final[f"model/{norm}/{name}"][gone].any()
    assert ticket.result["effective_density"] < np.mean(
        np.concatenate([m.ravel() for m in ticket.mask.values()])
    )


def test_a_ticket_file_gives_the_whole_network_with_its_accuracy(study, tmp_path):
    config, _, ticket = study
    file = tmp_path / tickets.FILE
    tickets.write(tickets.of_run(ticket), file)
    model = tickets.read(file).model()
    images = load_data(config.data).test
    found = model.predict(tickets.read(file).normalised(images.images), verbose=0)
    assert np.mean(found.argmax(axis=1) == images.labels) == pytest.approx(
        ticket.result["test_top1"], abs=1e-6
    )
    smaller = compact(model)
    assert multiply_adds(smaller) <= ticket.result["multiply_adds"]["computed"]
    np.testing.assert_allclose(
        smaller.predict(tickets.read(file).normalised(images.images[:8]), verbose=0),
        found[:8], atol=1e-4,
    )  # fmt: skip


def test_training_at_full_size_gives_the_same_ticket(study, tmp_path):
    config, lab, ticket = study
    whole = replace(config, trainer=replace(config.trainer, compact=False))
    node = laboratory(tmp_path)
    node.store.root.mkdir(parents=True)
    (node.store.root / "dense").symlink_to(lab.store.root / "dense")
    other = runs_of(experiment.find_ticket(whole, node))["ticket"]
    assert other.key == ticket.key
    assert other.result["multiply_adds"]["computed"] == other.result["multiply_adds"]["network"]
    assert other.mask.keys() == ticket.mask.keys()
    assert all((other.mask[path] == kept).all() for path, kept in ticket.mask.items())
    assert other.result["val_loss"] == pytest.approx(ticket.result["val_loss"], rel=1e-2)


def test_a_plan_knows_that_it_is_cheaper(study):
    config, lab, ticket = study
    fresh, same = (replace(config, seed=seed) for seed in (1, config.seed))
    cells = plan.cells_of([((), fresh), ((), replace(same, rewind=replace(same.rewind, epoch=2)))],
                          lab.store)  # fmt: skip
    for cell in cells:  # one whose masks are not known yet, and one whose first mask is
        assert sum(cell.price.values()) < 0.9 * sum(cell.missing.values())
    first = cells[1].lineage.rounds[0].ticket.key
    work = ticket.ancestors[1].result["multiply_adds"]
    known = cells[1].shares[first]
    assert not known.guessed
    assert known.value == pytest.approx(work["computed"] / work["network"], abs=1e-6)


def test_what_is_removed_while_a_plan_is_made_is_not_there(tmp_path):
    config, store = composed(*CHANNELS), Store(tmp_path)
    chain = lineage(config, store)
    first = chain.rounds[0]
    done = {"identity": {"mask": first.mask.key}}
    files_of = {
        first.mask.path: {"done": {}},
        tmp_path / "ticket" / "a": {"done": done},
        tmp_path / "ticket" / "b": {"done": done, "config": {"trainer": {}}},
        tmp_path / "ticket" / "c": {
            "done": done, "result": {"multiply_adds": {"computed": 1, "network": 8}},
        },
    }  # fmt: skip
    for folder, written in files_of.items():
        folder.mkdir(parents=True)
        for name, about in written.items():
            files.write_json(folder / f"{name}.json", about)
    assert Shares(store).of(config, chain)[first.ticket.key].guessed
    files.write_json(tmp_path / "ticket" / "c" / "config.json", {"trainer": {}})
    assert Shares(store).of(config, chain)[first.ticket.key] == Share(1 / 8)


def test_a_plan_knows_that_children_with_its_mask_are_cheaper(study, tmp_path):
    """Also where the mask is still to be made, or is that of a ticket file."""
    _, lab, ticket = study
    file = tmp_path / tickets.FILE
    tickets.write(tickets.of_run(ticket), file)
    share = tickets.read(file).computed_share

    def shares(*options: str) -> set[float]:
        config = composed(*CHANNELS, *options, name="stability")
        (cell,) = plan.cells_of([((), config)], lab.store, chain=stability.chain)
        return {
            cell.shares[b.node.key].value
            for b in cell.lineage.branches
            if b.node.key in cell.shares
        }

    assert shares("mask.rate=null", "mask.percentile=50") == {0.5}
    assert [*shares("rewind.epoch=1")] == [pytest.approx(share, abs=1e-6)]
    assert shares("mask=magnitude", "mask.percentile=0", f"ticket={file}") == {share}
    assert shares("mask.percentile=0", "mask.rate=null") == set()


def test_a_transfer_trains_the_smaller_network_too(study, tmp_path):
    """And the plan knew it."""
    _, lab, ticket = study
    file = tmp_path / tickets.FILE
    tickets.write(tickets.of_run(ticket), file)
    config = composed(
        f"ticket={file}", "data.classes=[6,7,8,9]", "trainer.epochs=1", "trainer.batch_size=64",
        "transfer.controls=[random]", "logger=csv", name="transfer",
    )  # fmt: skip
    (planned,) = plan.cells_of([((), config)], lab.store, chain=transfer.lineage)
    price, epochs = planned.price, planned.missing
    found = runs_of(transfer.transfer(config, lab))
    share = price[found["ticket"].key] / epochs[found["ticket"].key]
    assert share == pytest.approx(tickets.read(file).computed_share, abs=1e-9)
    assert share < 0.4
    for name in ("ticket", "random"):
        work = found[name].result["multiply_adds"]
        assert work["computed"] < 0.4 * work["network"]
        mask = found[name].mask
        assert not any(found[name].weights()[path][~kept].any() for path, kept in mask.items())
