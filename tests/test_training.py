"""The laws of training: identity, exact resume, exact zeros, honest metrics."""

import dataclasses
import itertools
import signal
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import SMALL, TINY, composed, laboratory

from lottery import experiment, files, replay, rewinding, trainings
from lottery.data.preprocessing import Preprocessing
from lottery.errors import CheckpointError, ConfigError, DivergedError, StoppedError
from lottery.points import Point
from lottery.runs import Run, runs_of
from lottery.training import loop, optimizers
from lottery.training.checkpoints import CheckpointFolder, Progress, equal
from lottery.training.length import Length
from lottery.training.masking import Masking
from lottery.training.optimizers.adamw import AdamW
from lottery.training.recipe import from_scratch
from lottery.training.schedules import unchanging

FIGURES = ("epoch", "loss", "top1", "top5", "val_loss", "val_top1", "val_top5", "learning_rate")


def figures(run: Run, after: int = 0):
    return [{k: r[k] for k in FIGURES} for r in run.metrics if r["epoch"] > after]


@pytest.fixture(scope="module")
def small_lab(tmp_path_factory, shallow):
    return laboratory(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def dense(small_lab):
    return experiment.train_dense(composed(*SMALL), small_lab)


def ticket(lab, *overrides: str) -> Run:
    result = experiment.find_ticket(composed(*SMALL, *overrides), lab)
    return Run(lab.store.root / "ticket" / result["ticket"]["key"])


@pytest.mark.parametrize("epoch", [0, pytest.param(1, marks=pytest.mark.slow), 2])
def test_identity_law(small_lab, dense, epoch):
    """Nothing pruned and rewound to any epoch: the dense run, bit for bit.

    BatchNorm, momentum, warm-up, augmentation and dropout are all in play.
    """
    same = ticket(small_lab, "mask.percentile=0", f"rewind.epoch={epoch}")
    assert equal(same.state(), dense.state())
    assert figures(same) == figures(dense, after=epoch)


def test_rewinding_to_the_end_trains_nothing(small_lab, dense):
    same = ticket(small_lab, "mask.percentile=0", "rewind.epoch=3")
    assert equal(same.state(), dense.state())
    assert same.result["val_top1"] == dense.result["val_top1"]
    assert same.result["epochs"] == 0


def test_an_epoch_that_was_not_kept_is_replayed_exactly(small_lab, dense, tmp_path):
    # The shared dense run kept epoch 2 for the tests above; another one keeps 0 and 3 only.
    lab = laboratory(tmp_path)
    config = composed(*SMALL, "rewind.epoch=3", "rewind.keep=[]")
    other = experiment.train_dense(config, lab)
    assert other.points == [Point(0), Point(3)]
    replayed = replay.dense_state(config, lab, other, Point(2))
    assert equal(replayed, dense.state(2))


@pytest.fixture(scope="module")
def sparse(small_lab):
    return ticket(small_lab)


def test_pruned_weights_and_slots_are_exactly_zero_in_every_checkpoint(sparse):
    assert sparse.points == [Point(1), Point(3)]
    for epoch in sparse.points:
        state = sparse.state(epoch)
        for path, mask in sparse.mask.items():
            slot = f"optimizer/{path.replace('/', '_')}_momentum"
            assert not state[f"model/{path}"][~mask].any()
            assert not state[slot][~mask].any()
            assert state[f"model/{path}"][mask].all()


def test_survivors_and_everything_else_rewind_to_the_dense_epoch(sparse, dense):
    start, origin = sparse.state(1), dense.state(1)
    for name, array in start.items():
        path = name.removeprefix("model/")
        if path in sparse.mask:
            np.testing.assert_array_equal(array, origin[name] * sparse.mask[path])
        elif not any(name.startswith(f"optimizer/{p.replace('/', '_')}_") for p in sparse.mask):
            np.testing.assert_array_equal(array, origin[name])  # BatchNorm statistics among them


def test_rewinding_trains_no_extra_epochs(sparse, dense):
    assert [r["epoch"] for r in sparse.metrics] == [2, 3]
    rates = [r["learning_rate"] for r in dense.metrics]
    assert [r["learning_rate"] for r in sparse.metrics] == rates[1:]
    assert sparse.state()["optimizer/iteration"] == dense.state()["optimizer/iteration"]


def test_learning_rate_rewinding(small_lab, dense):
    run = ticket(small_lab, "rewind=lr", "rewind.epoch=1")
    path = next(iter(run.mask))
    np.testing.assert_array_equal(run.weights(1)[path], dense.weights()[path] * run.mask[path])
    assert run.state(1)["optimizer/iteration"] == dense.state(1)["optimizer/iteration"]
    assert [r["learning_rate"] for r in run.metrics] == [
        r["learning_rate"] for r in dense.metrics[1:]
    ]


def test_fine_tuning_keeps_the_last_rate(small_lab, dense):
    run = ticket(small_lab, "rewind=finetune", "rewind.epoch=1", "rewind.optimizer=reset")
    last = dense.metrics[-1]["learning_rate"]
    assert [r["learning_rate"] for r in run.metrics] == pytest.approx([last, last])
    slots = {n: a for n, a in run.state(1).items() if n.endswith("_momentum")}
    assert slots
    assert not any(a.any() for a in slots.values())


def test_reinit_starts_elsewhere_and_runs_the_whole_schedule(small_lab, dense):
    run = ticket(small_lab, "rewind=reinit")
    path = next(iter(run.mask))
    fresh, original = run.weights(0)[path], dense.weights(0)[path]
    assert len(run.metrics) == 3
    assert not fresh[~run.mask[path]].any()
    assert not np.isclose(fresh[run.mask[path]], original[run.mask[path]]).any()


def test_calls_and_pipelines_change_nothing(dense, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "CHUNKS_OF_A_PIPELINE", 2)
    config = composed(*SMALL, "trainer.steps_per_call=3", "rewind.keep=[]")
    other = experiment.train_dense(config, laboratory(tmp_path))
    assert other.key == dense.key
    assert equal(other.state(), dense.state())
    assert figures(other) == figures(dense)


def test_the_calls_of_a_long_training_are_not_listed_before_it_begins():
    chunks = Length(10**12, 5, steps_per_call=3).chunks(10**11 + 1)
    assert [tuple(chunk) for chunk in itertools.islice(chunks, 3)] == [
        (10**11 + 1, 3), (10**11 + 4, 1), (10**11 + 5, 3),
    ]  # fmt: skip


# -- interruption ------------------------------------------------------------------------------


class StopAt:
    """Sends this process a signal in a given step, through an ordinary Keras callback."""

    def __init__(self, step: int, signum: int) -> None:
        import keras

        class Callback(keras.callbacks.Callback):
            seen = 0

            def on_train_batch_end(self, batch, logs=None):
                self.seen += 1
                if self.seen == step:
                    signal.raise_signal(signum)

        self.callback = Callback()


# Five steps an epoch. The last step of an epoch, and of all, are where a stop is easily lost.
@pytest.mark.parametrize(
    ("signum", "steps"),
    [
        pytest.param(signal.SIGTERM, (3, 2), marks=pytest.mark.slow),
        (signal.SIGINT, (8,)),
        (signal.SIGUSR2, (15,)),
    ],
)
def test_a_stopped_run_continues_as_if_unbroken(dense, tmp_path, monkeypatch, signum, steps):
    # A shell without job control starts background commands with SIGINT ignored.
    usual = signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL
    monkeypatch.setattr(signal, "getsignal", lambda _: usual)
    lab = laboratory(tmp_path)
    config = composed(*SMALL, "rewind.keep=[]")
    original = type(lab.tracker).run
    stops = iter(steps)

    def stopping(self, *about):
        import contextlib

        @contextlib.contextmanager
        def run():
            with original(self, *about) as track:
                step = next(stops, None)
                track.callbacks.extend([StopAt(step, signum).callback] if step else [])
                yield track

        return run()

    tracker = type("Stopping", (type(lab.tracker),), {"run": stopping})(
        lab.tracker.logger, tmp_path, "test", {}
    )
    lab = dataclasses.replace(lab, tracker=tracker)
    for _ in steps:
        with pytest.raises(StoppedError):
            experiment.train_dense(config, lab)
    run = experiment.train_dense(config, lab)
    assert equal(run.state(), dense.state())
    assert figures(run) == figures(dense)
    for split in "validation", "test":
        assert np.array_equal(run.correct(split), dense.correct(split))
    images = 15 * config.trainer.batch_size
    assert run.result["seconds"] > images / run.result["images_per_second"], "all attempts count"


def test_a_stop_leaves_the_previous_handlers_in_place_and_calls_them():
    from lottery.interrupts import StopSignals

    heard = []
    previous = signal.signal(signal.SIGUSR2, lambda *_: heard.append("USR2"))
    try:
        signals = StopSignals()
        with pytest.raises(StoppedError), signals:
            [signal.raise_signal(s) for s in (signal.SIGTERM, signal.SIGUSR2)]
        assert signals.received == signal.SIGUSR2  # the only one on which submitit requeues
        assert heard == ["USR2"]
        signal.raise_signal(signal.SIGUSR2)
        assert heard == ["USR2", "USR2"]
    finally:
        signal.signal(signal.SIGUSR2, previous)


def test_divergence_stops_with_the_last_good_checkpoint_kept(lab):
    config = composed(*TINY, "optimizer.learning_rate=1e30", "optimizer.nesterov=false")
    with pytest.raises(DivergedError, match="not a finite number"):
        experiment.train_dense(config, lab)
    work = next((lab.store.root / "work").glob("dense-*"))
    state, _ = CheckpointFolder(work / "checkpoints").latest()
    assert all(np.isfinite(a).all() for a in state.values())


# -- checkpoints -------------------------------------------------------------------------------


def test_a_damaged_checkpoint_is_noticed_and_the_one_before_used(tmp_path, caplog):
    folder = CheckpointFolder(tmp_path)
    for step in (10, 20):
        folder.save({"model/w": np.full(3, float(step))}, Progress(step))
    damaged = folder.path(20) / "state.safetensors"
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    state, progress = folder.latest()
    assert progress.step == 10
    assert state["model/w"][0] == 10
    assert "damaged" in caplog.text
    with pytest.raises(CheckpointError, match="checksum"):
        folder.load(20)


def test_only_the_newest_two_and_the_kept_ones_stay(tmp_path):
    folder = CheckpointFolder(tmp_path, keep_steps=frozenset({10}))
    for step in (10, 20, 30, 40):
        folder.save({"model/w": np.zeros(1)}, Progress(step))
    assert folder.steps() == [10, 30, 40]
    folder.finish()  # wherever the training has ended
    assert folder.steps() == [10, 40]


def test_checkpoints_keep_every_bit(tmp_path):
    state = {
        "model/transposed": np.arange(6.0).reshape(2, 3).T,
        "model/scalar": np.array(-0.0),
        "optimizer/iteration": np.array(7, np.int64),
        "model/odd": np.array([np.nan, np.inf, 5e-324]),
    }
    folder = CheckpointFolder(tmp_path)
    folder.save(state, Progress(1, 2.5, 1.5, (0.1, 2.0)))
    read, progress = folder.load(1)
    assert equal(read, state)
    assert progress == Progress(1, 2.5, 1.5, (0.1, 2.0))


# -- metrics -----------------------------------------------------------------------------------


def test_a_network_that_cannot_decide_scores_at_chance():
    import tensorflow as tf

    from lottery.training.metrics import hits

    labels = tf.range(10)
    assert hits(tf.zeros([10, 10]), labels, 1).numpy().sum() == 1
    assert hits(tf.zeros([10, 10]), labels, 5).numpy().sum() == 5
    assert hits(tf.fill([10, 10], np.nan), labels, 5).numpy().sum() == 0
    assert hits(tf.eye(10), labels, 1).numpy().all()


def test_result_is_measured_on_all_examples(dense):
    """Against Keras's own evaluation of the same weights."""
    import keras

    from lottery.training import run as training

    config = composed(*SMALL)
    data = trainings.load_data(config.data)
    loop, _ = training.build(from_scratch(config, 1), data, {})
    loop.load(dense.state())
    images = np.concatenate([x[v] for x, _, v in data.test.evaluation(100).as_numpy_iterator()])
    inputs = loop.preprocessing.evaluation(images)
    logits = loop.model.predict(inputs, verbose=0)
    top1 = keras.metrics.sparse_categorical_accuracy(data.test.labels, logits)
    assert len(images) == data.test.size == dense.result["test_examples"]
    assert dense.result["test_top1"] == pytest.approx(float(np.mean(top1)))


def test_config_and_network_are_recorded(dense):
    assert dense.config["model"]["name"] == "resnet20"
    assert (
        dense.whole.parameters == sum(w.size for w in dense.weights().values()) - 2
    )  # dropout's state
    assert files.read_json(dense.path / "done.json")["key"] == dense.key


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_a_head_that_learns_faster_takes_steps_as_much_larger(name):
    def moved(factor: float) -> dict[str, np.ndarray]:
        variables = [keras.Variable(np.ones(3, np.float32), name=n) for n in ("body", "head")]
        built = getattr(keras.optimizers, name)(0.01)
        built.build(variables)
        if factor != 1:
            optimizers.accelerate(built, {variables[1].path}, factor)
        for _ in range(3):
            built.apply([tf.constant([1.0, -2.0, 3.0])] * 2, variables)
        return {v.name: np.array(v) - 1 for v in variables}

    plain, faster = moved(1), moved(10)
    np.testing.assert_array_equal(plain["body"], faster["body"])
    np.testing.assert_allclose(10 * plain["head"], faster["head"], rtol=1e-5)


# -- every optimizer and precision ---------------------------------------------------------------


@pytest.fixture
def precision():
    """What is tested next in this process has the precision that it always had."""
    yield
    keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize(
    "overrides",
    [
        ("optimizer=adam", "optimizer.clip_norm=0.5"),
        pytest.param(("optimizer=adamw",), marks=pytest.mark.slow),
        pytest.param(("optimizer=sgd", "trainer.precision=mixed_float16"), marks=pytest.mark.slow),
        pytest.param(
            ("optimizer=sgd", "trainer.precision=mixed_bfloat16", "trainer.label_smoothing=0.1"),
            marks=pytest.mark.slow,
        ),
    ],
    ids=lambda overrides: " ".join(overrides),
)
def test_every_optimizer_and_precision_obeys_the_laws(lab, precision, overrides):
    whole = experiment.find_ticket(composed(*TINY, *overrides, "mask.percentile=0"), lab)
    dense, same = (Run(lab.store.root / k / whole[k]["key"]) for k in ("dense", "ticket"))
    assert equal(same.state(), dense.state())
    assert figures(same) == figures(dense, after=1)

    sparse = experiment.find_ticket(composed(*TINY, *overrides, "mask.percentile=80"), lab)
    run = Run(lab.store.root / "ticket" / sparse["ticket"]["key"])
    state = run.state()
    paths = frozenset(run.weights())
    for name, array in state.items():
        path = rewinding.owner(name, paths)
        if path in run.mask:
            assert not array[~run.mask[path]].any(), name
    slots = [n for n in state if not n.startswith("model/") and rewinding.owner(n, paths)]
    assert len(slots) == len(paths) * (1 if overrides[0] == "optimizer=sgd" else 2)


def test_clipping_and_decay_never_see_a_pruned_weight(lab):
    """A network whose pruned weights are gone altogether trains the same way."""
    import keras
    import tensorflow as tf

    mask = np.array([[1.0], [0.0], [1.0], [0.0]], np.float32)
    gradients = np.array([[0.3], [50.0], [-0.4], [-70.0]], np.float32)
    options = AdamW(learning_rate=0.1, weight_decay=0.1, clip_norm=0.25)

    def after_two_steps(weights, gradient):
        v = keras.Variable(weights, name="kernel")
        optimizer = options.build(unchanging(0.1))
        optimizer.build([v])
        for _ in range(2):
            optimizer.apply([tf.constant(gradient)], [v])
        return v.numpy()

    full = after_two_steps(np.ones((4, 1), np.float32) * mask, gradients * mask)
    kept = mask[:, 0] == 1
    small = after_two_steps(np.ones((2, 1), np.float32), gradients[kept])
    np.testing.assert_allclose(full[kept], small, rtol=1e-6)
    assert not full[~kept].any()


def test_signs_keep_signs_and_deal_out_magnitudes_anew(small_lab, dense):
    config = composed(*SMALL, "rewind=signs", "mask.percentile=50")
    result = experiment.find_ticket(config, small_lab)
    run = runs_of(result)["ticket"]
    assert run.points[0] == Point(0)
    afresh = {"name": "signs", "epoch": 0, "step": None, "optimizer": None}
    assert result["rewind"] == afresh
    for path, kept in run.mask.items():
        begun, first = run.weights(0)[path], dense.weights(0)[path]
        assert (np.sign(begun[kept]) == np.sign(first[kept])).all()
        assert not np.allclose(begun[kept], first[kept])
        assert set(np.abs(begun[kept])) <= set(np.abs(first).ravel())
    assert files.read_json(run.path / "start.json")["pristine"] is True


def test_validation_within_epochs_changes_no_weight_but_makes_another_run(lab):
    """Which has rows that a run in the store may lack; a resumption leaves each of them once."""
    config = composed(*TINY)
    plain = experiment.train_dense(config, lab)
    config.trainer.validation_steps = 3
    watched = experiment.train_dense(config, lab)
    assert equal(watched.state(), plain.state())
    rows = files.read_csv(watched.path / "validation.csv")
    assert [int(row["step"]) for row in rows] == [3, 6]
    losses = [float(row["val_loss"]) for row in rows]
    best = int(np.argmin(losses))
    assert watched.result["early_stop_step"] == (3, 6)[best]
    assert watched.result["early_stop_val_loss"] == losses[best]
    assert "early_stop_step" not in plain.result


def test_a_rewinding_with_weights_of_its_own_is_not_pristine(tmp_path, monkeypatch):
    """They may be trained ones, as here: nobody else can know."""
    from lottery.rewinding import Start

    lab, config = laboratory(tmp_path), composed(*TINY, "rewind=weights", "rewind.epoch=0")
    monkeypatch.setattr(
        type(config.rewind), "rewind",
        lambda self, origin: Start(weights=replay.weights_of(origin.final())),
    )  # fmt: skip
    ticket = runs_of(experiment.find_ticket(config, lab))["ticket"]
    assert files.read_json(ticket.path / "start.json")["pristine"] is False


def test_what_is_pruned_is_zero_whatever_it_was():
    kept = np.array([[True, False, False, False]])
    odd = np.array([[1.0, np.nan, np.inf, -np.inf]], np.float32)
    weight = keras.Variable(odd, name="kernel")
    network = SimpleNamespace(trainable_variables=[weight], variables=[weight])
    masking = Masking(network, SimpleNamespace(variables=[]), {"kernel": kept}, None)
    (gradient,) = masking.survivors([tf.constant(odd)])
    masking.zero_pruned(tf.distribute.get_strategy())
    assert gradient.numpy().tolist() == weight.numpy().tolist() == [[1, 0, 0, 0]]


def test_a_network_with_two_variables_of_one_path_is_refused():
    class Twice(keras.layers.Layer):
        def __init__(self):
            super().__init__(name="twice")
            self.first, self.second = (keras.layers.Dense(2, name="same") for _ in range(2))

        def call(self, inputs):
            return self.second(self.first(inputs))

    def network():
        image = keras.Input((2, 2, 1))
        return keras.Model(image, Twice()(keras.layers.Flatten()(image)))

    with pytest.raises(ConfigError, match=r"^2 variables .* have the path twice/same/kernel, so"):
        loop.Loop(
            network, lambda: AdamW().build(unchanging(0.1)),
            Preprocessing((2, 2, 1), 0, False, (0.5,), (0.5,)),
            batch_size=2, eval_batch_size=2, seed=0, strategy=tf.distribute.get_strategy(),
        )  # fmt: skip
