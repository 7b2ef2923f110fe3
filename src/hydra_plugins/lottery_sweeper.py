"""Hydra's grid sweeper with ellipses, and with every job checked before any is launched.

A thin shell over :mod:`lottery.sweep`. (Hydra imports this file for every command: keep it light,
and free of ``from __future__ import annotations``, which breaks its dataclasses.)
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper, BasicSweeperConf
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import ChoiceSweep, Override
from hydra.errors import ConfigCompositionException

log = logging.getLogger(__name__)


@dataclass
class LotterySweeperConf(BasicSweeperConf):
    """Options of the sweeper: those of Hydra's basic one."""

    _target_: str = "hydra_plugins.lottery_sweeper.LotterySweeper"


ConfigStore.instance().store(
    group="hydra/sweeper", name="lottery", node=LotterySweeperConf, provider="lottery"
)


class LotterySweeper(BasicSweeper):
    """All combinations of the swept values."""

    @staticmethod
    def split_arguments(
        overrides: list[Override], max_batch_size: int | None
    ) -> list[list[list[str]]]:
        """The overrides of each job, in batches, ellipses expanded."""
        expanded = [_expanded(o) for o in overrides]
        return BasicSweeper.split_arguments(expanded, max_batch_size)

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Compose and check all jobs of all batches, the first time; report every error at once."""
        if self.batch_index > 1:
            return
        assert self.overrides is not None
        wrong: dict[str, list[str]] = {}  # error -> the jobs that have it
        for overrides in (job for jobs in self.overrides for job in jobs):
            for error in self._errors(overrides):
                wrong.setdefault(error, []).append(" ".join(overrides))
        if wrong:
            lines = [
                f"  {error}  [{jobs[0]}{f' and {len(jobs) - 1} more' if jobs[1:] else ''}]"
                for error, jobs in wrong.items()
            ]
            raise ConfigCompositionException("\n".join(["nothing was launched:", *lines]))

    def _errors(self, overrides: Sequence[str]) -> list[str]:
        """What is wrong with one job: it cannot be composed, or it cannot run."""
        from lottery import validation
        from lottery.cli import explain
        from lottery.config import typed

        assert self.hydra_context is not None
        assert self.config is not None
        try:
            config = self.hydra_context.config_loader.load_sweep_config(
                master_config=self.config, sweep_overrides=list(overrides)
            )
            return validation.errors(typed(config))
        except Exception as error:
            message = explain(error)
            if message is None:
                raise
            return [message]


def _expanded(override: Override) -> Override:
    from lottery.errors import LotteryError
    from lottery.sweep.progression import ELLIPSIS, expand

    sweep = override.value()
    if not isinstance(sweep, ChoiceSweep) or ELLIPSIS not in sweep.list:
        return override
    try:
        values = expand(override.get_key_element(), [str(v) for v in sweep.list])
    except LotteryError as error:
        raise ConfigCompositionException(str(error)) from None
    log.info("%s=%s", override.get_key_element(), ",".join(values))
    choices: list[Any] = list(values)
    return replace(override, _value=replace(sweep, list=choices))
