"""Laws of iterative masks, of rewinding and of the step, each of which a small slip would break."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import TINY, composed, laboratory, pruned
from hypothesis import given
from hypothesis import strategies as st

from lottery import choices, experiment, lineage, rewinding
from lottery.data.preprocessing import Preprocessing
from lottery.points import Point
from lottery.pruning import masks
from lottery.rewinding import masked, with_counters, without_slots
from lottery.runs import Run
from lottery.store import Store
from lottery.training import devices
from lottery.training.checkpoints import equal
from lottery.training.loop import Loop


@pytest.fixture(scope="module")
def family(tmp_path_factory) -> tuple[Run, Run, Run]:
    """A dense run, and the tickets of two rounds, to half and to a quarter of the weights."""
    lab = laboratory(tmp_path_factory.mktemp("family"))
    options = (
        "mask.rate=50",
        "mask.percentile=75",
        "rewind=lr",
        "rewind.optimizer=reset",
        "rewind.epoch=1",
    )
    result = experiment.find_ticket(composed(*TINY, *options), lab)
    last = Run(lab.store.root / "ticket" / result["ticket"]["key"])
    dense, first = last.ancestors
    return dense, first, last


def test_later_rounds_rank_the_weights_of_the_last_ticket(family):
    dense, first, last = family

    def ranked(run: Run) -> dict[str, np.ndarray]:
        weights = run.weights()
        scores = {path: np.abs(weights[path]) for path in first.mask}
        return pruned(scores, 75, within=first.mask)

    assert equal(last.mask, ranked(first))
    assert not equal(last.mask, ranked(dense))


def test_what_a_round_has_pruned_stays_so_even_if_zeros_score_highest(lab, monkeypatch):
    monkeypatch.setattr(
        choices.score.find("magnitude"),
        "scores",
        lambda self, evidence: {path: -abs(evidence.weights[path]) for path in evidence.paths},
    )
    options = ("mask.rate=50", "mask.percentile=75", "rewind.epoch=2")
    result = experiment.find_ticket(composed(*TINY, *options), lab)
    last = Run(lab.store.root / "ticket" / result["ticket"]["key"])
    _, first = last.ancestors
    assert not any((last.mask[path] & ~first.mask[path]).any() for path in first.mask)


def test_learning_rate_rewinding_goes_on_from_the_last_ticket(family):
    dense, first, last = family
    expected = with_counters(without_slots(first.state()), of=dense.state(1))
    assert equal(last.state(1), masked(expected, last.mask))


def test_a_reset_of_the_optimizer_keeps_the_step(family):
    dense, _, last = family
    begun = last.state(1)
    assert begun["optimizer/iteration"] == dense.state(1)["optimizer/iteration"] > 0
    slots = [a for name, a in begun.items() if name.endswith("_momentum")]
    assert slots
    assert not any(a.any() for a in slots)


@pytest.mark.parametrize("name", ["finetune", "lr"])
def test_what_is_not_rewound_goes_on_from_the_end_of_what_was_ranked(name):
    states = {"dense": {"model/k": np.zeros(2)}, "final": {"model/k": np.ones(2)}}
    origin = rewinding.Origin(
        dense=lambda at: states["dense"], final=lambda: states["final"], point=Point(1), seed=0
    )
    rewound = choices.rewinding.of({"name": name, "epoch": 1}).rewind(origin)
    assert equal(rewound.state, states["final"])


signed = st.lists(st.sampled_from([-2.0, -1.0, 0.0, 1.0]), min_size=2, max_size=30)


@given(signed, st.integers(0, 99), st.integers(0, 99), st.sampled_from(["global", "layer"]))
def test_what_is_pruned_stays_so_whatever_the_survivors_score(scores, a, b, scope):
    """As of a score whose scores may be negative, such as growth."""
    low, high = sorted((a, b))
    ranks = {"k": np.array(scores)}
    first = pruned(ranks, low, scope)
    later = pruned({"k": -np.abs(ranks["k"]) - 1}, high, scope, within=first)
    assert not (later["k"] & ~first["k"]).any()


def test_layers_of_one_shape_are_shuffled_apart():
    mask = {"a": np.arange(100) < 50, "b": np.arange(100) < 50}
    shuffled = masks.shuffle(mask, 0, pattern=choices.pattern.of({"name": "weight"}))
    assert (shuffled["a"] != shuffled["b"]).any()


@keras.saving.register_keras_serializable("tests")
class Restless(keras.optimizers.SGD):
    """Moves every weight at every step, whatever its gradient."""

    def update_step(self, gradient, variable, learning_rate):
        variable.assign_add(tf.ones_like(variable) * tf.cast(learning_rate, variable.dtype))


def loop_of(optimizer, preprocessing, seed=0, classes=3, **options) -> Loop:
    """One dense layer on the pixels, in batches of four."""

    def network() -> keras.Model:
        image = keras.Input(preprocessing.input_shape, name="image")
        x = keras.layers.Flatten(name="flatten")(image)
        head = keras.layers.Dense(classes, kernel_initializer="ones", name="head")
        return keras.Model(image, head(x), name="small")

    return Loop(
        network=network, optimizer=optimizer, preprocessing=preprocessing, batch_size=4,
        eval_batch_size=4, seed=seed, strategy=devices.strategy("one"), **options,
    )  # fmt: skip


def test_pruned_weights_are_zero_after_a_step_that_moves_them():
    mask = np.arange(12).reshape(4, 3) % 2 == 0
    rate = keras.optimizers.schedules.PiecewiseConstantDecay([0], [0.1, 0.1])
    loop = loop_of(
        lambda: Restless(rate, name="optimizer"),
        Preprocessing((2, 2, 1), 0, False, (0.5,), (0.5,)),
        mask={"head/kernel": mask},
    )
    before = loop.state()["model/head/kernel"]
    images, labels = np.zeros((1, 4, 2, 2, 1), np.uint8), np.zeros((1, 4), np.int32)
    loop.train(tf.constant(images), tf.constant(labels), 0)
    after = loop.state()["model/head/kernel"]
    assert not after[~mask].any()
    np.testing.assert_allclose(after[mask], before[mask] + 0.1, atol=1e-6)


def test_smoothed_labels_pull_less():
    """Towards 1 - s + s / classes and s / classes; all logits are equal here."""
    rate = keras.optimizers.schedules.PiecewiseConstantDecay([0], [0.1, 0.1])
    loop = loop_of(
        lambda: keras.optimizers.SGD(rate, name="optimizer"),
        Preprocessing((2, 2, 1), 0, False, (0.5,), (0.5,)),
        label_smoothing=0.3,
    )
    images, labels = np.zeros((1, 4, 2, 2, 1), np.uint8), np.zeros((1, 4), np.int32)
    loop.train(tf.constant(images), tf.constant(labels), 0)
    pull = 0.1 * (1 - 0.3) * np.array([2, -1, -1]) / 3
    np.testing.assert_allclose(loop.state()["model/head/bias"], pull, atol=1e-6)


def test_trainings_that_share_a_compiled_augmentation_draw_by_their_own_seeds_and_steps():
    images = np.random.default_rng(0).integers(0, 256, (1, 4, 8, 8, 1), np.uint8)
    chunk = tf.constant(images), tf.constant(np.arange(4, dtype=np.int32)[None] % 3)

    def after_a_step(seed: int, step: int) -> np.ndarray:
        rate = keras.optimizers.schedules.PiecewiseConstantDecay([0], [0.1, 0.1])
        loop = loop_of(
            lambda: keras.optimizers.SGD(rate, name="optimizer"),
            Preprocessing((8, 8, 1), 4, True, (0.5,), (0.5,)), seed,
        )  # fmt: skip
        loop.train(*chunk, step)
        return loop.state()["model/head/kernel"]

    one = after_a_step(0, 0)
    assert (one == after_a_step(0, 0)).all()
    assert (one != after_a_step(1, 0)).any()
    assert (one != after_a_step(0, 1)).any()


def test_a_control_replaces_the_last_retraining_only_and_starts_it_afresh(tmp_path):
    store, iterative = Store(tmp_path), ("mask.rate=50", "mask.percentile=75", "rewind.epoch=1")
    weights, reinit = (
        lineage.lineage(composed(*TINY, *iterative, f"rewind={name}"), store).rounds
        for name in ("weights", "reinit")
    )
    assert weights[0].ticket == reinit[0].ticket
    assert weights[1].mask == reinit[1].mask
    assert weights[1].ticket != reinit[1].ticket
    assert [r.first for r in weights] == [Point(1), Point(1)]
    assert [r.first for r in reinit] == [Point(1), Point(0)]


def test_a_control_that_does_not_start_afresh_has_a_point_and_what_does_has_none(
    tmp_path, monkeypatch
):
    def rounds(name, epoch):
        options = ("mask.rate=50", "mask.percentile=75", f"rewind={name}", f"rewind.epoch={epoch}")
        return lineage.lineage(composed(*TINY, *options), Store(tmp_path)).rounds

    monkeypatch.setattr(choices.rewinding.find("reinit"), "afresh", False)
    monkeypatch.setattr(choices.rewinding.find("lr"), "afresh", True)
    assert [r.first for r in rounds("reinit", 1)] == [Point(1), Point(1)]
    assert [r.first for r in rounds("lr", 1)] == [Point(0), Point(0)]
    assert rounds("reinit", 1)[0].ticket == rounds("weights", 1)[0].ticket
    assert rounds("reinit", 1)[1].ticket != rounds("reinit", 2)[1].ticket
    assert rounds("lr", 1)[1].ticket == rounds("lr", 2)[1].ticket
