"""The cells of a study, finished or not, from a sweep's folder or from the run store."""

import functools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from lottery import choices, files, studies
from lottery.analysis import settings
from lottery.analysis.configs import GRID, Flat, assumed, flat, option_of, told
from lottery.analysis.overrides import differences
from lottery.config import Config
from lottery.errors import LotteryError, ResultError
from lottery.options import did_you_mean, options
from lottery.points import Point
from lottery.results import Result
from lottery.runs import Run, with_answers
from lottery.studies.prune import Pruned
from lottery.verdict.images import Pair

# A sweep has hundreds of small files: libyaml reads them ten times as fast.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
STATUSES = ("done", "running", "queued", "failed", "missing", "unneeded")
"""The last one: a cell of the grid for which a search did not ask."""


@dataclass(frozen=True)
class Cell:
    """One ticket that a study asks for, and what is known of it so far.

    ``dense``, ``ticket`` and ``mask`` are those of ``result.json``; accuracies are shares of 1.
    ``folder`` is the job's output folder, or the ticket's folder in the store.
    """

    name: str
    status: str
    config: Flat
    overrides: tuple[str, ...] = ()
    folder: Path | None = None
    dense: Mapping[str, Any] | None = None
    ticket: Mapping[str, Any] | None = None
    mask: Mapping[str, Any] | None = None
    store: Path | None = None
    error: str | None = None
    at: Point | None = None
    """The point rewound to, in epochs and steps, where more is known of it than the config says."""
    barrier: float | None = None
    """Of its dense network at that point, in points (:mod:`lottery.barriers`), if it is known."""
    fresh: bool = False
    """Whether it was trained to confirm a winner, with a seed that had no part in choosing it."""
    given_up: bool = False
    """Whether a search did not ask for its other seeds, since the first had decided."""

    @property
    def done(self) -> bool:
        """Whether the ticket is trained and measured."""
        return self.status == "done"

    @property
    def percentile(self) -> float | None:
        """Percent of the prunable weights that are removed."""
        return self.config.get("mask.percentile")

    @property
    def rewound(self) -> Point | None:
        """The point rewound to; None if it does not matter."""
        if self.at is not None:
            return self.at
        if getattr(self._rewinding, "afresh", False):
            return None
        if (step := self.config.get("rewind.step")) is not None:
            return Point(steps=step)
        epoch = self.config.get("rewind.epoch")
        return None if epoch is None else Point(epoch)

    @property
    def seed(self) -> int:
        """Seed of the dense run and of the ticket."""
        return int(self.config.get("seed", 0))

    @property
    def control(self) -> bool:
        """Whether it is an experimental control, which may match but cannot be a winning ticket."""
        return bool(
            self.config.get("mask.shuffle")
            or self._by_lot
            or getattr(self._rewinding, "control", False)
        )

    @property
    def _rewinding(self) -> Any:
        """The class of its rewinding; None if there is none, or it is of a plug-in not here."""
        name = self.config.get("rewind.name")
        return choices.rewinding.find(name) if name in choices.rewinding.names() else None

    @property
    def _by_lot(self) -> bool:
        """Whether its mask looks at nothing."""
        score, during = self.config.get("mask.score.name"), self.config.get("mask.during.name")
        return score == "random" and during is None

    @functools.cached_property
    def pair(self) -> Pair | None:
        """The results of the dense network and of the ticket, as a verdict looks at them.

        With which validation images each got right, if its store is there and has kept it.
        """
        if not self.dense or not self.ticket:
            return None
        if self.store is None:
            return self.dense, self.ticket
        dense, ticket = (
            with_answers(result, self.store / kind / str(result["key"]))
            for kind, result in (("dense", self.dense), ("ticket", self.ticket))
        )
        return dense, ticket

    def spelled(self, name: str) -> str:
        """The value of an option, for people; empty if it does not have that option."""
        value = self.config.get(name, "")
        return "null" if value is None else str(value)

    @property
    def config_file(self) -> Path | None:
        """The resolved config on disk, if there is one."""
        if self.folder is None:
            return None
        names = ("config.yaml", "config.json", ".hydra/config.yaml", ".hydra/overrides.yaml")
        return next((self.folder / n for n in names if (self.folder / n).exists()), None)

    def curve(self, kind: str) -> list[dict[str, float]]:
        """One dictionary an epoch of the ``dense`` or the ``ticket`` run; empty if unknown."""
        run = getattr(self, kind)
        rows: list[dict[str, str]] = []
        if self.store and run and "key" in run:
            rows = files.read_csv(self.store / kind / run["key"] / "metrics.csv")
        if not rows and self.folder:  # the store is elsewhere: a job's own copy has both runs
            own = files.read_csv(self.folder / "metrics.csv")
            rows = [{k: v for k, v in r.items() if k != "run"} for r in own if r.get("run") == kind]
        return [{k: float(v) for k, v in row.items() if v not in ("", None)} for row in rows]


@dataclass(frozen=True)
class Study:
    """The cells to report on. ``varied`` are the options, besides the grid's, that tell them apart.

    ``revision`` is the code's commit when the sweep began, if recorded; ``notes`` say what could
    not be read.
    """

    folder: Path
    cells: tuple[Cell, ...]
    varied: tuple[str, ...] = ()
    script: str = "prune.py"
    revision: str | None = None
    notes: tuple[str, ...] = ()
    search: Mapping[str, Any] = field(default_factory=dict)
    """What a search left in ``sweep.json``; empty for a grid."""
    of_store: bool = False
    """Whether these are all tickets of a run store, whoever asked for them."""

    @property
    def asked(self) -> tuple[Cell, ...]:
        """The cells that were asked for."""
        return tuple(c for c in self.cells if c.status != "unneeded")

    def series(self, cell: Cell) -> str:
        """What a cell is a point of: its values of ``varied``; empty if there is one series."""
        has = (name for name in self.varied if name in cell.config)
        return ", ".join(f"{name}={cell.spelled(name)}" for name in has)

    @property
    def name(self) -> str:
        """A short title: the folder's name."""
        return self.folder.resolve().name


def from_sweep(folder: Path) -> Study:
    """The cells of a sweep, by its ``sweep.json`` or, without one, by its numbered job folders.

    Raises :class:`LotteryError` if the folder is no sweep, its ``sweep.json`` is damaged, or its
    script finds no tickets.
    """
    jobs = _job_folders(folder)
    notes: list[str] = []
    if (folder / "sweep.json").exists():
        plan, damage = _read(folder / "sweep.json")
        if damage or not isinstance(plan, dict) or not isinstance(plan.get("cells"), list):
            raise LotteryError(f"{folder / 'sweep.json'} is damaged: {damage or 'no cells in it'}")
    elif jobs:
        plan = {"cells": [{"num": int(job.name)} for job in jobs]}
        notes.append("no sweep.json: cells that never began cannot be known")
    else:
        raise LotteryError(_no_sweep(folder))
    script = str(plan.get("script") or "prune.py")
    known = plan.get("study", "prune") in studies.known()
    if known and (why := studies.find(plan.get("study", "prune")).unreported):
        raise LotteryError(f"{folder} is a sweep of {script}: {why}")
    cells = [_job(folder, cell, plan, notes) for cell in plan["cells"]]
    notes += _failed_parents(folder)
    if not cells:
        raise LotteryError(f"the sweep {folder} has no cells")
    search = plan.get("search") or {}
    cells = _with_assumed_configs([*cells, *_unasked(search, plan["cells"])])
    if not known and all(cell.percentile is None for cell in cells):
        raise LotteryError(f"{folder} is a sweep of {script}: no cell has a mask.percentile")
    return _study(
        folder,
        cells,
        script=script,
        revision=_revision(plan.get("revision")),
        notes=tuple(notes),
        search=search,
    )


def _unasked(search: Mapping[str, Any], planned: Sequence[Mapping[str, Any]]) -> Iterator[Cell]:
    """The cells of the grid for which a search has not asked, or never did."""
    there = {tuple(cell.get("overrides", ())) for cell in planned}
    status = "unneeded" if search.get("ended") else "missing"
    for overrides in search.get("candidates", ()):
        if tuple(overrides) not in there:
            yield Cell("", status, {}, tuple(overrides))


def from_store(folder: Path, defaults: Flat) -> Study:
    """Every finished ticket of a run store, the rounds of iterative pruning among them.

    ``defaults`` is the config that ``prune.py`` has without overrides: what differs from it
    reproduces a ticket. Raises :class:`LotteryError` if there is no store or no ticket.
    """
    if not (folder / "store.json").exists():
        raise LotteryError(f"{folder} is no run store (no store.json)")
    runs = sorted(path.parent for path in folder.glob("ticket/*/done.json"))
    if not runs:
        raise LotteryError(f"the store {folder} has no finished ticket")
    notes: list[str] = []
    cells = []
    for run in runs:
        try:
            if (dense := Run(run).parent) and not (dense.path / "done.json").exists():
                notes.append(
                    f"ticket {run.name} is left out: its dense network {dense.path.name}, to which "
                    "it is compared, is not trained yet"
                )
                continue
            cells.append(_stored(folder, run, defaults))
        except (OSError, ValueError, KeyError) as error:
            notes.append(f"ticket {run.name} is left out, its folder is damaged: {error!r}")
    if not cells:
        raise LotteryError(f"the store {folder} has no ticket to report on: {notes[0]}")
    return _study(folder, cells, notes=tuple(notes), of_store=True)


def where(study: Study, wanted: Mapping[str, Any]) -> Study:
    """The study's cells whose options have the wanted values; a list means any of its values.

    Raises :class:`LotteryError` for an option that no cell has, and if no cell is left.
    """
    known = sorted({name for cell in study.cells for name in cell.config})
    cells = study.cells
    for name, value in wanted.items():
        if name not in known:
            raise LotteryError(f"where: option {name} is unknown{did_you_mean(name, known)}")
        # An option that is a list itself is compared whole.
        matching = [c for c in cells if _is_one_of(c.config.get(name), value)]
        if not matching:
            there = sorted({str(c.config.get(name)) for c in cells})
            raise LotteryError(f"where: no cell has {name}={value} (there are {', '.join(there)})")
        cells = tuple(matching)
    return replace(study, cells=cells, varied=_varied(cells))


def _is_one_of(have: Any, wanted: Any) -> bool:
    return bool(have == wanted or (isinstance(wanted, list) and have in wanted))


def _study(folder: Path, cells: Sequence[Cell], **about: Any) -> Study:
    cells = _located(cells)
    notes = (*about.pop("notes", ()), *settings.notes(cells))
    return Study(folder, tuple(cells), _varied(cells), notes=notes, **about)


def _located(cells: Sequence[Cell]) -> list[Cell]:
    """Cells whose points are in whole epochs and steps of the next, so that they can be ordered.

    How many steps an epoch has is known of a dense network that is done. If that is one number in
    all cells, it is that of the others too.
    """
    found = {id(cell): _steps_per_epoch(cell) for cell in cells if _step(cell) is not None}
    known = {spe for spe in found.values() if spe is not None}
    common = known.pop() if len(known) == 1 else None
    located = []
    for cell in cells:
        step, spe = _step(cell), found.get(id(cell)) or common
        if step is None or spe is None:
            located.append(cell)
        else:
            located.append(replace(cell, at=Point.at(step, spe)))
    return located


def _step(cell: Cell) -> int | None:
    return None if cell.rewound is None else cell.config.get("rewind.step")


def _steps_per_epoch(cell: Cell) -> int | None:
    if cell.store is None or cell.dense is None:
        return None
    try:
        return Run(cell.store / "dense" / str(cell.dense["key"])).steps_per_epoch
    except (OSError, ValueError, KeyError):  # the store is elsewhere, or damaged
        return None


def _varied(cells: Iterable[Cell]) -> tuple[str, ...]:
    """The fewest options that tell the series apart, names of things first.

    ``model=a,b`` changes a dozen options at once, and ``model.name`` says it all.
    """
    # Paths and devices cannot change a result, and every job may have its own.
    plumbing = {name for name, f, _ in options(Config()) if not f.metadata["identity"]}
    unnamed = {kind.option for kind in choices.KINDS if kind.several}  # where none is chosen
    configs = [cell.config for cell in cells]
    found = dict.fromkeys(n for c in configs for n in c)
    names = [
        n for n in found if n not in (*GRID, *unnamed) and not {n, n.partition(".")[0]} & plumbing
    ]
    ordered = sorted(names, key=lambda n: ("." in n, not n.endswith(".name")))
    chosen: list[str] = []
    for name in ordered:
        if _kinds(configs, [*chosen, name]) > _kinds(configs, chosen):
            chosen.append(name)
    return tuple(chosen)


def _kinds(configs: Iterable[Flat], names: Sequence[str]) -> int:
    return len({json.dumps([c.get(n) for n in names], default=str) for c in configs})


def _job_folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    marks = ("status.json", "config.yaml", "result.json", ".hydra/overrides.yaml")
    jobs = (f for f in folder.iterdir() if f.name.isdecimal() and f.is_dir())
    return sorted((j for j in jobs if any((j / m).exists() for m in marks)), key=_number)


def _number(folder: Path) -> int:
    return int(folder.name)


def _no_sweep(folder: Path) -> str:
    if not folder.is_dir():
        return f"there is no folder {folder}"
    if (folder / "store.json").exists():
        return f"{folder} is a run store, not a sweep: store={folder} reports on it"
    if (folder / "result.json").exists() or (folder / "status.json").exists():
        return f"{folder} is a single run, not a sweep"
    inside = [f for f in folder.iterdir() if (f / "sweep.json").exists() or _job_folders(f)]
    newest = max(inside, key=lambda f: f.stat().st_mtime, default=None)
    hint = f"; the newest sweep in it is {newest}" if newest else ""
    return f"{folder} is no sweep (no sweep.json, no numbered job folders){hint}"


def _failed_parents(folder: Path) -> list[str]:
    """What became of dense networks, trained by jobs of their own, that cells wait for in vain."""
    found = []
    for path in sorted(folder.glob("dense_*/status.json")):
        status, _ = _read(path)
        if status and status.get("status") == "failed":
            found.append(f"the dense network of {path.parent.name} failed: {status.get('error')}")
    return found


def _revision(recorded: Any) -> str | None:
    if isinstance(recorded, dict):
        return f"{recorded.get('commit')}{'-dirty' if recorded.get('dirty') else ''}"
    return str(recorded) if recorded else None


def _job(
    sweep: Path, planned: Mapping[str, Any], plan: Mapping[str, Any], notes: list[str]
) -> Cell:
    """One cell of a sweep. What a job left counts if it is the planned run's."""
    name = str(planned["num"])
    folder = sweep / name
    store = Path(plan["store"]) if plan.get("store") else None
    overrides, _ = _read_yaml(folder / ".hydra/overrides.yaml")
    if not isinstance(overrides, list):
        overrides = _whole(planned.get("overrides", ()), plan.get("typed", ()))
    config, damage = _read_yaml(folder / "config.yaml")
    status, _ = _read(folder / "status.json")
    if damage:
        notes.append(f"{folder / 'config.yaml'} is damaged: {damage}")
    result = _result(folder / "result.json", notes)
    cell = Cell(
        name,
        (status or {}).get("status", "missing"),
        told(flat(config or {})),
        tuple(str(o) for o in overrides),
        folder if folder.is_dir() else None,
        store=store,
        error=(status or {}).get("error"),
        fresh=bool(planned.get("fresh")),
        given_up=bool(planned.get("given_up")),
    )
    if cell.status not in STATUSES:
        cell = replace(cell, status="missing", error=f"unknown status {cell.status}")
    key = planned.get("ticket")
    if isinstance(result, Pruned) and key in (None, result.ticket["key"]):
        if cell.status in ("done", "missing"):
            return _finished(cell, vars(result), Path(result.store))
    elif isinstance(result, Pruned):
        notes.append(f"{folder / 'result.json'} is of another run than planned, so left out")
    in_store = _result_in_store(store, planned.get("dense"), key)
    if in_store and "ticket" in in_store and store:
        return _finished(cell, in_store, store)
    cell = replace(cell, dense=in_store.get("dense"))
    if cell.status == "done":
        return replace(cell, status="failed", error="said to be done, but left no ticket's result")
    return cell


def _result(path: Path, notes: list[str]) -> Result | None:
    """The result of a job; None, with a note unless there is no file, if it cannot be read."""
    try:
        return studies.read_file(path)
    except FileNotFoundError:
        return None
    except ResultError as error:
        notes.append(f"left out: {error}")
        return None


def _finished(cell: Cell, result: Mapping[str, Any], store: Path) -> Cell:
    parts = {part: result[part] for part in ("dense", "ticket", "mask")}
    return replace(cell, status="done", error=None, store=store, **parts)


def _result_in_store(store: Path | None, dense: str | None, ticket: str | None) -> dict[str, Any]:
    """What the store has of a cell's planned runs."""
    found: dict[str, Any] = {}
    for kind, key in (("dense", dense), ("ticket", ticket)):
        run = store / kind / key if store and key else None
        if run and (run / "done.json").exists():
            found[kind] = {"key": key, **files.read_json(run / "result.json")}
            if kind == "ticket":
                found["mask"] = files.read_json(run / "mask.json")
    return found if "dense" in found else {}


def _whole(overrides: Sequence[str], typed: Sequence[str]) -> list[str]:
    """A cell's overrides with those of the command line that are the same for all cells."""
    own = {option_of(o) for o in overrides}
    shared = [t for t in typed if option_of(t) not in own and not option_of(t).startswith("hydra")]
    return [*shared, *overrides]


def _with_assumed_configs(cells: Sequence[Cell]) -> list[Cell]:
    """Cells that never began get a config as those that did let expect it."""
    known = [(c.config, c.overrides) for c in cells if c.config]
    return [
        cell if cell.config else replace(cell, config=assumed(cell.overrides, known))
        for cell in cells
    ]


def _stored(store: Path, run: Path, defaults: Flat) -> Cell:
    config = ticket_config(run)
    dense = store / "dense" / files.read_json(run / "done.json")["identity"]["dense"]
    return Cell(
        run.name,
        "done",
        told(config),
        tuple(differences(config, defaults)),
        run,
        dense={"key": dense.name, **files.read_json(dense / "result.json")},
        ticket={"key": run.name, **files.read_json(run / "result.json")},
        mask=files.read_json(run / "mask.json"),
        store=store,
    )


def ticket_config(run: Path) -> dict[str, Any]:
    """The flat config of a ticket in the store, as if it had been asked for by itself.

    What is on disk is the config of whoever asked first, for whom this may have been a round on the
    way: then the mask was not shuffled yet, and a control had not replaced the rewinding yet.
    """
    identity = files.read_json(run / "done.json")["identity"]
    config, mask = flat(files.read_json(run / "config.json")), files.read_json(run / "mask.json")
    if mask["percentile"] != config["mask.percentile"]:
        config |= {"mask.percentile": mask["percentile"], "mask.shuffle": False}
    found = dict(identity.get("rewind") or {})  # a mask that changes has none
    point = found.pop("point", None)
    at = None if point is None else Point.of(point)
    rewind = {"name": "weights", "optimizer": "restore", "epoch": None, "step": None, **found}
    if at is not None and at.steps:
        rewind["step"] = at.step(Run(run).steps_per_epoch)
    elif at is not None:
        rewind["epoch"] = at.epochs
    return config | flat({"rewind": rewind})


def _read(path: Path) -> tuple[Any, str | None]:
    """A JSON file's value, or None; and what is wrong with the file if it is there."""
    try:
        return files.read_json(path), None
    except FileNotFoundError:
        return None, None
    except ValueError as error:
        return None, str(error)


def _read_yaml(path: Path) -> tuple[Any, str | None]:
    try:
        return yaml.load(path.read_text(), Loader=_LOADER), None
    except FileNotFoundError:
        return None, None
    except (yaml.YAMLError, OSError) as error:
        return None, str(error).splitlines()[0]
