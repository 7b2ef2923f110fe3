"""One training as its recipe says, in each process that takes part; resumable."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from lottery import models, tensors
from lottery.config import Data, Training
from lottery.data import Description, Splits, crop_size
from lottery.data.preprocessing import Preprocessing
from lottery.data.splits import steps_per_epoch
from lottery.data.summary import tell
from lottery.interrupts import StopSignals
from lottery.options import deciding, stepping
from lottery.pruning import masks
from lottery.rewinding import masked
from lottery.training import class_weights, devices, schedules, workers
from lottery.training.checkpoints import Memory, Progress
from lottery.training.deciding import Deciding
from lottery.training.length import Length
from lottery.training.loop import Loop
from lottery.training.recipe import Recipe, may_be_smaller
from lottery.training.roles import Chief, Follower

PLAN = "training"  # the kind of plan by which followers join


def train(recipe: Recipe, data: Splits, chief: Chief) -> None:
    """Train with all processes of the job, and leave what :class:`Chief` says in its folder.

    An interrupted attempt that is continued (:func:`lottery.training.recipe.prepared`) ends as the
    unbroken run would. Raises what :func:`take_part` raises.
    """
    tell(data.summary)
    with workers.together(PLAN, {"work": str(chief.work), "recipe": recipe.to_json()}):
        take_part(chief.work, recipe, data, chief)
    chief.finish(recipe)


def join(plan: Mapping[str, Any], load: Callable[[Data], Splits]) -> None:
    """Take part in the training that another process calls :func:`train` for; write nothing.

    ``load`` gives the data set of a configuration. Raises what :func:`take_part` raises.
    """
    recipe = Recipe.from_json(plan["recipe"])
    data = load(recipe.config.data)
    with StopSignals() as signals:
        take_part(Path(plan["work"]), recipe, data, Follower(signals))


def take_part(work: Path, recipe: Recipe, data: Splits, role: Follower) -> None:
    """What every process of a training does; ``work`` holds the arrays that the recipe names.

    Raises what :meth:`Loop.fit` raises, :class:`CheckpointError` for a state that is damaged or of
    another network, and :class:`DataError` for images that cannot be decoded.
    """
    mask = masks.read(work / recipe.mask) if recipe.mask else {}
    loop, length = build(recipe, data, mask)
    progress = _begin(work, recipe, loop)
    callbacks = role.begin(recipe, data, loop, progress)
    try:
        decisions = Deciding(*_decided(work, recipe, loop))
        progress = loop.fit(
            data,
            length,
            progress,
            checkpoints=role.checkpoints(recipe),
            checkpoint_steps=recipe.config.trainer.checkpoint_epochs * length.steps_per_epoch,
            callbacks=callbacks,
            signals=role.signals,
            deciding=decisions,
        )
        role.masked(recipe, loop)
        if recipe.measure:
            validation, test = (loop.evaluation(s) for s in (data.validation, data.test))
            role.end(recipe, data, loop, progress, validation, test, decisions.summary)
            per_call = min(length.steps_per_call, length.steps_per_epoch)
            dense = replace(recipe, mask=None, course=None)
            role.price(recipe, data, loop, progress, per_call, lambda: build(dense, data, {})[0])
    except tf.errors.UnavailableError:  # another process is gone
        raise
    except tf.errors.OpError:
        data.check()  # if images cannot be decoded, says which
        raise


def _begin(work: Path, recipe: Recipe, loop: Loop) -> Progress:
    """Load the state that the recipe begins with; the initial one is nowhere stored."""
    if recipe.checkpoint is not None:
        state, progress = recipe.checkpoints(work).load(recipe.checkpoint)
    else:
        initial = dict(loop.state())
        if recipe.weights is not None:
            weights, _ = tensors.read(work / recipe.weights)
            initial |= {f"model/{path}": array for path, array in weights.items()}
        state, progress = masked(initial, loop.mask), Progress(recipe.first_step)
    loop.load(state)
    return progress


def _decided(work: Path, recipe: Recipe, loop: Loop) -> tuple[Mapping[str, Any], Loop, Memory]:
    """Who decides how a training goes on, over what, and what they remember of it so far.

    Nobody does over states that are trained anew: the training is known to have come there.
    """
    if not recipe.measure:
        return {}, loop, Memory()
    before = recipe.checkpoint
    memory = Memory() if before is None else recipe.checkpoints(work).memory(before)
    return deciding(recipe.config.callback), loop, memory


def network(config: Training, description: Description, *, head_only: bool = False) -> Any:
    """The network of a configuration for a data set, with fresh weights."""
    # With a single replica it would be the same but for rounding.
    several = tf.distribute.get_strategy().num_replicas_in_sync > 1
    return models.build_choice(
        config.model,
        description.input_shape,
        len(description.classes),
        sync_batch_norm=config.trainer.sync_batch_norm and several,
        head_only=head_only,
    )


def preprocessing(data: Data, description: Description) -> Preprocessing:
    """What the options of a data set make of a batch of its images."""
    (low, high), (narrow, wide) = data.crop_area, data.crop_aspect
    return Preprocessing(
        description.input_shape,
        crop_padding=data.crop_padding,
        flip=data.flip,
        mean=tuple(data.mean),
        std=tuple(data.std),
        crop_area=(low, high) if data.crop == "resized" else None,
        crop_aspect=(narrow, wide),
        mixup=data.mixup,
        crop_size=crop_size(data, description.image_shape),
    )


def build(recipe: Recipe, data: Splits, mask: masks.Mask) -> tuple[Loop, Length]:
    """The loop of a recipe, freshly initialised from its seed, and its length."""
    config, trainer = recipe.config, recipe.config.trainer
    strategy = devices.prepare(config)
    description = data.description
    spe = steps_per_epoch(data.train.size, trainer.batch_size)
    steps = trainer.epochs * spe
    config.schedule.check(steps, spe)
    rate = config.schedule.in_steps(spe).build(config.optimizer.learning_rate, steps=steps)
    if recipe.last_rate:
        rate = schedules.unchanging(float(rate(steps - 1)))
    keras.utils.set_random_seed(recipe.seed)
    loop = Loop(
        network=lambda: network(config, description, head_only=recipe.head_only),
        optimizer=lambda: config.optimizer.build(rate),
        preprocessing=replace(
            preprocessing(config.data, description), further=tuple(config.augmentation.values())
        ),
        batch_size=trainer.batch_size,
        eval_batch_size=trainer.eval_batch_size,
        seed=config.seed,
        strategy=strategy,
        label_smoothing=trainer.label_smoothing,
        class_weights=class_weights.of(
            trainer.class_weights, description.classes, data.train.labels
        ),
        jit_compile=trainer.jit_compile,
        mask=mask,
        course=recipe.course,
        whole_channels=recipe.whole_channels,
        compact=trainer.compact if may_be_smaller(config) else False,
        elementwise=config.optimizer.elementwise,
        head_rate=recipe.head_rate,
        sync_batch_norm=trainer.sync_batch_norm,
    )
    stops = sorted(step for step in recipe.keep_steps if step % spe)
    length = Length(
        recipe.last_step,
        spe,
        # Callbacks that act do so after each step, wherever else calls would end.
        1 if stepping(config.callback) else trainer.steps_per_call,
        stops=stops,
        validation_steps=trainer.validation_steps,
    )
    if (course := recipe.course) is not None:
        length = replace(length, changes=course.changes, measures=course.measures)
    return loop, length
