"""Weights to begin with: what they may come from, what keys hold of them, where they are seen."""

import logging
import shutil
from dataclasses import replace

import keras
import numpy as np
import pytest
from conftest import TINY, composed, laboratory, run
from test_keys import having, keys

from lottery import models, pretrained, tickets, transfer
from lottery.errors import ConfigError
from lottery.experiment import find_ticket, train_dense, train_early
from lottery.files import read_json
from lottery.lineage import lineage
from lottery.points import Point
from lottery.replay import dense_state
from lottery.runs import runs_of
from lottery.training.checkpoints import equal
from lottery.validation import CHECKS, errors

FEW = ("data.classes=[0,1,2,3,4]", "trainer.batch_size=128")
OTHERS = ("data.classes=[5,6,7,8,9]", "trainer.batch_size=128")
DROPOUT = (*TINY, "model.dropout=0.2")


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    """A ticket on five digits, and its folder: of the lab's store and the ticket's file."""
    folder = tmp_path_factory.mktemp("before")
    lab = laboratory(folder)
    result = find_ticket(composed(*DROPOUT, *FEW, "mask.percentile=50"), lab)
    found = runs_of(result)
    tickets.write(tickets.of_run(found["ticket"]), folder / tickets.FILE)
    return found, folder / tickets.FILE


def starting(place, *overrides):
    config = composed(*DROPOUT, *overrides)
    return replace(config, model=replace(config.model, weights=str(place)))


def network_of(config, shape=(8, 8, 1), classes=5):
    return models.build_choice(config.model, shape, classes)


def test_a_study_begins_with_them_and_goes_back_to_them(before, lab):
    found, file = before
    config = starting(file, *FEW, "mask.percentile=60", "rewind.epoch=0", "rewind.keep=[1]")
    result = find_ticket(config, lab)
    here = runs_of(result)
    trained = found["ticket"].weights()
    seeds = {path for path in trained if "seed_generator" in path}
    assert seeds
    begin = here["dense"].weights(0)
    for path in set(trained) - seeds:
        np.testing.assert_array_equal(begin[path], trained[path])
    mask = here["ticket"].mask
    for path, array in here["ticket"].weights(0).items():
        kept = mask.get(path, np.ones(array.shape, bool))
        np.testing.assert_array_equal(array, np.where(kept, begin[path], 0.0).astype(array.dtype))
    own = tickets.of_run(here["ticket"])
    assert not own.pristine
    assert own.network.options == tickets.of_run(found["ticket"]).network.options
    data = [entry["data"]["classes"] for entry in own.provenance["seen"]]
    assert data == [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]
    note = result["dense"]["weights"]
    assert (note["head"], note["file"]) == ("taken", str(file))
    # A state that is gone is trained again from the same beginning.
    kept = here["dense"].state(1)
    for step in here["dense"].checkpoints.steps()[:-1]:
        shutil.rmtree(here["dense"].checkpoints.path(step))
    assert equal(dense_state(config, lab, here["dense"], Point(1)), kept)


def test_the_control_has_really_fresh_weights_and_rounds_share_the_beginning(before, lab):
    _, file = before
    both = [
        runs_of(find_ticket(starting(place, *FEW, "mask.percentile=60", "rewind=reinit"), lab))
        for place in (file, "")
    ]
    fresh = [found["ticket"].weights(0) for found in both]
    same = set(both[0]["ticket"].mask) ^ set(fresh[0])  # which no mask looks at
    assert all(np.array_equal(fresh[0][path], fresh[1][path]) for path in same)
    assert tickets.of_run(both[0]["ticket"]).pristine
    assert not equal(both[0]["dense"].state(0), both[1]["dense"].state(0))
    assert len(tickets.of_run(both[0]["ticket"]).provenance["seen"]) == 2  # by the mask


def test_a_mask_that_is_made_before_training_is_one_of_these_weights(before, lab):
    _, file = before
    early = ("mask=snip", "mask.percentile=60", "rewind.epoch=0", *FEW)
    one, other = (lineage(starting(place, *early), lab.store) for place in (file, ""))
    assert one.early
    assert one.masks[0].key != other.masks[0].key
    ticket = train_early(starting(file, *early), lab)
    assert not one.dense.done
    trained = before[0]["ticket"].weights()
    kernels = ticket.mask
    begin = ticket.weights(0)
    assert all((begin[p] == np.where(k, trained[p], 0)).all() for p, k in kernels.items())
    start = read_json(ticket.path / "start.json")
    assert (start["pristine"], start["initial"]) == (False, True)


def test_a_changing_mask_begins_with_them_too(before, lab):
    _, file = before
    config = starting(file, *FEW, "mask=gradual", "mask.percentile=60", "mask.during.frequency=2")
    found = runs_of(find_ticket(config, lab))
    dense, ticket = found["dense"].weights(0), found["ticket"].weights(0)
    assert all(np.array_equal(dense[path], ticket[path]) for path in dense)


def test_the_head_is_left_fresh_for_other_classes_whatever_their_number(before, lab, caplog):
    found, file = before
    with caplog.at_level(logging.INFO):
        dense = train_dense(starting(file, *OTHERS), lab)
    assert "its head, which is for other classes there, is left fresh" in caplog.text
    trained, begin = found["ticket"].weights(), dense.weights(0)
    head = [path for path in trained if path.startswith("classifier/")]
    assert head
    assert not np.array_equal(begin["classifier/kernel"], trained["classifier/kernel"])
    rest = [path for path in begin if path not in head and "seed" not in path]
    assert all(np.array_equal(begin[path], trained[path]) for path in rest)
    assert dense.result["weights"]["head"] == "fresh"
    assert dense.result["weights"]["held_out"][0]["told"] == ""  # no image of these digits
    ten = train_dense(starting(file), lab)
    assert ten.weights(0)["classifier/kernel"].shape[-1] == 10


def test_images_that_they_have_seen_and_that_are_held_out_here_are_told(before, lab, caplog):
    train_dense(starting(before[1], *FEW, "data.split_seed=1"), lab)
    assert "have seen images that are held out here" in caplog.text


def test_keras_files_of_the_network_fit_it_and_so_do_folders_of_runs(before, tmp_path, lab):
    found, _ = before
    config = composed(*DROPOUT, *FEW)
    network = network_of(config)
    network.compile("adam", "mse")
    weights = found["dense"].weights()
    for variable in network.variables:
        variable.assign(weights[variable.path])
    network.save(tmp_path / "whole.keras")
    network.save_weights(tmp_path / "some.weights.h5")
    places = [tmp_path / "whole.keras", tmp_path / "some.weights.h5", found["dense"].path]
    runs = [train_dense(starting(place, *FEW), lab) for place in places]
    assert runs[0].key == runs[1].key  # content decides
    begins = [r.weights(0) for r in runs]
    for begin in begins:
        for path in begin:
            if "seed_generator" not in path:
                np.testing.assert_array_equal(begin[path], weights[path])
    wider = keras.Model(network.inputs, keras.layers.Dense(7)(network.layers[-2].output))
    wider.save(tmp_path / "seven.keras")  # a head of another shape
    note = train_dense(starting(tmp_path / "seven.keras", *FEW), lab).result["weights"]
    assert note == {
        "file": str(tmp_path / "seven.keras"), "head": "fresh",
        "digest": pretrained.digest(str(tmp_path / "seven.keras")),
    }  # fmt: skip


def test_keys_hold_their_content_not_their_place(before, tmp_path):
    base = composed(*DROPOUT, *FEW)
    copy = tmp_path / "another name.safetensors"
    copy.write_bytes(before[1].read_bytes())
    at = [keys(having(base, {"model.weights": str(place)})) for place in (before[1], copy)]
    assert at[0] == at[1]
    assert all(at[0][node] != keys(base)[node] for node in at[0])
    network = network_of(base)
    network.save_weights(tmp_path / "a.weights.h5")
    config = having(base, {"model.weights": str(tmp_path / "a.weights.h5")})
    one = keys(config)
    network.variables[0].assign(network.variables[0] + 1)
    network.save_weights(tmp_path / "a.weights.h5")
    assert keys(config)["dense"] != one["dense"]


def test_what_does_not_fit_is_said_in_a_line(before, tmp_path, lab):
    base = composed(*DROPOUT, *FEW)
    wide = having(base, {"model.width": 0.2})
    network_of(wide).save_weights(tmp_path / "wide.weights.h5")
    with pytest.raises(ConfigError, match=r"does not fit model=lenet_300_100 for images of 8x8x1: "
                       r"\S+ is 64x60 there and 64x30 here, and \d more"):  # fmt: skip
        train_dense(starting(tmp_path / "wide.weights.h5", *FEW), lab)
    conv = having(base, {"model.name": "conv_2"})
    network_of(conv).save_weights(tmp_path / "conv.weights.h5")
    with pytest.raises(ConfigError, match=r"\S+ is (missing|\S+) there and \S+ here"):
        train_dense(starting(tmp_path / "conv.weights.h5", *FEW), lab)
    broken = network_of(base)
    broken.variables[0].assign(np.full(broken.variables[0].shape, np.nan))
    broken.save_weights(tmp_path / "nan.weights.h5")
    (tmp_path / "text.keras").write_text("no archive")
    (tmp_path / "old.h5").write_text("of Keras 2")
    for name, message in (
        ("nan.weights.h5", "has values that are not finite"),
        ("text.keras", "no Keras file, or damaged"),
        ("old.h5", "weights are a .keras or .weights.h5 file, a ticket, or the folder of a run"),
        ("none.keras", "there is no such file or folder"),
    ):
        (said,) = errors(starting(tmp_path / name, *FEW), CHECKS[0])
        assert said.startswith(f"model.weights={tmp_path / name}: ")
        assert message in said


def test_the_weights_of_keras_itself_have_to_be_a_file():
    (said,) = errors(starting("imagenet", *FEW), CHECKS[0])
    assert said.endswith("keras.applications.<network>(weights='imagenet').save('imagenet.keras')")


def test_a_transfer_of_such_a_ticket_knows_all_images_that_it_has_seen(before, tmp_path, lab):
    config = starting(before[1], *OTHERS, "mask.percentile=60")
    ticket = runs_of(find_ticket(config, lab))["ticket"]
    tickets.write(tickets.of_run(ticket), tmp_path / "two.safetensors")
    here = composed("data.classes=[3,4]", "trainer.batch_size=64", "data.split_seed=1",
                    f"ticket={tmp_path / 'two.safetensors'}", name="transfer")  # fmt: skip
    with pytest.raises(ConfigError, match="has seen images of digits that are held out here"):
        transfer.check(here)


def test_the_command_line_takes_them(before, tmp_path):
    process = run(
        "train.py", *DROPOUT, *FEW, f"model.weights={before[1]}", f"paths.outputs={tmp_path}",
        "trainer.epochs=1",
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert f"the network begins with the weights of {before[1]}" in process.stdout + process.stderr
    said = run("train.py", *TINY, "model.weights=nowhere.keras").stderr
    assert said == "error: model.weights=nowhere.keras: there is no such file or folder\n"
