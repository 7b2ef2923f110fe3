"""What is in the files of a data set decides which data set it is."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import dataset
from test_data import encoded, random_images, write_folder, write_tfds

from lottery import data, files
from lottery.data import contents, tfrecord
from lottery.errors import DataError
from lottery.preprocess import job


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """An empty one, as of a new process."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(contents, "_known", {})
    return contents.cache()


def fingerprint(**config: object) -> dict[str, object]:
    return data.describe(dataset(**config)).fingerprint


def write_bitmaps(root: Path, seed: int) -> Path:
    for i, pixels in enumerate(random_images(12, (8, 8, 3), seed)):
        path = root / f"class{i % 2}" / f"{i:02d}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(pixels, "bmp"))
    return root


def test_bitmaps_of_equal_sizes_and_other_pixels_are_another_data_set(tmp_path):
    a, b, again = (write_bitmaps(tmp_path / n, seed) for n, seed in (("a", 0), ("b", 1), ("c", 0)))
    assert fingerprint(source="folder", dir=str(a)) == fingerprint(source="folder", dir=str(again))
    assert fingerprint(source="folder", dir=str(a)) != fingerprint(source="folder", dir=str(b))


def test_an_edit_that_hides_its_time_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(contents, "_SETTLED", -1)  # remember at once
    root = write_bitmaps(tmp_path / "a", 0)
    before = fingerprint(source="folder", dir=str(root))
    assert fingerprint(source="folder", dir=str(root)) == before
    file = root / "class0" / "00.bmp"
    status, pixels = file.stat(), bytearray(file.read_bytes())
    pixels[-1] ^= 255
    file.write_bytes(pixels)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert fingerprint(source="folder", dir=str(root)) != before


def test_a_prepared_tensorflow_data_set_is_known_by_its_records(tmp_path):
    a, b = (write_tfds(tmp_path / name) for name in "ab")
    (shard, *_) = sorted(b.glob("tiny-train*"))
    records = list(tfrecord.read(shard))
    with shard.open("wb") as file:
        for record in reversed(records):
            tfrecord.write(file, record)
    assert shard.stat().st_size == (a / shard.name).stat().st_size
    of_a, of_b = (fingerprint(source="tfds", name="tiny", root=str(tmp_path / n)) for n in "ab")
    assert of_a != of_b
    assert {**of_a, "contents": None} == {**of_b, "contents": None}
    assert of_a["contents"]["test"] == of_b["contents"]["test"]


@pytest.mark.parametrize("kind", ["array", "tfrecord"])
def test_records_that_were_changed_since_are_refused(tmp_path, kind, caplog):
    """Whatever time the new content bears."""
    job.preprocess(
        job.Options(source=str(write_folder(tmp_path / "images")), output=str(tmp_path / "r"),
                    size=9, engine="processes", format=kind)
    )  # fmt: skip
    caplog.set_level("INFO")
    before = fingerprint(source="records", dir=str(tmp_path / "r"))
    assert "comparing" not in caplog.text  # who prepared it has told
    shutil.copytree(tmp_path / "r", tmp_path / "copy")
    assert fingerprint(source="records", dir=str(tmp_path / "copy")) == before
    assert "copy is not as preprocess.py has left it" in caplog.text
    (file, *_) = sorted((tmp_path / "r").glob("train*images*" if kind == "array" else "*.tfrecord"))
    status, content = file.stat(), bytearray(file.read_bytes())
    content[-99:-89] = bytes(10)
    file.write_bytes(content)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns - 1))
    with pytest.raises(DataError, match=rf"was changed after it was prepared: {file.name} does"):
        fingerprint(source="records", dir=str(tmp_path / "r"))


def test_files_are_read_once_for_all_processes(tmp_path, cache, monkeypatch):
    root, read = write_bitmaps(tmp_path / "a", 0), []
    sha256 = files.sha256
    monkeypatch.setattr(files, "sha256", lambda path: read.append(path.name) or sha256(path))
    first = fingerprint(source="folder", dir=str(root))
    assert len(read) == 12
    assert not cache.exists()  # changed a moment ago, and perhaps in this one again
    monkeypatch.setattr(contents, "_SETTLED", -1)
    assert fingerprint(source="folder", dir=str(root)) == first
    read.clear()
    monkeypatch.setattr(contents, "_known", {})  # another process
    assert fingerprint(source="folder", dir=str(root)) == first
    assert read == []
    (root / "class1" / "new.bmp").write_bytes(encoded(np.zeros((8, 8, 3), np.uint8), "bmp"))
    assert fingerprint(source="folder", dir=str(root)) != first
    assert len(read) == 7  # the other class is as it was


def test_without_a_place_to_remember_every_run_reads(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(contents, "_SETTLED", -1)
    root = write_bitmaps(tmp_path / "a", 0)
    first = fingerprint(source="folder", dir=str(root))
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(contents, "_known", {})
    assert fingerprint(source="folder", dir=str(root)) == first
    assert "every run reads the data again" in caplog.text


def test_a_shard_without_its_frames_is_damaged(tmp_path):
    (shard, *_) = sorted(write_tfds(tmp_path).glob("tiny-train*"))
    content = bytearray(shard.read_bytes())
    content[0] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DataError, match="is damaged: no record 0; prepare it again"):
        fingerprint(source="tfds", name="tiny", root=str(tmp_path))
