"""One order of examples for every way to store them, and each process reads its own rows alone."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import composed, dataset
from test_choices import SOURCE
from test_choices import plug_in as plug_in
from test_data import batches, chunked, write_folder, write_tfds

from lottery import data
from lottery.data import Share
from lottery.data.streams import DecodedSplit
from lottery.lineage import training_identity
from lottery.preprocess import job
from lottery.store import key_of

KINDS = ("digits", "folder", "tfds", "array", "tfrecord")


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> dict[str, dict[str, object]]:
    """Small data sets of every kind, as changes of a data config."""
    root = tmp_path_factory.mktemp("stored")
    write_folder(root / "folder", each=20)
    write_tfds(root / "tfds", train=80)
    for kind in ("array", "tfrecord"):
        options = job.Options(
            source=str(root / "folder"), output=str(root / kind), size=9, engine="processes",
            format=kind, shard_examples=16,
        )  # fmt: skip
        job.preprocess(options)
    return {
        "digits": {"source": "digits"},
        "folder": {"source": "folder", "dir": str(root / "folder")},
        "tfds": {"source": "tfds", "name": "tiny", "root": str(root / "tfds")},
        "array": {"source": "records", "dir": str(root / "array")},
        "tfrecord": {"source": "records", "dir": str(root / "tfrecord")},
    }


@pytest.mark.parametrize("kind", KINDS)
def test_how_images_are_held_changes_neither_the_order_nor_the_key(kind, stored) -> None:
    """Or two networks trained on other batches would share a key, and a replay would not be one.

    Nor the order in which they are evaluated, or runs would be compared on each other's images.
    """
    seen = []
    for changes in (
        {"in_memory": True}, {"in_memory": False}, {"memory_limit": 4.0}, {"memory_limit": 1e-9},
    ):  # fmt: skip
        config = composed("trainer.batch_size=6")
        config.data = dataset(**stored[kind], **changes)
        splits = data.load(config.data)
        chunks = chunked(5, 9, 3, 6)
        pixels, labels = batches(splits.train, chunks, batch_size=6, per_epoch=6, seed=3)
        held_out = [
            [images[valid].tobytes() for images, _, valid in part.evaluation(4).as_numpy_iterator()]
            for part in (splits.validation, splits.test)
        ]
        named = splits.validation_images, splits.test_images
        key = key_of("dense", training_identity(config))
        seen.append(repr((key, pixels.tobytes(), labels.tobytes(), held_out, named)))
    assert len(set(seen)) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_process_reads_its_own_rows_and_no_others(kind, stored) -> None:
    split = data.load(dataset(**stored[kind], in_memory=False)).train
    read: list[str] = []
    if isinstance(split, DecodedSplit):
        encoded = split.encoded

        def counted(row: int) -> tuple[str, object]:
            name, content = encoded(row)
            return name, lambda: read.append(name) or content()

        object.__setattr__(split, "encoded", counted)
    options = {"batch_size": 6, "steps_per_epoch": 6, "seed": 3}
    chunks = chunked(4, 9, 2, 6)

    def fed(share: Share) -> tuple[list[np.ndarray], list[np.ndarray]]:
        training = list(split.training(chunks, **options, share=share).as_numpy_iterator())
        evaluation = list(split.evaluation(6, share).as_numpy_iterator())
        training, evaluation = (list(zip(*parts, strict=True)) for parts in (training, evaluation))
        return [np.concatenate(p) for p in training], [np.stack(p) for p in evaluation]

    whole, of_whole = fed(Share()), len(read)
    parts, of_parts = [], []
    for rank in range(3):
        before = len(read)
        parts.append(fed(Share(rank, 3)))
        of_parts.append(len(read) - before)
    for task in (0, 1):  # training and evaluation: put together, the parts are the whole
        for i, want in enumerate(whole[task]):
            got = np.concatenate([part[task][i] for part in parts], axis=1)
            assert np.array_equal(got, want)
    assert of_parts == [of_whole / 3] * 3


def test_the_same_images_in_another_order_have_another_name(stored, tmp_path) -> None:
    """Else runs would be compared image by image, each on another image."""

    def names(changes: dict[str, object]) -> set[str]:
        splits = data.load(dataset(**changes))
        return {splits.validation_images, splits.test_images}

    def exchange(first: Path, second: Path) -> None:
        contents = first.read_bytes(), second.read_bytes()
        second.write_bytes(contents[0])
        first.write_bytes(contents[1])

    folder = Path(shutil.copytree(stored["folder"]["dir"], tmp_path / "folder"))
    exchange(folder / "class0/00.png", folder / "class0/01.png")
    shutil.copytree(stored["tfds"]["root"], tmp_path / "tfds")
    for part in "train", "test":
        exchange(*(tmp_path / "tfds/tiny/1.2.0").glob(f"tiny-{part}*"))
    turned = [stored["folder"] | {"dir": str(folder)}, stored["tfds"] | {"root": tmp_path / "tfds"}]
    every = [names(changes) for changes in (*stored.values(), *turned)]
    assert len(set.union(*every)) == 2 * len(every)


def test_images_that_other_code_may_put_in_another_order_have_another_name(plug_in) -> None:
    def names() -> set[str]:
        splits = data.load(dataset(source="mine"))
        return {splits.validation_images, splits.test_images}

    plug_in("my_lab.images", SOURCE)
    before = names()
    plug_in("my_lab.images", f"# A remark.\n{SOURCE}")
    assert names() == before
    plug_in("my_lab.images", SOURCE.replace('name="mine")', 'name="turned")'))
    assert not names() & before
