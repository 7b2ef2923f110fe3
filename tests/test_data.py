"""Splits, order of examples, preprocessing and sources."""

import dataclasses
import io
import json
import math
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits

from lottery import data
from lottery.config import Data
from lottery.data import Chunk, images
from lottery.data.arrays import ArraySplit
from lottery.data.preprocessing import Preprocessing
from lottery.data.splits import held_out, keep_classes, small, steps_per_epoch, stratified
from lottery.data.streams import FolderSplit, TfrecordSplit
from lottery.errors import ConfigError, DataError

REAL = Path(os.environ.get("LOTTERY_DATA", Path(__file__).parents[2] / "shared" / "data"))


def real(folder: str) -> str:
    if not (REAL / folder).is_dir():
        pytest.skip(f"real data absent: {REAL / folder} (set LOTTERY_DATA)")
    return str(REAL / folder)


# --- Data sets written by the tests themselves


def encoded(pixels: np.ndarray, kind: str = "png", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(buffer, kind, **options)
    return buffer.getvalue()


def random_images(n: int, shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), np.uint8)


def write_folder(root: Path, classes: int = 3, each: int = 8, shape=(12, 12, 3)) -> Path:
    pixels = iter(random_images(classes * each, shape))
    for c in range(classes):
        (root / f"class{c}").mkdir(parents=True)
        for i in range(each):
            (root / f"class{c}" / f"{i:02d}.png").write_bytes(encoded(next(pixels)))
    return root


def write_tfds(
    root: Path, train: int = 50, test: int = 9, classes: int = 5, shape=(8, 8, 1), damaged=()
) -> Path:
    """A data set named ``tiny``, laid out as TFDS does."""
    folder = root / "tiny" / "1.2.0"
    folder.mkdir(parents=True)
    splits, shards = [], 2
    for seed, (split, n) in enumerate({"train": train, "test": test}.items()):
        total, lengths = 0, []
        pixels = random_images(n, shape, seed)
        for shard, rows in enumerate(np.array_split(np.arange(n), shards)):
            path = folder / f"tiny-{split}.tfrecord-{shard:05d}-of-{shards:05d}"
            with tf.io.TFRecordWriter(str(path)) as writer:
                for row in rows:
                    label = tf.train.Feature(int64_list=tf.train.Int64List(value=[row % classes]))
                    bad = split == "train" and row in damaged
                    png = tf.train.BytesList(value=[b"" if bad else encoded(pixels[row])])
                    features = {"image": tf.train.Feature(bytes_list=png), "label": label}
                    example = tf.train.Example(features=tf.train.Features(feature=features))
                    total += len(example.SerializeToString())
                    writer.write(example.SerializeToString())
            lengths.append(str(len(rows)))
        splits.append({"name": split, "numBytes": str(total), "shardLengths": lengths})
    info = {"name": "tiny", "version": "1.2.0", "fileFormat": "tfrecord", "splits": splits}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    dimensions = [str(d) for d in shape]
    features = {
        "image": {"image": {"dtype": "uint8", "shape": {"dimensions": dimensions}}},
        "label": {"classLabel": {"numClasses": str(classes)}},
    }
    (folder / "features.json").write_text(json.dumps({"featuresDict": {"features": features}}))
    return folder


def numbered(n: int) -> ArraySplit:
    """Examples that are told apart by their label."""
    return ArraySplit(random_images(n, (4, 4, 1)), np.arange(n, dtype=np.int32))


def chunked(first: int, last: int, steps: int, per_epoch: int) -> list[Chunk]:
    chunks = []
    while first < last:
        n = min(steps, last - first, per_epoch - first % per_epoch)
        chunks.append(Chunk(first, n))
        first += n
    return chunks


def batches(split, chunks, *, batch_size, per_epoch, seed=0) -> tuple[np.ndarray, np.ndarray]:
    """All steps of all chunks: images [steps, B, S, S, C] and labels [steps, B]."""
    fed = list(
        split.training(
            chunks, batch_size=batch_size, steps_per_epoch=per_epoch, seed=seed
        ).as_numpy_iterator()
    )
    assert [len(labels) for _, labels in fed] == [chunk.steps for chunk in chunks]
    pixels, labels = (np.concatenate(parts) for parts in zip(*fed, strict=True))
    assert pixels.dtype == np.uint8
    assert labels.dtype == np.int32
    return pixels, labels


# --- Splits


def numbers(n: int) -> np.ndarray:
    return np.arange(n, dtype=np.uint64)


@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=300),
    st.decimals("0.01", "0.99", places=3).map(float),
    st.integers(0, 2**31),
)
@settings(max_examples=200, deadline=None)
def test_stratified_counts(labels: list[int], fraction: float, seed: int) -> None:
    array, keys = np.array(labels), numbers(len(labels))
    mask = stratified(array, keys, fraction, str(seed))
    assert mask.dtype == bool
    for label, count in zip(*np.unique(array, return_counts=True), strict=True):
        held = int(mask[array == label].sum())
        assert held == held_out(int(count), fraction) or (small(int(count), fraction) and held == 1)
        assert held < count  # one stays
        assert abs(held - int(count) * Fraction(repr(fraction))) < 1
    assert np.array_equal(mask, stratified(array, keys, fraction, str(seed)))


def test_stratified_draws_members_from_the_seed() -> None:
    labels, keys = np.repeat(np.arange(50), 5), numbers(250)
    masks = np.array([stratified(labels, keys, 0.2, str(seed)) for seed in range(40)])
    assert (masks.reshape(40, 50, 5).sum(2) == 1).all()
    assert len(np.unique(masks, axis=0)) == 40
    per_position = masks.reshape(40, 50, 5).sum((0, 1))
    assert (abs(per_position - 400) < 5 * math.sqrt(2000 * 0.2 * 0.8)).all()  # none is preferred
    together = masks[:, :5].argmax(1) == masks[:, 5:10].argmax(1)
    assert together.sum() < 20  # each class has draws of its own


def test_small_classes_give_an_example_by_lot() -> None:
    """So that many of them are held out in the right share all the same."""
    labels, keys = np.repeat(np.arange(2000), 2), numbers(4000)
    test = stratified(labels, keys, 0.2, "0 test")
    assert abs(test.sum() - 800) < 5 * math.sqrt(2000 * 0.4 * 0.6)
    left = np.flatnonzero(~test)
    validation = stratified(labels[left], keys[left], 0.1, "0 validation")
    assert abs(validation.sum() - 240) < 5 * math.sqrt(1200 * 0.2 * 0.8)
    assert len(set(labels[left[~validation]])) == 2000  # every class is trained on


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_members_of_a_class_depend_on_that_class_and_the_seed_alone(data_: st.DataObject) -> None:
    """Whatever other classes there are, what the classes are numbered, and in whatever order."""
    draw = data_.draw
    labels = np.array(draw(st.lists(st.integers(0, 4), min_size=2, max_size=120)))
    keys = np.array(draw(st.permutations(range(len(labels)))), np.uint64)
    seed, fraction = str(draw(st.integers(0, 99))), draw(st.sampled_from([0.02, 0.1, 0.15, 0.5]))
    whole = dict(zip(keys.tolist(), stratified(labels, keys, fraction, seed), strict=True))
    kept = np.flatnonzero(np.isin(labels, draw(st.sets(st.integers(0, 4)))))
    rows = np.array(draw(st.permutations(kept.tolist())), np.int64)
    named = np.array(draw(st.permutations(range(5))))[labels]
    part = stratified(named[rows], keys[rows], fraction, seed)
    assert [whole[k] for k in keys[rows].tolist()] == part.tolist()


def test_held_out_rounds_half_up_as_typed_and_leaves_one() -> None:
    assert held_out(100, 0.285) == 29  # 28.499... in binary
    assert held_out(5, 0.1) == 1
    assert held_out(4, 0.1) == 0
    assert [held_out(n, 0.9) for n in (0, 1, 2, 3, 10)] == [0, 0, 1, 2, 9]


def test_keep_classes_renumbers_in_the_order_given() -> None:
    rows, labels = keep_classes(np.array([0, 1, 2, 3, 1, 3], np.int32), [3, 1])
    assert rows.tolist() == [1, 3, 4, 5]
    assert labels.tolist() == [1, 0, 1, 0]
    assert labels.dtype == np.int32


def test_steps_per_epoch() -> None:
    assert steps_per_epoch(100, 30) == 3
    with pytest.raises(
        ConfigError, match="a batch of 101 is larger than the training split of 100"
    ):
        steps_per_epoch(100, 101)


# --- Order of training examples and of evaluation


def test_every_epoch_is_a_permutation_without_repetition() -> None:
    split = numbered(103)
    _, labels = batches(split, chunked(0, 30, 4, 10), batch_size=10, per_epoch=10)
    epochs = labels.reshape(3, 100)
    assert all(len(set(epoch)) == 100 for epoch in epochs.tolist())
    assert not np.array_equal(epochs[0], epochs[1])
    left_out = [set(range(103)) - set(epoch) for epoch in epochs.tolist()]
    assert len(set(map(frozenset, left_out))) > 1  # not the same three each time


def test_images_go_with_their_labels() -> None:
    split = numbered(40)
    pixels, labels = batches(split, chunked(0, 4, 3, 4), batch_size=10, per_epoch=4)
    assert np.array_equal(pixels, split.images[labels])


@pytest.mark.parametrize("kind", ["array", "folder", "tfds"])
def test_order_depends_neither_on_chunks_nor_on_the_first_step(kind: str, tmp_path: Path) -> None:
    if kind == "array":
        split: data.Split = numbered(47)
    elif kind == "folder":
        config = dataset(source="folder", dir=str(write_folder(tmp_path, each=20)), in_memory=False)
        split = data.load(config).train
        assert isinstance(split, FolderSplit)
    else:
        write_tfds(tmp_path, train=52)
        config = dataset(source="tfds", name="tiny", root=str(tmp_path), in_memory=False)
        split = data.load(config).train
        assert isinstance(split, TfrecordSplit)
    per_epoch = split.size // 6
    options = {"batch_size": 6, "per_epoch": per_epoch, "seed": 5}
    whole = batches(split, chunked(0, 3 * per_epoch, per_epoch, per_epoch), **options)
    for first, steps in ((0, 1), (0, 3), (1, 2), (per_epoch - 1, 4), (per_epoch + 2, 3)):
        tf.random.set_seed(first)  # the global seed must not matter
        part = batches(split, chunked(first, 3 * per_epoch, steps, per_epoch), **options)
        for a, b in zip(whole, part, strict=True):
            assert np.array_equal(a[first:], b)
    other = batches(split, chunked(0, per_epoch, 2, per_epoch), **(options | {"seed": 6}))
    assert not np.array_equal(whole[0][:per_epoch], other[0])


def test_a_chunk_must_lie_within_an_epoch() -> None:
    for chunk in (Chunk(2, 3), Chunk(0, 0), Chunk(0, 9)):
        with pytest.raises(ValueError, match="not within one epoch of 4 steps"):
            numbered(40).training([chunk], batch_size=10, steps_per_epoch=4, seed=0)
    with pytest.raises(ValueError, match="need more than 40 examples"):
        numbered(40).training([Chunk(0, 1)], batch_size=10, steps_per_epoch=5, seed=0)


def test_training_batches_have_a_static_size() -> None:
    spec = (
        numbered(40)
        .training([Chunk(0, 3), Chunk(3, 1)], batch_size=10, steps_per_epoch=4, seed=0)
        .element_spec
    )
    assert [s.shape.as_list() for s in spec] == [[None, 10, 4, 4, 1], [None, 10]]


def assert_evaluates_once(split: data.Split, batch_size: int) -> np.ndarray:
    dataset = split.evaluation(batch_size)
    fed = list(dataset.as_numpy_iterator())
    assert all(len(part) == batch_size for batch in fed for part in batch)
    pixels, labels, valid = (np.concatenate(parts) for parts in zip(*fed, strict=True))
    assert valid.sum() == split.size
    assert valid[: split.size].all()
    assert len(fed) == math.ceil(split.size / batch_size)
    assert np.array_equal(labels[valid], split.labels)
    assert labels.dtype == np.int32
    return pixels[valid]


@pytest.mark.parametrize("batch_size", [1, 7, 11, 22, 50])
def test_evaluation_counts_every_example_once(batch_size: int) -> None:
    split = numbered(22)
    for _ in range(2):  # after each epoch
        assert np.array_equal(assert_evaluates_once(split, batch_size), split.images)


# --- Preprocessing


def preprocessing(size=8, channels=3, padding=0, flip=False, crop=None) -> Preprocessing:
    side = crop or size
    mean, std = (0.5, 0.4, 0.3)[:channels], (0.2, 0.25, 0.3)[:channels]
    return Preprocessing((side, side, channels), padding, flip, mean, std)


def normalised(p: Preprocessing, pixels: np.ndarray) -> np.ndarray:
    return (pixels.astype(np.float64) / 255 - np.array(p.mean)) / np.array(p.std)


def reference(p: Preprocessing, pixels: np.ndarray, seed: int, step: int) -> np.ndarray:
    """Augmentation of one image at a time in plain numpy, from the same draws."""
    height, width, _ = p.input_shape
    bits = tf.random.stateless_uniform(
        [len(pixels), 3], [seed, step], None, None, tf.int32, alg="philox"
    )
    draws = (bits.numpy() % 2**24) / 2**24
    pad = p.crop_padding
    result = []
    for image, (y, x, f) in zip(pixels, draws, strict=True):
        padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))
        top = int(y * (padded.shape[0] - height + 1))
        left = int(x * (padded.shape[1] - width + 1))
        crop = padded[top : top + height, left : left + width]
        result.append(crop[:, ::-1] if p.flip and f < 0.5 else crop)
    return normalised(p, np.array(result))


VARIANTS = [
    preprocessing(padding=2, flip=True),
    preprocessing(padding=2),
    preprocessing(flip=True),
    preprocessing(crop=5),
    preprocessing(crop=5, flip=True, padding=1),
    preprocessing(padding=1, channels=1),
]


@pytest.mark.parametrize("p", VARIANTS)
@pytest.mark.parametrize("jit", [False, True])
def test_augmentation_agrees_with_numpy(p: Preprocessing, jit: bool) -> None:
    pixels = random_images(64, (8, 8, p.input_shape[2]))

    @tf.function(jit_compile=jit)
    def augment(batch: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        return p.training(batch, seed=3, step=step)

    seen = []
    for step in (0, 2**33):
        got = augment(tf.constant(pixels), tf.constant(step, tf.int64)).numpy()
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, reference(p, pixels, 3, step), atol=1e-5)
        seen.append(got)
    assert not np.array_equal(*seen)


def test_augmentation_uses_every_offset_and_mirrors_half() -> None:
    p = Preprocessing((4, 4, 1), 1, True, (0.0,), (1 / 255,))
    image = np.arange(1, 17, dtype=np.uint8).reshape(1, 4, 4, 1)
    many = p.training(
        tf.constant(np.repeat(image, 4000, 0)), seed=0, step=tf.constant(0, tf.int64)
    ).numpy()
    kinds, counts = np.unique(many.reshape(4000, -1), axis=0, return_counts=True)
    assert len(kinds) == 3 * 3 * 2
    assert counts.min() > 4000 / 18 * 0.7


@pytest.mark.parametrize("jit", [False, True])
def test_augmentation_does_not_depend_on_the_number_of_replicas(jit: bool) -> None:
    p = preprocessing(padding=2, flip=True)
    pixels = tf.constant(random_images(12, (8, 8, 3)))
    step = tf.constant(7, tf.int64)

    @tf.function(jit_compile=jit)
    def replica(part: tf.Tensor, first_row: tf.Tensor) -> tf.Tensor:
        return p.training(part, seed=1, step=step, first_row=first_row, global_batch=12)

    whole = p.training(pixels, seed=1, step=step).numpy()
    for n in (2, 3):
        size = 12 // n
        parts = [replica(pixels[i : i + size], tf.constant(i)) for i in range(0, 12, size)]
        np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-6)


def test_without_augmentation_training_equals_evaluation() -> None:
    p = preprocessing()
    pixels = tf.constant(random_images(5, (8, 8, 3)))
    trained = p.training(pixels, seed=0, step=tf.constant(0, tf.int64))
    assert np.array_equal(trained, p.evaluation(pixels))


@pytest.mark.parametrize(("size", "crop"), [(8, 8), (8, 5), (9, 4)])
def test_evaluation_is_the_normalised_centre(size: int, crop: int) -> None:
    p = preprocessing(size=size, crop=crop)
    pixels = random_images(5, (size, size, 3))
    start = (size - crop) // 2
    want = normalised(p, pixels[:, start : start + crop, start : start + crop])
    got = p.evaluation(tf.constant(pixels))
    assert got.dtype == tf.float32
    np.testing.assert_allclose(got, want, atol=1e-5)


RESIZED = Preprocessing((6, 6, 3), 0, True, (0.5,), (0.25,), crop_area=(0.2, 1.0))


@pytest.mark.parametrize("jit", [False, True])
def test_random_resized_crops_agree_with_scipy(jit: bool) -> None:
    """From the same draws: one image at a time, interpolated by scipy."""
    from scipy.ndimage import map_coordinates

    p, size, seed, step = RESIZED, 16, 3, 5
    pixels = random_images(64, (size, size, 3))
    augment = tf.function(lambda x, s: p.training(x, seed=seed, step=s), jit_compile=jit)
    got = augment(tf.constant(pixels), tf.constant(step, tf.int64)).numpy()

    def draws(columns: int, stream: int) -> np.ndarray:
        key = [seed + (stream << 32), step]
        bits = tf.random.stateless_uniform([64, columns], key, None, None, tf.int32, alg="philox")
        return (bits.numpy() % 2**24) / 2**24

    places, shapes = draws(3, 0), draws(20, 1)
    whole = 0
    for i, image in enumerate(pixels):
        tall = wide = 1.0
        for area, aspect in zip(shapes[i, :10], shapes[i, 10:], strict=True):
            area, ratio = 0.2 + 0.8 * area, 0.75 * (16 / 9) ** aspect
            w, h = math.sqrt(area * ratio), math.sqrt(area / ratio)
            if w <= 1 and h <= 1:
                tall, wide = h, w
                break
        else:
            whole += 1
        steps = (np.arange(6) + 0.5) / 6
        y = (places[i, 0] * (1 - tall) + steps * tall) * size - 0.5
        x = (places[i, 1] * (1 - wide) + steps * wide) * size - 0.5
        x = x[::-1] if places[i, 2] < 0.5 else x
        grid = np.meshgrid(y, x, indexing="ij")
        want = [map_coordinates(image[..., c].astype(float), grid, order=1, mode="nearest")
                for c in range(3)]  # fmt: skip
        np.testing.assert_allclose(got[i], normalised(p, np.stack(want, -1)), atol=2e-3)
    assert whole < 4  # the attempts do fit, mostly


def test_a_crop_of_the_whole_image_at_its_own_size_changes_nothing() -> None:
    p = dataclasses.replace(RESIZED, flip=False, crop_area=(1.0, 1.0), crop_aspect=(1.0, 1.0))
    pixels = tf.constant(random_images(8, (6, 6, 3)))
    got = p.training(pixels, seed=0, step=tf.constant(0, tf.int64))
    np.testing.assert_allclose(got, p.evaluation(pixels), atol=1e-5)


def test_replicas_share_the_draws_of_random_resized_crops() -> None:
    pixels, step = tf.constant(random_images(12, (16, 16, 3))), tf.constant(7, tf.int64)
    whole = RESIZED.training(pixels, seed=1, step=step).numpy()
    for i in (0, 4, 8):
        part = RESIZED.training(pixels[i : i + 4], seed=1, step=step, first_row=i, global_batch=12)
        np.testing.assert_allclose(part, whole[i : i + 4], atol=1e-6)


@pytest.mark.parametrize("jit", [False, True])
def test_mixup_blends_neighbours_and_their_targets_in_beta_distributed_shares(jit: bool) -> None:
    from scipy.stats import beta, kstest

    p = dataclasses.replace(RESIZED, mixup=0.4)
    n = 4000
    inputs, targets = tf.random.stateless_normal([n, 2, 2, 3], [1, 2]), tf.eye(n)
    mix = tf.function(lambda x, t, s: p.mixed(x, t, seed=0, step=s), jit_compile=jit)
    x, t = (a.numpy() for a in mix(inputs, targets, tf.constant(9, tf.int64)))
    rows = np.arange(n)
    partner = rows ^ 1
    own = t[rows, rows]
    np.testing.assert_allclose(t[rows, partner], 1 - own, atol=1e-6)
    blend = own[:, None, None, None]
    np.testing.assert_allclose(x, blend * inputs + (1 - blend) * inputs.numpy()[partner], atol=1e-5)
    upper = 2 * beta(0.4, 0.4).cdf(np.sort(own)) - 1  # uniform, if own = max(p, 1 - p)
    assert kstest(upper, "uniform").pvalue > 1e-3


def test_without_mixup_inputs_and_targets_pass() -> None:
    inputs, targets = tf.zeros([4, 2, 2, 3]), tf.eye(4)
    assert RESIZED.mixed(inputs, targets, seed=0, step=tf.constant(0, tf.int64)) == (
        inputs,
        targets,
    )


def test_batches_of_unknown_size_are_served() -> None:
    p = preprocessing(padding=2, flip=True)
    pixels = random_images(5, (8, 8, 3))
    step = tf.constant(4, tf.int64)

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3], tf.uint8)])
    def augment(batch: tf.Tensor) -> tf.Tensor:
        return p.training(batch, seed=3, step=step)

    np.testing.assert_allclose(augment(pixels), reference(p, pixels, 3, 4), atol=1e-5)


# --- Decoding


def test_decode_shrinks_by_averaging_and_crops_the_centre() -> None:
    wide = np.zeros((40, 80, 3), np.uint8)
    wide[:, 20:60] = random_images(1, (40, 40, 3))[0] // 2 + 64
    got = images.decode(encoded(wide), (10, 10, 3)).astype(float)
    blocks = wide[:, 20:60].reshape(10, 4, 10, 4, 3).mean((1, 3))
    assert np.abs(got - blocks).max() <= 1  # rounded after each direction


def test_decode_enlarges_linearly() -> None:
    ramp = np.repeat(np.arange(0, 80, 8, np.uint8)[None, :, None], 10, 0).repeat(3, 2)
    got = images.decode(encoded(ramp), (40, 40, 3)).astype(int)
    assert set(np.diff(got[0, 4:-4, 0])) == {2}


def test_decode_keeps_images_of_the_right_size() -> None:
    for channels in (1, 3):
        pixels = random_images(1, (9, 9, channels))[0]
        assert np.array_equal(images.decode(encoded(pixels), (9, 9, channels)), pixels)


def test_decode_makes_rgb_of_grey_cmyk_and_palette() -> None:
    grey = random_images(1, (9, 9, 1))[0]
    assert np.array_equal(images.decode(encoded(grey), (9, 9, 3)), np.repeat(grey, 3, -1))
    deep = grey.astype(np.uint16) * 256 + 255
    assert np.array_equal(images.decode(encoded(deep), (9, 9, 3)), np.repeat(grey, 3, -1))
    for mode, kind in (("CMYK", "jpeg"), ("P", "png"), ("RGBA", "png"), ("LA", "png")):
        buffer = io.BytesIO()
        Image.new("RGB", (9, 9), (204, 51, 51)).convert(mode).save(buffer, kind)
        got = images.decode(buffer.getvalue(), (9, 9, 3)).astype(int)
        assert got.shape == (9, 9, 3)
        if mode != "LA":
            assert np.abs(got - [204, 51, 51]).max() < 25, mode


def test_decode_turns_the_image_as_the_camera_was_held() -> None:
    pixels = random_images(1, (9, 9, 3))[0]
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    got = images.decode(encoded(pixels, exif=exif), (9, 9, 3))
    assert np.array_equal(got, np.rot90(pixels, -1))


# --- Sources: descriptions


def test_digits() -> None:
    config = dataset(source="digits", validation=0.15)
    description = data.describe(config)
    assert description.sizes == {"train": 1222, "validation": 216, "test": 359}
    assert description.image_shape == description.input_shape == (8, 8, 1)
    splits = data.load(config)
    assert sizes(splits) == description.sizes
    everything = np.concatenate([splits.train.images, splits.validation.images, splits.test.images])
    assert everything.min() == 0
    assert everything.max() == 255
    assert len(everything) == 1797
    for split in (splits.train, splits.validation, splits.test):
        counts = np.bincount(split.labels, minlength=10)
        assert counts.max() - counts.min() <= 8
    again = data.load(config)
    assert np.array_equal(splits.validation.images, again.validation.images)
    other = data.load(dataset(source="digits", validation=0.15, split_seed=1))
    assert not np.array_equal(splits.validation.images, other.validation.images)


def test_digits_are_those_of_scikit_learn() -> None:
    theirs, source = load_digits(), dataset(source="digits").open()
    ours = source.images("train", np.arange(1797)).astype(float)
    assert np.array_equal(np.rint(ours[..., 0] * 16 / 255), theirs.images)
    assert np.array_equal(source.labels("train"), theirs.target)


def test_class_filter_renumbers_and_moves_no_example() -> None:
    config = dataset(source="digits", classes=[7, 2])
    description, splits = data.describe(config), data.load(config)
    assert description.classes == ("7", "2")
    assert sizes(splits) == description.sizes
    assert sum(description.sizes.values()) == 179 + 177
    everything = data.load(dataset(source="digits"))
    for name in ("train", "validation", "test"):
        few, all_ = getattr(splits, name), getattr(everything, name)
        assert np.array_equal(few.images[few.labels == 0], all_.images[all_.labels == 7])


def sizes(splits: data.Splits) -> dict[str, int]:
    return {name: getattr(splits, name).size for name in ("train", "validation", "test")}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "digit"}, "data=digit is unknown; did you mean digits"),
        ({"classes": [1, 10]}, r"data.classes=\[1, 10\]: digits has classes 0 to 9, not 10"),
        ({"classes": [-1, 1]}, "not -1"),
        ({"classes": [4]}, "fewer than two classes"),
        ({"classes": [4, 4]}, "names a class twice"),
        ({"mean": [0.5, 0.5]}, r"data.mean=\[0.5, 0.5\] must have 1 or 1 values"),
        ({"std": [0.5] * 3}, "data.std"),
        ({"image_size": 9}, "data.image_size=9 is larger than the stored images of 8x8 pixels"),
        ({"stored_size": 16}, "digits are stored as 8x8"),
        ({"validation": 0.0001}, "no examples are left for the validation split"),
        ({"source": "tfds"}, "needs data.name"),
        ({"source": "tfds", "name": "mnist"}, "needs data.root=<TensorFlow Datasets directory>"),
        ({"source": "folder"}, "needs data.dir"),
        ({"test": "train"}, "data.test is unknown to data=digits"),
    ],
)
def test_config_errors(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        data.describe(dataset(**({"source": "digits"} | changes)))
    assert "\n" not in str(caught.value)


def test_describing_imports_no_tensorflow(tmp_path: Path) -> None:
    write_tfds(tmp_path / "tfds")
    write_folder(tmp_path / "folder")
    program = f"""
import sys
from lottery import choices, data
def dataset(**options):
    return choices.source.of(options)
tfds = {str(tmp_path / "tfds")!r}
data.describe(dataset(source="digits"))
data.describe(dataset(source="tfds", name="tiny", root=tfds))
data.describe(dataset(source="folder", dir={str(tmp_path / "folder")!r}))
two = data.describe(dataset(source="tfds", name="tiny", root=tfds, classes=[0, 1]))
assert len(two.classes) == 2
heavy = {{"tensorflow", "keras", "sklearn", "tensorflow_datasets"}} & set(sys.modules)
assert not heavy, heavy
"""
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""


# --- TensorFlow data sets


def tiny(root: Path, **changes: object) -> Data:
    return dataset(**({"source": "tfds", "name": "tiny", "root": str(root)} | changes))


def test_tfds_in_memory_and_streamed_hold_the_same(tmp_path: Path) -> None:
    write_tfds(tmp_path, train=300)  # more than are read at once
    splits = {m: data.load(tiny(tmp_path, in_memory=m)) for m in (True, False)}
    assert sizes(splits[True]) == {"train": 270, "validation": 30, "test": 9}
    assert sizes(splits[True]) == sizes(splits[False])
    assert data.describe(tiny(tmp_path)).sizes == sizes(splits[True])
    for name in ("train", "validation", "test"):
        held, streamed = getattr(splits[True], name), getattr(splits[False], name)
        assert isinstance(held, ArraySplit)
        assert isinstance(streamed, TfrecordSplit)
        assert np.array_equal(assert_evaluates_once(streamed, 64), held.images)
        assert np.array_equal(streamed.labels, held.labels)
        streamed.check()
    original = random_images(300, (8, 8, 1))
    both = [splits[True].train.images, splits[True].validation.images]
    assert {x.tobytes() for x in np.concatenate(both)} == {x.tobytes() for x in original}


def test_tfds_streams_each_training_example_once_an_epoch(tmp_path: Path) -> None:
    write_tfds(tmp_path, train=50)
    split = data.load(tiny(tmp_path, in_memory=False)).train
    held = data.load(tiny(tmp_path, in_memory=True)).train
    pixels, labels = batches(split, chunked(0, 18, 4, 9), batch_size=5, per_epoch=9)
    label_of = {x.tobytes(): int(y) for x, y in zip(held.images, held.labels, strict=True)}
    for epoch in (slice(0, 9), slice(9, 18)):
        keys = [image.tobytes() for image in pixels[epoch].reshape(45, 8, 8, 1)]
        assert sorted(keys) == sorted(label_of)
        assert [label_of[k] for k in keys] == labels[epoch].ravel().tolist()
    assert not np.array_equal(pixels[:9], pixels[9:])


def test_tfds_class_filter(tmp_path: Path) -> None:
    write_tfds(tmp_path)
    for in_memory in (True, False):
        config = tiny(tmp_path, classes=[4, 0], in_memory=in_memory)
        splits = data.load(config)
        assert data.describe(config).sizes == sizes(splits)
        assert sum(sizes(splits).values()) == 20 + 3
        assert set(splits.train.labels) == {0, 1}
    four = random_images(50, (8, 8, 1))[4].tobytes()
    held = data.load(tiny(tmp_path, classes=[4, 0], in_memory=True))
    found = {
        image.tobytes(): label
        for s in (held.train, held.validation)
        for image, label in zip(s.images, s.labels, strict=True)
    }
    assert found[four] == 0


def test_tfds_resizes_to_stored_size(tmp_path: Path) -> None:
    write_tfds(tmp_path)
    for in_memory in (True, False):
        splits = data.load(tiny(tmp_path, stored_size=6, image_size=4, in_memory=in_memory))
        assert splits.description.image_shape == (6, 6, 1)
        assert splits.description.input_shape == (4, 4, 1)
        assert assert_evaluates_once(splits.train, 8).shape[1:] == (6, 6, 1)


def test_fingerprint_tells_subsets_apart(tmp_path: Path) -> None:
    write_tfds(tmp_path / "a")
    write_tfds(tmp_path / "b", train=40)
    a, b = (data.describe(tiny(tmp_path / name)).fingerprint for name in "ab")
    assert a != b
    assert json.loads(json.dumps(a)) == a
    c, d = (
        data.describe(dataset(source="folder", dir=str(write_folder(tmp_path / n)))) for n in "cd"
    )
    assert c.fingerprint == d.fingerprint  # wherever it lies
    (tmp_path / "d" / "class1" / "00.png").write_bytes(encoded(np.zeros((12, 12, 3), np.uint8)))
    changed = data.describe(dataset(source="folder", dir=str(tmp_path / "d")))
    assert changed.fingerprint != c.fingerprint


def test_half_written_tfds(tmp_path: Path) -> None:
    def broken(name: str, message: str) -> Path:
        folder = write_tfds(tmp_path / name)
        expected.append((tmp_path / name, message))
        return folder

    expected: list[tuple[Path, str]] = []
    (broken("info", "dataset_info.json is missing") / "dataset_info.json").unlink()
    (broken("features", "features.json is missing") / "features.json").unlink()
    (broken("json", "features.json is not valid JSON") / "features.json").write_text("{")
    shard = "tiny-train.tfrecord-00001-of-00002"
    (broken("shard", f"{shard} is missing") / shard).unlink()
    cut = broken("cut", "the train shards hold [0-9]+ bytes instead of") / shard
    cut.write_bytes(cut.read_bytes()[:-1])
    folder = broken("unfinished", "was not finished")
    folder.rename(folder.with_name("1.2.0.incompleteA1B2"))
    for root, message in expected:
        with pytest.raises(DataError, match=message) as caught:
            data.describe(tiny(root))
        assert "\n" not in str(caught.value)


def test_unknown_tfds(tmp_path: Path) -> None:
    write_tfds(tmp_path)
    with pytest.raises(DataError, match=r"no data set tinny in .*did you mean tiny"):
        data.describe(tiny(tmp_path, name="tinny"))
    with pytest.raises(DataError, match="there is no TensorFlow Datasets directory"):
        data.describe(tiny(tmp_path / "absent"))
    with pytest.raises(DataError, match=r"has no split validation .*known: train, test"):
        data.describe(tiny(tmp_path, test="validation"))


def test_tfds_of_uneven_sizes_needs_stored_size(tmp_path: Path) -> None:
    folder = write_tfds(tmp_path)
    features = json.loads((folder / "features.json").read_text())
    image = features["featuresDict"]["features"]["image"]["image"]
    image["shape"]["dimensions"] = ["-1", "-1", "3"]
    (folder / "features.json").write_text(json.dumps(features))
    with pytest.raises(DataError, match=r"differ in size: set data.stored_size"):
        data.describe(tiny(tmp_path))
    assert data.describe(tiny(tmp_path, stored_size=8)).image_shape == (8, 8, 3)


def test_damaged_records_are_reported(tmp_path: Path) -> None:
    shard = write_tfds(tmp_path) / "tiny-train.tfrecord-00000-of-00002"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 255
    shard.write_bytes(content)
    with pytest.raises(DataError, match=r"cannot be decoded: record \d+ of tiny train"):
        data.load(tiny(tmp_path))


def test_undecodable_records_are_named_and_counted(tmp_path: Path) -> None:
    write_tfds(tmp_path, damaged=(3, 4))
    message = "2 of 50 images cannot be decoded: record 3 of tiny train, record 4 of tiny train$"
    source = tiny(tmp_path).open()
    with pytest.raises(DataError, match=message):
        source.images("train", np.arange(50))
    split = source.stream("train", np.arange(50), source.labels("train"))
    with pytest.raises(DataError, match=message):
        split.check()
    with pytest.raises(tf.errors.OpError, match="record 3 of tiny train cannot be decoded"):
        list(split.evaluation(8))


# --- Folders


def folder(root: Path, **changes: object) -> Data:
    return dataset(**({"source": "folder", "dir": str(root)} | changes))


def test_folder_in_memory_and_streamed_are_the_same(tmp_path: Path) -> None:
    write_folder(tmp_path, each=10)
    for changes in ({}, {"stored_size": 7, "classes": [2, 0]}):
        held, streamed = (
            data.load(folder(tmp_path, in_memory=m, **changes)) for m in (True, False)
        )
        assert sizes(held) == sizes(streamed) == data.describe(folder(tmp_path, **changes)).sizes
        for name in ("train", "validation", "test"):
            a, b = getattr(held, name), getattr(streamed, name)
            assert np.array_equal(a.images, assert_evaluates_once(b, 4))
            assert np.array_equal(a.labels, b.labels)
        options = {"batch_size": 4, "per_epoch": 3, "seed": 9}
        chunks = chunked(1, 9, 2, 3)
        for a, b in zip(
            batches(held.train, chunks, **options),
            batches(streamed.train, chunks, **options),
            strict=True,
        ):
            assert np.array_equal(a, b)


@pytest.mark.parametrize("test", ["test", "val", "holdout"])
def test_folder_with_a_test_part(tmp_path: Path, test: str) -> None:
    write_folder(tmp_path / "train", each=10)
    write_folder(tmp_path / test, each=3)
    config = folder(tmp_path, test="holdout" if test == "holdout" else "test")
    description = data.describe(config)
    assert description.sizes == {"train": 27, "validation": 3, "test": 9}
    assert description.classes == ("class0", "class1", "class2")
    assert sizes(data.load(config)) == description.sizes


def test_folder_with_train_alone_cuts_test_off(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", each=10)
    assert data.describe(folder(tmp_path)).sizes == {"train": 21, "validation": 3, "test": 6}


def test_folder_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no folder"):
        data.describe(folder(tmp_path / "absent"))
    with pytest.raises(DataError, match="must hold two or more class folders, not 0"):
        data.describe(folder(tmp_path))
    root = write_folder(tmp_path / "a")
    (root / "class9").mkdir()
    with pytest.raises(DataError, match=r"1 of 4 class folders of .* hold no images .*: class9"):
        data.describe(folder(root))
    root = write_folder(tmp_path / "b")
    (root / "class0" / "big.png").write_bytes(encoded(np.zeros((20, 20, 3), np.uint8)))
    with pytest.raises(DataError, match=r"differ in size: set data.stored_size"):
        data.describe(folder(root))
    with pytest.raises(ConfigError, match=r"data.image_size=12 is larger"):
        data.describe(folder(root, stored_size=10, image_size=12))
    oblong = write_folder(tmp_path / "c", shape=(8, 10, 3))
    with pytest.raises(DataError, match="are 10x8 pixels, not square"):
        data.describe(folder(oblong))
    write_folder(tmp_path / "d" / "train", classes=2)
    write_folder(tmp_path / "d" / "test", classes=3)
    with pytest.raises(DataError, match=r"class class2 of .* is not a class of"):
        data.describe(folder(tmp_path / "d"))


@pytest.mark.parametrize("side", [12, 96])  # decoded in one thread, and in several
def test_undecodable_images_are_named_and_counted(tmp_path: Path, side: int) -> None:
    write_folder(tmp_path, classes=2, each=20, shape=(side, side, 3))
    for c, i in ((0, 3), (1, 7)):
        path = tmp_path / f"class{c}" / f"{i:02d}.png"
        path.write_bytes(path.read_bytes()[:60])
    (tmp_path / "class1" / "08.png").write_bytes(b"no image")
    config = folder(tmp_path, stored_size=side, validation=0.05, test_fraction=0.05)
    # All three may be in different splits: look at each through one that holds them all.
    split = data.load(folder(tmp_path, stored_size=side, in_memory=False)).train
    everything = FolderSplit(
        tmp_path,
        sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.glob("*/*")),
        np.zeros(40, np.int32),
        split.image_shape,
    )
    message = "3 of 40 images cannot be decoded: class0/03.png, class1/07.png, class1/08.png$"
    with pytest.raises(DataError, match=message):
        everything.check()
    with pytest.raises(DataError, match=message):
        config.open().images("train", np.arange(40))
    with pytest.raises(DataError, match=r"of \d+ images cannot be decoded: class"):
        data.load(config)
    with pytest.raises(tf.errors.OpError, match=r"class0/03.png cannot be decoded"):
        list(everything.evaluation(8))
    with pytest.raises(DataError, match=r"class1/08.png"):
        data.describe(folder(tmp_path))  # not even its header


# --- Real data


@pytest.mark.parametrize("name", [pytest.param("fashion_mnist", marks=pytest.mark.slow), "cifar10"])
def test_real_tfds(name: str) -> None:
    tfds = pytest.importorskip("tensorflow_datasets")
    root = real("tensorflow_datasets")
    config = dataset(source="tfds", name=name, root=root, classes=[3, 8], in_memory=True)
    description, splits = data.describe(config), data.load(config)
    assert sizes(splits) == description.sizes
    assert len(description.classes) == 2
    # The same images and labels as TFDS's own pipeline reads.
    raw = tfds.builder_from_directory(str(max(Path(root, name).glob("*.*.*")))).as_dataset(
        split="test", shuffle_files=False, batch_size=-1
    )
    rows = np.flatnonzero(np.isin(raw["label"], [3, 8]))
    assert np.array_equal(splits.test.images, raw["image"].numpy()[rows])
    assert np.array_equal(splits.test.labels, (raw["label"].numpy()[rows] == 8).astype(np.int32))
    batch_size = 100
    per_epoch = steps_per_epoch(splits.train.size, batch_size)
    pixels, labels = batches(
        splits.train, chunked(0, 4, 2, per_epoch), batch_size=batch_size, per_epoch=per_epoch
    )
    assert pixels.shape == (4, 100, *description.image_shape)
    assert 0.3 < labels.mean() < 0.7


def test_real_images(tmp_path: Path) -> None:
    photographs = sorted(Path(real("imagenet_sample")).glob("train/*/*.JPEG"))[:60]
    for i, photograph in enumerate(photographs):  # which are one of a class
        (tmp_path / f"class{i % 6}").mkdir(exist_ok=True)
        (tmp_path / f"class{i % 6}" / photograph.name).symlink_to(photograph)
    changes = {"stored_size": 64, "image_size": 56, "validation": 0.2}
    held, streamed = (data.load(folder(tmp_path, in_memory=m, **changes)) for m in (True, False))
    assert held.description.image_shape == (64, 64, 3)
    assert sum(sizes(held).values()) == 60
    for name in ("train", "validation", "test"):
        a, b = getattr(held, name), getattr(streamed, name)
        assert np.array_equal(a.images, assert_evaluates_once(b, 16))
    spread = held.train.images.reshape(held.train.size, -1).std(1)
    assert spread.min() > 5  # pictures, not blanks
