"""Broken images of a folder: left out where that is allowed, named, and known by content."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, composed, laboratory
from test_data import write_folder
from test_keys import having

from lottery import data
from lottery.data.sources import folder as module
from lottery.errors import DataError
from lottery.experiment import train_dense
from lottery.lineage import training_identity
from lottery.validation import CHECKS, errors


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Images of three classes, two of which are cut off; and the names of those."""
    folder = write_folder(tmp_path_factory.mktemp("photos"), classes=3, each=20)
    bad = sorted(folder.rglob("*.png"))[7:50:40]
    for file in bad:
        file.write_bytes(file.read_bytes()[:60])
    return folder, [str(file.relative_to(folder)) for file in bad]


def of(folder, **options):
    given = {"data.source": "folder", "data.dir": str(folder), "trainer.batch_size": 16}
    return having(composed(*TINY), given | {f"data.{name}": v for name, v in options.items()})


def test_they_are_left_out_and_named_in_log_and_result(photos, tmp_path, caplog):
    folder, bad = photos
    module._tell.cache_clear()
    for held in (True, False):
        splits = data.load(of(folder, max_unreadable=2, in_memory=held).data)
        assert sum(splits.description.sizes.values()) == 58
        assert splits.description.unreadable == tuple(bad)
        splits.check()
    for name in bad:
        assert caplog.text.count(f"unreadable: {folder / name}: ") == 1
    dense = train_dense(of(folder, max_unreadable=5), laboratory(tmp_path))
    assert dense.result["unreadable"] == bad


def test_too_many_are_an_error_and_without_the_option_any_is(photos):
    folder, bad = photos
    (said,) = errors(of(folder, max_unreadable=1), *CHECKS)
    assert said == (
        f"2 images of {folder} cannot be decoded, more than data.max_unreadable=1: "
        f"{', '.join(bad)}; repair, remove or allow for them"
    )
    with pytest.raises(DataError, match="cannot be decoded"):
        data.load(of(folder, in_memory=True).data)
    gone = of(folder, max_unreadable=40)
    assert data.describe(gone.data).classes == ("class0", "class1", "class2")


def test_the_key_is_that_of_the_images_that_are_left(photos, tmp_path):
    folder, bad = photos
    repaired = tmp_path / "copy"
    shutil.copytree(folder, repaired)
    for name in bad:
        (repaired / name).unlink()
    about = [
        training_identity(config)
        for config in (
            of(folder, max_unreadable=2), of(folder, max_unreadable=9), of(repaired),
        )
    ]  # fmt: skip
    assert about[0] == about[1] == about[2]
    assert about[0] != training_identity(of(folder))
    one, other = (data.load(of(f, max_unreadable=2).data) for f in (folder, repaired))
    np.testing.assert_array_equal(one.train.take(np.arange(3)), other.train.take(np.arange(3)))


def test_a_class_of_which_none_is_left_is_an_error(tmp_path):
    folder = write_folder(tmp_path, classes=2, each=3)
    for file in (folder / "class1").iterdir():
        file.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"no image of class class1 of .* can be decoded"):
        of(folder, max_unreadable=3).data.open()


def test_they_are_looked_for_once_while_no_file_changes(photos, monkeypatch, tmp_path):
    folder, bad = photos
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("lottery.data.contents._known", {})
    monkeypatch.setattr("lottery.data.contents._SETTLED", 0.0)
    looked: list[int] = []
    decode = module.images.unreadable
    monkeypatch.setattr(
        module.images, "unreadable", lambda files: looked.append(1) or decode(files)
    )
    for known in ({}, {}):
        monkeypatch.setattr("lottery.data.contents._known", known)  # another process
        assert of(folder, max_unreadable=2).data.open().unreadable == tuple(bad)
    assert len(looked) == 1
