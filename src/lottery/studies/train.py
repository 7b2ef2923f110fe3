"""A dense network, as train.py trains it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from lottery import fields
from lottery.config import Config
from lottery.results import Result
from lottery.studies import Study

if TYPE_CHECKING:
    from lottery.lineage import Lineage
    from lottery.runs import Run
    from lottery.store import Store
    from lottery.trainings import Laboratory


@dataclass(frozen=True)
class Trained(Result):
    """The metrics of the dense network, its ``key`` in the store among them."""

    study: ClassVar[str] = "train"
    what: ClassVar[str] = "a result of train.py"
    version: ClassVar[int] = 1

    dense: Mapping[str, Any]

    def check(self) -> None:
        """The network has a key."""
        fields.text(self.dense, "key")

    @property
    def trainings(self) -> "dict[str, Run]":
        """The dense network's."""
        return {"dense": self._stored("dense", self.dense)}

    @property
    def main(self) -> "Run":
        """The same."""
        return self.trainings["dense"]

    def show(self, path: Path) -> None:
        """Print its accuracies."""
        from lottery.analysis import table

        table.show(self.written(), path)


def run(config: Config, laboratory: "Laboratory") -> dict[str, Any]:
    """See :func:`lottery.experiment.dense_result`."""
    from lottery.experiment import dense_result

    return dense_result(config, laboratory)


def lineage(config: Config, store: "Store") -> "Lineage":
    """The dense network alone."""
    from lottery.lineage import dense_lineage

    return dense_lineage(config, store)


def check(config: Config) -> list[str]:
    """What is wrong with network, data and all other options."""
    from lottery import validation

    return validation.errors(config, *validation.CHECKS)


STUDY = Study(
    name="train",
    schema=Config,
    run=run,
    lineage=lineage,
    check=check,
    result=Trained,
    unreported="dense networks, no tickets",
)
