"""A winning ticket, as prune.py finds it: dense -> mask -> rewind -> retrain -> verdict."""

import functools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from lottery import fields
from lottery.config import Config
from lottery.errors import LotteryError
from lottery.results import Result
from lottery.studies import Study, train

if TYPE_CHECKING:
    from lottery.lineage import Lineage
    from lottery.runs import Run
    from lottery.store import Store
    from lottery.trainings import Laboratory

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pruned(Result):
    """Dense network against ticket, each with its ``key`` in the store and its metrics.

    ``mask`` is a :func:`lottery.pruning.masks.summary` with the percentile. ``rewind`` has name,
    epoch or step, and optimizer; what does not matter is None, and what starts afresh has epoch 0.
    ``matched`` is by validation top-1 within ``tolerance`` points; ``doubt`` says why that is worth
    little, if so. ``interval`` is the confidence interval of this ticket's true difference from
    dense, in points, at 1 - 2 ``level``; ``shown`` is whether a loss of more than the tolerance is
    ruled out by this run alone, None if nothing is tested (``level`` None).
    """

    study: ClassVar[str] = "prune"
    what: ClassVar[str] = "a result of prune.py"
    version: ClassVar[int] = 2

    dense: Mapping[str, Any]
    ticket: Mapping[str, Any]
    mask: Mapping[str, Any]
    rewind: Mapping[str, Any]
    matched: bool
    doubt: str | None
    tolerance: float
    level: float | None
    interval: Sequence[float]
    shown: bool | None

    def check(self) -> None:
        """Both networks have a key."""
        for run in (self.dense, self.ticket):
            fields.text(run, "key")

    @property
    def trainings(self) -> "dict[str, Run]":
        """The dense network's, and the ticket's."""
        both = {"dense": self.dense, "ticket": self.ticket}
        return {kind: self._stored(kind, about) for kind, about in both.items()}

    @property
    def main(self) -> "Run":
        """The ticket's."""
        return self.trainings["ticket"]

    def show(self, path: Path) -> None:
        """Print dense against ticket, and the verdict."""
        from lottery.analysis import table

        table.show(self.written(), path)


def run(config: Config, laboratory: "Laboratory") -> dict[str, Any]:
    """See :func:`lottery.experiment.find_ticket`."""
    from lottery.experiment import find_ticket

    return find_ticket(config, laboratory)


def lineage(config: Config, store: "Store") -> "Lineage":
    """The dense network, and masks and tickets of each round."""
    from lottery.lineage import lineage

    return lineage(config, store)


def parents(cells: Sequence[Config]) -> Study:
    """Trains the dense network of cells, with its states and masks that they begin with."""
    return replace(train.STUDY, run=functools.partial(_prepare, cells=tuple(cells)))


def _prepare(config: Config, laboratory: "Laboratory", cells: Sequence[Config]) -> dict[str, Any]:
    from lottery.experiment import prepare

    return prepare(config, laboratory, cells)


def early(config: Config, laboratory: "Laboratory") -> "Run":
    """See :func:`lottery.experiment.train_early`."""
    from lottery.experiment import train_early

    return train_early(config, laboratory)


def conclude(config: Config, folder: Path, planned: Mapping[str, float]) -> None:
    """Write the report, and the plan and the verdict as a W&B run of the sweep itself."""
    from lottery import files
    from lottery.analysis import report, report_options
    from lottery.tracking import Tracker

    if not config.sweep.report:
        return
    logger = config.logger
    wanted = report_options.Wandb(
        mode=logger.mode if logger.name == "wandb" else "disabled",
        project=logger.project,
        entity=logger.entity,
    )
    try:
        verdict = report.publish(report_options.Options(sweep=str(folder), logger=wanted))
    except LotteryError as error:
        log.warning("no report: %s", error)
        return
    if wanted.mode != "disabled" and planned["jobs"]:
        tracker = Tracker(logger, folder, folder.name, {"plan": planned})
        with tracker.wandb_run(f"sweep-{folder.name}", "sweep") as run:
            winner = files.read_json(folder / "report" / "winning_ticket.json")
            run.summary.update({"plan": planned, "verdict": verdict, "winner": winner["winner"]})


def check(config: Config) -> list[str]:
    """What is wrong with network, data and all other options, and with where it begins again."""
    from lottery import validation

    reached = functools.partial(validation.check_reached, lineage_of=lineage)
    return validation.errors(config, *validation.CHECKS, reached)


STUDY = Study(
    name="prune",
    schema=Config,
    run=run,
    lineage=lineage,
    check=check,
    result=Pruned,
    parents=parents,
    early=early,
    conclude=conclude,
    # For the report, whose plan and verdict go to W&B too.
    read_once=("logger.name", "logger.mode", "logger.project", "logger.entity"),
)
