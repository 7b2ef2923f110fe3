"""Everything that can be known to be wrong before a job starts. Imports no TensorFlow."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from lottery import objectives, pretrained
from lottery.config import Config, Mask, Training
from lottery.data import describe
from lottery.errors import ConfigError, LotteryError
from lottery.lineage import Lineage, epoch_steps, scored
from lottery.options import bound_errors, deciding, stepping, stopping
from lottery.points import START
from lottery.pruning.allocation import rounds
from lottery.pruning.allocations.lamp import Lamp
from lottery.pruning.allocations.rates import Rates
from lottery.pruning.dynamics import Course
from lottery.pruning.scores import inner_percentiles, needs, signed
from lottery.pruning.units import Target
from lottery.replay import refuse_beyond
from lottery.runs import Run
from lottery.store import Store
from lottery.training import class_weights


def errors(config: Training, *checks: Callable[[Any], object]) -> list[str]:
    """One line for each thing wrong with a configuration; empty if it can run.

    A check raises :class:`LotteryError`. None is called if a value is out of its range.
    """
    found = range_errors(config)
    for check in checks if not found else ():
        try:
            check(config)
        except LotteryError as error:
            found.append(str(error))
    return found


def range_errors(config: Training) -> list[str]:
    """One line for each value that is out of its range or contradicts another. Reads no files."""
    return bound_errors(config) or _contradictions(config)


def _bad_dynamics(mask: Mask, callbacks: Mapping[str, Any]) -> list[str]:
    """What has no meaning for a mask that changes during training."""
    wrong = {
        f"mask.score={mask.score.name}": mask.score.name != "magnitude",
        f"mask.pattern={mask.pattern.name}": mask.pattern.name != "weight",
        f"mask.rate={mask.rate}": mask.rate is not None,
        "mask.shuffle=true": mask.shuffle,
        "mask.percentile=0": mask.percentile == 0,
    }
    return [
        f"{option} does not go with mask.during={mask.during.name}: leave one of them out"
        for option, is_so in wrong.items()
        if is_so
    ] + [
        f"callback={label} may end a training before mask.during={mask.during.name} has made its "
        "last change, and go back to weights under another mask: leave one of them out"
        for label in stopping(callbacks)
    ]


def _bad_points(config: Config, epochs: int) -> list[str]:
    try:
        config.rewind.kept  # noqa: B018  (raises)
    except ConfigError as error:
        return [f"rewind.keep: {error}"]
    try:
        scored = config.mask.scored
    except ConfigError:
        return [
            f"mask.at={config.mask.at} is no point in training: write start, end, or epochs and "
            "steps, as in 5ep or 2000it"
        ]
    if config.rewind.point.epochs > epochs:
        return [f"rewind.epoch={config.rewind.epoch} lies after trainer.epochs={epochs}"]
    if scored is not None and scored.epochs > epochs:
        return [f"mask.at={config.mask.at} lies after trainer.epochs={epochs}"]
    return []


def _bad_compaction(config: Training) -> list[str]:
    """What ``trainer.compact=true`` does not go with."""
    reasons = []
    if not config.optimizer.elementwise:
        reasons.append(
            f"optimizer={config.optimizer.name} may update a weight by what others are, so without "
            "those that are cut off it would train otherwise"
        )
    if isinstance(config, Config) and config.mask.during is not None:
        reasons.append(
            f"mask.during={config.mask.during.name} lets weights grow again, so none is cut off "
            "for good"
        )
    if acts := stepping(config.callback):
        names = ", ".join(choice.name for choice in acts)
        reasons.append(f"callback={names} may change any variable, so all must be there")
    return [
        f"trainer.compact=true does not go with that: {reason}; leave one of the two out"
        for reason in reasons
    ]


def _contradictions(config: Training) -> list[str]:
    errors, data, epochs = [], config.data, config.trainer.epochs
    try:
        objectives.listed(config.sweep.objective)
    except ConfigError as error:
        errors.append(str(error))
    if isinstance(config, Config):
        errors += _bad_points(config, epochs)
    errors += config.schedule.contradictions()
    if config.trainer.compact:
        errors += _bad_compaction(config)
    if isinstance(config, Config) and config.mask.during is not None:
        errors += _bad_dynamics(config.mask, config.callback)
    elif isinstance(config, Config) and config.mask.at != "end" and config.mask.rate is not None:
        errors.append(
            f"mask.rate={config.mask.rate:g} scores what each of its rounds has trained, and "
            f"mask.at={config.mask.at} the same weights in each: leave one of them out"
        )
    if data.classes is not None and len(set(data.classes)) != len(data.classes):
        errors.append(f"data.classes={data.classes} names a class twice")
    if data.classes is not None and len(data.classes) < 2:
        errors.append(f"data.classes={data.classes} leaves fewer than two classes")
    if len(data.mean) != len(data.std):
        errors.append(f"data.mean={data.mean} and data.std={data.std} differ in length")
    for name, low, high in (("crop_area", 0.0, 1.0), ("crop_aspect", 0.0, math.inf)):
        bounds = getattr(data, name)
        if len(bounds) != 2 or not low < bounds[0] <= bounds[1] <= high:
            errors.append(
                f"data.{name}={bounds} must be two values above 0, the smaller first"
                + (" and none above 1" if high == 1 else "")
            )
    if data.image_size and data.stored_size and data.image_size > data.stored_size:
        errors.append(
            f"data.image_size={data.image_size} is larger than data.stored_size={data.stored_size}"
        )
    return errors


def _check_steps(config: Config) -> None:
    """Whether there are as many examples as a batch has, and steps as are rewound to or changed."""
    spe, mask = epoch_steps(config), config.mask
    steps = config.trainer.epochs * spe
    config.schedule.check(steps, spe)
    if mask.during is not None:
        Course(mask.during, mask.percentile, mask.scope, config.seed, 0, steps).changes  # noqa: B018
    for name, value, points in (
        ("rewind.step", config.rewind.step, (config.rewind.point,)),
        ("mask.at", mask.at, scored(config)),
    ):
        if any(point.step(spe) > steps for point in points):
            raise ConfigError(
                f"{name}={value} lies after the {steps} steps of "
                f"trainer.epochs={config.trainer.epochs}"
            )


def _check_rounds(config: Config) -> None:
    """Whether the pattern takes every percentile on the way, those within a score among them."""
    mask, before = config.mask, 0.0
    ladder = rounds(mask.percentile, mask.rate)
    for number, percentile in enumerate(ladder if mask.percentile > 0 else (), start=1):
        try:
            mask.pattern.check(Target(percentile, mask.scope, before))
        except ConfigError as error:
            of = f" (in round {number} of {len(ladder)})" if len(ladder) > 1 else ""
            raise ConfigError(f"{error}{of}") from error
        for within in inner_percentiles(mask.score, percentile, before):
            try:
                mask.pattern.check(Target(within, mask.scope, before))
            except ConfigError as error:
                raise ConfigError(
                    f"mask.score={mask.score.name} prunes in rounds of its own, and "
                    f"mask.pattern={mask.pattern.name} does not take their percentiles, the first "
                    f"of which is {within:.4g}: choose another of them"
                ) from error
        before = percentile


def _check_scope(config: Config) -> None:
    mask = config.mask
    if isinstance(mask.scope, Rates):
        mask.scope.check(skip_first=mask.skip_first, skip_last=mask.skip_last)
    if isinstance(mask.scope, Lamp) and mask.percentile > 0 and signed(mask.score):
        raise ConfigError(
            f"mask.scope=lamp squares scores, and those of mask.score={mask.score.name} may be "
            "negative: choose mask.scope=global or another mask.score"
        )


def _check_score(config: Config) -> None:
    mask = config.mask
    if mask.percentile > 0 and START in scored(config) and "initial" in needs(mask.score):
        raise ConfigError(
            f"mask.score={mask.score.name} compares weights with those at initialisation, and "
            f"mask.at={mask.at} scores just these: set mask.at=end or choose another mask.score"
        )


def _check_class_weights(config: Training) -> None:
    if config.trainer.class_weights is not None:
        class_weights.given(config.trainer.class_weights, describe(config.data).classes)


def _check_weights(config: Config) -> None:
    """Whether the weights to begin with are there, and finite; if they fit is seen later."""
    if config.model.weights:
        pretrained.digest(config.model.weights)


def check_reached(config: Config, lineage_of: Callable[[Any, Store], Lineage]) -> None:
    """Whether a dense network that a callback has stopped has the states that are still needed.

    Raises :class:`ConfigError` for a point that it has not reached.
    """
    if not deciding(config.callback):
        return
    chain = lineage_of(config, Store(config.paths.store))
    if chain.dense is None or not chain.dense.done:
        return
    begin = [(r.ticket, r.first) for r in chain.rounds if r.rewinding.takes_point]
    begin += [(branch.node, branch.first) for branch in chain.branches]
    points = [first for node, first in begin if not node.done]
    if not all(mask.done for mask in chain.masks):
        points += scored(config)
    for point in points:
        refuse_beyond(Run(chain.dense.path), point)


CHECKS = (
    _check_weights,
    _check_class_weights,
    _check_steps,
    _check_rounds,
    _check_scope,
    _check_score,
)
"""What must hold of a network that is trained from fresh weights, and of what is pruned in it."""
