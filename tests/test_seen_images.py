"""Held-out images that a ticket has seen before: found in every source, refused or counted."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, composed, dataset, laboratory
from PIL import Image
from rich.console import Console

import lottery
from lottery import studies, tickets, transfer
from lottery.analysis import table
from lottery.config import Data
from lottery.data import describe, overlap, tfrecord
from lottery.data.loading import split_members
from lottery.errors import ConfigError, DataError
from lottery.experiment import find_ticket
from lottery.preprocess import job
from lottery.runs import runs_of

ALL = dataset(source="digits", validation=0.15)
HIGH = [5, 6, 7, 8, 9]


def compared(before: Data, after: Data) -> overlap.Overlap:
    return overlap.overlap(before, describe(before).fingerprint, after)


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Data]:
    """The digits 5 to 9 of scikit-learn again, as every other source would have them."""
    root = tmp_path_factory.mktemp("copies")
    digits = ALL.open()
    rows = np.flatnonzero(digits.labels("train") >= 5)[:300]
    labels, pixels = digits.labels("train")[rows], digits.images("train", rows)[..., 0]
    for i, (image, label) in enumerate(zip(pixels, labels.tolist(), strict=True)):
        (root / "folder" / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(root / "folder" / str(label) / f"{i}.png")
    for size, layout in ((8, "array"), (16, "tfrecord")):
        chosen = {"size": size, "format": layout, "engine": "processes", "workers": 1}
        output = str(root / f"records{size}")
        job.preprocess(job.Options(source=str(root / "folder"), output=output, **chosen))
    _write_tfds(root / "copied" / "1.0.0", root / "folder")
    return {
        "folder": dataset(source="folder", dir=str(root / "folder"), stored_size=8),
        "enlarged": dataset(source="folder", dir=str(root / "folder"), stored_size=32),
        "records": dataset(source="records", dir=str(root / "records8")),
        "tfrecords": dataset(source="records", dir=str(root / "records16")),
        "tfds": dataset(source="tfds", name="copied", root=str(root), test="holdout"),
    }


def _write_tfds(folder: Path, images: Path) -> None:
    folder.mkdir(parents=True)
    files, splits = sorted(images.glob("*/*.png")), []
    for split, chosen in (("train", files[::2]), ("holdout", files[1::2])):
        path, size = folder / f"copied-{split}.tfrecord-00000-of-00001", 0
        with path.open("wb") as file:
            for image in chosen:
                label = int(image.parent.name) - 5
                record = tfrecord.encode({"image": image.read_bytes(), "label": label})
                tfrecord.write(file, record)
                size += len(record)
        splits.append({"name": split, "numBytes": str(size), "shardLengths": [str(len(chosen))]})
    info = {"name": "copied", "version": "1.0.0", "fileFormat": "tfrecord", "splits": splits}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    features = {
        "image": {"image": {"dtype": "uint8", "shape": {"dimensions": ["8", "8", "1"]}}},
        "label": {"classLabel": {"numClasses": "5"}},
    }
    (folder / "features.json").write_text(json.dumps({"featuresDict": {"features": features}}))


def in_common(before: Data, after: Data) -> dict[str, dict[str, int]]:
    """Counted in the plainest way, from the pixels of digits and of a copy at 8 pixels."""

    def of(config: Data) -> dict[str, list[bytes]]:
        source = config.open()
        return {
            name: [i.tobytes() for i in source.images(m.part, m.rows)[..., 0]]
            for name, m in split_members(config, source).items()
        }

    a, b = of(before), of(after)
    return {
        held: {by: sum(image in set(a[by]) for image in b[held]) for by in ("train", "validation")}
        for held in ("test", "validation")
    }


@pytest.mark.parametrize("kind", ["folder", "enlarged", "records", "tfrecords", "tfds"])
def test_the_same_images_are_found_in_another_source(kind: str, copies) -> None:
    copy = copies[kind]
    plain = replace(copies["folder"], dir=copy.dir) if kind == "enlarged" else copy
    for before, after in ((ALL, copy), (copy, ALL)):
        found = compared(before, after)
        assert found.compared == "pixels"
        assert not found.sampled
        assert found.any
        if kind != "tfrecords":  # which cannot be had at 8 pixels
            sides = [plain if side is copy else side for side in (before, after)]
            assert found.seen == in_common(*sides)
    others = compared(replace(ALL, classes=[0, 1, 2, 3, 4]), copy)
    assert not others.any
    assert others.compared == "pixels"


def test_one_source_is_compared_by_positions() -> None:
    same = compared(ALL, replace(ALL, classes=HIGH))
    assert same.compared == "positions"
    # The split of an example does not depend on the classes: what was held out is held out.
    assert same.seen["test"] == {"train": 0, "validation": 0}
    assert same.seen["validation"] == {"train": 0, "validation": same.examples["validation"]}
    other = compared(ALL, replace(ALL, classes=HIGH, split_seed=1))
    assert other.seen["test"]["train"] > 90
    assert not compared(replace(ALL, classes=[0, 1, 2, 3, 4]), replace(ALL, classes=HIGH)).any


def test_of_many_images_a_sample_is_compared(copies, monkeypatch) -> None:
    monkeypatch.setattr(overlap, "LIMIT", 60)
    overlap._overlap.cache_clear()
    found = compared(ALL, copies["folder"])
    none = compared(replace(ALL, classes=[0, 1, 2, 3, 4]), copies["folder"])
    assert found.sampled
    assert max(found.examples.values()) <= 60
    assert "(of a sample)" in str(found)
    assert none.summary["told"] == "none in a sample of up to 60"
    overlap._overlap.cache_clear()


@pytest.mark.parametrize("kind", ["jpeg", "another size"])
def test_images_that_nothing_could_be_equal_to_are_not_known(kind, copies, tmp_path) -> None:
    chosen = {"size": 8, "format": "tfrecord", "encoding": "jpeg"}
    chosen = chosen if kind == "jpeg" else {"size": 12}
    own = {"engine": "processes", "workers": 1, "output": str(tmp_path / "r")}
    job.preprocess(job.Options(source=copies["folder"].dir, **own, **chosen))
    made = dataset(source="records", dir=str(tmp_path / "r"))
    if kind == "jpeg":
        with pytest.raises(DataError, match="JPEG has compressed once more"):
            compared(copies["folder"], made)
        assert compared(made, replace(made, split_seed=1)).any  # by their places
    else:
        with pytest.raises(DataError, match=r"another size, 8 pixels, than r, 12 pixels"):
            compared(made, copies["records"])
        assert compared(copies["folder"], made).any  # which can be read in that size


def test_images_that_moved_are_found_where_the_others_are_or_it_is_said(copies, tmp_path) -> None:
    tfds = copies["tfds"]
    gone = replace(tfds, root=str(tmp_path))
    assert overlap.overlap(gone, describe(tfds).fingerprint, tfds).compared == "positions"
    with pytest.raises(DataError, match="there is no data set copied"):
        overlap.overlap(gone, describe(tfds).fingerprint, ALL)
    with pytest.raises(DataError, match="no longer what they were"):
        overlap.overlap(copies["folder"], {"source": "folder"}, ALL)


# --- A ticket that has seen them


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory):
    """A ticket that was found on all digits."""
    lab = laboratory(tmp_path_factory.mktemp("seen"))
    result = find_ticket(composed(*TINY, "data=digits", "mask.percentile=60"), lab)
    file = lab.store.root.parent / tickets.FILE
    tickets.write(tickets.of_run(runs_of(result)["ticket"]), file)
    return lab, file


def moving(found, *overrides: str):
    lab, file = found
    options = [
        f"ticket={file}", f"paths.store={lab.store.root}", "logger=csv", "trainer.epochs=1",
        "trainer.batch_size=64", *overrides,
    ]  # fmt: skip
    return composed(*options, name="transfer")


def folder_of(copies) -> tuple[str, ...]:
    return ("data=folder", f"data.dir={copies['folder'].dir}", "data.stored_size=8",
            "data.image_size=null")  # fmt: skip


def test_a_transfer_to_images_that_were_seen_is_refused_before_it_trains(found, tmp_path) -> None:
    config = moving(found, "transfer.controls=[scratch]", "data.split_seed=1")
    (message,) = studies.find("transfer").check(config)
    assert "the ticket has seen images of digits that are held out here" in message
    assert " of 179 test images it was trained on" in message
    assert "transfer.seen_images=report" in message
    assert "\n" not in message
    lab = laboratory(tmp_path)
    with pytest.raises(ConfigError, match="has seen images"):
        transfer.transfer(config, lab)
    assert not list(lab.store.root.rglob("*"))
    # With the split that the ticket had, test is new, and validation is what judged it.
    assert not studies.find("transfer").check(moving(found))
    (counted,) = transfer.seen_images(moving(found), lottery.load_ticket(found[1]))
    assert counted["told"] == "108 of 108 validation images it was judged by"


def test_a_transfer_may_be_run_and_its_seen_images_counted(found, capsys) -> None:
    config = moving(found, "transfer.seen_images=report", "data.split_seed=1")
    assert not studies.find("transfer").check(config)
    result = transfer.transfer(config, found[0])
    (entry,) = result["seen"]
    assert entry["data"] == "digits"
    assert entry["test"]["examples"] == 179
    assert entry["test"]["train"] > 90
    assert json.loads(json.dumps(result)) == result
    table.show_transfer(result, Path("result.json"), Console(width=200))
    shown = capsys.readouterr().out
    told = f"{entry['test']['train']} of 179 test images it was trained on"
    assert f"seen by the ticket before, with digits: {told}" in shown
    # The option decides nothing about the run: its key is another's.
    nodes = [
        transfer.lineage(moving(found, "data.split_seed=1", *options), found[0].store).last.key
        for options in ((), ("transfer.seen_images=report",))
    ]
    assert nodes[0] == nodes[1]


def test_a_moved_ticket_remembers_all_that_it_has_seen(found) -> None:
    config = moving(found, "transfer.seen_images=report", "data.classes=[5,6]")
    moved = tickets.of_run(runs_of(transfer.transfer(config, found[0]))["ticket"])
    kept = found[0].store.root.parent / "moved.safetensors"
    tickets.write(moved, kept)
    names = [seen["data"]["classes"] for seen in lottery.load_ticket(kept).provenance["seen"]]
    assert names == [None, [5, 6]]
    again = moving((found[0], kept), "transfer.seen_images=report", "data.classes=[0,1]")
    first, second = transfer.seen_images(again, lottery.load_ticket(kept))
    assert first["validation"]["validation"] == first["validation"]["examples"]
    assert second["told"] == ""


def test_the_same_digits_in_a_folder_are_refused_too(found, copies) -> None:
    ticket = lottery.load_ticket(found[1])
    grey = replace(copies["tfds"], mean=[0.5], std=[0.5])
    config = replace(moving(found), data=grey)
    assert "has seen images of copied" in studies.find("transfer").check(config)[0]
    folder = moving(found, *folder_of(copies))
    with pytest.raises(ConfigError, match="has seen images of folder"):
        transfer.seen_images(folder, ticket)


def test_what_cannot_be_compared_is_refused_or_said(found, tmp_path, caplog) -> None:
    ticket = lottery.load_ticket(found[1])
    gone = {"data": {**ticket.provenance["seen"][0]["data"], "source": "folder"}, "fingerprint": {}}
    other = replace(ticket, provenance={**ticket.provenance, "seen": [gone]})
    with pytest.raises(ConfigError, match=r"is not known: .*data.dir.*transfer.seen_images=report"):
        transfer.seen_images(moving(found), other)
    (entry,) = transfer.seen_images(moving(found, "transfer.seen_images=report"), other)
    assert "data.dir" in entry["unknown"]
    assert "is not known" in caplog.text
    assert list(table.seen({"seen": [entry]})) == [
        f"not known: whether images were seen with folder ({entry['unknown']})"
    ]
