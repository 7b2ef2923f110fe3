"""All that determines one training, as a value that every process of a job can read.

Arrays lie in files of the work folder, which a recipe names: so all processes that train together
read the same, and going on after an interruption is starting from another file. Imports no
TensorFlow.
"""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from lottery import tensors
from lottery.config import Training, typed
from lottery.options import stepping
from lottery.pruning import masks
from lottery.pruning.dynamics import Course
from lottery.rewinding import masked
from lottery.training.checkpoints import CheckpointFolder, Progress, State, named_masks

log = logging.getLogger(__name__)

MASK, WEIGHTS, CORRECT = "mask.safetensors", "start.safetensors", "correct.safetensors"
BEGINNING = "went_on_from.json"  # which finished training it began with the states of
PAYS = 0.95  # of the multiply-adds: with more of them left, a smaller network gains next to nothing
PLUMBING = ("logger", "paths", "sweep")
PARTS = tuple(f.name for f in fields(Training) if f.name not in PLUMBING)  # of a recipe's config


@dataclass(frozen=True)
class Recipe:
    """One training. Steps are counted over the whole schedule, from that of its first epoch on."""

    config: Training
    """Its :data:`PARTS`; the others are as the schema has them."""
    seed: int
    """Of the initial weights, and so of a new head's."""
    last_step: int
    first_step: int = 0
    """Steps that lie behind where it begins, whether or not it was interrupted since."""
    keep_steps: tuple[int, ...] = ()
    """After which states stay for good, besides the last one."""
    last_rate: bool = False
    """Whether the last learning rate of the schedule holds throughout."""
    head_only: bool = False
    """Whether all layers but the last one with a kernel, the head, keep weights and statistics."""
    head_rate: float = 1.0
    """What the head learns at, in learning rates."""
    measure: bool = True
    """Whether validation and test are measured at the end, the only time that test is."""
    checkpoint: int | None = None
    """Step of the state to begin with, in the work folder; None: the initial one, masked."""
    weights: str | None = None
    """File of the weights, by variable path, that replace initial ones; others stay fresh."""
    mask: str | None = None
    """File of the survivors; None: all."""
    whole_channels: bool = False
    """Whether the mask prunes channels, with their biases and BatchNorm."""
    course: Course | None = None
    """How the mask changes, which begins as that of ``mask``; None: not at all."""

    def to_json(self) -> dict[str, Any]:
        """JSON values that :meth:`from_json` takes."""
        config = parts_to_json(self.config)
        return asdict(self) | {"config": config, "keep_steps": list(self.keep_steps)}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "Recipe":
        """The recipe whose :meth:`to_json` was ``value``."""
        config = parts_from_json(value["config"])
        course = Course.from_json(value["course"]) if value["course"] else None
        kept = tuple(value["keep_steps"])
        return Recipe(**{**value, "config": config, "keep_steps": kept, "course": course})

    def checkpoints(self, work: Path) -> CheckpointFolder:
        """Its states in a work folder."""
        return CheckpointFolder(work / "checkpoints", frozenset({*self.keep_steps, self.last_step}))


def may_be_smaller(config: Training) -> bool:
    """Whether a network may be trained without what its mask has cut off, if that pays.

    Callbacks that act may look at any variable, and some optimizers at several weights at once.
    """
    return (
        config.trainer.compact is not False
        and config.optimizer.elementwise
        and not stepping(config.callback)
    )


def parts_to_json(config: Training) -> dict[str, Any]:
    """JSON values of a config's :data:`PARTS` that :func:`parts_from_json` takes."""
    about = asdict(config)
    return {part: about[part] for part in PARTS}


def parts_from_json(value: Mapping[str, Any]) -> Training:
    """The config whose :func:`parts_to_json` was ``value``, its other parts as the schema has."""
    merged: Any = OmegaConf.merge(OmegaConf.structured(Training), value)
    return _determining(typed(merged))


def from_scratch(config: Training, steps_per_epoch: int) -> Recipe:
    """The whole schedule of a config, from fresh weights."""
    last_step = config.trainer.epochs * steps_per_epoch
    return Recipe(_determining(config), seed=config.seed, last_step=last_step)


def prepared(
    work: Path,
    recipe: Recipe,
    *,
    state: State | None = None,
    weights: Mapping[str, np.ndarray[Any, Any]] | None = None,
    mask: masks.Mask | None = None,
    announce: bool = True,
) -> Recipe:
    """The recipe with its arrays in files of ``work``, to go on from the newest checkpoint there.

    Without a checkpoint it begins with ``state``, of which what ``mask`` has pruned becomes zero;
    or with ``weights`` (see :attr:`Recipe.weights`); or afresh. ``mask`` is the first one if it
    changes: later ones are in the checkpoints. With ``announce`` the log tells of a checkpoint.
    """
    if mask:
        masks.write(mask, work / MASK)
        recipe = replace(recipe, mask=MASK)
    checkpoints = recipe.checkpoints(work)
    if (found := checkpoints.latest()) is not None:
        step = found[1].step
        if announce:
            log.info("resuming after step %d of %d", step, recipe.last_step)
        return replace(recipe, checkpoint=step)
    if state is not None:
        checkpoints.save(first_state(recipe, state, mask), Progress(recipe.first_step))
        return replace(recipe, checkpoint=recipe.first_step)
    if weights is not None:
        tensors.write(work / WEIGHTS, weights)
        return replace(recipe, weights=WEIGHTS)
    return recipe


def first_state(recipe: Recipe, state: State, mask: masks.Mask | None) -> State:
    """The state that a training begins with which is given ``state`` and the mask."""
    changing = named_masks(mask) if mask and recipe.course else {}
    return {**masked(state, mask or {}), **changing}


def _determining(config: Training) -> Training:
    return Training(**{part: getattr(config, part) for part in PARTS})
