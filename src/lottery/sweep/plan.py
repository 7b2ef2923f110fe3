"""What a sweep has to compute: dense networks first, then the cells, nothing twice."""

import dataclasses
import heapq
import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lottery import files
from lottery.beginnings import Beginnings, Wanted, of_nodes
from lottery.config import Config
from lottery.lineage import Lineage, epoch_steps, lineage, scored
from lottery.points import START, Point
from lottery.runs import Run
from lottery.store import Node, Store
from lottery.sweep.shares import Share, Shares, priced

Underway = Callable[[Node], str | None]
Chain = Callable[[Any, Store], Lineage]


@dataclass(frozen=True)
class Cell:
    """One combination of the swept values."""

    number: int
    overrides: tuple[str, ...]
    config: Any  # lottery.config.Config, or TransferConfig
    lineage: Lineage
    underway: str | None = None  # who computes it already
    shares: Mapping[str, Share] = field(default_factory=dict)
    begun: Mapping[str, float] = field(default_factory=dict)
    """By the key of a run the epochs that it need not train: a finished one began in the same way
    (:mod:`lottery.beginnings`)."""

    @property
    def done(self) -> bool:
        """Whether all that it is about is in the store."""
        return self.lineage.done

    @property
    def epochs(self) -> dict[str, float]:
        """Epochs to train for each of its runs, by the run's key."""
        return {k: e - self.begun.get(k, 0) for k, e in self._lengths.items()}

    @property
    def whole(self) -> dict[str, float]:
        """Those of the runs that are not in the store, with what finished ones have of them."""
        lengths = self._lengths
        return {n.key: lengths[n.key] for n in self.lineage.runs if not n.done}

    @property
    def _lengths(self) -> dict[str, float]:
        whole = self.config.trainer.epochs
        epochs: dict[str, float] = {node.key: whole for node in self.lineage.runs}
        later = [(step.ticket, step.first) for step in self.lineage.rounds]
        later += [(branch.node, branch.first) for branch in self.lineage.branches]
        for node, first in later:
            behind: float = first.epochs
            if first.steps:
                behind = first.step(spe := epoch_steps(self.config)) / spe
            epochs[node.key] = whole - behind
        return epochs

    @property
    def missing(self) -> dict[str, float]:
        """The same of those that are not in the store."""
        epochs = self.epochs
        return {n.key: epochs[n.key] for n in self.lineage.runs if not n.done}

    @property
    def price(self) -> dict[str, float]:
        """The same in epochs of the dense network: less where a training computes a part of it."""
        return priced(self.missing, {key: share.value for key, share in self.shares.items()})


@dataclass(frozen=True)
class Parent:
    """A dense network that cells wait for, or one that lacks a state they rewind to."""

    config: Config
    node: Node
    cells: tuple[Cell, ...]
    underway: str | None = None


@dataclass(frozen=True)
class Plan:
    """The cells of a sweep, and the jobs that compute what is missing.

    ``jobs`` are groups of cells that share a ticket still to be trained (rounds of one iterative
    chain, or cells that are the same). One job computes a group in turn, so no job waits for
    another.
    """

    cells: tuple[Cell, ...]
    parents: tuple[Parent, ...]
    jobs: tuple[tuple[Cell, ...], ...]

    @property
    def early(self) -> tuple[tuple[Cell, ...], ...]:
        """Those jobs whose ticket need not wait for the dense network that is to be trained."""
        waiting = {p.node.key for p in self.parents if not p.node.done and not p.underway}
        return tuple(
            cells
            for cells in self.jobs
            if (first := cells[0].lineage).early and first.parent in waiting and not first.last.done
        )

    @property
    def done(self) -> tuple[Cell, ...]:
        """Cells with nothing left to compute."""
        return tuple(c for c in self.cells if c.done)

    @property
    def underway(self) -> tuple[Cell, ...]:
        """Cells that another process or a submitted job computes."""
        return tuple(c for c in self.cells if c.underway and not c.done)

    @property
    def epochs(self) -> float:
        """Epochs to train, every shared run counted once."""
        return _shared(c.missing for job in self.jobs for c in job)

    @property
    def begun(self) -> float:
        """Epochs of the missing runs that shorter ones have trained already; not in ``epochs``."""
        cells = [c for job in self.jobs for c in job]
        return _shared(c.whole for c in cells) - self.epochs

    @property
    def price(self) -> float:
        """The same in epochs of the dense network that cost as many multiply-adds."""
        return _shared(c.price for job in self.jobs for c in job)

    @property
    def guessed(self) -> bool:
        """Whether its price is an estimate, for want of masks."""
        cells = [c for job in self.jobs for c in job]
        return any(s.guessed for c in cells for key, s in c.shares.items() if key in c.missing)

    @property
    def epochs_unshared(self) -> float:
        """The same if each of these cells trained its own dense network and rounds."""
        return sum(e for job in self.jobs for c in job for e in c.missing.values())


def _shared(epochs: Iterable[Mapping[str, float]]) -> float:
    """Their sum, each run counted once: as long as the cell says that leaves most to train.

    A dense network goes on from a state only if that leaves none behind that a cell needs.
    """
    most: dict[str, float] = {}
    for of_cell in epochs:
        for key, count in of_cell.items():
            most[key] = max(count, most.get(key, 0))
    return sum(most.values())


def make(
    cells: Iterable[tuple[Sequence[str], Config]],
    store: Store,
    underway: Underway = lambda node: None,
    *,
    chain: Chain = lineage,
    first: int = 0,
    candidates: Iterable[Cell] = (),
) -> Plan:
    """The plan of a sweep, or of one wave of it, whose cells are numbered from ``first``.

    ``underway`` names who computes a node at the moment, if anyone. ``chain`` names the runs of a
    cell; those without rounds wait for no dense network. A dense network that is trained keeps the
    states that ``candidates`` of later waves would rewind to: its own, or, if it is that of a fresh
    seed, any.
    """
    grid = []
    for cell in cells_of(cells, store, chain=chain, first=first):
        others = [underway(node) for node in cell.lineage.told if not node.done]
        who = others[0] if others and all(others) and not cell.lineage.nameless else None
        grid.append(replace(cell, underway=who))
    open_cells = [c for c in grid if not c.done and not c.underway]
    return Plan(
        tuple(grid),
        _parents(open_cells, store, underway, candidates),
        _jobs(open_cells),
    )


def cells_of(
    cells: Iterable[tuple[Sequence[str], Config]],
    store: Store,
    *,
    chain: Chain = lineage,
    first: int = 0,
) -> list[Cell]:
    """The cells of these overrides and configs, with the runs of each."""
    shares, beginnings, made = Shares(store), Beginnings(store), []
    for number, (overrides, config) in enumerate(cells, start=first):
        runs = chain(config, store)
        own, begun = shares.of(config, runs), _begun(config, runs, beginnings)
        made.append(Cell(number, tuple(overrides), config, runs, shares=own, begun=begun))
    return made


def _begun(config: Any, runs: Lineage, beginnings: Beginnings) -> dict[str, float]:
    """By key the epochs of its missing runs that can be gone on from, as far as keys tell."""
    missing = [node for node in runs.runs if not node.done]
    if not missing:
        return {}
    spe, known = epoch_steps(config), of_nodes([*runs.runs, *runs.masks, *_shuffled(runs)])
    starts: dict[str, tuple[Point, bool]] = {
        step.ticket.key: (step.first, step.mask is None or not step.rewinding.takes_final)
        for step in runs.rounds
    }
    starts |= {branch.node.key: (branch.first, True) for branch in runs.branches}
    found = {}
    last = config.schedule.in_steps(spe).keeps(config.trainer.epochs * spe)
    for node in missing:
        first, told = starts.get(node.key, (START, True))
        if not told:  # what it starts with depends on how a network ended
            continue
        kept = frozenset((*(p.step(spe) for p in _kept(config, node, runs)), *last))
        wanted = Wanted(node, spe, first.step(spe), kept, known)
        if usable := beginnings.of(wanted).usable:
            found[node.key] = usable[0].step / spe - first.step(spe) / spe
    return found


def _kept(config: Any, node: Node, runs: Lineage) -> set[Point]:
    """The points at which a run keeps its state, besides its start."""
    if runs.dense is None or node.key != runs.dense.key:
        return set()
    return {*config.rewind.kept, *runs.starts, *scored(config), config.rewind.point}


def _shuffled(runs: Lineage) -> list[Node]:
    return [step.shuffled for step in runs.rounds if step.shuffled is not None]


def _parents(
    cells: list[Cell], store: Store, underway: Underway, candidates: Iterable[Cell]
) -> tuple[Parent, ...]:
    families: dict[str, list[Cell]] = {}
    for cell in cells:
        if cell.lineage.parent:
            families.setdefault(cell.lineage.parent, []).append(cell)
    parents = []
    for key, family in families.items():
        dense = Node("dense", key, store.root / "dense" / key)
        starts = _starts(family)
        if dense.done and all(_has_state(store, dense, point) for point in starts):
            continue
        later = starts_of(key, candidates)
        keep = [str(point) for point in sorted({*family[0].config.rewind.kept, *starts, *later})]
        config = replace(family[0].config, rewind=replace(family[0].config.rewind, keep=keep))
        parents.append(Parent(config, dense, tuple(family), underway(dense)))
    return tuple(parents)


def starts_of(dense: str, candidates: Iterable[Cell]) -> set[Point]:
    """The points of a dense network that cells of a search may rewind to.

    Those of the candidates that it is the network of; of any, if it is that of a fresh seed.
    """
    candidates = list(candidates)
    return _starts([c for c in candidates if c.lineage.parent == dense] or candidates)


def _starts(family: Iterable[Cell]) -> set[Point]:
    """The points of one dense network whose states its cells need."""
    cells = list(family)
    starts = {point for c in cells for point in c.lineage.starts}
    return starts | {
        point
        for c in cells
        if not all(mask.done for mask in c.lineage.masks)
        for point in scored(c.config)
    }


def _has_state(store: Store, dense: Node, point: Point) -> bool:
    """Whether the dense run kept that point, or it was replayed since."""
    run = Run(dense.path)
    step = point.step(run.steps_per_epoch)
    kept = run.checkpoints.path(step)
    return kept.exists() or store.node("state", {"dense": dense.key, "step": step}).done


def _jobs(cells: list[Cell]) -> tuple[tuple[Cell, ...], ...]:
    """Cells in groups that have no missing ticket in common, each in ascending depth."""
    group: dict[str, list[Cell]] = {}  # a run -> the cells that it is one of the tickets of
    for cell in cells:
        joined = [cell]
        for key in _own(cell):
            joined += [c for c in group.get(key, []) if c not in joined]
        for c in joined:
            group |= dict.fromkeys(_own(c), joined)
    unique = {id(g): g for g in group.values()}
    ordered = [sorted(g, key=lambda c: (len(c.lineage.rounds), c.number)) for g in unique.values()]
    return tuple(tuple(g) for g in sorted(ordered, key=lambda g: g[0].number))


def _own(cell: Cell) -> list[str]:
    """The runs that only one job may compute; dense networks and controls are shared by leases."""
    trained = [step.ticket for step in cell.lineage.rounds]
    trained += [branch.node for branch in cell.lineage.branches]
    return [node.key for node in trained if not node.done] or [cell.lineage.last.key]


@dataclass(frozen=True)
class Estimate:
    """How long a plan will take: seconds of all jobs together, and by the clock."""

    seconds: float
    wall: float
    measured: int  # runs it is based on


def estimate(plan: Plan, store: Store, parallel: int) -> Estimate | None:
    """From the time an epoch took in runs of the same work; None if one was never measured.

    An epoch of a network that computes a part of the dense one counts as that part of an epoch.
    """
    rates = _epoch_seconds(store)
    costs: list[list[float]] = [[], []]
    measured: set[str] = set()
    counted: set[str] = set()
    dense = {p.node.key for p in plan.parents}
    tickets = {key for job in plan.jobs for cell in job for key in cell.missing} - dense
    first = [(p.cells[:1], dense) for p in plan.parents if not p.node.done]
    first += [(cells, tickets) for cells in plan.early]
    rest = [(cells, dense | tickets) for cells in plan.jobs]
    for stage, jobs in enumerate([first, rest]):
        for cells, runs in jobs:
            missing = {k: e for c in cells for k, e in c.price.items() if k in runs}
            epochs = sum(e for k, e in missing.items() if k not in counted)
            counted |= missing.keys()
            workload = _workload(dataclasses.asdict(cells[0].config))
            if workload not in rates:
                return None
            measured.add(workload)
            costs[stage].append(epochs * statistics.median(rates[workload]))
    wall = sum(_makespan(stage, parallel) for stage in costs)
    return Estimate(sum(map(sum, costs)), wall, sum(len(rates[w]) for w in measured))


def _makespan(seconds: Iterable[float], parallel: int) -> float:
    """When the last job ends, if each starts as soon as one of ``parallel`` slots is free."""
    slots = [0.0] * max(parallel, 1)
    for job in seconds:
        heapq.heappush(slots, heapq.heappop(slots) + job)
    return max(slots)


def _epoch_seconds(store: Store) -> dict[str, list[float]]:
    """Seconds an epoch took in the dense runs of the store, by what an epoch consists of."""
    rates: dict[str, list[float]] = {}
    for path in sorted((store.root / "dense").glob("*/result.json")):
        result = files.read_json(path)
        if result["epochs"]:
            workload = _workload(files.read_json(path.with_name("config.json")))
            rates.setdefault(workload, []).append(result["seconds"] / result["epochs"])
    return rates


def _workload(config: dict[str, dict[str, object]]) -> str:
    """What decides how long an epoch takes."""
    data = {k: config["data"].get(k) for k in ("source", "name", "classes", "stored_size")}
    trainer = {k: config["trainer"][k] for k in ("batch_size", "precision")}
    return json.dumps([config["model"], data, trainer], sort_keys=True)
