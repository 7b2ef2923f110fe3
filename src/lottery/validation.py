"""Everything that can be known to be wrong before a job starts. Imports no TensorFlow."""

from collections.abc import Callable
from typing import Any

from lottery.config import Config, Training, range_errors
from lottery.errors import ConfigError, LotteryError
from lottery.lineage import epoch_steps, scored
from lottery.pruning.allocation import rounds
from lottery.pruning.allocations.rates import Rates
from lottery.pruning.units import Target


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


def _check_percentile(config: Config) -> None:
    rounds(config.mask.percentile, config.mask.rate)


def _check_steps(config: Config) -> None:
    """Whether there are as many examples as a batch has, and steps as are rewound to."""
    spe = epoch_steps(config)
    steps = config.trainer.epochs * spe
    for name, value, points in (
        ("rewind.step", config.rewind.step, (config.rewind.point,)),
        ("mask.at", config.mask.at, scored(config)),
    ):
        if any(point.step(spe) > steps for point in points):
            raise ConfigError(
                f"{name}={value} lies after the {steps} steps of "
                f"trainer.epochs={config.trainer.epochs}"
            )


def _check_mask(config: Config) -> None:
    mask = config.mask
    if mask.percentile > 0:
        mask.pattern.check(Target(mask.percentile, mask.scope))
    if isinstance(mask.scope, Rates):
        mask.scope.check(skip_first=mask.skip_first, skip_last=mask.skip_last)


CHECKS = (_check_percentile, _check_steps, _check_mask)
"""What must hold of a network that is trained from fresh weights, and of what is pruned in it."""
