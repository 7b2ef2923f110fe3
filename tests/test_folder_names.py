"""Names that a folder of images may have, and the name of its test split."""

import os
from pathlib import Path

import pytest
from conftest import TINY, composed, dataset, run
from test_data import write_folder

from lottery import data, studies
from lottery.config import Data
from lottery.data.sources import tfds
from lottery.errors import ConfigError, DataError
from lottery.preprocess import ilsvrc, sources


def folder(root: Path, **changes: object) -> Data:
    return dataset(source="folder", dir=str(root), **changes)


@pytest.mark.parametrize("name", ["tset", "val"])
def test_a_test_split_that_is_not_there_is_an_error_naming_those_that_are(tmp_path, name) -> None:
    for part in ("train", "test", "holdout"):
        write_folder(tmp_path / part)
    with pytest.raises(DataError, match=rf"data.test={name}: .*known: holdout, test"):
        data.describe(folder(tmp_path, test=name))
    assert data.describe(folder(tmp_path, test="holdout")).sizes["test"] == 24
    with pytest.raises(DataError, match=rf"data.test={name}: there is no folder"):
        data.describe(folder(tmp_path / "train", test=name))
    assert data.describe(folder(tmp_path / "train")).sizes["test"] > 0  # cut off


@pytest.mark.parametrize("name", ["./train", "train/", "holdout/../train", "/tmp", "", ".", ".."])
def test_the_test_split_is_no_path(tmp_path, name):
    with pytest.raises(ConfigError, match="is not the name of a folder"):
        data.describe(folder(tmp_path, test=name))


@pytest.mark.parametrize("name", ["test", "again"])
def test_the_test_split_is_not_train_by_another_name(tmp_path, name):
    write_folder(tmp_path / "train")
    (tmp_path / name).symlink_to(tmp_path / "train")
    with pytest.raises(DataError, match="by another name"):
        data.describe(folder(tmp_path, test=name))


def latin(root: Path, what: str) -> Path:
    """A folder with a class, or a file of a class, whose name is not UTF-8."""
    write_folder(root)
    before = root / "class1" if what == "class" else root / "class1" / "03.png"
    before.rename(before.with_name(os.fsdecode(b"caf\xe9.png")))
    return root


@pytest.mark.parametrize("what", ["class", "file"])
def test_names_that_are_not_utf_8_are_refused_in_words(tmp_path: Path, what: str) -> None:
    root = latin(tmp_path / "latin", what)
    message = r"the name b'.*/caf\\xe9.png' is not UTF-8: rename it"
    with pytest.raises(DataError, match=message) as caught:
        data.describe(folder(root))
    assert str(caught.value).isascii()
    with pytest.raises(DataError, match=message):
        sources.find(root)
    config = composed(*TINY, "data=folder", f"data.dir={root}", "mask.percentile=50")
    (error,) = studies.find("prune").check(config)
    assert "is not UTF-8" in error


@pytest.mark.slow
def test_a_class_that_is_not_utf_8_is_one_line_for_the_user(tmp_path: Path) -> None:
    root = latin(tmp_path / "latin", "class")
    for command in (
        ("prune.py", "data=folder", f"data.dir={root}", f"paths.outputs={tmp_path / 'out'}"),
        ("preprocess.py", f"source={root}", f"output={tmp_path / 'out'}", "preprocess=processes"),
    ):
        process = run(*command)
        assert process.returncode == 1
        assert process.stderr.startswith("error: the name ")
        assert process.stderr.count("\n") == 1


def test_names_in_utf_8_are_kept(tmp_path: Path) -> None:
    root = write_folder(tmp_path)
    (root / "class1").rename(root / "thé [-y]")
    (root / "class0" / "00.png").rename(root / "class0" / "café.png")
    assert data.describe(folder(root)).classes == ("class0", "class2", "thé [-y]")
    assert data.load(folder(root)).train.size > 0


def test_label_files_that_are_not_utf_8_are_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / ilsvrc.MAPPING).write_bytes(b"n01 caf\xe9\n")
    (tmp_path / ilsvrc.SOLUTION).write_bytes(b"ImageId,PredictionString\ncaf\xe9,n01 1\n")
    for read in (ilsvrc.names, lambda folders: ilsvrc.validation_synsets(folders, ["a"])):
        with pytest.raises(DataError, match="is not UTF-8"):
            read((tmp_path,))
    (tmp_path / "label.labels.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(DataError, match=r"label.labels.txt is not UTF-8"):
        tfds.class_names(tmp_path, {})
