"""preprocess.py: what it reads, what it writes, and what happens when something is wrong."""

import dataclasses
import filecmp
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import command, environment, run
from PIL import Image
from scipy.io import savemat

from lottery import files
from lottery.data import images, tfrecord
from lottery.data.sources.records import read_manifest
from lottery.errors import ConfigError, DataError, LotteryError
from lottery.preprocess import job, shards, sources, spark
from lottery.preprocess.job import Options

SIZE = 12


def picture(width: int, height: int, seed: int) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(noise)


def odd_images() -> dict[str, bytes]:
    """Every kind of image that a crawl of the web contains, by file name."""

    def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        return buffer.getvalue()

    turned = Image.Exif()
    turned[0x0112] = 6
    large = picture(40, 30, 0)
    return {
        "cmyk.jpg": saved(large.convert("CMYK"), "jpeg"),
        "exif.JPEG": saved(large, "jpeg", exif=turned),
        "grey.jpeg": saved(large.convert("L"), "jpeg"),
        "palette.png": saved(large.convert("P"), "png"),
        "pixel.png": saved(picture(1, 1, 1), "png"),
        "png_named.JPEG": saved(large, "png"),
        "size.png": saved(picture(SIZE, SIZE, 2), "png"),
        "small.bmp": saved(picture(5, 9, 3), "bmp"),
        "tall.webp": saved(picture(13, 90, 4), "webp"),
        "transparent.png": saved(large.convert("RGBA"), "png"),
    }


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A source of three classes with a train and a val part, 36 images, none alike."""
    root = tmp_path / "odd"
    for part, classes in {"train": "abc", "val": "ab"}.items():
        for c in classes:
            (root / part / c).mkdir(parents=True)
            for name, data in odd_images().items():
                if part == "train" or name < "e":
                    (root / part / c / name).write_bytes(data)
            extra = picture(20, 20, ord(c) + len(part))
            extra.save(root / part / c / "extra.png")
    return root


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards are made in this process, one after another."""

    @contextmanager
    def engine(*_: object) -> Iterator[Any]:
        yield lambda tasks: (shards.run(task) for task in tasks)

    monkeypatch.setattr(job, "_engine", engine)


def preprocess(source: Path, output: Path, **options: Any) -> dict[str, Any]:
    chosen = {"size": SIZE, "engine": "processes", "shard_examples": 4} | options
    settings = Options(source=str(source), output=str(output), **chosen)
    job.check(settings)
    job.preprocess(settings)
    assert not (output / ".work").exists()
    job.verify(output)
    return read_manifest(output)


def same(a: Path, b: Path) -> bool:
    names = sorted(p.name for p in a.iterdir())
    return (
        names == sorted(p.name for p in b.iterdir())
        and filecmp.cmpfiles(a, b, names, shallow=False)[0] == names
    )


def expected(root: Path) -> np.ndarray:
    paths = [p for c in sorted(root.iterdir()) for p in sorted(c.iterdir())]
    return np.stack([images.decode(p.read_bytes(), (SIZE, SIZE, 3)) for p in paths])


# --- What it writes


def test_an_array_holds_every_image_in_order(odd: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    process = run(
        "preprocess.py", f"source={odd}", f"output={output}", f"size={SIZE}",
        "preprocess=processes", "workers=2", "shard_examples=4",
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert process.stdout.endswith(f"manifest: {output}/manifest.json\n")
    about = read_manifest(output)
    for part, folder in (("train", "train"), ("test", "val")):
        rows = np.load(output / f"{part}_images.npy", mmap_mode="r")
        labels = np.load(output / f"{part}_labels.npy")
        assert np.array_equal(rows, expected(odd / folder))
        counts = np.bincount(labels, minlength=3).tolist()
        assert labels.dtype == np.int32
        assert (np.diff(labels) >= 0).all()
        split = about["splits"][part]
        assert split["class_counts"] == counts
        assert counts == ([11, 11, 11] if part == "train" else [2, 2, 0])
        assert split["examples"] == len(rows) == len(labels)
        assert split["unreadable"] == []
    scaled = expected(odd / "train").reshape(-1, 3) / 255
    np.testing.assert_allclose(about["mean"], scaled.mean(0), rtol=1e-12)
    np.testing.assert_allclose(about["std"], scaled.std(0), rtol=1e-12)
    assert about["classes"] == ["a", "b", "c"]
    assert "1 classes have no test image: c" in process.stderr
    # The class c is not in val, and said so; the rest went without a word from the workers.
    assert "Traceback" not in process.stderr


def test_bytes_do_not_depend_on_engine_or_workers(
    odd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("array", "tfrecord"):
        for workers in (1, 3):
            preprocess(odd, tmp_path / f"{kind}{workers}", format=kind, workers=workers)
        assert same(tmp_path / f"{kind}1", tmp_path / f"{kind}3")


@pytest.mark.usefixtures("inline")
def test_tensorflow_reads_the_records(odd: Path, tmp_path: Path) -> None:
    import tensorflow as tf

    spec = {
        "image": tf.io.FixedLenFeature([], "string"),
        "label": tf.io.FixedLenFeature([], "int64"),
    }
    preprocess(odd, tmp_path / "array")
    pixels = np.load(tmp_path / "array" / "train_images.npy")
    labels = np.load(tmp_path / "array" / "train_labels.npy")
    found = {}
    for encoding in ("raw", "jpeg"):
        output = tmp_path / encoding
        about = preprocess(odd, output, format="tfrecord", encoding=encoding)
        assert about["mean"] == read_manifest(tmp_path / "array")["mean"]
        names = [f["name"] for f in about["splits"]["train"]["files"] if "tfrecord" in f["name"]]
        assert names[0] == "train-00000-of-00009.tfrecord"
        records = tf.data.TFRecordDataset([str(output / n) for n in names]).as_numpy_iterator()
        parsed = [tf.io.parse_single_example(r, spec) for r in records]
        written = [int(p["label"]) for p in parsed]
        assert np.load(output / "train_labels.npy").tolist() == written
        found[encoding] = [p["image"].numpy() for p in parsed]
    # The same images as in the array, in another order.
    rows = [row.tobytes() for row in pixels]
    assert sorted(zip(found["raw"], written, strict=True)) == sorted(
        zip(rows, labels.tolist(), strict=True)
    )
    assert found["raw"] != rows
    for raw, data in zip(found["raw"], found["jpeg"], strict=True):
        row = np.frombuffer(raw, np.uint8).reshape(SIZE, SIZE, 3)
        decoded = tf.io.decode_jpeg(data).numpy()
        assert decoded.shape == row.shape
        grey = np.abs((decoded.astype(float) - row) @ [0.299, 0.587, 0.114])
        assert grey.mean() < 4  # of noise, whose colours JPEG halves


def test_records_are_byte_for_byte_tensorflows(tmp_path: Path) -> None:
    import tensorflow as tf

    def feature(value: Any) -> Any:
        if isinstance(value, bytes):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        if isinstance(value, float):
            return tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

    examples = [
        {"image": b"x" * n, "label": label}
        for n, label in ((0, 0), (1, 127), (127, 128), (128, -1), (70_000, 2**40))
    ]
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    with tf.io.TFRecordWriter(str(theirs)) as writer, ours.open("wb") as file:
        for values in examples:
            features = tf.train.Features(feature={k: feature(v) for k, v in values.items()})
            example = tf.train.Example(features=features)
            writer.write(example.SerializeToString(deterministic=True))
            tfrecord.write(file, tfrecord.encode(values))
    assert ours.read_bytes() == theirs.read_bytes()
    assert [tfrecord.decode(r) for r in tfrecord.read(theirs)] == examples
    assert [tfrecord.decode(r) for r in tfrecord.read(theirs, 2, 2)] == examples[2:4]
    # What we would not write: other features, several values, none.
    more = {"a": feature(1.5), "b": feature(b"b"), "image": feature(b"i"), "label": feature(3)}
    more["label"].int64_list.value.append(4)
    more["none"] = tf.train.Feature()
    example = tf.train.Example(features=tf.train.Features(feature=more))
    decoded = tfrecord.decode(example.SerializeToString())
    assert (decoded["image"], decoded["label"]) == (b"i", 3)

    damaged = bytearray(theirs.read_bytes())
    damaged[-100] ^= 1
    theirs.write_bytes(damaged)
    with pytest.raises(DataError, match="record 4 fails its checksum"):
        list(tfrecord.read(theirs))
    theirs.write_bytes(damaged[:-9])
    with pytest.raises(DataError, match="record 4 is cut short"):
        list(tfrecord.read(theirs))


# --- Unreadable images


def damage(root: Path) -> list[str]:
    """Spoil five images, among them the first and the last; returns their paths."""
    spoiled = {"a/cmyk.jpg": b"", "a/extra.png": b"no image", "b/grey.jpeg": None,
               "b/small.bmp": b"BM", "c/transparent.png": None}  # fmt: skip
    for name, content in spoiled.items():
        path = root / "train" / name
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2] if content is None else content)
    return [f"train/{name}" for name in spoiled]


@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize("kind", ["array", "tfrecord"])
def test_unreadable_images_are_left_out_and_listed(odd: Path, tmp_path: Path, kind: str) -> None:
    bad, output = damage(odd), tmp_path / "out"
    with pytest.raises(DataError, match=r"5 images cannot be read, more than max_unreadable=4: "):
        preprocess(odd, output, format=kind, max_unreadable=4)
    assert [p.name for p in output.iterdir()] == [".work"]
    listed = files.read_json(output / ".work" / "unreadable.json")
    reasons = {entry["path"]: entry["reason"] for entry in listed}
    assert sorted(reasons) == sorted(bad)
    about = preprocess(odd, output, format=kind, max_unreadable=5)
    split = about["splits"]["train"]
    assert split["unreadable"] == listed
    assert [reasons[bad[i]] for i in (0, 1)] == ["empty", "not an image that Pillow knows"]
    assert "truncated" in reasons[bad[2]]
    assert split["class_counts"] == [9, 9, 10]
    readable = sorted(
        (images.decode(path.read_bytes(), (SIZE, SIZE, 3)).tobytes(), "abc".index(path.parent.name))
        for path in odd.glob("train/*/*")
        if path.relative_to(odd).as_posix() not in bad
    )
    labels = np.load(output / "train_labels.npy").tolist()
    if kind == "array":
        rows = [row.tobytes() for row in np.load(output / "train_images.npy")]
    else:
        names = [f["name"] for f in split["files"] if "tfrecord" in f["name"]]
        found = [tfrecord.decode(r) for n in names for r in tfrecord.read(output / n)]
        rows = [example["image"] for example in found]
        assert [example["label"] for example in found] == labels
    assert sorted(zip(rows, labels, strict=True)) == readable


@pytest.mark.usefixtures("inline")
def test_a_mended_image_is_read_again(
    odd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reference = tmp_path / "reference"
    preprocess(odd, reference)
    path = odd / "train" / "b" / "size.png"
    whole = path.read_bytes()
    path.write_bytes(bytes(len(whole)))  # of the same size
    with pytest.raises(DataError, match="1 images cannot be read"):
        preprocess(odd, tmp_path / "out")
    path.write_bytes(whole)
    preprocess(odd, tmp_path / "out")
    assert "9 of 10 shards were there from an earlier job" in capsys.readouterr().err
    assert same(tmp_path / "out", reference)


# --- Stopped and started again


@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize("kind", ["array", "tfrecord"])
def test_stopped_anywhere_the_job_goes_on(
    odd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    damage(odd)
    options = {"max_unreadable": 5, "format": kind}
    preprocess(odd, tmp_path / "reference", **options)
    preprocess(odd, tmp_path / "old", **options | {"size": 9})  # is to be replaced
    shutil.copytree(tmp_path / "old", tmp_path / "out")
    options["force"] = True
    replace, sync = Path.replace, files.sync
    output, stops = tmp_path / "out", 0

    def dying(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > stops:
                raise KeyboardInterrupt
            return function(*arguments)

        return call

    # Each time the job gets a step further, among those that matter: renames and syncs.
    while True:
        calls = 0
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", dying(replace))
            patch.setattr(files, "sync", dying(sync))
            try:
                preprocess(odd, output, **options)
                break
            except KeyboardInterrupt:
                stops += 1
        if (output / "manifest.json").exists():
            job.verify(output)
        # Half of the stops start over, the others go on: both must be possible at any point.
        if stops % 2:
            shutil.rmtree(output)
            shutil.copytree(tmp_path / "old", output)
    assert stops > 12
    assert same(output, tmp_path / "reference")


@pytest.mark.usefixtures("inline")
def test_only_whole_shards_are_kept(
    odd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reference, output = tmp_path / "reference", tmp_path / "out"
    preprocess(odd, reference)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(job, "_check_unreadable", stop)
        with pytest.raises(KeyboardInterrupt):
            preprocess(odd, output)
    work = output / ".work"
    with (work / "train_images.npy").open("r+b") as file:  # row 0 and half of the last
        file.seek(shards.HEADER)
        file.write(b"\0" * 100)
        file.truncate(shards.HEADER + 32 * SIZE**2 * 3 + 99)
    (work / "train-00003.json").write_text("{")
    (work / "train-00004.json").unlink()
    capsys.readouterr()
    preprocess(odd, output)
    assert "6 of 10 shards were there" in capsys.readouterr().err
    assert same(output, reference)


@pytest.mark.usefixtures("inline")
def test_work_of_other_options_is_not_used(
    odd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = odd / "train" / "c" / "size.png"
    whole = path.read_bytes()
    path.write_bytes(b"")
    for options in ({"format": "tfrecord"}, {"size": 9}, {"shard_examples": 5}):
        with pytest.raises(DataError, match="cannot be read"):
            preprocess(odd, tmp_path / "out", **options)
    path.write_bytes(whole)
    capsys.readouterr()
    preprocess(odd, tmp_path / "out")
    # The four images of the test part are a shard of their own in both.
    assert "1 of 10 shards were there" in capsys.readouterr().err
    preprocess(odd, tmp_path / "reference")
    assert same(tmp_path / "out", tmp_path / "reference")


@pytest.mark.kill
def test_killed_the_job_goes_on(real_data: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "source", tmp_path / "out"
    for folder in sorted((real_data / "imagenet_sample" / "train").iterdir())[:40]:
        (source / folder.name).mkdir(parents=True)
        for path in folder.iterdir():
            (source / folder.name / path.name).symlink_to(path)
    line = command(
        "preprocess.py", f"source={source}", f"output={output}", "preprocess=processes",
        "workers=2", "shard_examples=2",
    )  # fmt: skip
    job_process = subprocess.Popen(
        line, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    while not any(output.glob(".work/train-*.json")):
        assert job_process.poll() is None
        time.sleep(0.005)
    job_process.send_signal(signal.SIGKILL)
    job_process.wait()
    assert not (output / "manifest.json").exists()
    again = subprocess.run(line, env=environment(), capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert "of 20 shards were there from an earlier job" in again.stderr
    preprocess(source, tmp_path / "reference", size=256, shard_examples=2, workers=1)
    assert same(output, tmp_path / "reference")
    assert not processes_of(job_process.pid)  # its workers have ended with it


def processes_of(session: int) -> list[str]:
    found = subprocess.run(
        ["ps", "-o", "pid=,stat=,args=", "-s", str(session)], capture_output=True, text=True,
        check=False,
    ).stdout  # fmt: skip
    return [line for line in found.splitlines() if " Z" not in line]


# --- Finished outputs


@pytest.mark.usefixtures("inline")
def test_a_finished_output_is_kept_or_replaced_as_asked(
    odd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    preprocess(odd, output, format="tfrecord")
    before = {p.name: p.stat().st_mtime_ns for p in output.iterdir()}
    preprocess(odd, output, format="tfrecord")
    assert "finished already" in capsys.readouterr().out
    assert {p.name: p.stat().st_mtime_ns for p in output.iterdir()} == before
    with pytest.raises(DataError, match=r"another job \(different: format\).*force=true"):
        preprocess(odd, output)
    (odd / "train" / "a" / "extra.png").unlink()
    with pytest.raises(DataError, match=r"another job \(different: source\)"):
        preprocess(odd, output, format="tfrecord")
    preprocess(odd, output, force=True)
    (output / "train_labels.npy").write_bytes(b"")
    with pytest.raises(DataError, match=r"train_labels.npy is missing or cut short: .*force=true"):
        preprocess(odd, output)
    preprocess(odd, output, force=True)
    preprocess(odd, tmp_path / "reference")
    assert same(output, tmp_path / "reference")


@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize("kind", ["array", "tfrecord"])
def test_verify_sees_any_change(odd: Path, tmp_path: Path, kind: str) -> None:
    output = tmp_path / "out"
    preprocess(odd, output, format=kind)
    for path in [p for p in output.iterdir() if p.name != "manifest.json"]:
        whole = path.read_bytes()
        for place in (0, len(whole) // 2, len(whole) - 1):
            changed = bytearray(whole)
            changed[place] ^= 1
            path.write_bytes(changed)
            with pytest.raises(DataError, match="does not match its manifest"):
                job.verify(output)
        for spoil in (lambda p, w: p.write_bytes(w[:-1]), lambda p, w: p.unlink()):
            spoil(path, whole)
            with pytest.raises(DataError, match="does not match its manifest"):
                job.verify(output)
        path.write_bytes(whole)
        job.verify(output)
    about = read_manifest(output)
    for change, message in (({"content": "0" * 64}, "does not match"), ({"splits": 1}, "damaged")):
        files.write_json(output / "manifest.json", about | change)
        with pytest.raises(DataError, match=message):
            job.verify(output)


def test_verify_says_what_differs(odd: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    preprocess(odd, output, workers=1)
    with (output / "train_images.npy").open("r+b") as file:
        file.seek(shards.HEADER + 5 * SIZE**2 * 3)
        file.write(b"\0" * 9)
    process = run("preprocess.py", f"verify={output}")
    assert process.returncode == 1
    assert process.stdout == "train_images.npy does not match its checksum in rows 4 to 7\n"
    assert process.stderr.count("error:") == 1
    assert "Traceback" not in process.stderr
    with pytest.raises(DataError, match="is no output of preprocess"):
        job.verify(tmp_path)


# --- Sources


def ilsvrc(root: Path, layout: str = ".") -> tuple[Path, list[str]]:
    """Two synsets whose alphabetical order is not the development kit's; four val images."""
    base = root / layout
    for synset in ("n01", "n02", "n03"):
        (base / "train" / synset).mkdir(parents=True)
        picture(20, 16, 1).save(base / "train" / synset / f"{synset}_1.JPEG", "jpeg")
    (base / "val").mkdir()
    synsets = ["n02", "n01", "n03", "n02"]
    for i in range(len(synsets)):
        path = base / "val" / f"ILSVRC2012_val_{i + 1:08d}.JPEG"
        picture(20, 16, 50 + i).save(path, "jpeg")
    return base, synsets


def labels_of(root: Path) -> list[str]:
    source = sources.find(root)
    assert source.kind == "ilsvrc"
    return [source.classes[label] for _, label, _ in source.parts["test"].examples()]


def write_solution(path: Path, synsets: list[str]) -> None:
    rows = [f"ILSVRC2012_val_{i + 1:08d},{s} 1 2 3 4 {s} 5 6 7 8" for i, s in enumerate(synsets)]
    path.write_text("\n".join(["ImageId,PredictionString", *sorted(rows, reverse=True)]) + "\n")


@pytest.mark.parametrize("layout", [".", "Data/CLS-LOC", "ILSVRC/Data/CLS-LOC"])
def test_ilsvrc_as_kaggle_has_it(tmp_path: Path, layout: str) -> None:
    _, synsets = ilsvrc(tmp_path, layout)
    with pytest.raises(DataError, match=r"there is no label file: put LOC_val_solution.csv"):
        sources.find(tmp_path)
    write_solution(tmp_path / "LOC_val_solution.csv", synsets)
    assert labels_of(tmp_path) == synsets
    names = "n03 crane\nn01 tench, Tinca tinca\nn02 crane\n"
    (tmp_path / "LOC_synset_mapping.txt").write_text(names)
    assert sources.find(tmp_path).classes == ("tench, Tinca tinca", "crane (n02)", "crane (n03)")
    write_solution(tmp_path / "LOC_val_solution.csv", synsets[:3])
    with pytest.raises(DataError, match=r"has no label for 1 of 4 .*ILSVRC2012_val_00000004"):
        sources.find(tmp_path)
    write_solution(tmp_path / "LOC_val_solution.csv", ["n02", "n01", "n09", "n02"])
    with pytest.raises(DataError, match=r"names 1 classes that .*train has not: n09"):
        sources.find(tmp_path)


@pytest.mark.parametrize("order", ["synsets.txt", "meta.mat"])
def test_ilsvrc_with_the_development_kit(tmp_path: Path, order: str) -> None:
    _, synsets = ilsvrc(tmp_path)
    kit = tmp_path / "ILSVRC2012_devkit_t12" / "data"
    kit.mkdir(parents=True)
    numbers = {"n03": 1, "n01": 2, "n02": 3}
    truth = "".join(f"{numbers[s]}\n" for s in synsets)
    (kit / "ILSVRC2012_validation_ground_truth.txt").write_text(truth)
    with pytest.raises(DataError, match="nothing says which synsets they mean"):
        sources.find(tmp_path)
    if order == "meta.mat":
        kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O")]
        rows = np.array([(n, s) for s, n in sorted(numbers.items())] + [(4, "n00")], kinds)
        savemat(kit / order, {"synsets": rows})
    else:
        (kit / order).write_text("n03\nn01\nn02\n")
    assert labels_of(tmp_path) == synsets


@pytest.mark.usefixtures("inline")
def test_a_prepared_tensorflow_data_set(tmp_path: Path) -> None:
    from test_data import random_images, write_tfds

    folder = write_tfds(tmp_path / "tfds", shape=(8, 8, 1))
    about = preprocess(folder.parent, tmp_path / "out", size=8)
    for seed, (part, count) in enumerate({"train": 50, "test": 9}.items()):
        rows = np.load(tmp_path / "out" / f"{part}_images.npy")
        assert np.array_equal(rows, np.repeat(random_images(count, (8, 8, 1), seed), 3, -1))
        labels = np.load(tmp_path / "out" / f"{part}_labels.npy")
        assert np.array_equal(labels, np.arange(count) % 5)
    assert about["source"]["kind"] == "tfds"
    assert about["source"]["name"] == "tiny"
    preprocess(folder, tmp_path / "again", size=8)  # by the folder of its version
    assert same(tmp_path / "out", tmp_path / "again")
    shard = folder / "tiny-train.tfrecord-00001-of-00002"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 255
    shard.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        preprocess(folder, tmp_path / "damaged", size=8)


def test_a_real_tensorflow_data_set(real_data: Path) -> None:
    tfds = pytest.importorskip("tensorflow_datasets")
    folder = real_data / "tensorflow_datasets" / "cifar10"
    test = sources.find(folder).parts["test"]
    raw = tfds.builder_from_directory(str(max(folder.glob("*.*.*")))).as_dataset(
        split="test", shuffle_files=False, batch_size=-1
    )
    assert [label for _, label, _ in test.examples()] == raw["label"].numpy().tolist()
    for row in (0, 777, len(test) - 1):
        [(name, _, read)] = test.cut(row, 1).examples()
        assert name == f"record {row} of cifar10 test"
        assert np.array_equal(images.decode(read(), (32, 32, 3)), raw["image"][row])


# --- What users get wrong


@pytest.mark.usefixtures("inline")
def test_bad_input_is_told_in_one_line(odd: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "classless" / "a").mkdir(parents=True)
    (tmp_path / "classless" / "b").mkdir()
    out = tmp_path / "out"
    expected: list[tuple[Path, Path, dict[str, Any], str]] = [
        (tmp_path / "absent", out, {}, "there is no folder .*absent"),
        (empty, out, {}, "is no source of images"),
        (tmp_path / "classless", out, {}, "2 of 2 class folders .* hold no images"),
        (odd, odd / "out", {}, "lies inside source"),
        (odd, odd, {}, "lies inside source"),
        (odd, tmp_path, {}, "lies inside output"),
        (odd, out, {"size": 0}, "size=0 must be >= 1"),
        (odd, out, {"max_unreadable": -1}, "max_unreadable=-1 must be >= 0"),
        (odd, out, {"format": "arrow"}, "format=arrow is unknown; .*known: array, tfrecord"),
        (odd, out, {"encoding": "jpeg"}, "encoding=jpeg needs format=tfrecord"),
    ]
    for source, output, options, message in expected:
        with pytest.raises((ConfigError, DataError), match=message) as caught:
            preprocess(source, output, **options)
        assert "\n" not in str(caught.value)
        assert not out.exists()
    with pytest.raises(ConfigError, match="output=<folder> is missing"):
        job.check(Options(source="x"))
    with pytest.raises(ConfigError, match="say what to do"):
        job.check(Options())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sze=3"], "option sze is unknown; did you mean size?"),
        (["preprocess=sparks"], "preprocess=sparks is unknown; did you mean spark?"),
        (["output=/proc/nowhere"], "cannot write or read /proc/nowhere"),
        (["preprocess=spark", "spark.master=spark://127.0.0.1:1"], "no Spark master answers"),
    ],
)
def test_the_command_line_says_what_is_wrong(
    odd: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    if "spark://" in arguments[-1]:
        pytest.importorskip("pyspark", reason="PySpark is an extra: uv sync --extra spark")
    process = run(
        "preprocess.py", f"source={odd}", f"output={tmp_path / 'out'}", "preprocess=processes",
        *arguments,
    )  # fmt: skip
    assert process.returncode == 1
    assert message in process.stderr
    assert process.stderr.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in process.stderr


def test_without_spark_another_engine_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(spark.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"--extra spark.*preprocess=processes"):
        spark.check("local[*]")
    monkeypatch.setattr(spark.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match=r"Java 17.*preprocess=processes"):
        spark.check("local[*]")


def test_a_full_disk(odd: Path, small_disk: Path) -> None:
    with pytest.raises(DataError, match=r"the images need .*: choose another disk"):
        preprocess(odd, small_disk / "raw", size=256)
    options = {"format": "tfrecord", "encoding": "jpeg", "size": 256}
    with pytest.raises(OSError, match="No space left") as caught:  # cli.py makes a line of it
        preprocess(odd, small_disk / "jpeg", **options)
    assert str(small_disk / "jpeg") in str(caught.value.filename)
    assert [p.name for p in (small_disk / "jpeg").iterdir()] == [".work"]
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    preprocess(odd, small_disk / "jpeg", **options)


def test_two_jobs_do_not_share_an_output(odd: Path, tmp_path: Path) -> None:
    with job._lock(tmp_path / "out" / ".work"), pytest.raises(DataError, match="another preproc"):
        preprocess(odd, tmp_path / "out")


def test_a_killed_worker_is_named(odd: Path, tmp_path: Path) -> None:
    from lottery.preprocess import processes

    with processes.open_engine(1) as results, pytest.raises(LotteryError, match="was killed"):
        list(results([dataclasses.replace(a_task(odd, tmp_path), images=Deadly())]))


class Deadly:
    """Images that are too much for the worker."""

    def __len__(self) -> int:
        return 1

    def examples(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def a_task(source: Path, work: Path) -> shards.Task:
    layout = shards.Layout(str(work), "tfrecord", "raw", SIZE, 95)
    return job.tasks(sources.find(source), layout, None)[0]


def test_workers_of_other_versions_are_refused(odd: Path, tmp_path: Path) -> None:
    task = dataclasses.replace(a_task(odd, tmp_path), libraries=(("pillow", "1.0"),))
    failed = shards.run(task)
    assert isinstance(failed, shards.Failed)
    assert "the submitting process has pillow 1.0" in failed.message


def test_workers_need_neither_tensorflow_nor_hydra(odd: Path, tmp_path: Path) -> None:
    spark._pack(tmp_path / "shipped.zip")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import lottery.preprocess.shards, lottery.preprocess.spark, lottery.data.tfrecord\n"
        "assert 'shipped.zip' in lottery.__file__\n"
        "heavy = {'tensorflow', 'hydra', 'omegaconf', 'pyspark', 'scipy', 'rich'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "shipped.zip")], check=True)


def test_help_is_quick_to_come() -> None:
    process = run("preprocess.py", "--help", python=("-X", "importtime"))
    assert "spark.master" in process.stdout
    for module in ("tensorflow", "numpy", "PIL", "pyspark"):
        assert f"| {module}\n" not in process.stderr.replace("  ", "").replace("|", "| "), module


def test_manifest_is_json_that_others_can_read(odd: Path, tmp_path: Path) -> None:
    preprocess(odd, tmp_path / "out", workers=1)
    about = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert set(about) >= {
        "version", "format", "encoding", "size", "channels", "policy", "classes", "mean", "std",
        "splits", "source", "libraries", "content",
    }  # fmt: skip
    assert about["libraries"].keys() == {"pillow", "libjpeg", "opencv", "numpy"}
