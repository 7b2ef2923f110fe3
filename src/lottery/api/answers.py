"""What a study answers: a training, or a sweep, and the folder in which its results are."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lottery import files, studies
from lottery.api import session
from lottery.results import Result
from lottery.runs import Run

if TYPE_CHECKING:
    import keras
    import pandas as pd

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Answer:
    """A finished training: a dense network, a ticket, or a ticket that was moved."""

    folder: Path
    """Where its ``result.json`` is."""
    outputs: str
    """Where further results of it go."""

    @functools.cached_property
    def result(self) -> Result:
        """What ``result.json`` holds."""
        return studies.read_file(self.folder / "result.json")

    @property
    def run(self) -> Run:
        """The run in the store that it is about."""
        return self.result.main

    @property
    def runs(self) -> dict[str, Run]:
        """All that it tells of, such as ``dense`` and ``ticket``, or the controls of a transfer."""
        return self.result.trainings

    @property
    def metrics(self) -> dict[str, Any]:
        """Final metrics: ``val_top1``, ``test_top1``, ``seconds`` and so on."""
        return self.run.result

    @property
    def mask(self) -> dict[str, Array]:
        """Boolean survivors by variable path; empty for a dense network."""
        return self.run.mask

    @property
    def history(self) -> "pd.DataFrame":
        """One row an epoch: ``epoch``, ``loss``, ``top1``, ``val_top1``, …"""
        return self.run.history

    def weights(self, at: Any = None) -> dict[str, Array]:
        """All variables by path; at a point of training that was kept, or at the end."""
        return self.run.weights(at)

    def model(self, at: Any = None) -> "keras.Model":
        """The network in Keras, from normalised examples to logits."""
        return self.run.model(at)

    def report(self) -> None:
        """Print what it came to, as the script does."""
        self.result.show(self.folder / "result.json")

    def export(
        self,
        format: Sequence[str] = ("keras", "litert"),  # noqa: A002  as export.py calls it
        *options: str,
        benchmark: bool = False,
    ) -> Path:
        """The folder with files of the ticket for other runtimes, and ``export.json``.

        ``options`` are those of export.py. With ``benchmark`` they are measured against dense.
        """
        from lottery.export import job

        job.register_schema()
        place = Path(self.outputs, "export", self.run.key).resolve()
        overrides = [
            session.value("ticket", str(self.folder)),
            session.value("paths.outputs", str(Path(self.outputs).resolve())),
            session.value("output", str(place)),
            session.value("format", list(format)),
            session.value("benchmark", benchmark),
            "force=true",
            *options,
        ]
        session.tool("export", job.main, job.Options, overrides)
        return place


@dataclass(frozen=True)
class Sweep:
    """A finished sweep, its cells and its verdict."""

    folder: Path
    """Where its jobs' folders and its report are."""
    outputs: str
    """Where further results of it go."""

    @property
    def cells(self) -> "pd.DataFrame":
        """One row a cell, as ``report/cells.csv`` has it."""
        import pandas as pd

        return pd.read_parquet(self.folder / "report" / "cells.parquet")

    @property
    def verdict(self) -> dict[str, Any]:
        """What ``report/winning_ticket.json`` has."""
        found: dict[str, Any] = files.read_json(self.folder / "report" / "winning_ticket.json")
        return found

    @property
    def winner(self) -> Answer | None:
        """The sparsest ticket that matches dense, of its first seed; None if there is none."""
        won = self.verdict["winner"]
        return Answer(Path(won["runs"][0]["folder"]), self.outputs) if won else None

    def report(self) -> Path:
        """Print the tables and the verdict; returns the page, ``report.html``."""
        from lottery.analysis import report
        from lottery.analysis.report_options import Options, Wandb

        report.publish(Options(sweep=str(self.folder), logger=Wandb("disabled")))
        return self.folder / "report" / "report.html"
