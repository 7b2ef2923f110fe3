"""A training as a value: the same in every process, and the same after an interruption."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
from conftest import SMALL, TINY, composed
from hypothesis import given, settings
from hypothesis import strategies as st

from lottery import choices, tensors, trainings
from lottery.data import describe
from lottery.points import Point
from lottery.pruning import masks
from lottery.pruning.dynamics import Course
from lottery.rewinding import Start
from lottery.training.checkpoints import Progress, equal
from lottery.training.recipe import MASK, WEIGHTS, Recipe, from_scratch, prepared

CONFIGS = [
    composed(*SMALL),
    composed(*TINY, "optimizer=adam", "trainer.strategy=one", "paths.outputs=elsewhere"),
    composed("ticket=x", "seed=3", name="transfer"),
]
steps = st.integers(0, 10**9)
names = st.none() | st.text(min_size=1)
courses = st.builds(
    Course,
    st.sampled_from(["gradual", "set", "rigl"]).map(
        lambda name: choices.dynamics.of({"name": name, "frequency": 7})
    ),
    st.floats(0, 99),
    st.sampled_from([{"name": "erk"}, {"name": "rates", "factors": {"fc*": 0.25}}]).map(
        choices.allocation.of
    ),
    seed=st.integers(0, 2**31 - 1),
    first_step=steps,
    last_step=steps,
)


@settings(deadline=None)
@given(
    st.builds(
        replace,
        st.sampled_from([from_scratch(config, 5) for config in CONFIGS]),
        seed=st.integers(0, 2**32 - 1),
        first_step=steps,
        last_step=steps,
        keep_steps=st.lists(steps).map(tuple),
        last_rate=st.booleans(),
        head_only=st.booleans(),
        head_rate=st.floats(1e-3, 1e3),
        measure=st.booleans(),
        checkpoint=st.none() | steps,
        weights=names,
        mask=names,
        course=st.none() | courses,
    )
)
def test_a_recipe_survives_json(recipe):
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe


def test_paths_and_logging_are_no_part_of_a_recipe():
    one, other = (
        composed(*TINY, *more) for more in ((), ("paths.outputs=x", "logger.mode=online"))
    )
    assert from_scratch(one, 7) == from_scratch(other, 7)
    assert from_scratch(one, 7) != from_scratch(composed(*TINY, "trainer.steps_per_call=9"), 7)


def test_what_reads_a_recipe_needs_no_tensorflow():
    script = "import sys, lottery.training.recipe; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


STATE = {
    "model/k": np.ones(4),
    "optimizer/k_momentum": np.ones(4),
    "optimizer/iteration": np.array(3),
}
SURVIVORS = {"k": np.array([True, False, True, False])}
RECIPE = replace(from_scratch(CONFIGS[1], 5), first_step=5, keep_steps=(5,))


def test_a_state_to_begin_with_lies_in_the_work_folder_and_is_pruned(tmp_path):
    recipe = prepared(tmp_path, RECIPE, state=STATE, mask=SURVIVORS)
    assert recipe == replace(RECIPE, checkpoint=5, mask=MASK)
    state, progress = recipe.checkpoints(tmp_path).load(5)
    pruned = np.array([1.0, 0.0, 1.0, 0.0])
    assert equal(state, STATE | {"model/k": pruned, "optimizer/k_momentum": pruned})
    assert progress == Progress(5)
    assert equal(masks.read(tmp_path / MASK), SURVIVORS)


def test_a_mask_that_changes_is_part_of_the_state_to_begin_with(tmp_path):
    set_, all_layers = (
        k.of({"name": n}) for k, n in ((choices.dynamics, "set"), (choices.allocation, "erk"))
    )
    recipe = replace(RECIPE, course=Course(set_, 50.0, all_layers, 0, 5, 10))
    prepared(tmp_path, recipe, state=STATE, mask=SURVIVORS)
    state, _ = recipe.checkpoints(tmp_path).load(5)
    assert equal({"mask/k": state["mask/k"]}, {"mask/k": SURVIVORS["k"]})
    assert not state["model/k"][~SURVIVORS["k"]].any()


def test_weights_lie_there_until_there_is_a_checkpoint(tmp_path):
    weights = {"k": np.arange(3.0)}
    recipe = prepared(tmp_path, RECIPE, weights=weights)
    assert recipe == replace(RECIPE, weights=WEIGHTS)
    assert equal(tensors.read(tmp_path / WEIGHTS)[0], weights)
    recipe.checkpoints(tmp_path).save(STATE, Progress(7))
    assert prepared(tmp_path, RECIPE, weights=weights) == replace(RECIPE, checkpoint=7)


def test_what_was_interrupted_goes_on_from_the_newest_checkpoint_that_can_be_read(tmp_path, caplog):
    checkpoints = RECIPE.checkpoints(tmp_path)
    prepared(tmp_path, RECIPE, state=STATE)
    for step in (7, 9):
        checkpoints.save({"model/k": np.full(4, step)}, Progress(step))
    caplog.set_level("INFO")
    assert prepared(tmp_path, RECIPE, state=STATE).checkpoint == 9
    assert "resuming after step 9 of 10" in caplog.text
    (checkpoints.path(9) / "state.safetensors").write_bytes(b"damaged")
    assert prepared(tmp_path, RECIPE, state=STATE).checkpoint == 7
    assert checkpoints.steps() == [5, 7, 9]  # what is kept was not written again
    checkpoints.finish()
    assert checkpoints.steps() == [5, 9]  # what is kept, and where it has ended


def test_a_fresh_network_needs_no_file(tmp_path):
    assert prepared(tmp_path, RECIPE) == RECIPE
    assert not list(tmp_path.iterdir())


def test_a_start_says_in_steps_what_it_says_in_epochs():
    config = composed(*TINY)
    spe = describe(config.data).sizes["train"] // config.trainer.batch_size
    recipe = trainings.from_start(config, Start(Point(1), STATE, seed=3, last_rate=True))
    assert (recipe.first_step, recipe.last_step, recipe.keep_steps) == (spe, 2 * spe, (spe,))
    assert (recipe.seed, recipe.last_rate, recipe.measure) == (3, True, True)
