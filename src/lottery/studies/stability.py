"""Two children of one state and the line between them, as stability.py measures them."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from lottery import fields
from lottery.config import StabilityConfig
from lottery.errors import ResultError
from lottery.results import Result
from lottery.studies import Study, train

if TYPE_CHECKING:
    from lottery.barriers import Line
    from lottery.lineage import Lineage
    from lottery.runs import Run
    from lottery.store import Store
    from lottery.trainings import Laboratory


@dataclass(frozen=True)
class Measured(Result):
    """The dense network, its two children and the error on the line between them.

    ``dense`` and each child have a ``key`` and metrics, a child its ``order`` too. ``mask`` is a
    :func:`lottery.pruning.masks.summary` with the key; None if the children are dense. ``line`` is
    a :class:`lottery.barriers.Line`, ``barriers`` its barriers in points of error, by statistics
    and split, and ``barrier`` the one that decides.
    """

    study: ClassVar[str] = "stability"
    what: ClassVar[str] = "a result of stability.py"
    version: ClassVar[int] = 1

    dense: Mapping[str, Any]
    mask: Mapping[str, Any] | None
    children: Sequence[Mapping[str, Any]]
    line: Mapping[str, Any]
    barriers: Mapping[str, Any]
    barrier: float

    def check(self) -> None:
        """All networks have a key, and the line is one."""
        for run in (self.dense, *self.children):
            fields.text(run, "key")
        if len(self.children) != 2:
            raise ValueError("there are not two children")
        try:
            self.measured  # noqa: B018  (raises)
        except ResultError as error:
            raise ValueError(str(error)) from None

    @property
    def measured(self) -> "Line":
        """The errors on the line."""
        from lottery.barriers import Line

        return Line.read(self.line)

    @property
    def trainings(self) -> "dict[str, Run]":
        """The dense network's, and the children's."""
        found = {"dense": self._stored("dense", self.dense)}
        for number, child in enumerate(self.children, start=1):
            found[f"child_{number}"] = self._stored("child", child)
        return found

    @property
    def main(self) -> "Run":
        """The first child's."""
        return self.trainings["child_1"]

    def show(self, path: Path) -> None:
        """Print the networks and the barrier."""
        from lottery.analysis.stability import show

        show(self, path)


def run(config: StabilityConfig, laboratory: "Laboratory") -> dict[str, Any]:
    """See :func:`lottery.stability.stability`."""
    from lottery.stability import stability

    return stability(config, laboratory)


def lineage(config: StabilityConfig, store: "Store") -> "Lineage":
    """The dense network, the rounds that the mask needs, the children and their line."""
    from lottery.stability import chain

    return chain(config, store)


def check(config: StabilityConfig) -> list[str]:
    """What is wrong with network, data, mask, and what the children begin with."""
    from lottery import stability, validation

    return validation.errors(config, *validation.CHECKS, stability.check)


def parents(cells: Sequence[StabilityConfig]) -> Study:
    """Trains the dense network of cells, with its states and masks that their children need."""
    return replace(train.STUDY, run=functools.partial(_prepare, cells=tuple(cells)))


def _prepare(
    config: StabilityConfig, laboratory: "Laboratory", cells: Sequence[StabilityConfig]
) -> dict[str, Any]:
    from lottery.stability import prepare

    return prepare(config, laboratory, cells)


def conclude(config: StabilityConfig, folder: Path, planned: Mapping[str, float]) -> None:
    """Print the barriers by rewind point, and leave them as stability.json and as a picture."""
    from lottery.analysis.stability import conclude as leave

    leave(folder)


STUDY = Study(
    name="stability",
    schema=StabilityConfig,
    run=run,
    lineage=lineage,
    check=check,
    result=Measured,
    parents=parents,
    conclude=conclude,
    unreported="children of dense networks, no tickets; its stability.json and barrier.png have it",
)
