"""Where a run's metrics go while it trains: the terminal, the log, W&B."""

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lottery.config import Logger
from lottery.errors import StoppedError

log = logging.getLogger(__name__)


class HiddenOnTerminal(logging.Filter):
    """Keeps epoch lines off a console that shows progress bars; the log file has them."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to show a record."""
        epoch_line = record.name == "lottery.training.callbacks" and record.levelno == logging.INFO
        return not (epoch_line and sys.stdout.isatty())


@dataclass(frozen=True)
class Track:
    """What follows one run while it trains, and where its final figures go."""

    callbacks: list[Any]
    summarise: Callable[[dict[str, Any]], None] = lambda summary: None
    log: Callable[[dict[str, Any]], None] = lambda row: None
    """Takes a row of metrics.csv of an epoch that is trained already."""


@dataclass(frozen=True)
class Tracker:
    """How the runs of one job are tracked."""

    logger: Logger
    output: Path
    group: str
    config: dict[str, Any]

    @contextlib.contextmanager
    def run(
        self, key: str, job_type: str, tags: tuple[str, ...] = (), name: str | None = None
    ) -> Iterator["Track"]:
        """What follows one run; its W&B run ends as failed if the block raises."""
        from lottery.training.callbacks import EpochLines, ProgressBar

        log.info("training %s %s", job_type, key)
        callbacks: list[Any] = [EpochLines()]
        if sys.stdout.isatty():
            callbacks.append(ProgressBar())
        if self.logger.name == "wandb" and self.logger.mode != "disabled":
            with self.wandb_run(key, job_type, tags, name) as run:
                yield Track([*callbacks, _wandb_callback(run)], run.summary.update, run.log)
        else:
            yield Track(callbacks)

    @contextlib.contextmanager
    def wandb_run(
        self, key: str, job_type: str, tags: tuple[str, ...] = (), name: str | None = None
    ) -> Iterator[Any]:
        """A W&B run of that id; it ends as preempted or failed if the block is left so.

        ``name`` is for people.
        """
        for kind in ("DATA", "CACHE", "CONFIG"):  # home directories on clusters have small quotas
            os.environ.setdefault(f"WANDB_{kind}_DIR", str(self.output.resolve() / "wandb"))
        import wandb

        run = wandb.init(
            id=key,
            name=name or key,
            job_type=job_type,
            group=self.logger.group or self.group,
            project=self.logger.project,
            entity=self.logger.entity,
            tags=[*self.logger.tags, *tags],
            config=self.config,
            dir=str(self.output),
            mode=self.logger.mode,  # type: ignore[arg-type]
            resume="allow" if self.logger.mode == "online" else None,
            settings=wandb.Settings(silent=True, console="off"),
        )
        run.define_metric("epoch")
        run.define_metric("*", step_metric="epoch")
        try:
            yield run
        except BaseException as error:
            if isinstance(error, SystemExit | StoppedError):  # to be continued, in the same run
                run.mark_preempting()
            run.finish(exit_code=1)
            raise
        run.finish()


def _wandb_callback(run: Any) -> Any:
    import keras

    class WandbMetrics(keras.callbacks.Callback):  # type: ignore[misc]
        """Logs every epoch, with the number of complete epochs as the axis."""

        def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            run.log({"epoch": epoch + 1, **(logs or {})})

    return WandbMetrics()
