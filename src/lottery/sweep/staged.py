"""A sweep in stages: what is done is recorded, dense parents are trained, then the cells."""

import contextlib
import json
import logging
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict

from lottery import cli, files, provenance, studies
from lottery.errors import LotteryError, StoppedError
from lottery.interrupts import stoppable
from lottery.lineage import Lineage
from lottery.store import Node, Store
from lottery.studies import Study
from lottery.sweep import claims
from lottery.sweep.feed import Feed, Hooks
from lottery.sweep.follow import follow
from lottery.sweep.jobs import (
    CellsTask,
    FirstTask,
    FrozenConfigs,
    Job,
    Launchers,
    Task,
    frozen,
    mark_orphans,
)
from lottery.sweep.plan import Cell, Parent, Plan, starts_of
from lottery.sweep.waves import Wave, Waves, stored
from lottery.upkeep import requests
from lottery.upkeep.users import using

log = logging.getLogger(__name__)


@dataclass
class StagedSweep:
    """One sweep: its plan, the composed configs of its cells, and how jobs are launched.

    ``launcher`` makes Hydra launchers; ``main`` is the entry script's function and ``study`` what
    it tells. At most ``batch`` jobs are handed to the launcher at a time. Of a sweep in waves,
    ``plan`` is that of the current one, and ``configs`` are those of all so far.
    """

    folder: Path
    store: Store
    plan: Plan
    configs: Sequence[DictConfig]
    main: Task
    study: Study
    launcher: Launchers
    callbacks: Any
    batch: int | None = None
    search: Mapping[str, Any] = field(default_factory=dict)  # what a proposer has to say of itself
    candidates: Sequence[Cell] = ()  # what a search may ask for
    jobs: list[dict[str, Any]] = field(default_factory=list)
    elsewhere: set[str] = field(default_factory=set)  # SLURM's jobs that others submitted

    def __post_init__(self) -> None:
        self.cells = list(self.plan.cells)  # of all waves
        self.planned = summary(self.plan)  # now: it shrinks as cells are done
        # As it was typed: a job that submits the rest is started in another way.
        self._script = Path(sys.argv[0]).name
        self._command = studies.command_line(self._script, sys.argv[1:])
        self._origin = {
            "script": self._script,
            "typed": [a for a in sys.argv[1:] if not a.startswith("-")],
            "revision": provenance.revision(),
        }
        self._skipped: set[int] = set()  # cells that others began after the plan was made
        self._early: tuple[tuple[Cell, ...], ...] = ()  # groups whose tickets were not to wait

    def run(self) -> None:
        """Compute everything that is planned and wait for it.

        Raises :class:`LotteryError` if a cell failed. Ctrl-C and other signals that ask it to stop
        leave SLURM's jobs alone; the exit code tells which it was.
        """
        with self.interruptible(), requests.asking(self.store, self._asked):
            self.begin()
            self._await_others()
            failed = self._train_parents()
            cells = [job for job in self.plan.jobs if job[0].lineage.parent not in failed]
            if cells := self._without_early(cells):
                self._compute_cells(cells)
            self._join()

    @contextlib.contextmanager
    def searching(self) -> Iterator[None]:
        """Let nobody remove what the candidates of a search need, between its waves either."""
        if not self.candidates:
            yield
            return
        needs = {node.key for cell in self.candidates for node in cell.lineage.nodes}
        with using(self.store, needs, self._command, str(self.folder.resolve())):
            yield

    def go_on(self, plan: Plan, configs: Sequence[DictConfig]) -> None:
        """Plan another wave, for :meth:`run` to compute; its cells are numbered on."""
        self.plan = plan
        self.cells += plan.cells
        self.configs = [*self.configs, *configs]
        self.planned = {name: self.planned[name] + n for name, n in summary(plan).items()}

    # -- before --------------------------------------------------------------------------------

    def begin(self) -> None:
        """Write what the sweep is, and the results of the cells that are done already."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.write_record()
        self.note()
        self._tell(self.plan.done)

    def note(self) -> None:
        """Let the store know what this sweep asks for."""
        requests.note(self.store, self._asked)

    @property
    def _asked(self) -> requests.Request:
        """What this sweep has asked for so far, and what its dense networks are to keep.

        Those of a search keep what any candidate may rewind to until it has ended.
        """
        asked = [(cell.lineage, cell.config) for cell in self.cells]
        asked += [(Lineage(parent.node), parent.config) for parent in self.plan.parents]
        searching = bool(self.candidates) and not self.search.get("ended")
        dense = {cell.lineage.parent for cell in (*self.cells, *self.candidates)} - {None}
        later = {str(key): starts_of(str(key), self.candidates) for key in dense}
        return requests.request(
            self._command,
            self.folder,
            asked,
            later=later if searching else {},
            searching=searching,
        )

    def _tell(self, cells: Sequence[Cell]) -> None:
        """Write the results of cells that are done into this sweep."""
        for cell in cells:
            output = self._folder(cell)
            output.mkdir(exist_ok=True)
            typed = output / ".hydra" / "overrides.yaml"  # as Hydra leaves it where a job runs
            if not typed.exists():
                typed.parent.mkdir(exist_ok=True)
                files.write_text(typed, OmegaConf.to_yaml(list(cell.overrides)))
            with cli.status(output):
                config = _without_hydra(self.configs[cell.number])
                command = studies.command_line(self._script, cell.overrides)
                asked = requests.request(command, output, [(cell.lineage, cell.config)])
                cli.tell(cell.config, config, output, self.study, self.folder.name, asked)

    def write_record(self) -> None:
        """Write ``sweep.json``: the cells, and the jobs submitted so far."""
        files.write_json(
            self.folder / "sweep.json",
            {
                "version": 2,
                "study": self.study.name,
                **self._origin,
                "store": str(self.store.root.resolve()),
                "cells": [
                    {
                        "num": c.number,
                        "overrides": list(c.overrides),
                        "dense": c.lineage.dense.key if c.lineage.dense else None,
                        "ticket": c.lineage.rounds[-1].ticket.key if c.lineage.rounds else None,
                        "transfers": [node.key for node in c.lineage.transfers],
                        "fresh": list(c.overrides) in self.search.get("confirm", []),
                        "given_up": list(c.overrides) in self.search.get("given_up", []),
                    }
                    for c in self.cells
                ],
                "search": dict(self.search),
                "plan": self.planned,
                "jobs": self.jobs,
            },
        )

    # -- the stages ------------------------------------------------------------------------------

    def _await_others(self) -> None:
        """Wait, without holding a job, for dense networks that others are training."""
        nodes = [p.node for p in self.plan.parents if p.underway]
        for parent in self.plan.parents:
            if parent.underway:
                log.info("waiting for %s, which trains %s", parent.underway, parent.node.key)
        self._follow(dict(enumerate([n] for n in nodes)), "dense networks")

    def _follow(self, goals: Mapping[int, Sequence[Node]], noun: str) -> dict[int, str]:
        if not goals:
            return {}
        asked: Any = OmegaConf.to_container(self.launcher.config.hydra.launcher)
        return follow(self.store, goals, asked, noun, self.elsewhere.update)

    def _train_parents(self) -> set[str]:
        """Keys of the dense networks that could not be trained."""
        self._early = self.plan.early
        parents = [p for p in self.plan.parents if not (p.underway and p.node.done)]
        if not parents:
            return set()
        count = len(self._early)
        beside = f", and beside them {count} early ticket{'s' * (count > 1)}" if count else ""
        plural = "s" * (len(parents) > 1)
        log.info("stage 1: %d dense network%s%s", len(parents), plural, beside)
        jobs, task = self.parent_jobs(parents)
        ends = self._launch(task, [*jobs, *self._early_jobs()])
        for group, end in zip(self._early, ends[len(parents) :], strict=True):
            if end.status is JobStatus.FAILED:
                for cell in group:
                    self._fail(cell, end._return_value)
        ends = ends[: len(parents)]
        # Submitted by another process since the plan was made: wait for those too.
        others = {i: [p.node] for i, p in enumerate(parents) if not p.node.done}
        others = {i: n for i, n in others.items() if ends[i].status is not JobStatus.FAILED}
        lost = self._follow(others, "dense networks")
        failed = set()
        for i, (parent, end) in enumerate(zip(parents, ends, strict=True)):
            if not parent.node.done and (end.status is JobStatus.FAILED or i in lost):
                failed.add(parent.node.key)
                cells = [c for c in parent.cells if self.state(c)[0] != "failed"]
                why = LotteryError(lost[i]) if i in lost else end._return_value
                mark_orphans(map(self._folder, cells), why)
        return failed

    def _early_jobs(self) -> list[Job]:
        """The jobs that train tickets which do not wait for their dense network."""
        return [
            Job(cells[0].overrides, self._frozen(cells[0]), cells[0].lineage.last, cells, "early")
            for cells in self._early
        ]

    def _without_early(self, groups: Sequence[tuple[Cell, ...]]) -> list[tuple[Cell, ...]]:
        """The jobs that are left when the results of early tickets have been told."""
        early = [group for group in groups if group in self._early]
        self._tell([cell for group in early for cell in group if cell.done])
        ended = [
            group
            for group in early
            if all(self.state(cell)[0] in ("done", "failed") for cell in group)
        ]
        return [group for group in groups if group not in ended]

    def _compute_cells(self, groups: Sequence[tuple[Cell, ...]]) -> None:
        stage = "stage 2: " if groups[0][0].lineage.parent else ""
        log.info("%s%d cells", stage, sum(map(len, groups)))
        jobs, task = self.cell_jobs(groups)
        for cells, end in zip(groups, self._launch(task, jobs), strict=True):
            if end.status is JobStatus.FAILED:
                for cell in cells:
                    self._fail(cell, end._return_value)

    def _fail(self, cell: Cell, error: BaseException) -> None:
        """Record why a cell has no result, unless it says so itself."""
        if not cell.done and self.state(cell)[0] not in ("done", "failed"):
            output = self._folder(cell)
            output.mkdir(exist_ok=True)
            cli.write_status(output, "failed", time.time(), error)

    def _join(self) -> None:
        """Wait for cells that others compute, and take their results over."""
        cells = {
            c.number: c
            for c in self.plan.cells
            if (c.underway or c.number in self._skipped) and self.state(c)[0] != "failed"
        }
        if open_ := sum(not c.done for c in cells.values()):
            ending = " that is" if open_ == 1 else "s that are"
            log.info("waiting for %d cell%s under way already", open_, ending)
        lost = self._follow({n: c.lineage.told for n, c in cells.items()}, "cells")
        self._tell([cell for number, cell in cells.items() if number not in lost])
        for number, why in lost.items():
            self._fail(cells[number], LotteryError(why))

    def take_over(self) -> None:
        """Tell the results that others computed, and what became of the cells that have none.

        For a wave whose jobs have all ended, with nobody here who waited for them.
        """
        for cell in self.plan.cells:
            if cell.done and not (self._folder(cell) / "result.json").exists():
                self._tell([cell])
            self._fail(cell, LotteryError("its job ended without a result"))

    def end(self) -> LotteryError | None:
        """Conclude the study, print how the cells ended; the error with which a sweep ends."""
        from lottery.analysis import overview

        outcome = [(cell, *self.state(cell)) for cell in self.cells]
        self.study.conclude(self.cells[0].config, self.folder, self.planned)
        overview.show_outcome(outcome, str(self.folder))
        return failed([(state, why) for _, state, why in outcome])

    def parent_jobs(self, parents: Sequence[Parent]) -> tuple[list[Job], FirstTask]:
        """The jobs that train dense networks, and what they run."""
        jobs, cells = [], {}
        for parent in parents:
            first = parent.cells[0]
            name = f"dense_{parent.node.key[:8]}"
            config = self._frozen(first, name)
            config.rewind.keep = parent.config.rewind.keep
            # Its first cell may have a job of the same overrides beside it.
            overrides = (*first.overrides, f"hydra.sweep.subdir={name}")
            jobs.append(Job(overrides, config, parent.node, parent.cells, "dense"))
            cells[name] = {str(c.number): c.config for c in parent.cells}
        return jobs, FirstTask(self.study, cells)

    def cell_jobs(self, groups: Sequence[tuple[Cell, ...]]) -> tuple[list[Job], CellsTask]:
        """The jobs that compute groups of cells, and what they run."""
        jobs = [
            Job(cells[0].overrides, self._frozen(cells[0]), cells[0].lineage.last, cells, "cells")
            for cells in groups
        ]
        followers = {
            str(cells[0].number): [self._frozen(c) for c in cells[1:]]
            for cells in groups
            if len(cells) > 1
        }
        return jobs, CellsTask(self.main, followers, self.callbacks)

    def _frozen(self, cell: Cell, folder: str | None = None) -> DictConfig:
        name = str(cell.number) if folder is None else folder
        return frozen(self.configs[cell.number], str(self.folder), name)

    # -- launching -------------------------------------------------------------------------------

    def _launch(self, task: Task, jobs: Sequence[Job]) -> list[JobReturn]:
        launcher = self.launcher_of(task, jobs)
        if hasattr(launcher, "submit"):
            return self._feed(launcher, jobs)
        ends, size = [], self.batch or len(jobs)
        for first in range(0, len(jobs), size):
            overrides = [list(job.overrides) for job in jobs[first : first + size]]
            ends += launcher.launch(overrides, initial_job_idx=first)
        return ends

    def _feed(self, launcher: Any, jobs: Sequence[Job]) -> list[JobReturn]:
        """Through SLURM: as it takes them, and leaving out what others have begun meanwhile."""
        who: Callable[[Node], str | None] = claims.underway(self.store)

        @contextlib.contextmanager
        def alone() -> Iterator[None]:
            nonlocal who
            with claims.submitting(self.store):
                who = claims.underway(self.store)
                yield

        def submitted(numbers: Sequence[int], handles: Sequence[Any]) -> None:
            self.record([jobs[number] for number in numbers], handles)

        feed = Feed(
            launcher,
            [job.overrides for job in jobs],
            Hooks(alone, lambda number: self.wanted(jobs[number], who), submitted),
            self.batch,
        )
        self.queue(jobs)
        try:
            return feed.run()
        finally:
            self.unqueue([jobs[number] for number in feed.waiting])

    def wanted(self, job: Job, who: Callable[[Node], str | None]) -> bool:
        """Whether a job has something to compute that, as ``who`` knows, nobody else does."""
        if job.stage == "dense":  # it may be done, and lack a state that cells rewind to
            return not who(job.node)
        if job.stage == "early":
            return not job.node.done and not who(job.node)
        cells = [c for c in job.cells if not c.done and not all(map(who, c.lineage.goals))]
        if not cells:
            self._skipped |= {cell.number for cell in job.cells}
        return bool(cells)

    def queue(self, jobs: Sequence[Job]) -> None:
        """Say in their folders that jobs are queued, before they say themselves that they run."""
        for job in jobs:
            (self.folder / job.folder).mkdir(exist_ok=True)
            cli.write_status(self.folder / job.folder, "queued", time.time())

    def unqueue(self, jobs: Sequence[Job]) -> None:
        """Take it back."""
        for job in jobs:
            (self.folder / job.folder / "status.json").unlink(missing_ok=True)

    def launcher_of(self, task: Task, jobs: Sequence[Job]) -> Any:
        """A launcher of jobs that run ``task`` with their own configs."""
        loader: Any = FrozenConfigs({job.overrides: job.config for job in jobs})
        launcher = self.launcher(HydraContext(loader, self.callbacks), task)
        launcher.revision = self._origin["revision"]
        return launcher

    def record(self, jobs: Sequence[Job], handles: Sequence[Any]) -> None:
        """Remember which SLURM job computes what, for people and for other sweeps."""
        for job, handle in zip(jobs, handles, strict=True):
            self.jobs.append(
                {
                    "job": handle.job_id,
                    "stage": job.stage,
                    "cells": [c.number for c in job.cells],
                }
            )
            self.claim(job, handle.job_id)
        self.write_record()
        ids = sorted({handle.job_id.partition("_")[0] for handle in handles})
        log.info(
            "submitted %d job%s (%s) as SLURM's %s",
            len(jobs), "s" * (len(jobs) > 1), jobs[0].stage, ", ".join(ids),
        )  # fmt: skip

    def claim(self, job: Job, number: str) -> None:
        """Note for other sweeps that SLURM's job ``number`` computes the goals of ``job``."""
        outputs = {job.node: self.folder / job.folder}
        if job.stage == "cells":
            outputs |= {g: self._folder(c) for c in job.cells for g in c.lineage.goals}
        for node, output in outputs.items():
            claims.claim(self.store, node, number, output)

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """A context that signals end with :meth:`farewell` and an exit code of their own."""
        try:
            with stoppable():
                yield
        except (KeyboardInterrupt, StoppedError) as error:
            signum = signal.SIGINT
            how = "interrupted"
            if isinstance(error, StoppedError):
                signum = signal.Signals(error.signum)
                how = f"stopped by {signum.name}"
            with contextlib.suppress(OSError):  # the terminal may have gone, hence SIGHUP
                print(self.farewell(f"{how} here"), file=sys.stderr)
            sys.exit(128 + signum)

    def farewell(self, how: str) -> str:
        """What to tell somebody who does not wait: how to watch, resume and cancel."""
        own = [job["job"] for job in self.jobs]
        ids = list(dict.fromkeys(j.partition("_")[0] for j in (*own, *sorted(self.elsewhere))))
        if not ids:
            return f"{how}; the same command goes on from there"
        return "\n".join(
            [
                f"{how}; the submitted jobs go on",
                f"  watch:   squeue --jobs={','.join(ids)}{self._watching()}",
                "  resume:  the same command; it submits only what is missing",
                f"  cancel:  scancel {' '.join(ids)}",
            ]
        )

    def _watching(self) -> str:
        return "" if self.study.unreported else f"; python report.py sweep={self.folder}"

    # -- after -----------------------------------------------------------------------------------

    def state(self, cell: Cell) -> tuple[str, str]:
        """done, failed, running, queued or missing; and what there is to say about it."""
        if cell.done:
            return "done", ""
        try:
            about = files.read_json(self._folder(cell) / "status.json")
        except (FileNotFoundError, json.JSONDecodeError):
            return ("running", cell.underway) if cell.underway else ("missing", "")
        if about["status"] == "done":  # says so, but the store was emptied since
            return "missing", ""
        return about["status"], about.get("error", "")

    def results(self) -> Iterator[tuple[Cell, Mapping[str, Any] | None]]:
        """The cells of the current wave with what there is to tell of them; None if they failed.

        Of tickets that is what the store has, else what ``result.json`` has.
        """
        for cell in self.plan.cells:
            path = self._folder(cell) / "result.json"
            if cell.done and cell.lineage.rounds:
                yield cell, stored(cell)
            else:
                done = self.state(cell)[0] == "done" and path.exists()
                yield cell, files.read_json(path) if done else None

    def _folder(self, cell: Cell) -> Path:
        return self.folder / str(cell.number)


def next_wave(sweep: StagedSweep, waves: Waves) -> Wave | None:
    """Tell what the wave that has ended showed, and plan the next one; None at the end."""
    waves.tell(sweep.results())
    wave = waves.next()
    sweep.search = waves.record()
    if wave is None:
        sweep.write_record()
        sweep.note()
    else:
        sweep.go_on(wave.plan, wave.configs)
    return wave


def _without_hydra(config: DictConfig) -> DictConfig:
    """A composed config without Hydra's part."""
    own = config.copy()
    with open_dict(own):
        own.pop("hydra", None)
    return own


def summary(plan: Plan) -> dict[str, float]:
    """The counts of a plan."""
    return {
        "cells": len(plan.cells),
        "done": len(plan.done),
        "underway": len(plan.underway),
        "jobs": len(plan.jobs),
        "dense_missing": len(plan.parents),
        "epochs": plan.epochs,
        "epochs_begun": plan.begun,
        "price": plan.price,
        "epochs_unshared": plan.epochs_unshared,
    }


def failed(states: Sequence[tuple[str, str]]) -> LotteryError | None:
    """The error with which a sweep ends that has failed cells."""
    count = sum(state == "failed" for state, _ in states)
    if not count:
        return None
    return LotteryError(
        f"{count} of {len(states)} cells failed; the same command runs those and what is missing"
    )
