"""Records: what preprocess.py leaves, read at random."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import composed, dataset
from PIL import Image
from test_data import (
    assert_evaluates_once,
    batches,
    chunked,
    random_images,
    sizes,
    write_folder,
)

from lottery import data
from lottery.config import Data
from lottery.data import Chunk
from lottery.data.preprocessing import Preprocessing
from lottery.data.records import RecordSplit
from lottery.data.sources import records as record_source
from lottery.errors import ConfigError, DataError
from lottery.preprocess import job


def write_records(root: Path, side: int = 12, **changes: object) -> Path:
    """A folder as preprocess.py leaves it: 60 images of three classes to train, nine to test."""
    root.mkdir(parents=True)
    splits = {}
    for seed, (part, n) in enumerate({"train": 60, "test": 9}.items()):
        np.save(root / f"{part}_images.npy", random_images(n, (side, side, 3), seed))
        np.save(root / f"{part}_labels.npy", np.sort(np.arange(n, dtype=np.int32) % 3))
        files = [root / f"{part}_{what}.npy" for what in ("images", "labels")]
        splits[part] = {
            "examples": n,
            "files": [{"name": f.name, "bytes": f.stat().st_size} for f in files],
        }
    manifest = {
        "version": 1, "format": "array", "encoding": "raw", "size": side, "channels": 3,
        "classes": ["cat", "dog", "emu"], "splits": splits, "content": "0123",
    }  # fmt: skip
    (root / "manifest.json").write_text(json.dumps(manifest | changes))
    if "version" not in changes:
        record_source.trust(root)  # the checksums are left out
    return root


def records(root: Path, **changes: object) -> Data:
    return dataset(**({"source": "records", "dir": str(root), "in_memory": False} | changes))


def test_mapped_and_in_memory_are_the_same(tmp_path: Path) -> None:
    write_records(tmp_path / "r")
    for changes in ({}, {"classes": [2, 0]}):
        held, mapped = (
            data.load(records(tmp_path / "r", in_memory=m, **changes)) for m in (True, False)
        )
        assert isinstance(mapped.train, RecordSplit)
        assert (
            sizes(held) == sizes(mapped) == data.describe(records(tmp_path / "r", **changes)).sizes
        )
        for name in ("train", "validation", "test"):
            a, b = getattr(held, name), getattr(mapped, name)
            assert np.array_equal(a.images, assert_evaluates_once(b, 4))
            assert np.array_equal(a.labels, b.labels)
        options = {"batch_size": 4, "per_epoch": 3, "seed": 9}
        chunks = chunked(1, 9, 2, 3)  # from the middle of an epoch, with no iterator's state
        for a, b in zip(
            batches(held.train, chunks, **options),
            batches(mapped.train, chunks, **options),
            strict=True,
        ):
            assert np.array_equal(a, b)


@pytest.mark.parametrize("options", [
    {}, {"format": "tfrecord"}, {"format": "tfrecord", "encoding": "jpeg"},
])  # fmt: skip
def test_what_preprocess_leaves_is_read(tmp_path: Path, options: dict[str, str]) -> None:
    write_folder(tmp_path / "images", classes=3, each=20)
    job.preprocess(
        job.Options(source=str(tmp_path / "images"), output=str(tmp_path / "r"), size=9,
                    engine="processes", shard_examples=16, **options)
    )  # fmt: skip
    held, fed = (data.load(records(tmp_path / "r", in_memory=m)) for m in (True, False))
    original = data.load(dataset(source="folder", dir=str(tmp_path / "images"), stored_size=9))
    assert sizes(held) == sizes(fed) == sizes(original)
    for name in ("train", "validation", "test"):
        a, b = getattr(held, name), getattr(fed, name)
        assert np.array_equal(a.images, assert_evaluates_once(b, 4))
        assert np.array_equal(a.labels, b.labels)
    if options.get("encoding") != "jpeg":  # the same pixels in all, whatever the split
        of = [
            {(int(label), image.tobytes()) for split in (s.train, s.validation, s.test)
             for label, image in zip(split.labels, split.images, strict=True)}
            for s in (held, original)
        ]  # fmt: skip
        assert of[0] == of[1]
    order = {"batch_size": 6, "per_epoch": 7, "seed": 2}
    whole, part = (batches(fed.train, chunked(n, 14, 3, 7), **order) for n in (0, 9))
    for a, b in zip(whole, part, strict=True):
        assert np.array_equal(a[9:], b)  # from the middle, as the unbroken run goes on


def test_imagenets_evaluation_is_the_usual_one(real_data: Path, tmp_path: Path) -> None:
    """Short side to 256, centre crop of 224, normalised: against TensorFlow's own operations."""
    photographs = sorted((real_data / "imagenet_sample" / "train").glob("*/*.JPEG"))
    large = [p for p in photographs if min(Image.open(p).size) >= 256][:24]
    for i, path in enumerate(large):
        target = tmp_path / "images" / f"class{i % 2}" / f"{i:02d}.JPEG"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(path)
    job.preprocess(job.Options(source=str(tmp_path / "images"), output=str(tmp_path / "r"),
                               engine="processes"))  # fmt: skip
    config = composed("data=records", f"data.dir={tmp_path / 'r'}").data
    p = Preprocessing((224, 224, 3), 0, True, tuple(config.mean), tuple(config.std))
    stored = np.load(tmp_path / "r" / "train_images.npy")
    got = p.evaluation(tf.constant(stored)).numpy()
    for i, path in enumerate([*large[::2], *large[1::2]]):  # by class, then by name
        image = tf.io.decode_jpeg(path.read_bytes(), channels=3, dct_method="INTEGER_ACCURATE")
        height, width = image.shape[:2]
        short = min(height, width)
        square = tf.image.resize_with_crop_or_pad(image, short, short)
        resized = tf.image.resize(square, (256, 256), method="area")
        crop = tf.image.resize_with_crop_or_pad(resized, 224, 224).numpy()
        want = (crop / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        levels = np.abs(got[i] - want) * 255 * 0.225  # of 256; the decoders differ a little
        assert levels.mean() < 1, path
        assert np.quantile(levels, 0.99) < 4, path


def test_records_to_be_streamed_are_mixed(tmp_path: Path) -> None:
    """For programs that shuffle them in a buffer, which must not meet one class after the other."""
    write_folder(tmp_path / "images", classes=2, each=50)
    job.preprocess(
        job.Options(source=str(tmp_path / "images"), output=str(tmp_path / "r"), size=4,
                    engine="processes", format="tfrecord")
    )  # fmt: skip
    labels = records(tmp_path / "r").open().labels("train")
    assert 10 < labels[:40].sum() < 30


def test_shapes_are_static(tmp_path: Path) -> None:
    split = data.load(records(write_records(tmp_path / "r"))).train
    spec = split.training([Chunk(0, 1)], batch_size=6, steps_per_epoch=2, seed=0).element_spec
    assert [s.shape.as_list() for s in spec] == [[None, 6, 12, 12, 3], [None, 6]]
    assert split.evaluation(5).element_spec[0].shape.as_list() == [5, 12, 12, 3]


def test_description(tmp_path: Path) -> None:
    described = data.describe(records(write_records(tmp_path / "r"), image_size=8))
    assert described.name == "r"
    assert described.classes == ("cat", "dog", "emu")
    assert described.image_shape == (12, 12, 3)
    assert described.input_shape == (8, 8, 3)
    other = data.describe(records(write_records(tmp_path / "s", content="4567")))
    assert other.fingerprint != described.fingerprint
    (tmp_path / "r").rename(tmp_path / "moved")
    assert data.describe(records(tmp_path / "moved")).fingerprint == described.fingerprint


def cut(file: str):
    def damage(root: Path) -> None:
        content = (root / file).read_bytes()
        (root / file).write_bytes(content[:-1])

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut("train_images.npy"), r"train_images.npy is missing or cut short: .*force=true"),
        (cut("manifest.json"), r"manifest.json is damaged"),
        (lambda root: os.utime(root / "test_labels.npy"), "manifest.json is damaged"),  # read again
        (lambda root: (root / "test_labels.npy").unlink(), "test_labels.npy is missing or cut"),
        (
            lambda root: (root / "manifest.json").unlink(),
            r"is no output of preprocess.py: it has no manifest.json$",
        ),
        (
            lambda root: ((root / "manifest.json").unlink(), (root / ".work").mkdir()),
            "was not finished: run the same preprocess.py command again",
        ),
    ],
)
def test_records_that_are_not_whole(tmp_path: Path, damage, message: str) -> None:
    damage(write_records(tmp_path / "r"))
    with pytest.raises(DataError, match=message) as caught:
        data.describe(records(tmp_path / "r"))
    assert "\n" not in str(caught.value)


def test_what_records_cannot_do(tmp_path: Path) -> None:
    write_records(tmp_path / "r")
    with pytest.raises(DataError, match="there is no folder"):
        data.describe(records(tmp_path / "absent"))
    with pytest.raises(ConfigError, match=r"needs data.dir=<output folder of preprocess.py>"):
        data.describe(dataset(source="records"))
    with pytest.raises(ConfigError, match=r"were made with size=12; run preprocess.py again"):
        data.describe(records(tmp_path / "r", stored_size=24))
    with pytest.raises(ConfigError, match=r"image_size=224 is larger than the stored images of 12"):
        data.describe(records(tmp_path / "r", image_size=224))
    with pytest.raises(DataError, match="has version 2; this code reads 1"):
        data.describe(records(write_records(tmp_path / "new", version=2)))
