"""What is said of a data set before anything is trained on it, and kept in results."""

import json
import logging
from pathlib import Path

import pytest
from conftest import TINY, dataset, result_folder, run
from test_data import tiny, write_folder, write_tfds
from test_preprocess import inline, preprocess

from lottery import data
from lottery.data import summary
from lottery.data.summary import Sides, Summary
from lottery.files import read_json
from lottery.preprocess import shards

assert inline


def folder(root: Path, **changes: object):
    return dataset(**({"source": "folder", "dir": str(root), "stored_size": 256} | changes))


def warnings(config) -> list[str]:
    return list(data.summarise(config).warnings())


def test_a_command_says_it_once_and_results_keep_the_sizes(tmp_path):
    process = run("prune.py", *TINY, f"paths.outputs={tmp_path}")
    assert process.returncode == 0, process.stderr
    lines = [line for line in process.stdout.splitlines() if " data digits" in line]
    assert [line.partition(" ")[2] for line in lines] == [
        "data digits: 1,222 training, 216 validation and 359 test images of 10 classes; an image "
        "is 8x8x1, as stored and as the network sees it; one validation image weighs 0.46 points"
    ]
    said = process.stdout.index("data digits")
    assert process.stdout.index("epoch 1/2") > said
    result = read_json(result_folder(process.stdout) / "result.json")
    for kind in ("dense", "ticket"):
        about = result[kind]
        sizes = [about[f"{split}_examples"] for split in ("train", "val", "test")]
        assert sizes == [1222, 216, 359]
        assert about["image_sides"] == {"original": 8, "stored": 8, "cropped": 8, "network": 8}
    again = run("prune.py", *TINY, f"paths.outputs={tmp_path}")
    assert "data digits" not in again.stdout, "nothing is trained"


def test_a_sweep_says_it_with_its_plan(tmp_path):
    process = run(
        "prune.py", "-m", *TINY, "data.classes=[0,1],[2,3]", "trainer.batch_size=16",
        "sweep.dry_run=true", f"paths.outputs={tmp_path}",
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    for classes in ("0, 1", "2, 3"):
        assert process.stdout.count(f" test images of 2 classes ({classes}); an image is") == 1


def test_crops_of_enlarged_images_are_warned_of(tmp_path):
    """32-pixel images stored at 256 and cropped to 64 train on sixteenths."""
    config = folder(write_folder(tmp_path, shape=(32, 40, 3)), image_size=64)
    found = data.summarise(config)
    assert found.sides == Sides(original=32, stored=256, cropped=64, network=64)
    assert "about 32 pixels as published -> 256x256x3 as stored -> 64x64 cropped" in found.line
    (warning,) = found.warnings()
    assert "of about 32 pixels, are enlarged to 256 and cropped to 64, so the network" in warning
    assert warning.endswith(
        "sees 6.2 % of each (1/16): data.image_size=null data.resize=64 shows it the whole"
    )
    whole = folder(tmp_path, image_size=None, resize=64)  # as the warning says
    assert warnings(whole) == []
    assert data.summarise(whole).sides.network == 64


@pytest.mark.parametrize(
    ("side", "cropped", "warned"),
    [(32, 224, False), (32, 160, True), (300, 160, False), (300, 128, True), (256, 256, False)],
)
def test_usual_crops_are_not(tmp_path, side, cropped, warned):
    config = folder(write_folder(tmp_path, each=5, shape=(side, side, 3)), image_size=cropped)
    assert [("enlarged" in w) for w in warnings(config)] == ([side == 32] if warned else [])


@pytest.mark.usefixtures("inline")
def test_records_know_how_large_images_were(tmp_path):
    source = write_folder(tmp_path / "images", shape=(20, 32, 3))
    manifest = preprocess(source, tmp_path / "records", size=64)
    sides = {"smallest": 20, "median": 20, "largest": 20}
    assert [split["original_sides"] for split in manifest["splits"].values()] == [sides]
    config = dataset(source="records", dir=str(tmp_path / "records"), image_size=16)
    assert data.summarise(config).sides == Sides(20, 64, 16, 16)
    assert len(warnings(config)) == 1


@pytest.mark.usefixtures("inline")
def test_a_journal_of_an_older_version_leaves_them_open(tmp_path, monkeypatch):
    made = shards._made

    def older(task):
        made(task)
        journal = read_json(task.journal)
        del journal["sides"]
        task.journal.write_text(json.dumps(journal))
        return shards._finished(task)

    monkeypatch.setattr(shards, "_made", older)
    source = write_folder(tmp_path / "images")
    (split,) = preprocess(source, tmp_path / "records")["splits"].values()
    assert split["original_sides"] is None
    config = dataset(source="records", dir=str(tmp_path / "records"))
    assert data.summarise(config).sides.original is None


def test_tfds_declares_or_is_sampled(tmp_path):
    place = write_tfds(tmp_path) / "features.json"
    assert data.summarise(tiny(tmp_path, stored_size=64)).sides.original == 8
    features = json.loads(place.read_text())
    features["featuresDict"]["features"]["image"]["image"]["shape"]["dimensions"] = ["-1"] * 3
    place.write_text(json.dumps(features))
    assert data.summarise(tiny(tmp_path, stored_size=64)).sides.original == 8


def test_uneven_classes_are_warned_of_with_their_ratio(tmp_path):
    write_folder(tmp_path, classes=3, each=30, shape=(8, 8, 3))
    for file in sorted((tmp_path / "class1").iterdir())[3:]:
        file.unlink()
    (warning,) = warnings(folder(tmp_path, stored_size=8))
    found = data.summarise(folder(tmp_path, stored_size=8))
    assert (found.most[0], found.fewest) == ("class0", ("class1", 2))
    assert warning.startswith(
        f"classes are uneven: class0 has {found.most[1] / 2:g} times the training images of class1"
    )
    assert warnings(folder(tmp_path, stored_size=8, classes=[0, 2])) == []


def test_it_is_told_once(caplog):
    about = Summary("birds", "folder", 90, 10, 20, 2, (), (8, 8, 3), Sides(None, 8, 8, 8), False,
                    ("a", 50), ("b", 40))  # fmt: skip
    with caplog.at_level(logging.INFO):
        summary.tell(about)
        summary.tell(about)
    assert len(caplog.records) == 1
