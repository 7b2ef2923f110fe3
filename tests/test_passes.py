"""Gradients and Hessian products over examples, against computations of another make."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import TINY, composed, dataset, environment, laboratory, together
from hypothesis import given
from hypothesis import strategies as st
from keras.src.utils.naming import reset_uids
from test_data import write_folder, write_tfds
from test_pruning_scores import assert_close, score
from test_records import write_records

from lottery import data, experiment, models, tensors, trainings
from lottery.data.splits import drawn
from lottery.errors import ConfigError
from lottery.pruning.evidence import Evidence, Examples
from lottery.training import devices, passes, run

SCRIPT = """
import sys
from pathlib import Path

import tensorflow as tf

kind, folder = sys.argv[1], Path(sys.argv[2])
if kind == "mirrored":
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

import test_passes
from lottery import experiment, trainings
from lottery.training import devices, run

run.network = lambda *args, head_only=False: test_passes.smooth(dropout=0.2)
if kind == "mirrored":
    devices._strategies[kind] = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
if not trainings.follow():
    trainings.lead()
    test_passes.story(kind, folder)
"""
CONFIG = composed(*TINY, "trainer.batch_size=16", "trainer.precision=mixed_bfloat16", "seed=3")
KERNELS = ("conv/kernel", "classifier/kernel")


def smooth(config=CONFIG, description=None, dropout=0.0):
    """Everything that has state, and no kink for finite differences to stumble upon."""
    layers = keras.layers
    reset_uids()
    image = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(3, 3, 2, use_bias=False, name="conv")(image)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.Flatten(name="flatten")(layers.Activation("tanh", name="tanh")(x))
    x = layers.Dropout(dropout, name="dropout")(x) if dropout else x
    return keras.Model(image, layers.Dense(10, name="classifier")(x), name="smooth")


def given_weights(seed=0, **options):
    """Those of a fresh network, and BatchNorm's as if it had been trained."""
    keras.utils.set_random_seed(seed)
    model = smooth(**options)
    generator = np.random.default_rng(seed)
    return {
        v.path: (
            generator.uniform(0.5, 2, v.shape).astype(np.float32)
            if v.path.startswith("norm/")
            else v.numpy()
        )
        for v in model.variables
    }


@pytest.fixture(autouse=True)
def alone(monkeypatch) -> Iterator[None]:
    monkeypatch.setattr(run, "network", smooth)
    passes._network.cache_clear()
    yield
    passes._network.cache_clear()
    devices.configure(precision="float32", deterministic=None)


def passes_of(tmp_path, config=CONFIG, load=trainings.load_data):
    return passes.NetworkPasses(config, load, tmp_path)


def batches(config, examples):
    """Images as the network sees them in float64, and labels: of each batch of 16 or fewer."""
    train = trainings.load_data(config.data).train
    rows = drawn(train.labels, examples.per_class, config.seed, examples.half)
    for part in np.array_split(rows, -(-len(rows) // 16)):
        yield (
            train.images[part] / 255.0 / config.data.std[0]
            - config.data.mean[0] / config.data.std[0],
            train.labels[part],
        )


def reference_loss(weights, images, labels, temperature=1.0):
    """The mean cross entropy in float64, by TensorFlow's operations alone."""
    x = tf.nn.conv2d(images, weights["conv/kernel"], 2, "VALID")
    mean, variance = tf.nn.moments(x, [0, 1, 2])
    x = (x - mean) / tf.sqrt(variance + 1e-3) * weights["norm/gamma"] + weights["norm/beta"]
    logits = tf.reshape(tf.tanh(x), [len(images), -1]) @ weights["classifier/kernel"]
    logits = (logits + weights["classifier/bias"]) / temperature
    chosen = tf.gather(logits, labels, axis=1, batch_dims=1)
    return tf.reduce_mean(tf.reduce_logsumexp(logits, axis=1) - chosen)


def reference_gradient(weights, images, labels, temperature=1.0):
    at = {p: tf.constant(weights[p]) for p in KERNELS}
    with tf.GradientTape() as tape:
        tape.watch(at)
        loss = reference_loss({**weights, **at}, images, labels, temperature)
    return {p: g.numpy() for p, g in tape.gradient(loss, at).items()}


def moved(weights, direction, step):
    return {p: w + step * direction.get(p, 0) for p, w in weights.items()}


def doubled(weights):
    return {p: w.astype(np.float64) for p, w in weights.items() if w.dtype == np.float32}


@pytest.mark.parametrize("temperature", [1.0, 200.0])
def test_gradients_are_those_of_finite_differences(tmp_path, temperature):
    weights = given_weights()
    examples = Examples(4)
    found = list(passes_of(tmp_path).gradients(weights, examples, temperature=temperature))
    parts = list(batches(CONFIG, examples))
    assert len(found) == len(parts) == 3
    generator = np.random.default_rng(0)
    for gradients, (images, labels) in zip(found, parts, strict=True):
        assert list(gradients) == list(KERNELS)
        for path in KERNELS:
            direction = {path: generator.normal(size=weights[path].shape)}
            ahead, back = (
                reference_loss(
                    moved(doubled(weights), direction, step), images, labels, temperature
                )
                for step in (1e-5, -1e-5)
            )
            assert gradients[path].dtype == np.float32
            along = (gradients[path] * direction[path]).sum()
            assert along == pytest.approx(float(ahead - back) / 2e-5, rel=1e-3)
        assert_close(
            gradients, reference_gradient(doubled(weights), images, labels, temperature), rtol=1e-3
        )
    assert not list(tmp_path.iterdir())


def test_hessian_product_is_how_the_mean_gradient_changes(tmp_path):
    weights = given_weights()
    examples = Examples(9, half=1)
    generator = np.random.default_rng(0)
    for paths in (KERNELS, KERNELS[:1]):
        direction = {p: generator.normal(size=weights[p].shape) for p in paths}
        found = passes_of(tmp_path).hessian_product(weights, direction, examples, temperature=3.0)
        expected = {p: np.zeros(weights[p].shape) for p in KERNELS}
        parts = list(batches(CONFIG, examples))
        assert len({len(labels) for _, labels in parts}) == 2  # batches of different sizes
        count = sum(len(labels) for _, labels in parts)
        for images, labels in parts:
            ahead, back = (
                reference_gradient(moved(doubled(weights), direction, s), images, labels, 3.0)
                for s in (1e-5, -1e-5)
            )
            for p in KERNELS:
                expected[p] += len(labels) / count * (ahead[p] - back[p]) / 2e-5
        assert_close(found, expected, rtol=1e-3)
    assert not list(tmp_path.iterdir())


def keras_gradient(model, images, labels, temperature=1.0):
    """With the network's own variables, in float32."""
    kernels = [v for v in model.trainable_variables if v.path in KERNELS]
    with tf.GradientTape() as tape:
        logits = model(tf.constant(images, tf.float32), training=True) / temperature
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(labels, logits)
    found = tape.gradient(loss, [v.value for v in kernels])
    return {v.path: g.numpy() for v, g in zip(kernels, found, strict=True)}


@pytest.mark.parametrize("name", ["snip", "taylor"])
def test_scores_are_those_of_a_network_of_keras(tmp_path, name):
    model = smooth()
    weights = given_weights()
    for v in model.variables:
        v.assign(weights[v.path])
    known = Evidence(weights, KERNELS, 50.0, offered=passes_of(tmp_path))
    found = score(name, known, per_class=4)
    parts = [keras_gradient(model, *batch) for batch in batches(CONFIG, Examples(4))]
    power, over = (1, 1) if name == "snip" else (2, len(parts))
    expected = {
        p: sum(np.abs(weights[p] * part[p]) ** power for part in parts) / over for p in KERNELS
    }
    assert_close(found, expected, rtol=1e-3)


def test_grasp_is_that_of_finite_differences(tmp_path):
    weights = given_weights()
    found = score(
        "grasp", Evidence(weights, KERNELS, 50.0, offered=passes_of(tmp_path)), per_class=2
    )
    halves = [next(batches(CONFIG, Examples(2, half))) for half in (0, 1)]

    def gradient(at):
        both = [reference_gradient(at, *half, 200.0) for half in halves]
        return {p: (both[0][p] + both[1][p]) / 2 for p in KERNELS}

    direction = gradient(doubled(weights))
    ahead, back = (gradient(moved(doubled(weights), direction, s)) for s in (0.1, -0.1))
    expected = {p: weights[p] * (ahead[p] - back[p]) / 0.2 for p in KERNELS}
    assert_close(found, expected, rtol=1e-3)


def test_nothing_is_assigned_and_the_same_comes_twice(tmp_path, monkeypatch):
    built = []

    def network(config, description):
        built.append(smooth(dropout=0.5))
        return built[-1]

    monkeypatch.setattr(run, "network", network)
    weights = given_weights(dropout=0.5)
    made = passes_of(tmp_path)
    first = next(made.gradients(weights, Examples(4)))  # abandoned
    before = {v.path: v.numpy() for v in built[0].variables}
    rest = list(made.gradients(weights, Examples(4)))
    made.hessian_product(weights, rest[0], Examples(1))
    assert len(built) == 1
    assert any("seed_generator" in path for path in before)
    assert all((v.numpy() == before[v.path]).all() for v in built[0].variables)
    assert all((first[p] == rest[0][p]).all() for p in KERNELS)
    seeds = {p: w + 1 if "seed_generator" in p else w for p, w in weights.items()}
    other = next(made.gradients(seeds, Examples(4)))
    assert any((other[p] != first[p]).any() for p in KERNELS)  # dropout is at work
    assert not list(tmp_path.iterdir())


labels = st.lists(st.integers(0, 4), min_size=1, max_size=60).map(partial(np.array, dtype=np.int32))


@given(labels, st.integers(1, 9), st.integers(0, 2**31 - 1))
def test_as_many_examples_of_each_class_are_drawn(labels, per_class, seed):
    rows = drawn(labels, per_class, seed)
    assert len(set(rows)) == len(rows)
    for c in set(labels.tolist()):
        assert np.count_nonzero(labels[rows] == c) == min(per_class, np.count_nonzero(labels == c))
    first = labels[rows[: len(set(labels.tolist()))]]
    assert len(set(first)) == len(first)  # one of each class before the second of any
    assert set(rows) <= set(drawn(labels, per_class + 1, seed))
    halves = [drawn(labels, per_class, seed, half) for half in (0, 1)]
    assert sorted(np.concatenate(halves)) == sorted(rows)
    for c in set(labels.tolist()):
        a, b = (np.count_nonzero(labels[half] == c) for half in halves)
        assert 0 <= a - b <= 1
    others = np.concatenate([labels, np.array([7] * 5, np.int32)])  # another class changes nothing
    assert set(drawn(others, per_class, seed)) >= set(rows)


def test_other_seeds_draw_others():
    labels = np.repeat(np.arange(3), 50)
    assert set(drawn(labels, 10, 0)) != set(drawn(labels, 10, 1))


@pytest.mark.parametrize("kind", ["folder", "records", "tfds"])
def test_examples_are_the_same_however_they_are_stored(tmp_path, kind):
    if kind == "folder":
        write_folder(tmp_path / "r", each=12)
        options = {"source": "folder", "dir": str(tmp_path / "r"), "stored_size": 8}
    elif kind == "tfds":
        write_tfds(tmp_path / "r")
        options = {"source": "tfds", "name": "tiny", "root": str(tmp_path / "r")}
    else:
        write_records(tmp_path / "r")
        options = {"source": "records", "dir": str(tmp_path / "r")}
    held, read = (data.load(dataset(**options, in_memory=m)).train for m in (True, False))
    assert type(held) is not type(read)
    rows = drawn(held.labels, 3, seed=5)
    assert (rows == drawn(read.labels, 3, seed=5)).all()
    assert held.take(rows).dtype == np.uint8
    assert (held.take(rows) == read.take(rows)).all()
    whole = np.concatenate([images for images, _, _ in held.evaluation(8).as_numpy_iterator()])
    assert (held.take(rows) == whole[rows]).all()


def test_what_cannot_be_is_said(tmp_path):
    weights = given_weights()
    splits = trainings.load_data(CONFIG.data)
    for labels, said in (
        (None, "those of data.source=digits have no labels: score by magnitude or synflow"),
        (np.arange(10, dtype=np.int32), "half 1 of the training examples is empty"),
    ):
        train = SimpleNamespace(labels=labels)
        load = partial(lambda train, _: replace(splits, train=train), train)
        with pytest.raises(ConfigError, match=said):
            next(passes_of(tmp_path, load=load).gradients(weights, Examples(2, half=1)))


def story(kind: str, folder: Path) -> None:
    """Passes of each kind, one after the other and in turn, around the training of a network."""
    config = composed(*TINY, "trainer.batch_size=16", "trainer.epochs=1", "seed=3",
                      f"trainer.strategy={kind}")  # fmt: skip
    made = passes_of(folder, config)
    weights = given_weights(dropout=0.2)
    abandoned = made.gradients(weights, Examples(4))
    first = next(abandoned)
    if kind == "multiworker":
        experiment.train_dense(config, laboratory(folder))
    trained = given_weights(1, dropout=0.2)
    both = zip(
        made.gradients(weights, Examples(4)), made.gradients(trained, Examples(4)), strict=True
    )
    found = {f"{i}-{j}": g for i, pair in enumerate(both) for j, g in enumerate(pair)}
    network = models.build_choice(config.model, (8, 8, 1), 10)
    made.flow({v.path: v.numpy() for v in network.variables})
    found["product"] = made.hessian_product(weights, first, Examples(4, 0), temperature=2.0)
    arrays = {f"{name}/{path}": a for name, of in found.items() for path, a in of.items()}
    assert len(arrays) == 2 * (2 * 3 + 1)
    abandoned.close()
    assert not list(folder.glob("passes-*"))
    tensors.write(folder / "found", arrays)


@pytest.mark.slow
def test_replicas_and_processes_compute_what_one_device_does(tmp_path):
    def started(kind):
        (tmp_path / kind).mkdir(exist_ok=True)
        return [sys.executable, "-c", SCRIPT, kind, str(tmp_path / kind)]

    here = Path(__file__).parent
    found = {}
    for kind, count in (("one", 1), ("mirrored", 1), ("multiworker", 2)):
        if count == 1:
            processes = [
                subprocess.Popen(
                    started(kind), env=environment(), cwd=here,
                    stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                )
            ]  # fmt: skip
        else:
            processes = together(*count * [started(kind)], folders=count * [here])
        try:
            said = [process.communicate(timeout=300)[1][-2000:] for process in processes]
        finally:
            for process in processes:
                process.kill()
        assert [process.returncode for process in processes] == count * [0], said
        found[kind], _ = tensors.read(tmp_path / kind / "found")
    for kind in ("mirrored", "multiworker"):
        for name, array in found["one"].items():
            apart = np.abs(found[kind][name] - array).max()
            assert apart <= 1e-5 * np.abs(array).max(), name
