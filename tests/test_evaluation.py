"""Which images a network gets right: each image once, in the order of the split."""

import shutil

import numpy as np
import pytest
from conftest import TINY, composed, laboratory

from lottery import experiment, trainings
from lottery.errors import LotteryError, StoreError
from lottery.runs import Run
from lottery.training import run as training
from lottery.training.evaluation import Evaluation
from lottery.training.feeding import Feed
from lottery.training.recipe import CORRECT, from_scratch

DATA = trainings.load_data(composed(*TINY).data)
SIZE = DATA.validation.size


@pytest.fixture(scope="module")
def model():
    loop, _ = training.build(from_scratch(composed(*TINY), 1), DATA, {})
    return loop.model


def evaluation(model, batch_size: int) -> Evaluation:
    loop, _ = training.build(from_scratch(composed(*TINY), 1), DATA, {})
    return Evaluation(model, loop.preprocessing, loop.strategy, Feed(loop.strategy), batch_size)


@pytest.mark.parametrize("batch_size", [1, 7, SIZE - 1, SIZE, SIZE + 1, 1000])
def test_however_many_at_a_time_the_same_images_are_right(model, batch_size):
    """A last batch that is filled up adds nothing."""
    pixels = DATA.validation.take(np.arange(SIZE))
    measure = evaluation(model, batch_size)
    logits = model.predict(measure._preprocessing.evaluation(pixels), verbose=0)
    measured = measure(DATA.validation)
    assert measured.correct.shape == (SIZE,)
    assert np.array_equal(measured.correct, logits.argmax(axis=1) == DATA.validation.labels)
    assert 0 < measured.correct.mean() < 1
    assert measured.correct.mean() == measured.metrics.top1


def test_every_pass_is_over_the_whole_split_from_its_beginning(model):
    """Also after one that failed in the middle, and with another split in between."""
    measure = evaluation(model, 7)
    first, other = measure(DATA.validation), measure(DATA.test)
    call = measure._call
    batches = iter(range(3))

    def failing(*batch):
        if next(batches, None) is None:
            raise KeyboardInterrupt
        return call(*batch)

    measure._call = failing
    with pytest.raises(KeyboardInterrupt):
        measure(DATA.validation)
    measure._call = call
    for split, expected in [(DATA.validation, first), (DATA.test, other)] * 2:
        again = measure(split)
        assert again.metrics == expected.metrics
        assert np.array_equal(again.correct, expected.correct)


@pytest.mark.parametrize("weight", [0.0, np.nan])
def test_of_equal_logits_the_first_class_counts_and_none_of_what_is_no_number(model, weight):
    kept = model.get_weights()
    try:
        model.set_weights([np.full_like(w, weight) for w in kept])
        measured = evaluation(model, 100)(DATA.test)
    finally:
        model.set_weights(kept)
    right = (DATA.test.labels == 0) & np.isfinite(weight)
    assert np.array_equal(measured.correct, right)
    assert measured.correct.mean() == measured.metrics.top1


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Run:
    lab = laboratory(tmp_path_factory.mktemp("tiny"))
    return experiment.train_dense(composed(*TINY, "trainer.epochs=1", "rewind.epoch=0"), lab)


def test_a_run_keeps_which_images_are_right_with_what_they_are(tiny):
    for split, short in ("validation", "val"), ("test", "test"):
        correct, result = tiny.correct(split), tiny.result
        assert correct.dtype == bool
        assert correct.shape == (result[f"{short}_examples"],)
        assert correct.mean() == result[f"{short}_top1"]
        assert result[f"{short}_images"] == getattr(DATA, f"{split}_images")
    assert tiny.result["test_images"] != tiny.result["val_images"]
    with pytest.raises(LotteryError, match="measured on validation and test, not on train"):
        tiny.correct("train")


def test_a_run_of_before_has_none_and_a_damaged_one_says_what_to_do(tiny, tmp_path):
    run = Run(shutil.copytree(tiny.path, tmp_path / "run"))
    file = run.path / CORRECT
    content = bytearray(file.read_bytes())
    content[-1] ^= 128  # another image is right
    file.write_bytes(content)
    with pytest.raises(StoreError) as raised:
        run.correct("validation")
    assert str(raised.value) == (
        f"{file} is damaged: its checksum does not match; remove {run.path} to compute it again"
    )
    file.unlink()
    assert run.correct("validation") is None
