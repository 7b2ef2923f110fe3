"""Everything that can be known to be wrong before a job starts. Imports no TensorFlow."""

from collections.abc import Callable
from typing import Any

from lottery.config import Config, Training, TransferConfig, range_errors
from lottery.data import describe
from lottery.data.splits import steps_per_epoch
from lottery.errors import LotteryError
from lottery.pruning import criteria
from lottery.pruning.allocation import rounds


def errors(config: Training) -> list[str]:
    """One line for each thing wrong with a configuration; empty if it can run."""
    found = range_errors(config)
    checks: list[Callable[[], Any]] = []
    if isinstance(config, TransferConfig):
        checks.append(lambda: _check_transfer(config))
    if isinstance(config, Config):
        checks += [
            lambda: rounds(config.mask.percentile, config.mask.rate),
            lambda: _check_data(config),
            lambda: criteria.find(config.mask.criterion),
        ]
    for check in checks if not found else []:
        try:
            check()
        except LotteryError as error:
            found.append(str(error))
    return found


def _check_transfer(config: TransferConfig) -> None:
    from lottery import transfer  # which imports what trains

    transfer.check(config)


def _check_data(config: Training) -> None:
    sizes = describe(config.data).sizes
    steps_per_epoch(sizes["train"], config.trainer.batch_size)
