"""Studies of one's own network and arrays, from Python: the same keys, results and reports."""

import io
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from conftest import composed
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from keras import layers
from omegaconf import open_dict

import lottery
from lottery import choices, lineage, tickets
from lottery.api import session
from lottery.config import typed
from lottery.data import load
from lottery.errors import LotteryError
from lottery.runs import load_run
from lottery.store import Store
from lottery.trainings import load_data

RNG = np.random.default_rng(0)
X = RNG.normal(size=(240, 12)).astype("float32")
Y = (X[:, :3].sum(axis=1) > 0) + 1 * (X[:, 3] > 1)  # 0, 1, 2
EPOCHS = 2


def network(shape=(12,), classes=3) -> keras.Model:
    return keras.Sequential(
        [
            keras.Input(shape),
            layers.Dense(16, "relu", name="hidden"),
            layers.Dropout(0.1),
            layers.Dense(classes, name="logits"),
        ]
    )


def study_in(folder: Path, **changes) -> lottery.Study:
    given = {"model": network(), "data": (X, Y), "epochs": EPOCHS, "batch_size": 32}
    return lottery.Study(**{**given, "outputs": folder, **changes})


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("api")


@pytest.fixture(scope="module")
def study(folder) -> lottery.Study:
    return study_in(folder, optimizer=keras.optimizers.Adam(0.03), options=["rewind.epoch=1"])


@pytest.fixture(scope="module")
def ticket(study):
    return study.ticket(percentile=50, rewind=1)


def test_answers_tell_what_was_trained(study, ticket):
    dense = study.dense()
    assert dense.run.key == ticket.runs["dense"].key
    assert dense.run.config["optimizer"]["learning_rate"] == 0.03
    assert isinstance(ticket.history, pd.DataFrame)
    assert list(dense.history["epoch"]) == [1, 2]
    assert ticket.metrics["val_top1"] == ticket.history["val_top1"].iloc[-1]
    kept = np.concatenate([m.ravel() for m in ticket.mask.values()])
    assert kept.mean() == pytest.approx(0.5, abs=0.02)
    for path, mask in ticket.mask.items():
        assert not ticket.weights()[path][~mask].any()


def test_the_network_sees_the_examples_as_they_are(study, ticket):
    """As ``model.fit`` would show them: so Keras's predictions give the accuracy of the result."""
    data = load(composed_data(ticket))
    images = data.test.take(np.arange(data.test.size))
    assert np.isin(images, X).all()
    for at in (None, ticket.run.points[0]):
        assert {v.path: v.numpy().tolist() for v in ticket.model(at).variables} == {
            path: array.tolist() for path, array in ticket.weights(at).items()
        }
    right = ticket.model().predict(images, verbose=0).argmax(axis=1) == data.test.labels
    assert right.mean() == pytest.approx(ticket.metrics["test_top1"], abs=1e-6)


def composed_data(answer):
    return choices.source.of(answer.run.config["data"])


def test_what_is_asked_again_is_in_the_store(study, ticket, folder):
    before = sorted(p.name for p in (folder / "store" / "ticket").iterdir())
    again = study_in(folder, optimizer=keras.optimizers.Adam(0.03), options=["rewind.epoch=1"])
    assert again.ticket(percentile=50, rewind=1).run.key == ticket.run.key
    assert sorted(p.name for p in (folder / "store" / "ticket").iterdir()) == before


def key_of(study: lottery.Study) -> str:
    """The key of its dense network, which need not be trained."""
    with session._hydra("train") as hydra:
        config = hydra.compose_config(
            session._primary("config", study._common), [], run_mode=RunMode.RUN
        )
    with open_dict(config):
        del config["hydra"]
    return lineage.dense_lineage(typed(config), Store("nowhere")).last.key


def test_keys_hold_what_is_trained_on_what_and_nothing_else(tmp_path):
    """Neither names that Keras counts, nor how data and optimizer are given."""
    same = key_of(study_in(tmp_path))
    layers.Dropout(0.5)  # counted on
    flipped = [
        key_of(study_in(tmp_path, model=sequential(layers.RandomFlip()), data=(X, Y)))
        for _ in range(2)
    ]
    assert flipped[0] == flipped[1]
    as_dataset = tf.data.Dataset.from_tensor_slices((X, Y)).batch(7)
    np.savez(tmp_path / "all.npz", x_train=X, y_train=Y)
    for other in (
        {"model": network()}, {"model": network}, {"model": lambda: network()},
        {"data": (X.astype("float64"), Y[:, None])}, {"data": as_dataset},
        {"data": tmp_path / "all.npz"}, {"classes": ["0", "1", "2"]},
        {"data": tf.data.Dataset.from_tensor_slices((X, Y[:, None])).batch(7)},
        {"data": tf.data.Dataset.from_tensor_slices((X, Y[:, None]))},
        {"optimizer": "sgd"}, {"validation": 0.1},
    ):  # fmt: skip
        assert key_of(study_in(tmp_path, **other)) == same, other
    wider = keras.Sequential([keras.Input((12,)), layers.Dense(3, name="logits")])
    for other in (
        {"model": wider}, {"data": (X + 1, Y)}, {"data": (X[::-1], Y[::-1])},
        {"data": (X, Y[::-1])}, {"seed": 1}, {"classes": ["a", "b", "c"]},
        {"validation": 0.2}, {"test": (X[:30], Y[:30])}, {"validation": (X[:30], Y[:30])},
        {"optimizer": keras.optimizers.Adam()}, {"epochs": 3}, {"options": ["data.mixup=0.1"]},
    ):  # fmt: skip
        assert key_of(study_in(tmp_path, **other)) != same, other


def test_a_command_line_finds_the_same_runs(study, ticket, tmp_path):
    """By a file of the same arrays, though the network can only come from a ticket file."""
    np.savez(tmp_path / "mine.npz", x_train=X, y_train=Y)
    typed = composed("data=arrays", f"data.file={tmp_path / 'mine.npz'}").data
    given = composed_data(ticket)
    assert typed.open().fingerprint == given.open().fingerprint
    assert (typed.mean, typed.std) == (given.mean, given.std)
    file = tickets.read(ticket.folder / tickets.FILE)
    assert file.model().predict(X[:4], verbose=0) == pytest.approx(
        ticket.model().predict(X[:4], verbose=0)
    )


@pytest.mark.parametrize("given", ["validation", "test"])
def test_splits_may_be_given(tmp_path, given):
    own = RNG.normal(size=(40, 12)).astype("float32")
    study = study_in(tmp_path, **{given: (own, np.arange(40) % 3)})
    data = load(composed_data_of(study))
    split = getattr(data, given)
    assert (split.take(np.arange(40)) == own).all()
    assert split.size == 40
    other = data.test if given == "validation" else data.validation
    assert np.isin(other.take(np.arange(other.size)), X).all()
    assert data.train.size + other.size == len(X)


def composed_data_of(study: lottery.Study):
    options = [o for o in study._common if o.startswith("data")]
    return composed(*options).data


def test_a_network_may_begin_with_its_own_weights(tmp_path):
    """They are epoch 0, and in the key."""
    keras.utils.set_random_seed(3)
    own = network()
    study = study_in(tmp_path, model=own, pretrained=True, options=["rewind.epoch=0"])
    dense = study.dense().run
    for name in ("hidden", "logits"):
        kernel = own.get_layer(name).kernel.numpy()
        np.testing.assert_array_equal(dense.weights(0)[f"{name}/kernel"], kernel)
    same = keras.models.clone_model(own)
    same.set_weights(own.get_weights())
    assert key_of(study_in(tmp_path, model=same, pretrained=True)) == dense.key
    assert key_of(study_in(tmp_path, model=network(), pretrained=True)) != dense.key
    assert key_of(study_in(tmp_path, model=own)) != dense.key


SHAPES = {
    "features": ((12,), lambda x: layers.Dense(8, name="a")(x)),
    "series": ((6, 2), lambda x: layers.LSTM(5, name="a")(x)),
    "tokens": ((7,), lambda x: layers.LSTM(5, name="a")(layers.Embedding(9, 4, name="e")(x))),
    "wide images": ((4, 6, 2), lambda x: layers.Flatten()(layers.Conv2D(3, 3, name="a")(x))),
    "volumes": ((4, 4, 4, 1), lambda x: layers.Flatten()(layers.Conv3D(3, 3, name="a")(x))),
}


@pytest.mark.parametrize("kind", SHAPES)
def test_examples_may_have_any_shape(tmp_path, kind):
    shape, body = SHAPES[kind]
    image = keras.Input(shape)
    model = keras.Model(image, layers.Dense(2, name="logits")(body(image)))
    y = np.arange(64) % 2
    x = RNG.integers(0, 9, (64, *shape)) if kind == "tokens" else RNG.normal(size=(64, *shape))
    study = study_in(tmp_path, model=model, data=(x, y), epochs=1, batch_size=16)
    ticket = study.ticket(percentile=40, rewind=0)
    assert ticket.run.input_shape == shape
    assert tickets.read(ticket.folder / tickets.FILE).model().input_shape == (None, *shape)


def test_a_grid_has_a_verdict_and_a_winner(study, ticket):
    """The sweep notes what was asked for, so that it can be asked for again."""
    grid = study.grid(
        "verdict.level=null", "verdict.tolerance=50", percentile=np.array([50, 70]), rewind=[1]
    )
    assert sorted(grid.cells["percentile"]) == [50, 70]
    assert grid.winner.run.key == load_run(grid.winner.folder).key
    assert grid.verdict["winner"]["command"] == (
        "study.ticket('mask.percentile=70', 'rewind.epoch=1', 'verdict.level=null', "
        "'verdict.tolerance=50')"
    )
    assert grid.report().exists()
    found = study.search(
        "verdict.level=null", "verdict.tolerance=50", "search.confirm=0",
        percentile=[50, 60, 70], rewind=[1],
    )  # fmt: skip
    assert found.winner.run.key == grid.winner.run.key
    assert found.verdict["search"]


def test_a_ticket_travels_and_is_exported(study, ticket, folder):
    other = RNG.normal(size=(100, 12)).astype("float32")
    moved = study.transfer(ticket, (other, np.arange(100) % 2), epochs=1, controls=["fresh"])
    assert set(moved.runs) == {"ticket", "fresh"}
    assert moved.model().output_shape == (None, 2)
    for path, kept in moved.mask.items():
        assert not moved.weights()[path][~kept].any()
    with pytest.raises(LotteryError, match="has seen images"):
        study.transfer(ticket, (X[::-1], Y[::-1]), epochs=1)
    exported = ticket.export(["keras", "litert"])
    assert {"export.json", "model.keras"} <= {p.name for p in exported.iterdir()}
    assert (folder / "export") in exported.parents


def test_the_process_is_left_as_it_was(study, ticket):
    root, typed = logging.getLogger(), list(sys.argv)
    before = list(root.handlers), root.level
    heard = logging.StreamHandler(stream := io.StringIO())
    logging.getLogger("another").addHandler(heard)
    study.dense("trainer.precision=mixed_bfloat16", "trainer.epochs=1", "rewind.epoch=0")
    assert keras.config.dtype_policy().name == "float32"
    logging.getLogger("another").warning("still here")
    assert stream.getvalue() == "still here\n"
    with pytest.raises(LotteryError):
        study.ticket("mask.percentile=101")
    assert (list(root.handlers), root.level) == before
    assert sys.argv == typed
    assert not GlobalHydra.instance().is_initialized()


def test_what_is_done_to_the_arrays_later_changes_no_study(tmp_path):
    x, y = RNG.integers(0, 256, (60, 12), np.uint8), np.arange(60) % 3
    study = study_in(tmp_path, data=(x, y))
    before, data = x.copy(), load(composed_data_of(study))
    x[:], y[:] = 0, 0
    again = load(composed_data_of(study))
    for one in (data, again):
        assert np.isin(one.train.take(np.arange(one.train.size)), before).all()
        np.testing.assert_array_equal(one.train.labels, data.train.labels)


def test_a_file_that_changes_is_read_anew(tmp_path):
    file = tmp_path / "x.npz"
    found = []
    for shift in (0, 5):
        np.savez(file, x_train=X + shift, y_train=Y)
        config = composed("data=arrays", f"data.file={file}").data
        found.append(load_data(config).train.take(np.arange(3)))
    np.testing.assert_allclose(found[1], found[0] + 5, rtol=1e-6)


def test_a_ticket_gets_examples_of_the_type_it_knows(study, ticket):
    pixels = RNG.integers(0, 256, (90, 12), np.uint8)
    with pytest.raises(LotteryError, match="found on float32 examples"):
        study.transfer(ticket, (pixels, np.arange(90) % 2), "transfer.seen_images=report")


def test_depthwise_kernels_of_ones_own_are_pruned_if_asked_for(tmp_path):
    """By whichever layer: so the option is in the key."""
    image = keras.Input((6, 6, 2))
    x = layers.GlobalAveragePooling2D()(layers.SeparableConv2D(4, 3, name="a")(image))
    model = keras.Model(image, layers.Dense(2, name="logits")(x))
    data = RNG.integers(0, 256, (60, 6, 6, 2), np.uint8), np.arange(60) % 2
    study = study_in(tmp_path, model=model, data=data, epochs=1, batch_size=16)
    masks = [
        study.ticket(f"mask.depthwise={asked}", percentile=50, rewind=0).mask
        for asked in ("false", "true")
    ]
    assert ["a/depthwise_kernel" in mask for mask in masks] == [False, True]


class Own(layers.Layer):
    def call(self, x):
        return x


class Subclass(keras.Model):
    def call(self, x):
        return x


class Graph(keras.Sequential):
    def call(self, x, **options):
        return super().call(2 * x, **options)


def adapted() -> layers.Layer:
    layer = layers.Normalization(name="n")
    layer.adapt(X)
    return layer


def ended(operation) -> keras.Model:
    model = sequential()
    return keras.Model(model.inputs[0], operation(model.outputs[0]))


def sequential(*inside, classes=3, **last):
    return keras.Sequential(
        [keras.Input((12,)), *inside, layers.Dense(classes, **{"name": "logits", **last})]
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": sequential(layers.Dense(4))}, "no name of its own"),
        ({"model": sequential(activation="softmax")}, "ends in softmax"),
        ({"model": sequential(classes=4)}, "4 outputs, and the labels are of 3 classes"),
        ({"model": sequential(classes=1)}, "a single number"),
        ({"model": sequential(layers.Lambda(lambda x: x))}, "Lambda"),
        ({"model": sequential(Own())}, "of your own"),
        ({"model": sequential(kernel_initializer=lambda *a, **k: 0)}, "of your own"),
        ({"model": Subclass()}, "subclass of keras.Model"),
        ({"model": Graph(network().layers)}, "subclass of keras.Model"),
        ({"model": sequential(adapted())}, "adapt"),
        ({"model": ended(keras.ops.softmax)}, "ends in softmax"),
        ({"model": lambda a, b, c: network()}, "wants a, b, c"),
        ({"model": keras.Sequential([layers.Dense(3, name="a")])}, "no input shape"),
        ({"model": network((11,))}, r"shape \(12,\), and the network says"),
        ({"model": 3}, "not a keras.Model"),
        ({"model": "resnet21"}, "resnet20"),
        ({"data": (X, Y[:-1])}, "240 examples, and y_train has 239 labels"),
        ({"data": (np.where(X > 2, np.nan, X), Y)}, "not finite"),
        ({"data": (X, np.eye(3)[Y])}, "one-hot"),
        ({"data": (X, np.array(list("abc"))[Y])}, "numpy.unique"),
        ({"data": (X, Y - 1)}, "begin at 0"),
        ({"data": (X, Y / 2)}, "class numbers"),
        ({"data": (X[:, 0], Y)}, "one row for each example"),
        ({"data": (X, Y), "test": (X[:9, :5], Y[:9])}, "shape"),
        ({"data": (x for x in X)}, "gives its examples once"),
        ({"data": X}, "examples and labels"),
        (
            {"data": tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(240)},
            "another order, each time",
        ),
        ({"data": tf.data.Dataset.from_tensor_slices((X, Y)).repeat()}, "repeats for ever"),
        ({"data": (X, np.where(Y == 2, 10**9, Y))}, "fewer examples"),
        ({"data": "nowhere.npz"}, "nowhere.npz"),
        ({"optimizer": 3}, "give one of Keras"),
        ({"optimizer": keras.optimizers.Adam(clipvalue=1.0)}, "clipvalue"),
        (
            {
                "optimizer": keras.optimizers.SGD(
                    keras.optimizers.schedules.CosineDecay(
                        0.0, 9, warmup_target=0.1, warmup_steps=3
                    )
                )
            },
            "schedule.warmup=3it",
        ),
        ({"options": "mask=channel"}, "options are texts"),
        ({"options": ["mask.percentile=50,60"]}, "for a whole study"),
        ({"options": ["trainer.epoch=2"]}, "did you mean trainer.epochs"),
        ({"options": ["trainer.epochs=two"]}, "trainer.epochs: Value 'two'"),
        ({"epochs": 0}, "trainer.epochs=0 must be >= 1"),
        ({"options": ["data.flip=true"]}, "data.flip is for square images"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(tmp_path, changes, words):
    with pytest.raises(LotteryError, match=words) as raised:
        study_in(tmp_path, **changes).dense()
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "store" / "dense").exists()


def test_an_optimizer_of_keras_becomes_its_options(tmp_path):
    decay = keras.optimizers.schedules.ExponentialDecay(0.05, decay_steps=9, decay_rate=0.7)
    given = keras.optimizers.SGD(decay, momentum=0.8, nesterov=True, global_clipnorm=2.0)
    config = study_in(tmp_path, optimizer=given, epochs=1).dense().run.config
    optimizer, schedule = config["optimizer"], config["schedule"]
    assert (optimizer["name"], optimizer["momentum"], optimizer["clip_norm"]) == ("sgd", 0.8, 2.0)
    assert (optimizer["learning_rate"], optimizer["nesterov"]) == (0.05, True)
    assert (schedule["name"], schedule["decay_steps"]) == ("exponential_decay", 9)


SCRIPT = """
import sys
import numpy as np, keras, lottery

x = np.random.default_rng(0).normal(size=(300, 12)).astype("float32")
y = (x[:, 0] > 0).astype(int)
model = keras.Sequential([
    keras.Input((12,)), keras.layers.Dense(32, "relu", name="a"), keras.layers.Dense(2, name="b"),
])
study = lottery.Study(model, (x, y), epochs=40, batch_size=8, outputs=sys.argv[1])
study.ticket(percentile=60, rewind=3)
"""


@pytest.mark.kill
def test_a_killed_notebook_goes_on_bit_for_bit(tmp_path):
    script = tmp_path / "notebook.py"
    script.write_text(SCRIPT)
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}

    def start(outputs: str) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [sys.executable, str(script), str(tmp_path / outputs)], env=env, cwd=tmp_path,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    assert start("whole").wait(300) == 0
    for kind in ("dense", "ticket"):  # killed in the middle of each
        process = start("killed")
        while process.poll() is None and not list(
            (tmp_path / "killed" / "store" / "work").glob(f"{kind}-*/checkpoints/*")
        ):
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert start("killed").wait(300) == 0
    (one,), (other,) = (
        list((tmp_path / name / "store" / "ticket").iterdir()) for name in ("whole", "killed")
    )
    assert one.name == other.name
    states = [load_run(path).state() for path in (one, other)]
    assert states[0].keys() == states[1].keys()
    for name, array in states[0].items():
        np.testing.assert_array_equal(array, states[1][name], err_msg=name)
