"""A sweep that nobody waits for: SLURM starts the cells after their parents, and submits the rest.

What SLURM does not take at once is submitted by a small job of its own, which starts when the jobs
before it have ended, and leaves another such job behind if there still is a rest. So does what a
search asks for: the small job is told what the wave before has shown, and submits the next.
"""

import logging
import math
import os
import re
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import setup_globals

from lottery import files
from lottery.analysis.overview import show_wave
from lottery.errors import ConfigError, LotteryError
from lottery.sweep import slurm
from lottery.sweep.arrays import Arrays
from lottery.sweep.claims import claimed, submitting, underway
from lottery.sweep.jobs import Job, Task, mark_orphans
from lottery.sweep.plan import Cell, Parent
from lottery.sweep.slurm import FullError
from lottery.sweep.staged import StagedSweep, next_wave
from lottery.sweep.waves import Waves

log = logging.getLogger(__name__)

Group = tuple[Cell, ...]

PATIENCE, PAUSE = 45 * 60.0, 30.0  # seconds in which the small job waits for a place, and between
# What the small job needs, whatever the cells ask for.
SMALL: dict[str, Any] = {
    "nodes": 1, "tasks_per_node": 1, "cpus_per_task": 1, "gpus_per_node": None, "gres": None,
    "gpus_per_task": None, "cpus_per_gpu": None, "mem_per_gpu": None,
}  # fmt: skip


@dataclass
class Detached:
    """A sweep whose jobs are submitted in rounds; called, it submits the next one.

    ``waves`` are those of a search, which asks for more when a wave has ended.
    """

    sweep: StagedSweep
    waves: Waves | None = None
    state: Any = None  # Hydra's singletons, for a process that Hydra has not started
    _failed: LotteryError | None = None  # what a search that has ended has to say of its cells

    def start(self) -> bool:
        """Write what the sweep is, and submit the first round; whether there is more to come.

        There is not if all that a search needs is in the store.

        Raises :class:`LotteryError` if SLURM takes nothing or refuses the jobs, and if a search has
        ended with failed cells. Signals end it as they end :meth:`StagedSweep.run`.
        """
        if not hasattr(self.sweep.launcher_of(_nothing, []), "submit_call"):
            raise ConfigError("sweep.detach=true needs hydra/launcher=submitit_slurm")
        self.sweep.begin()
        try:
            with self.sweep.interruptible():
                while (place := self.submit()) is None and self._next_wave():
                    pass
        except FullError as full:
            raise LotteryError(
                f"SLURM takes no more of your jobs now ({full}): the same command, when some have "
                "ended, submits what is missing"
            ) from full
        if place:
            self.sweep.elsewhere.add(place)
        if self._failed:
            raise self._failed
        return self.waves is None or place is not None

    def __call__(self) -> None:
        """In the small job: submit the rest, or as much as fits."""
        Singleton.set_state(self.state)
        setup_globals()
        record = files.read_json(self.sweep.folder / "sweep.json")
        self.sweep.jobs = record["jobs"]
        self._catch_up([cell["overrides"] for cell in record["cells"]])
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                submitted = self.submit(own=os.environ["SLURM_JOB_ID"])
            except FullError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(PAUSE)
            else:
                if submitted or not self._next_wave():
                    break
        if self._failed:
            raise self._failed

    def _catch_up(self, planned: Sequence[Sequence[str]]) -> None:
        """Go on where this job was stopped, if it began another wave before it was queued again."""
        begun = planned[len(self.sweep.cells) :]
        if self.waves is None or not begun:
            return
        self.sweep.take_over()
        self.waves.tell(self.sweep.results())
        wave = self.waves.again(begun)
        self.sweep.go_on(wave.plan, wave.configs)
        self.sweep.begin()

    def _next_wave(self) -> bool:
        """Plan what the search asks for, now that a wave has ended; False at its end."""
        if self.waves is None:
            return False
        self.sweep.take_over()
        self.waves.apart = os.environ.get("SLURM_JOB_ID")
        wave = next_wave(self.sweep, self.waves)
        if wave is None:
            self._failed = self.sweep.end()
            return False
        show_wave(wave, self.waves, self.sweep.launcher)
        self.sweep.begin()
        return True

    def submit(self, own: str | None = None) -> str | None:
        """Submit what SLURM takes now; the job that will submit the rest, if there is one.

        Or, of a search, the next wave; None if there is nothing of this one to wait for. ``own`` is
        the small job that this runs in. Raises :class:`FullError` if SLURM takes no job, not even
        the one that is to submit the rest.
        """
        with submitting(self.sweep.store):
            self._who = underway(self.sweep.store, apart=own)
            parents = self._parents()
            return self._submit(parents, self._families(parents))

    # -- what is to be done ----------------------------------------------------------------------

    def _parents(self) -> list[Parent]:
        """Dense networks that nobody has submitted yet, in this wave."""
        cells = {cell.number: cell for cell in self.sweep.plan.cells}
        submitted = {
            cells[job["cells"][0]].lineage.parent
            for job in self.sweep.jobs
            if job["stage"] == "dense" and job["cells"][0] in cells
        }
        return [
            p
            for p in self.sweep.plan.parents
            if p.node.key not in submitted and not self._who(p.node)
        ]

    def _families(self, parents: Sequence[Parent]) -> list[tuple[str | None, list[Group]]]:
        """Groups of cells that nobody has submitted yet, with the parent that they wait for.

        Cells whose dense network failed are recorded as failed.
        """
        jobs = self.sweep.jobs
        submitted = {cell for job in jobs if job["stage"] == "cells" for cell in job["cells"]}
        waits = {p.node.key: p.node for p in self.sweep.plan.parents}
        soon = {p.node.key for p in parents}
        families: dict[str | None, list[Group]] = {}
        for group in self.sweep.plan.jobs:
            if group[0].number in submitted or not any(map(self._missing, group)):
                continue
            node = waits.get(group[0].lineage.parent or "")
            if node is None or (node.key not in soon and not self._who(node) and node.done):
                families.setdefault(None, []).append(group)
            elif node.key in soon or self._who(node):
                families.setdefault(node.key, []).append(group)
            else:
                silent = [c for c in group if self.sweep.state(c)[0] != "failed"]
                reason = LotteryError("its job ended without a result")
                mark_orphans([self.sweep.folder / str(c.number) for c in silent], reason)
        return list(families.items())

    def _others(self) -> list[str]:
        """Who computes cells of this wave of a search that this sweep has not submitted."""
        if self.waves is None:
            return []
        nodes = [n for c in self.sweep.plan.cells if not c.done for n in c.lineage.goals]
        return [who for node in nodes if (who := self._who(node))]

    def _missing(self, cell: Cell) -> bool:
        return not cell.done and not all(map(self._who, cell.lineage.goals))

    # -- handing over ----------------------------------------------------------------------------

    def _submit(
        self, parents: Sequence[Parent], families: Sequence[tuple[str | None, list[Group]]]
    ) -> str | None:
        sweep = self.sweep
        parallel, most = sweep.launcher.parallel, sweep.batch
        limits = slurm.limits()
        size = limits.array_size
        counts = [math.ceil(len(groups) / size) for _, groups in families]
        others = self._others()
        if not parents and not families and not others:
            return None
        room = len(parents) <= parallel  # for cells beside their parents, see below
        whole = room and sum(counts) <= parallel and most is None and not limits.enforced
        # A place is taken first for the job that submits the rest, and given back if there is none.
        place = None if whole and self.waves is None else self._hold()
        arrays, rest = [], []
        try:
            dense = Arrays(parallel, size, most)
            jobs, task = sweep.parent_jobs(parents)
            rest += self._hand_over(dense, task, jobs)
            most = None if most is None else most - dense.unfinished
            cells = Arrays(parallel, size, most)
            arrays = [*dense.submitted]
            for i, (parent, groups) in enumerate(families):
                group_jobs, group_task = sweep.cell_jobs(groups)
                # As many run as may, and no more: parents that wait in turn leave cells no place.
                if not room or any(job.node.key == parent for job in rest):
                    rest += group_jobs
                    continue
                extra = self._after(parent)
                later = sum(counts[i + 1 :])
                rest += self._hand_over(cells, group_task, group_jobs, later, **extra)
            cells.loosen(slurm.throttle)
            arrays += cells.submitted
            if rest or self.waves is not None:
                place = place or self._hold()
                slurm.release(
                    place, {*(array.job for array in arrays), *map(_job_in, others)} - {""}
                )
                for job in rest:
                    sweep.claim(job, place)
                what = _count(len(rest), "job") if rest else "the next wave"
                log.info("%s will be submitted by job %s", what, place)
                kept, place = place, None
                return kept
        finally:
            if place:
                slurm.cancel(place)
        return None

    def _hand_over(
        self, arrays: Arrays, task: Task, jobs: Sequence[Job], later: int = 0, **extra: Any
    ) -> list[Job]:
        """Submit jobs; those that are left over."""
        if not jobs:
            return []
        launcher = self.sweep.launcher_of(task, jobs)
        waiting = deque(range(len(jobs)))

        def submit(numbers: Sequence[int], throttle: int) -> str:
            chosen = [jobs[number] for number in numbers]
            overrides = [list(job.overrides) for job in chosen]
            handles = launcher.submit(overrides, numbers[0], array_parallelism=throttle, **extra)
            self.sweep.record(chosen, handles)
            return str(handles[0].job_id).partition("_")[0]

        self.sweep.queue(jobs)
        try:
            arrays.fill(waiting, submit, later=later)
        except BaseException:  # refused, or interrupted
            self.sweep.unqueue([jobs[number] for number in waiting])
            raise
        return [jobs[number] for number in waiting]

    def _after(self, parent: str | None) -> dict[str, Any]:
        """What makes jobs wait for their dense network, or be cancelled if it fails."""
        if parent is None:
            return {}
        (node,) = (p.node for p in self.sweep.plan.parents if p.node.key == parent)
        claim = claimed(self.sweep.store, node)
        if claim is None or slurm.look([claim[0]]) == {}:
            return {}  # no job trains it, but a process elsewhere: cells wait for that themselves
        return {
            "dependency": f"afterok:{claim[0]}",
            "additional_parameters": {"kill-on-invalid-dep": "yes"},
        }

    def _hold(self) -> str:
        """A held job that will submit the rest."""
        launcher = self.sweep.launcher_of(_nothing, [])
        call = Detached(self.sweep, self.waves, Singleton.get_state())
        held = {"name": "submits-the-rest", "timeout_min": 60,
                "additional_parameters": {"hold": True}}  # fmt: skip
        try:
            return str(launcher.submit_call(call, **SMALL, **held).job_id)
        except FullError:
            raise
        except LotteryError:  # jobs here must be of a certain size, as those of the cells are
            return str(launcher.submit_call(call, **held).job_id)


def _job_in(who: str) -> str:
    """The SLURM job in what is said of whoever computes a node; empty if it is another process."""
    found = re.match(r"SLURM job (\S+)", who)
    return found[1] if found else ""


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number > 1)}"


def _nothing(config: Any) -> None:
    """What the small job's launcher would run."""
