"""A ticket on other data, and its controls, as transfer.py runs them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from lottery.config import TransferConfig
from lottery.results import Result
from lottery.studies import Study

if TYPE_CHECKING:
    from lottery.experiment import Laboratory
    from lottery.lineage import Lineage
    from lottery.runs import Run
    from lottery.store import Store


@dataclass(frozen=True)
class Moved(Result):
    """The ticket, the data that it was moved to, how, and the runs: its own and the controls'.

    ``seen`` is what :func:`lottery.transfer.seen_images` found. A run has ``name`` and ``title``,
    and either ``key``, density and metrics, or in ``missing`` why there is none.
    """

    study: ClassVar[str] = "transfer"
    version: ClassVar[int] = 1

    ticket: Mapping[str, Any]
    data: Mapping[str, Any]
    transfer: Mapping[str, Any]
    seen: Sequence[Mapping[str, Any]]
    runs: Sequence[Mapping[str, Any]]

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


def conclude(config: TransferConfig, folder: Path, planned: Mapping[str, int]) -> None:
    """Print the tables of the cells' transfers, brought together over seeds."""
    from lottery.analysis import deployment_tables

    deployment_tables.show_sweep([folder / str(number) for number in range(planned["cells"])])


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
