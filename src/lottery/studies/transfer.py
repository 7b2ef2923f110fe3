"""A ticket on other data, and its controls, as transfer.py runs them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from lottery import fields
from lottery.config import TransferConfig
from lottery.results import Result
from lottery.studies import Study

if TYPE_CHECKING:
    from lottery.lineage import Lineage
    from lottery.runs import Run
    from lottery.store import Store
    from lottery.trainings import Laboratory


TRAINED = {"all": "all layers trained", "head": "only the head trained"}
ACCURACIES = ("val_top1", "val_top5", "test_top1", "test_top5")
METRICS = (*ACCURACIES, "density", "epochs", "learning_rate", "seconds")
"""What each run of a transfer has; accuracies and density are shares of 1."""


@dataclass(frozen=True)
class Moved(Result):
    """The ticket, the data that it was moved to, how, and the runs: its own and the controls'.

    ``seen`` is what :func:`lottery.transfer.seen_images` found. A run has ``name`` and ``title``,
    and either ``key``, density and metrics, or in ``missing`` why there is none.
    """

    study: ClassVar[str] = "transfer"
    what: ClassVar[str] = "a result of transfer.py"
    version: ClassVar[int] = 1

    ticket: Mapping[str, Any]
    data: Mapping[str, Any]
    transfer: Mapping[str, Any]
    seen: Sequence[Mapping[str, Any]]
    runs: Sequence[Mapping[str, Any]]

    def check(self) -> None:
        """Everything that describes the transfer, and a run of the ticket among the runs."""
        for name in ("key", "digest", "file", "network", "data"):
            fields.text(self.ticket, name)
        fields.number(self.ticket, "density")
        fields.text(self.data, "name")
        fields.entries(self.data, "classes")
        fields.text(self.transfer, "weights")
        fields.number(self.transfer, "seed")
        if (train := fields.text(self.transfer, "train")) not in TRAINED:
            raise ValueError(f"transfer.train={train} is unknown")
        for entry in self.seen:
            fields.text(entry, "data")
            fields.text(entry, "unknown" if "unknown" in entry else "told", empty=True)
        for run in self.runs:
            fields.text(run, "name")
            fields.text(run, "title")
            if "missing" in run:
                fields.text(run, "missing")
                continue
            fields.text(run, "key")
            for metric in METRICS:
                fields.number(run, metric)
        if "ticket" not in self.trainings:
            raise ValueError("runs has none of the ticket")

    @property
    def trainings(self) -> "dict[str, Run]":
        """The moved ticket's, and those of the controls that could be run."""
        done = (row for row in self.runs if "key" in row)
        return {row["name"]: self._stored("transfer", row) for row in done}

    @property
    def main(self) -> "Run":
        """The moved ticket's."""
        return self.trainings["ticket"]

    def show(self, path: Path) -> None:
        """Print the ticket and its controls."""
        from lottery.analysis import table

        table.show_transfer(self.written(), path)


def run(config: TransferConfig, laboratory: "Laboratory") -> dict[str, Any]:
    """See :func:`lottery.transfer.transfer`."""
    from lottery.transfer import transfer

    return transfer(config, laboratory)


def lineage(config: TransferConfig, store: "Store") -> "Lineage":
    """The moved ticket, then the controls whose identity is known."""
    from lottery import transfer

    return transfer.lineage(config, store)


def check(config: TransferConfig) -> list[str]:
    """Whether ticket, data and controls go together."""
    from lottery import transfer, validation

    return validation.errors(config, transfer.check)


def conclude(config: TransferConfig, folder: Path, planned: Mapping[str, float]) -> None:
    """Print the tables of the cells' transfers, brought together over seeds."""
    from lottery.analysis import deployment_tables

    deployment_tables.show_sweep([folder / str(number) for number in range(int(planned["cells"]))])


STUDY = Study(
    name="transfer",
    schema=TransferConfig,
    run=run,
    lineage=lineage,
    check=check,
    result=Moved,
    conclude=conclude,
    unreported=(
        "its tickets' own sweep shows them: report.py sweep=<the sweep that found the tickets>"
    ),
)
