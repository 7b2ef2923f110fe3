"""What tickets cost beside their dense networks, and a study in all: which sparsity pays where.

Runs that are older than these records, or had no GPU to ask, tell nothing: then nothing is said.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from lottery.analysis import layers
from lottery.analysis.collect import Cell, Study
from lottery.analysis.grids import by_series
from lottery.analysis.selection import Judged, Selection
from lottery.runs import Run

SHARES = {
    "surviving": "multiply-adds of an image by the weights that are left",
    "computed": "those that are really computed",
    "training": "multiply-adds of the whole training",
    "step": "time of a training step, taking turns with dense",
    "energy": "of the GPUs over the whole training",
}
"""What is told of a ticket, as shares of what its dense network takes."""


def shares(dense: Mapping[str, Any], ticket: Mapping[str, Any]) -> dict[str, float]:
    """Those of :data:`SHARES` that two results tell."""
    work, step = ticket.get("multiply_adds"), ticket.get("step_time")
    found = {}
    if work:
        found = {name: work[name] / work["network"] for name in ("surviving", "computed")}
    for name, metric in (("training", "training_multiply_adds"), ("energy", "gpu_energy_joules")):
        if dense.get(metric) and metric in ticket:
            found[name] = ticket[metric] / dense[metric]
    if step:
        found["step"] = step["ratio"]
    return {name: found[name] for name in SHARES if name in found}


def of_points(points: Iterable[Judged]) -> dict[str, tuple[float, ...]]:
    """The same of all tickets of some points, one value a ticket that tells it, ascending."""
    told = [shares(c.dense or {}, c.ticket or {}) for j in points for c in j.point.done]
    found = {name: tuple(sorted(t[name] for t in told if name in t)) for name in SHARES}
    return {name: values for name, values in found.items() if values}


def sentence(dense: Mapping[str, Any], ticket: Mapping[str, Any]) -> str | None:
    """The same of one ticket for people; None if nothing is told."""
    found = shares(dense, ticket)
    words = []
    if "surviving" in found:
        left, computed = (f"{100 * found[name]:.3g} %" for name in ("surviving", "computed"))
        words.append(
            f"an image takes {left} of its multiply-adds by the weights that are left, {computed} "
            "as computed"
        )
    if "step" in found:
        words.append(f"a step takes {100 * found['step']:.3g} % of its time")
    if "energy" in found:
        own, rival = (energy(run["gpu_energy_joules"]) for run in (ticket, dense))
        words.append(f"the training took {own}, that of dense {rival}")
    return f"against dense: {'; '.join(words)}" if words else None


@dataclass(frozen=True)
class Row:
    """Tickets of one percentile, all seeds and rewind points of a series together."""

    series: str
    percentile: float
    left: float
    """Share of the weights that is left, by what decides in the study."""
    shares: Mapping[str, tuple[float, ...]]

    def texts(self, names: Iterable[str]) -> list[str]:
        """Its shares in percent, from the lowest to the highest."""
        return [_range([100 * v for v in self.shares.get(name, ())]) for name in names]


def rows(judged: Iterable[Judged]) -> list[Row]:
    """One a series and percentile, of those that tell anything."""
    made = []
    for series, members in by_series(j for j in judged if j.point.done).items():
        for percentile in sorted({j.point.percentile for j in members}):
            alike = [j for j in members if j.point.percentile == percentile]
            if found := of_points(alike):
                made.append(Row(series, percentile, alike[0].share or 0.0, found))
    return made


def columns(shown: Sequence[Row]) -> list[str]:
    """Those of :data:`SHARES` that one of them has."""
    return [name for name in SHARES if any(name in row.shares for row in shown)]


def legend(names: Iterable[str]) -> list[str]:
    """What the columns are, one sentence each."""
    return [f"{name}: {SHARES[name]}" for name in names]


TITLE = "what a ticket takes, in percent of its dense network"


def table(chosen: Selection) -> Table | None:
    """A row a percentile or, of several series, a ticket of each that is about as sparse.

    None if nothing is told.
    """
    focus = chosen.focus
    if focus is None:
        return None
    if len(by_series(chosen.judged)) > 1:
        head, alike = "", layers.beside(chosen, focus)
        shown = [(layers.named(j, focus), row) for j in alike for row in rows([j])]
    else:
        head, shown = "pruned", [(f"{row.percentile:g} %", row) for row in rows(chosen.judged)]
    names = columns([row for _, row in shown])
    if not names:
        return None
    made = Table(
        box=SIMPLE_HEAD,
        pad_edge=False,
        title=TITLE,
        caption="\n".join(legend(names)),
        caption_style="dim",
        caption_justify="left",
    )
    for title in (head, "left", *names):
        made.add_column(title, justify="right" if title else "left", no_wrap=True)
    for name, row in shown:
        made.add_row(name, f"{100 * row.left:.4g} %", *row.texts(names))
    return made


# -- the whole study -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """What trainings have cost together; None: not all of them tell it."""

    trainings: int
    images: int | None
    multiply_adds: int | None
    seconds: float | None
    joules: float | None

    @staticmethod
    def once(results: Mapping[str, Mapping[str, Any]]) -> "Cost":
        """Those of trainings, by key; what one has gone on from counts once.

        That is with the training that did it, if it is among them, or else with the one that has
        gone on from most of it.
        """
        part: dict[str, list[Mapping[str, Any]]] = {}
        for result in results.values():
            if begun := result.get("went_on_from"):
                about = {**begun, "training_multiply_adds": _multiply_adds(result, begun)}
                part.setdefault(str(begun["key"]), []).append(about)
        twice = []
        for key, parts in part.items():
            parts.sort(key=lambda p: int(p["images_trained"]))
            twice += parts if key in results else parts[:-1]
        return Cost.of(results.values())._without(Cost.of(twice))

    def _without(self, other: "Cost") -> "Cost":
        """Less what others have cost, of as many trainings."""

        def left(name: str) -> Any:
            own, theirs = getattr(self, name), getattr(other, name)
            return None if own is None or theirs is None else own - theirs

        return Cost(self.trainings, *(left(f.name) for f in fields(self)[1:]))

    @staticmethod
    def of(results: Iterable[Mapping[str, Any]]) -> "Cost":
        """The sums over their results."""
        told = list(results)

        def total(name: str) -> Any:
            return sum(r[name] for r in told) if all(name in r for r in told) else None

        return Cost(
            len(told), total("images_trained"), total("training_multiply_adds"),
            total("seconds"), total("gpu_energy_joules"),
        )  # fmt: skip


def of_study(study: Study) -> tuple[Cost, Cost]:
    """What all trainings behind the cells have cost, each counted once; and once for each cell.

    That is dense networks, rounds of iterative masks, tickets, controls and confirmations. Not
    counted: epochs that were replayed, and passes that only score weights.
    """
    by_cell = [_runs(cell) for cell in study.cells]
    shared = {key: result for runs in by_cell for key, result in runs.items()}
    return Cost.once(shared), Cost.of(r for runs in by_cell for r in runs.values())


def study_lines(study: Study) -> Iterator[str]:
    """The same in words; nothing of a study without a result."""
    cost, alone = of_study(study)
    if not cost.trainings:
        return
    words = [
        f"{cost.trainings:,} training{'s' * (cost.trainings > 1)}",
        *_told(cost.images, "{:,} images".format),
        *_told(cost.multiply_adds, lambda v: f"{count(v)} multiply-adds"),
        *_told(cost.seconds, lambda v: f"{v / 3600:,.3g} hours"),
        *_told(cost.joules, energy),
    ]
    yield f"The study cost {', '.join(words)}."
    if cost.trainings < alone.trainings:
        saved = [
            *_told(alone.multiply_adds, lambda v: f"{count(v)} multiply-adds"),
            *_told(alone.seconds, lambda v: f"{v / 3600:,.3g} hours"),
        ]
        yield (
            f"Without sharing, each cell would have trained all of its own: {alone.trainings:,} "
            f"trainings, {', '.join(saved)}."
        )


def count(number: float) -> str:
    """``4.1e15``."""
    return f"{number:.2e}".replace("e+", "e").replace("e0", "e")


def energy(joules: float) -> str:
    """``812 J``, ``12.3 kJ``, ``1.2 MJ``, or from a kilowatt-hour on ``1.5 kWh``."""
    for unit, name in ((3.6e6, "kWh"), (1e6, "MJ"), (1e3, "kJ")):
        if joules >= unit:
            return f"{joules / unit:,.3g} {name}"
    return f"{joules:.3g} J"


def _multiply_adds(result: Mapping[str, Any], begun: Mapping[str, Any]) -> int | None:
    """Of the images that a training has gone on from."""
    work = result.get("multiply_adds")
    return work and begun["images_trained"] * work["training"]


def _runs(cell: Cell) -> dict[str, Mapping[str, Any]]:
    """The results of what had to be trained for a cell, by key."""
    found = {str(r["key"]): r for r in (cell.dense, cell.ticket) if r and "key" in r}
    if cell.store and cell.ticket:
        try:
            before = Run(cell.store / "ticket" / str(cell.ticket["key"])).ancestors
            found |= {run.key: run.result for run in before}
        except (OSError, ValueError, KeyError):  # the store is elsewhere, or damaged
            pass
    return found


def _told(value: Any, words: Callable[[Any], str]) -> list[str]:
    return [] if value is None else [words(value)]


def _range(values: Sequence[float]) -> str:
    if not values:
        return ""
    low, high = f"{values[0]:.3g}", f"{values[-1]:.3g}"
    return low if low == high else f"{low}-{high}"
