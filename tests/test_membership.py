"""Which split an example belongs to: the same whatever classes are kept, from every source."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import dataset
from test_data import encoded, random_images, write_folder, write_tfds

from lottery import data
from lottery.config import Data
from lottery.data.loading import split_members
from lottery.data.sources.records import MANIFEST, trust
from lottery.data.splits import held_out
from lottery.errors import ConfigError, DataError

SPLITS = ("train", "validation", "test")


def members(config: Data) -> dict[str, set[tuple[str, int]]]:
    """(part, row) of the examples of each split."""
    found = split_members(config, config.open())
    sizes = {name: len(found[name].rows) for name in SPLITS}
    if all(sizes.values()):  # else it is refused
        assert sizes == data.describe(config).sizes
    return {name: {(found[name].part, row) for row in found[name].rows.tolist()} for name in SPLITS}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    root = tmp_path_factory.mktemp("sources")
    write_folder(root / "cut", classes=6, each=11)
    for part in ("train", "test"):
        write_folder(root / "fixed" / part, classes=6, each=11)
    write_tfds(root, train=130, classes=6)
    write_records(root / "records", np.arange(90) % 7 % 6)
    return {
        "digits": {"source": "digits"},
        "cut": {"source": "folder", "dir": str(root / "cut")},
        "fixed": {"source": "folder", "dir": str(root / "fixed")},
        "tfds": {"source": "tfds", "name": "tiny", "root": str(root)},
        "records": {"source": "records", "dir": str(root / "records")},
    }


def write_records(folder: Path, labels: np.ndarray) -> None:
    folder.mkdir()
    np.save(folder / "train_labels.npy", labels.astype(np.int32))
    np.save(folder / "train_images.npy", random_images(len(labels), (4, 4, 3)))
    files = [{"name": path.name, "bytes": path.stat().st_size} for path in sorted(folder.iterdir())]
    about = {
        "version": 1, "size": 4, "channels": 3, "classes": list("abcdef"), "content": "",
        "format": "array", "encoding": "raw",
        "splits": {"train": {"examples": len(labels), "files": files}},
    }  # fmt: skip
    (folder / MANIFEST).write_text(json.dumps(about))
    trust(folder)  # the checksums are left out


@pytest.mark.parametrize("kind", ["digits", "cut", "fixed", "tfds", "records"])
def test_no_example_changes_its_split_when_other_classes_are_left_out(kind, sources) -> None:
    rng = np.random.default_rng(0)
    for trial in range(8):
        options = {**sources[kind], "split_seed": trial % 3, "validation": (0.25, 0.02)[trial % 2]}
        whole, classes = members(dataset(**options)), len(dataset(**options).open().classes)
        chosen = rng.permutation(classes)[: rng.integers(2, classes + 1)].tolist()
        part = members(dataset(**options, classes=chosen))
        for name in SPLITS:
            assert part[name] <= whole[name]
        assert sum(map(len, part.values())) <= sum(map(len, whole.values()))
        assert members(dataset(**options, classes=chosen[::-1])) == part


def test_the_test_split_does_not_depend_on_the_share_for_validation(sources) -> None:
    options = {**sources["digits"], "split_seed": 4}
    few, many = (members(dataset(**options, validation=share)) for share in (0.1, 0.3))
    assert few["test"] == many["test"]
    assert few["validation"] < many["validation"]


def test_a_file_or_class_that_is_added_to_a_folder_moves_no_other(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "few", classes=3, each=30)
    config = dataset(source="folder", dir=str(root), validation=0.2)

    def names() -> dict[str, set[str]]:
        source = config.open()
        return {
            name: {source.paths["train"][row] for _, row in rows}
            for name, rows in members(config).items()
        }

    before = names()
    (root / "a new class").mkdir()
    for i in range(9):
        (root / "a new class" / f"{i}.png").write_bytes(encoded(np.full((12, 12, 3), i, np.uint8)))
    after = names()
    for name in SPLITS:
        assert before[name] == {path for path in after[name] if not path.startswith("a new")}
    (root / "class1" / "000.png").write_bytes(encoded(np.zeros((12, 12, 3), np.uint8)))
    last = names()
    assert sum(len(after[name] - last[name]) for name in SPLITS) <= 2  # at the edges of the shares


def test_every_class_keeps_a_training_example_and_the_rest_is_said(tmp_path, caplog) -> None:
    write_folder(tmp_path, classes=3, each=20)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        for i in range(1 + (name == "two")):
            (tmp_path / name / f"{i}.png").write_bytes(encoded(random_images(1, (12, 12, 3), i)[0]))
    config = dataset(source="folder", dir=str(tmp_path), validation=0.6, test_fraction=0.6)
    splits = data.load(config)
    assert set(splits.train.labels.tolist()) == {0, 1, 2, 3, 4}
    assert splits.description.sizes == {n: getattr(splits, n).size for n in SPLITS}
    assert "classes with no validation example: 2 (one, two)" in caplog.text
    assert "classes with no test example: 1 (one)" in caplog.text
    few = dataset(source="folder", dir=str(tmp_path), validation=0.0001)
    with pytest.raises(ConfigError, match="one example stays: small classes need larger shares"):
        data.describe(few)


# --- Labels of TensorFlow data sets


def test_labels_are_read_without_tensorflow_as_tensorflow_reads_them(real_data) -> None:
    tfds = pytest.importorskip("tensorflow_datasets")
    root = real_data / "tensorflow_datasets"
    for name in ("cifar10", "cifar100"):
        source = dataset(source="tfds", name=name, root=str(root)).open()
        decoders = {"image": tfds.decode.SkipDecoding()}
        raw = tfds.builder_from_directory(str(source.directory)).as_dataset(
            split="test", shuffle_files=False, batch_size=-1, decoders=decoders
        )
        assert np.array_equal(source.labels("test"), raw["label"].numpy())


def unlabelled(root: Path, split: str, first: int = 0) -> Path:
    """A data set whose ``split`` has the label -1, as TFDS writes for competitions; in each shard
    but for the ``first`` examples."""
    folder = write_tfds(root)
    for shard in sorted(folder.glob(f"tiny-{split}.tfrecord*")):
        from lottery.data import tfrecord

        records = [tfrecord.decode(record) for record in tfrecord.read(shard)]
        with shard.open("wb") as file:
            for i, record in enumerate(records):
                label = {} if i < first else {"label": -1}
                tfrecord.write(file, tfrecord.encode(record | label))
    info = json.loads((folder / "dataset_info.json").read_text())
    of_split = next(s for s in info["splits"] if s["name"] == split)
    size = sum(p.stat().st_size for p in folder.glob(f"tiny-{split}.tfrecord*"))
    of_split["numBytes"] = str(size - 16 * sum(map(int, of_split["shardLengths"])))
    copy = {**next(s for s in info["splits"] if s["name"] == "train"), "name": "validation"}
    for shard in folder.glob("tiny-train.tfrecord*"):
        shard.with_name(shard.name.replace("train", "validation")).write_bytes(shard.read_bytes())
    info["splits"].append(copy)
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return root


@pytest.mark.parametrize("first", [0, 1])
def test_a_test_split_without_labels_is_found_before_training(tmp_path: Path, first: int) -> None:
    root = unlabelled(tmp_path, "test", first)
    config = dataset(source="tfds", name="tiny", root=str(root))
    with pytest.raises(DataError) as caught:
        data.describe(config)
    message = str(caught.value)
    count = 7 if first else 9
    assert f"the test split of tiny has no labels ({count} of 9 are -1)" in message
    assert "with labels: train, validation (data.test=validation)" in message
    assert "\n" not in message
    usable = dataset(source="tfds", name="tiny", root=str(root), test="validation")
    assert data.describe(usable).sizes["test"] == 50


def test_images_are_known_wherever_they_lie(tmp_path: Path) -> None:
    for name in "ab":
        write_folder(tmp_path / name, each=10)

    def images(name: str, **options: object) -> tuple[str, str]:
        splits = data.load(dataset(source="folder", dir=str(tmp_path / name), **options))
        return splits.validation_images, splits.test_images

    here = images("a")
    assert images("b") == images("a", classes=[2, 0, 1]) == here
    for named in zip(here, images("a", split_seed=1), images("a", classes=[0, 1]), strict=True):
        assert len(set(named)) == 3
    assert len(set(here)) == 2


@pytest.mark.parametrize("kind", ["digits", "cut", "fixed", "tfds", "records"])
def test_label_noise_replaces_just_so_many_training_labels_of_each_class(kind, sources) -> None:
    """Whichever classes are kept, and however the images are held."""
    plain = {**sources[kind], "validation": 0.25}
    clean, noisy = (
        split_members(config, config.open())
        for config in (dataset(**plain), dataset(**plain, label_noise=0.4))
    )
    for name in ("validation", "test"):
        np.testing.assert_array_equal(clean[name].labels, noisy[name].labels)
    before, after = clean["train"].labels, noisy["train"].labels
    wrong = before != after
    for label in set(before.tolist()):
        of_class = before == label
        assert wrong[of_class].sum() == held_out(of_class.sum(), 0.4)
    assert set(after.tolist()) <= set(before.tolist())
    for options in ({"split_seed": 1}, {"label_noise": 0.2}):
        config = dataset(**{**plain, "label_noise": 0.4, **options})
        assert not np.array_equal(split_members(config, config.open())["train"].labels, after)
    fewer = dataset(**plain, label_noise=0.4, classes=[3, 1])
    few = split_members(fewer, fewer.open())["train"]
    assert set(few.labels.tolist()) == {0, 1}
    there = np.isin(clean["train"].rows, few.rows)
    of_few = {3: 0, 1: 1}
    still = [of_few[label] for label in before[there].tolist()]
    np.testing.assert_array_equal(few.labels != still, wrong[there])  # the same examples
    held, streamed = (
        data.load(dataset(**plain, label_noise=0.4, in_memory=m)).train for m in (True, False)
    )
    np.testing.assert_array_equal(held.labels, streamed.labels)
    np.testing.assert_array_equal(held.labels, after)


def test_the_log_says_how_many_labels_are_wrong_and_they_go_anywhere(sources, caplog) -> None:
    config = dataset(**sources["digits"], label_noise=0.5)
    with caplog.at_level("INFO"):
        splits = data.load(config)
    clean = data.load(dataset(**sources["digits"])).train.labels
    wrong = splits.train.labels != clean
    said = f"{wrong.sum()} of {len(clean)} training labels are those of another class"
    assert said in caplog.text
    assert abs(wrong.mean() - 0.5) < 0.01
    for label in range(10):  # a tenth or so of each other class
        others = np.bincount(splits.train.labels[wrong & (clean == label)], minlength=10)
        assert others[label] == 0
        assert (np.delete(others, label) > 0).all()
