"""What an example of each class counts in the loss of training."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import TINY, composed
from test_laws import loop_of

from lottery.data.preprocessing import Preprocessing
from lottery.training import class_weights
from lottery.training.recipe import from_scratch
from lottery.training.run import build
from lottery.trainings import load_data
from lottery.validation import CHECKS, errors

CLASSES = ("cat", "dog", "cow")


def test_a_step_is_the_one_that_keras_takes_with_these_class_weights():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (1, 4, 2, 2, 1), np.uint8)
    labels = np.array([[0, 1, 1, 2]], np.int32)
    weights = (0.5, 2.0, 0.0)
    rate = keras.optimizers.schedules.PiecewiseConstantDecay([0], [0.1, 0.1])
    loop = loop_of(
        lambda: keras.optimizers.SGD(rate, name="optimizer"),
        Preprocessing((2, 2, 1), 0, False, (0.5,), (0.5,)),
        class_weights=weights,
    )
    model = keras.models.clone_model(loop.model)
    model.set_weights(loop.model.get_weights())
    model.compile(
        keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    pixels = (images[0] / 255 - 0.5) / 0.5
    model.train_on_batch(pixels, labels[0], class_weight=dict(enumerate(weights)))
    loop.train(tf.constant(images), tf.constant(labels), 0)
    for ours, theirs in zip(loop.model.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_balanced_gives_each_class_the_same_share_of_the_loss():
    labels = np.array([0] * 6 + [1] * 2, np.int32)
    found = class_weights.of("balanced", CLASSES[:2], labels)
    assert found == (8 / 12, 2.0)
    assert np.array(found)[labels].sum() == len(labels)
    assert class_weights.of("balanced", CLASSES, labels)[2] == 0.0
    data = load_data(composed(*TINY).data)
    config = composed(*TINY, "trainer.class_weights=balanced")
    loop, _ = build(from_scratch(config, 4), data, {})
    counts = np.bincount(data.train.labels)
    assert np.allclose(np.array(loop.class_weights) * counts, len(data.train.labels) / 10)


def test_classes_are_named_or_numbered_or_all_given():
    def given(option):
        return class_weights.given(option, CLASSES)

    assert given({"dog": 2}) == given({1: 2.0}) == given({"1": 2}) == given([1, 2, 1])
    assert given([1, 1, 1]) is None
    assert given(json.loads(json.dumps({0: 2}))) == [2.0, 1.0, 1.0]
    config = composed(*TINY, "data.classes=[5,7]", "trainer.class_weights={7: 3}")
    assert class_weights.given(config.trainer.class_weights, ("5", "7")) == [1.0, 3.0]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("[1,2]", "has 2 values, and there are 10 classes"),
        ("{11: 2}", "there is no class 11"),
        ("{1: -2}", "-2 of class 1 is no weight"),
        ("{1: much}", "much of class 1 is no weight"),
        ("{1: null}", "None of class 1 is no weight"),
        ("[0,0,0,0,0,0,0,0,0,0]", "are all 0, so nothing would be learned"),
        ("balance", "is neither balanced, nor a list"),
    ],
)
def test_what_is_no_weight_is_said_before_anything_is_trained(option, message):
    said = errors(composed(*TINY, f"trainer.class_weights={option}"), *CHECKS)
    assert len(said) == 1, said
    assert said[0].startswith("trainer.class_weights")
    assert message in said[0]
