"""Tickets on other data: what transfer.py left, and its controls, brought together over seeds."""

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lottery.analysis.collect import Cell
from lottery.analysis.selection import Judged
from lottery.analysis.table import seen
from lottery.points import columns
from lottery.studies.transfer import ACCURACIES, TRAINED, Moved
from lottery.studies.transfer import METRICS as NEEDED
from lottery.transfer import TITLES

ORDER = tuple(TITLES)
OPTIONAL = ("val_loss", "test_loss", "images_per_second", "density_of_kernels")
METRICS = (*NEEDED, *OPTIONAL)
_LISTED = 12  # class names that fit a title


@dataclass(frozen=True)
class Trained:
    """One network on the new data, the ticket or a control: its metrics, or why there are none.

    Accuracies are shares of 1, ``density`` is the share of its prunable weights that is left and
    ``density_of_kernels`` that of the weights of all kernels;
    ``file`` is the result.json that has it.
    """

    file: Path
    name: str
    title: str
    key: str | None
    metrics: Mapping[str, float | None]
    missing: str | None = None


@dataclass(frozen=True)
class Transfer:
    """One ticket of the study, moved once: the job's settings and its runs in order."""

    file: Path
    judged: Judged
    cell: Cell
    data: str
    classes: tuple[str, ...]
    settings: Mapping[str, Any]
    runs: tuple[Trained, ...]
    seen: tuple[str, ...] = ()
    """Lines on held-out images that the ticket had seen before."""

    @property
    def target(self) -> str:
        """The data set, for people, with its classes if they are few."""
        few = len(self.classes) <= _LISTED and sum(map(len, self.classes)) <= 48
        classes = f"[{', '.join(self.classes)}]" if few else f"({len(self.classes)} classes)"
        return f"{self.data} {classes}" if self.classes else self.data

    @property
    def setup(self) -> str:
        """What has to be equal for two transfers to be the same experiment, except for seeds."""
        told = {k: v for k, v in self.settings.items() if k not in ("seed", "controls")}
        rates = [run.metrics.get("learning_rate") for run in self.runs if run.name == "ticket"]
        return json.dumps([self.data, self.classes, told, rates], sort_keys=True)

    @property
    def identity(self) -> tuple[str, ...]:
        """Of two transfers that share it the later one counts."""
        key = (self.cell.ticket or {})["key"]
        return key, self.setup, json.dumps(self.settings["seed"])

    @property
    def key(self) -> str | None:
        """Key of the ticket's run on the new data: what determines it is in it."""
        return next(run.key for run in self.runs if run.name == "ticket")


@dataclass(frozen=True)
class Spread:
    """Mean over tickets, and their standard deviation; None for one ticket."""

    mean: float
    sd: float | None


@dataclass(frozen=True)
class Row:
    """A kind of run over the tickets of several seeds; accuracies in percent.

    A control that does not depend on the ticket may be one run for all of them: it has no spread.
    ``difference`` is in points of validation top-1 from the ticket, seed by seed. ``missing`` says
    why there is nothing, or how many of the tickets have none.
    """

    name: str
    title: str
    values: Mapping[str, Spread]
    difference: Spread | None
    missing: str | None


@dataclass(frozen=True)
class Table:
    """The same transfer of the tickets of one place in the grid, one a seed."""

    target: str
    classes: int | None
    judged: Judged
    settings: Mapping[str, Any]
    seeds: tuple[int, ...]
    transfers: int
    rows: tuple[Row, ...]
    seen: tuple[str, ...] = ()

    @property
    def setting(self) -> str:
        """How the ticket was moved, in words, and what it had seen before of the images."""
        words = []
        words.append(f"{self.settings['weights']} weights")
        words.append(TRAINED[self.settings["train"]])
        seeds = ", ".join(map(str, self.seeds))
        words.append(f"seed{'s' if len(self.seeds) > 1 else ''} {seeds}")
        if self.transfers > len(self.seeds):
            words.append(f"{self.transfers} transfers")
        return "; ".join([", ".join(words), *self.seen])


def parse(moved: Moved, file: Path, judged: Judged, cell: Cell) -> list[Transfer]:
    """The transfer that a result.json of transfer.py tells of."""
    return [
        Transfer(
            file,
            judged,
            cell,
            moved.data["name"],
            tuple(map(str, moved.data["classes"])),
            moved.transfer,
            _in_order(_trained(run, file) for run in moved.runs),
            tuple(seen(moved.written())),
        )
    ]


def merged(found: Iterable[Transfer]) -> list[Transfer]:
    """Each transfer once, from all its repetitions, given oldest first.

    Controls may have been asked for in one and not in another: of every kind of run the latest
    counts, though no reason why there is none replaces a result. Where the settings look alike but
    the ticket's run is another, they were not the same experiment, and the latest counts whole.
    """
    same: dict[Any, Transfer] = {}
    for transfer in found:
        which = transfer.identity, transfer.key
        before = same.pop(which, None)  # it goes last
        same[which] = _joined(before, transfer) if before else transfer
    return list({transfer.identity: transfer for transfer in same.values()}.values())


def _joined(before: Transfer, after: Transfer) -> Transfer:
    runs = {run.name: run for run in before.runs}
    for run in after.runs:
        if not run.missing or run.name not in runs or runs[run.name].missing:
            runs[run.name] = run
    return replace(after, runs=_in_order(runs.values()))


def tables(found: Sequence[Transfer], winner: Judged | None = None) -> list[Table]:
    """One table a target, setting and place in the grid: by target, the winner first, sparsest."""
    groups: dict[Any, list[Transfer]] = defaultdict(list)
    for transfer in found:
        groups[transfer.setup, id(transfer.judged)].append(transfer)
    made = [_table(group) for group in groups.values()]
    return sorted(
        made, key=lambda t: (t.target, t.judged is not winner, t.judged.point.density or 0.0)
    )


def rows(found: Iterable[Transfer]) -> list[dict[str, Any]]:
    """One row a run of a transfer, also without a result. Accuracies are shares of 1."""
    return [
        {
            "data": transfer.data,
            "classes": " ".join(transfer.classes),
            "weights": transfer.settings["weights"],
            "train": transfer.settings["train"],
            "transfer_seed": transfer.settings["seed"],
            "cell": transfer.cell.name,
            "percentile": transfer.cell.percentile,
            **columns(transfer.cell.rewound),
            "seed": transfer.cell.seed,
            "run": run.name,
            "title": run.title,
            **{metric: run.metrics.get(metric) for metric in METRICS},
            "missing": run.missing,
            "key": run.key,
            "ticket": (transfer.cell.ticket or {})["key"],
            "seen": "; ".join(transfer.seen),
            "folder": str(run.file.parent.resolve()),
        }
        for transfer in found
        for run in transfer.runs
    ]


def _trained(run: Mapping[str, Any], file: Path) -> Trained:
    if "missing" in run:
        return Trained(file, run["name"], run["title"], None, {}, run["missing"])
    metrics = {metric: run.get(metric) for metric in METRICS}
    return Trained(file, run["name"], run["title"], run["key"], metrics)


def _in_order(runs: Iterable[Trained]) -> tuple[Trained, ...]:
    return tuple(sorted(runs, key=lambda run: _order(run.name)))


def _table(group: Sequence[Transfer]) -> Table:
    first = group[0]
    titles = {run.name: run.title for transfer in group for run in transfer.runs}
    return Table(
        first.target,
        len(first.classes) or None,
        first.judged,
        first.settings,
        tuple(sorted({transfer.cell.seed for transfer in group})),
        len(group),
        tuple(_row(name, titles[name], group) for name in sorted(titles, key=_order)),
        tuple(dict.fromkeys(line for transfer in group for line in transfer.seen)),
    )


def _row(name: str, title: str, group: Sequence[Transfer]) -> Row:
    """Over tickets; several transfers of one ticket count as their mean."""
    done: dict[int, list[Trained]] = defaultdict(list)
    ticket: dict[int, list[Trained]] = defaultdict(list)
    reasons = []
    for transfer in group:
        for run in transfer.runs:
            if run.name == name and run.missing:
                reasons.append(run.missing)
            elif run.name == name:
                done[transfer.cell.seed].append(run)
            if run.name == "ticket" and not run.missing:
                ticket[transfer.cell.seed].append(run)
    distinct = {frozenset(run.key for run in runs): runs for runs in done.values()}
    values = {
        metric: spread([_mean(runs, metric) for runs in distinct.values()])
        for metric in METRICS
        if done and (metric not in OPTIONAL or _known(metric, done.values()))
    }
    paired = [
        _mean(runs, "val_top1") - _mean(ticket[seed], "val_top1")
        for seed, runs in done.items()
        if seed in ticket
    ]
    seeds = {transfer.cell.seed for transfer in group}
    missing = reasons[0] if reasons and not done else None
    if done and len(done) < len(seeds):
        missing = f"{len(done)} of {len(seeds)} seeds"
    difference = spread(paired) if paired and name != "ticket" else None
    return Row(name, title, values, difference, missing)


def spread(values: Sequence[float]) -> Spread:
    """Mean and standard deviation of values, one a seed."""
    sd = statistics.stdev(values) if len(values) > 1 else None
    return Spread(statistics.fmean(values), sd)


def _known(metric: str, runs: Iterable[Sequence[Trained]]) -> bool:
    return all(run.metrics.get(metric) is not None for group in runs for run in group)


def _mean(runs: Sequence[Trained], metric: str) -> float:
    scale = 100.0 if metric in ACCURACIES or metric.startswith("density") else 1.0
    return scale * statistics.fmean(run.metrics[metric] or 0.0 for run in runs)


def _order(name: str) -> int:
    return ORDER.index(name) if name in ORDER else len(ORDER)
