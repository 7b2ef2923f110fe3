"""Further augmentation on the device: pure functions of images and draws, whatever the devices."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from conftest import TINY, composed, laboratory
from hypothesis import given
from hypothesis import strategies as st

from lottery import choices
from lottery.data.preprocessing import Preprocessing, _draws, compiled_augmentation
from lottery.errors import ConfigError
from lottery.experiment import train_dense
from lottery.lineage import dense_lineage
from lottery.store import Store
from lottery.training.recipe import Recipe, from_scratch

SHAPE = (7, 9, 2)
PLAIN = Preprocessing(SHAPE, 0, False, (0.5,), (0.25,))


@dataclass(frozen=True)
class Shifted:
    """Adds draws to images, each from a list of options, which nothing can hash."""

    by: tuple[float, ...] = (1.0,)
    more: Any = None

    def draws(self, shape: tuple[int, int, int]) -> int:
        return len(self.by)

    def apply(self, images: Any, draws: Any) -> Any:
        return images + tf.reduce_sum(draws * self.by, 1)[:, None, None, None]


@dataclass(frozen=True)
class Halved(Shifted):
    """What no augmentation may do."""

    def apply(self, images: Any, draws: Any) -> Any:
        return images[:, ::2]


def cutout(size: int) -> Any:
    return choices.augmentation.of({"name": "cutout", "size": size})


def augmented(
    p: Preprocessing, images: Any, *, seed: int = 3, step: int = 5, first: int = 0, batch: int = 12
) -> Any:
    """As the compiled step does it."""
    labels = tf.zeros([len(images)], tf.int32)
    made, _ = compiled_augmentation(p, 2, batch)(
        tf.constant(images), labels, tf.constant(seed, tf.int64), tf.constant(step, tf.int64),
        tf.constant(first),
    )  # fmt: skip
    return made.numpy()


@pytest.fixture(scope="module")
def images() -> Any:
    return np.random.default_rng(0).integers(0, 256, (12, *SHAPE), np.uint8)


@given(
    size=st.integers(1, 12),
    place=st.tuples(*2 * [st.integers(0, 2**24 - 1).map(lambda n: n / 2**24)]),
)
def test_cutout_is_a_square_around_any_pixel(size, place):
    image = np.ones((1, *SHAPE), np.float32)
    made = cutout(size).apply(tf.constant(image), tf.constant([place], tf.float32)).numpy()
    row, column = (int(np.float32(p) * np.float32(n)) for p, n in zip(place, SHAPE, strict=False))
    top, left = row - size // 2, column - size // 2
    image[:, max(top, 0) : max(top + size, 0), max(left, 0) : max(left + size, 0)] = 0
    np.testing.assert_array_equal(made, image)
    assert made[0, row, column].max() == 0


def test_replicas_do_what_one_device_does(images):
    p = replace(PLAIN, flip=True, further=(cutout(3), Shifted(), cutout(2)))
    whole = augmented(p, images)
    assert whole.shape == images.shape
    assert not np.array_equal(whole, augmented(replace(p, further=()), images))
    parts = [augmented(p, images[i : i + 4], first=i) for i in (0, 4, 8)]
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-6)


def test_what_happens_to_an_image_is_that_of_its_seed_step_and_row(images):
    p = replace(PLAIN, further=(cutout(3),))
    same = np.repeat(images[:1], 12, 0)
    first = augmented(p, same)
    assert np.array_equal(first, augmented(p, same))
    assert len(np.unique(first.reshape(12, -1), axis=0)) > 3
    for other in ({"seed": 4}, {"step": 6}):
        assert not np.array_equal(first, augmented(p, same, **other))


def test_each_has_draws_of_its_own_and_they_go_in_order(images):
    """Draws of crop, flip and mixup are those of streams 0, 1 and 2."""
    twice = augmented(replace(PLAIN, further=(Shifted(), Shifted((2.0,)))), images)
    rows = (0, 12, 12)
    draws = [_draws(rows, 1, 3, tf.constant(5), stream=s).numpy()[:, 0] for s in (3, 4)]
    want = PLAIN.training(tf.constant(images), seed=3, step=tf.constant(5, tf.int64)).numpy()
    want += (draws[0] + 2 * draws[1])[:, None, None, None]
    np.testing.assert_allclose(twice, want, atol=1e-5)
    square = cutout(3)
    ends = [augmented(replace(PLAIN, further=f), images) for f in ((square, Shifted()),)]
    ends.append(augmented(replace(PLAIN, further=(Shifted(), square)), images))
    assert (ends[0] == 0).mean() < 0.01 < (ends[1] == 0).mean()


def test_options_may_be_lists(images):
    one, other = (replace(PLAIN, further=(Shifted(more=[n]),)) for n in (1, 2))
    assert compiled_augmentation(one, 2, 12) is compiled_augmentation(replace(one), 2, 12)
    assert compiled_augmentation(one, 2, 12) is not compiled_augmentation(other, 2, 12)


def test_an_augmentation_that_changes_the_shape_is_named(images):
    with pytest.raises(ConfigError, match=r"Halved.* makes images of shape .* of those of shape"):
        augmented(replace(PLAIN, further=(Halved(),)), images)


def test_evaluation_is_left_alone(images):
    p = replace(PLAIN, further=(cutout(9),))
    pixels = tf.constant(images)
    assert np.array_equal(p.evaluation(pixels), PLAIN.evaluation(pixels))


def test_a_training_with_it_is_another_one(tmp_path):
    lab = laboratory(tmp_path)
    plain, cut = (
        composed(*TINY, "trainer.epochs=1", "rewind.epoch=0", *more)
        for more in ((), ("augmentation=[cutout]", "augmentation.cutout.size=4"))
    )
    assert cut.augmentation == {"cutout": cutout(4)}
    runs = [train_dense(c, lab) for c in (plain, cut)]
    assert runs[0].key != runs[1].key
    assert runs[0].result["val_loss"] != runs[1].result["val_loss"]


def test_order_is_part_of_the_key_and_comes_back_from_json():
    both = {"late": cutout(2), "early": cutout(3)}
    config = replace(composed(*TINY), augmentation=both)
    turned = replace(config, augmentation=dict(reversed(both.items())))
    keys = {dense_lineage(c, Store("nowhere")).last.key for c in (config, turned)}
    assert len(keys) == 2
    there = Recipe.from_json(from_scratch(config, 10).to_json()).config.augmentation
    assert list(there.items()) == list(both.items())
