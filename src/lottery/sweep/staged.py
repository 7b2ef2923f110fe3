"""A sweep in stages: what is done is recorded, dense parents are trained, then the cells."""

import contextlib
import itertools
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext
from omegaconf import DictConfig, open_dict

from lottery import cli, files, provenance
from lottery.config import Config
from lottery.errors import ConfigError, LotteryError
from lottery.store import Node, Store
from lottery.sweep import slurm
from lottery.sweep.jobs import CellsTask, FrozenConfigs, ParentTask, Task, frozen, mark_orphans
from lottery.sweep.plan import Cell, Parent, Plan
from lottery.tracking import Tracker

log = logging.getLogger(__name__)

Items = Sequence[tuple[Sequence[str], DictConfig]]


@dataclass
class StagedSweep:
    """One sweep: its plan, the composed configs of its cells, and how jobs are launched.

    ``launcher(context, task)`` is a Hydra launcher whose jobs run ``task``; ``main`` is the entry
    script's function and ``story`` what it tells.
    """

    folder: Path
    store: Store
    plan: Plan
    configs: Sequence[DictConfig]
    main: Task
    story: cli.Story
    launcher: Callable[[HydraContext, Task], Any]
    callbacks: Any
    batch: int | None = None
    jobs: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._planned = summary(self.plan)  # now: it shrinks as cells are done

    def run(self) -> None:
        """Compute everything and wait for it.

        Raises :class:`LotteryError` if a cell failed, and exits 130 after Ctrl-C, which leaves
        SLURM's jobs alone.
        """
        self._begin()
        with self._interruptible():
            self._await_others()
            failed = self._train_parents()
            cells = [job for job in self.plan.jobs if job[0].lineage.parent not in failed]
            if cells:
                self._compute_cells(cells)

    def detach(self) -> list[str]:
        """Submit everything to SLURM, cells depending on their parents; the jobs' ids."""
        self._begin()
        after: dict[str, str] = {}  # dense key -> job
        for parent in self.plan.parents:
            if parent.underway:
                after[parent.node.key] = _job_of(self.store, parent.node) or ""
        own = [p for p in self.plan.parents if not p.underway]
        if own:
            items, task = self._parent_jobs(own)
            submitted = self._submit(task, items)
            self._record([(p.node, p.cells) for p in own], submitted, "dense")
            after |= {p.node.key: j.job_id for p, j in zip(own, submitted, strict=True)}
        key = lambda job: job[0].lineage.parent or ""  # noqa: E731
        for dense, family in itertools.groupby(sorted(self.plan.jobs, key=key), key=key):
            group = list(family)
            items, cells = self._cell_jobs(group)
            extra = {}
            if after.get(dense):
                extra = {
                    "dependency": f"afterok:{after[dense]}",
                    "additional_parameters": {"kill-on-invalid-dep": "yes"},
                }
            submitted = self._submit(cells, items, **extra)
            self._record([(c[0].lineage.last, c) for c in group], submitted, "cells")
        return [job["job"] for job in self.jobs]

    # -- before --------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Write what the sweep is, and the results of the cells that are done already."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write_record()
        for cell in self.plan.done:
            output = self._folder(cell)
            output.mkdir(exist_ok=True)
            with cli.status(output):
                config = _study(self.configs[cell.number])
                cli.tell(cell.config, config, output, self.story, self.folder.name)

    def _write_record(self) -> None:
        files.write_json(
            self.folder / "sweep.json",
            {
                "version": 1,
                "script": Path(sys.argv[0]).name,
                "typed": [a for a in sys.argv[1:] if not a.startswith("-")],
                "revision": provenance.revision(),
                "store": str(self.store.root.resolve()),
                "cells": [
                    {
                        "num": c.number,
                        "overrides": list(c.overrides),
                        "dense": c.lineage.dense.key if c.lineage.dense else None,
                        "ticket": c.lineage.rounds[-1].ticket.key if c.lineage.rounds else None,
                        "transfers": [node.key for node in c.lineage.transfers],
                    }
                    for c in self.plan.cells
                ],
                "plan": self._planned,
                "jobs": self.jobs,
            },
        )

    # -- the stages ------------------------------------------------------------------------------

    def _await_others(self) -> None:
        """Wait, without holding a job, for dense networks that others are training."""
        for parent in self.plan.parents:
            if parent.underway:
                log.info("waiting for %s, which trains %s", parent.underway, parent.node.key)
                while not parent.node.done and underway(self.store)(parent.node):
                    time.sleep(1)

    def _train_parents(self) -> set[str]:
        """Keys of the dense networks that could not be trained."""
        parents = [p for p in self.plan.parents if not (p.underway and p.node.done)]
        if not parents:
            return set()
        log.info("stage 1: %d dense network%s", len(parents), "s" * (len(parents) > 1))
        items, task = self._parent_jobs(parents)
        ends = self._launch(task, items, [(p.node, p.cells) for p in parents], "dense")
        failed = set()
        for parent, end in zip(parents, ends, strict=True):
            if end.status is JobStatus.FAILED and not parent.node.done:
                failed.add(parent.node.key)
                cells = [c for c in parent.cells if self.state(c)[0] != "failed"]
                mark_orphans(map(self._folder, cells), end._return_value)
        return failed

    def _compute_cells(self, jobs: Sequence[tuple[Cell, ...]]) -> None:
        stage = "stage 2: " if jobs[0][0].lineage.parent else ""
        log.info("%s%d cells", stage, sum(map(len, jobs)))
        items, task = self._cell_jobs(jobs)
        ends = self._launch(task, items, [(c[0].lineage.last, c) for c in jobs], "cells")
        for cells, end in zip(jobs, ends, strict=True):
            if end.status is JobStatus.FAILED:
                for cell in cells:
                    if not cell.done and self.state(cell)[0] not in ("done", "failed"):
                        output = self._folder(cell)
                        output.mkdir(exist_ok=True)
                        cli.write_status(output, "failed", time.time(), end._return_value)

    def _parent_jobs(self, parents: Sequence[Parent]) -> tuple[Items, ParentTask]:
        items, cells = [], {}
        for parent in parents:
            first = parent.cells[0]
            name = f"dense_{parent.node.key[:8]}"
            config = self._frozen(first, name)
            config.rewind.keep = parent.config.rewind.keep
            items.append((first.overrides, config))
            cells[name] = {str(c.number): c.config for c in parent.cells}
        return items, ParentTask(cells)

    def _cell_jobs(self, jobs: Sequence[tuple[Cell, ...]]) -> tuple[Items, CellsTask]:
        items = [(cells[0].overrides, self._frozen(cells[0])) for cells in jobs]
        followers = {
            str(cells[0].number): [self._frozen(c) for c in cells[1:]]
            for cells in jobs
            if len(cells) > 1
        }
        return items, CellsTask(self.main, followers, self.callbacks)

    def _frozen(self, cell: Cell, folder: str | None = None) -> DictConfig:
        name = str(cell.number) if folder is None else folder
        return frozen(self.configs[cell.number], str(self.folder), name)

    # -- launching -------------------------------------------------------------------------------

    def _launch(
        self, task: Task, items: Items, about: Sequence[tuple[Node, Sequence[Cell]]], stage: str
    ) -> list[JobReturn]:
        launcher = self._launcher(task, items)
        if hasattr(launcher, "submit"):
            submitted = self._submit(task, items)
            self._record(about, submitted, stage)
            ends: list[JobReturn] = launcher.wait(submitted)
            return ends
        ends, size = [], self.batch or len(items)
        for first in range(0, len(items), size):
            overrides = [list(o) for o, _ in items[first : first + size]]
            ends += launcher.launch(overrides, initial_job_idx=first)
        return ends

    def _submit(self, task: Task, items: Items, **extra: Any) -> list[Any]:
        launcher = self._launcher(task, items)
        if not hasattr(launcher, "submit"):
            raise ConfigError("sweep.detach=true needs hydra/launcher=submitit_slurm")
        folders = [self.folder / str(config.hydra.sweep.subdir) for _, config in items]
        for folder in folders:
            folder.mkdir(exist_ok=True)
            cli.write_status(folder, "queued", time.time())
        try:
            submitted: list[Any] = launcher.submit([list(o) for o, _ in items], 0, **extra)
        except LotteryError:  # refused
            for folder in folders:
                (folder / "status.json").unlink()
            raise
        return submitted

    def _launcher(self, task: Task, items: Items) -> Any:
        loader: Any = FrozenConfigs({tuple(o): config for o, config in items})
        return self.launcher(HydraContext(loader, self.callbacks), task)

    def _record(
        self, about: Sequence[tuple[Node, Sequence[Cell]]], submitted: Sequence[Any], stage: str
    ) -> None:
        """Remember which SLURM job computes what, for people and for other sweeps."""
        for (node, cells), job in zip(about, submitted, strict=True):
            self.jobs.append(
                {"job": job.job_id, "stage": stage, "cells": [c.number for c in cells]}
            )
            _claim(self.store, node, job.job_id, self.folder)
            for cell in cells if stage == "cells" else ():
                for goal in cell.lineage.goals:
                    _claim(self.store, goal, job.job_id, self.folder)
        self._write_record()
        ids = sorted({job.job_id.partition("_")[0] for job in submitted})
        log.info("submitted %s as job %s", stage, ", ".join(ids))

    @contextlib.contextmanager
    def _interruptible(self) -> Iterator[None]:
        try:
            yield
        except KeyboardInterrupt:
            print(self.farewell("interrupted here"), file=sys.stderr)
            sys.exit(130)

    def farewell(self, how: str) -> str:
        """What to tell somebody who does not wait: how to watch, resume and cancel."""
        if not self.jobs:
            return f"{how}; the same command goes on from there"
        ids = list(dict.fromkeys(job["job"].partition("_")[0] for job in self.jobs))
        return "\n".join(
            [
                f"{how}; the submitted jobs go on",
                f"  watch:   squeue --jobs={','.join(ids)}{self._watching()}",
                "  resume:  the same command; it submits only what is missing",
                f"  cancel:  scancel {' '.join(ids)}",
            ]
        )

    def _watching(self) -> str:
        found_tickets = any(cell.lineage.rounds for cell in self.plan.cells)
        return f"; python report.py sweep={self.folder}" if found_tickets else ""

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

    def conclude(self, config: Config) -> None:
        """Write the report, and the plan and the verdict as a W&B run of the sweep itself."""
        from lottery.analysis import report

        if not config.sweep.report:
            return
        logger = config.logger
        wanted = report.Wandb(
            mode=logger.mode if logger.name == "wandb" else "disabled",
            project=logger.project,
            entity=logger.entity,
        )
        try:
            verdict = report.publish(report.Options(sweep=str(self.folder), logger=wanted))
        except LotteryError as error:
            log.warning("no report: %s", error)
            return
        if wanted.mode != "disabled" and self._planned["jobs"]:
            tracker = Tracker(logger, self.folder, self.folder.name, {"plan": self._planned})
            with tracker.wandb_run(f"sweep-{self.folder.name}", "sweep") as run:
                winner = files.read_json(self.folder / "report" / "winning_ticket.json")
                run.summary.update(
                    {"plan": self._planned, "verdict": verdict, "winner": winner["winner"]}
                )

    def _folder(self, cell: Cell) -> Path:
        return self.folder / str(cell.number)


def underway(store: Store) -> Callable[[Node], str | None]:
    """Who computes a node: the owner of its lease, or a SLURM job submitted for it."""
    queued: dict[str, str] | None = None

    def who(node: Node) -> str | None:
        nonlocal queued
        if owner := store.owner(node):
            return owner
        if job := _job_of(store, node):
            if queued is None:
                queued = slurm.queued() or {}
            if job in queued:
                return f"SLURM job {job} ({queued[job].lower()})"
        return None

    return who


def _claim(store: Store, node: Node, job: str, sweep: Path) -> None:
    folder = store.root / "jobs"
    folder.mkdir(parents=True, exist_ok=True)
    files.write_json(
        folder / f"{node.kind}-{node.key}.json", {"job": job, "sweep": str(sweep.resolve())}
    )


def _job_of(store: Store, node: Node) -> str | None:
    try:
        claim = files.read_json(store.root / "jobs" / f"{node.kind}-{node.key}.json")
    except FileNotFoundError:
        return None
    return str(claim["job"])


def _study(config: DictConfig) -> DictConfig:
    """A composed config without Hydra's part."""
    study = config.copy()
    with open_dict(study):
        study.pop("hydra", None)
    return study


def summary(plan: Plan) -> dict[str, int]:
    """The counts of a plan."""
    return {
        "cells": len(plan.cells),
        "done": len(plan.done),
        "underway": len(plan.underway),
        "jobs": len(plan.jobs),
        "dense_missing": len(plan.parents),
        "epochs": plan.epochs,
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
