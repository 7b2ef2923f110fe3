"""Hands jobs to SLURM as it takes them, and waits until all have ended."""

import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from hydra.core.utils import JobReturn, JobStatus

from lottery.errors import LotteryError
from lottery.sweep import slurm
from lottery.sweep.arrays import Arrays
from lottery.sweep.progress import Progress

log = logging.getLogger(__name__)

SOON, LATE = 1.0, 10.0  # seconds between looks at the queue: at first, and in the end
GRACE = 15.0  # seconds in which the result of a job that left the queue must appear
RETRY = 60.0  # seconds after which a full queue is tried again, if no job of ours has ended


@dataclass(frozen=True)
class Hooks:
    """What a sweep does around a submission.

    ``alone`` keeps other processes from submitting the same meanwhile, ``wanted`` tells whether a
    job still has something to do, ``submitted`` gets the numbers and handles of an array.
    """

    alone: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext
    wanted: Callable[[int], bool] = lambda number: True
    submitted: Callable[[Sequence[int], Sequence[Any]], None] = lambda numbers, jobs: None


class Feed:
    """Jobs on their way through SLURM; ``most`` of them at a time in its queue."""

    def __init__(
        self,
        launcher: Any,  # SlurmLauncher
        overrides: Sequence[Sequence[str]],
        hooks: Hooks | None = None,
        most: int | None = None,
    ) -> None:
        self.launcher, self.overrides, self.hooks = launcher, overrides, hooks or Hooks()
        self.waiting = deque(range(len(overrides)))
        self.arrays = Arrays(launcher.parallel, slurm.limits().array_size, most)
        self.ends: dict[int, JobReturn] = {}
        self._open: dict[int, Any] = {}  # number -> submitit's handle
        self._absent: dict[int, float] = {}  # left the queue without a result, when first seen
        self._told_full = False

    def run(self) -> list[JobReturn]:
        """How each job ended, once all have; one that had nothing to do is completed."""
        self._fill()
        progress = Progress(len(self.overrides), self.launcher.params)
        progress.ended = len(self.ends)
        tried = time.monotonic()
        for _ in pauses():
            if len(self.ends) == len(self.overrides):
                break
            queue = slurm.look(job.job_id for job in self._open.values())
            ended = {} if queue is None else self._ended(queue)
            for number in ended:
                self.arrays.ended(number)
            if queue is not None:
                ours = {job.job_id for job in self._open.values()}
                progress.tell(
                    {job: q for job, q in queue.items() if job in ours},
                    list(ended.values()),
                    len(self.waiting),
                )
            if self.waiting and (ended or time.monotonic() - tried > RETRY):
                if not ended:
                    self.arrays.forget_limit()
                tried = time.monotonic()
                self._fill()
            elif ended:
                self.arrays.loosen(slurm.throttle)
        return [self.ends[number] for number in range(len(self.overrides))]

    def _fill(self) -> None:
        with self.hooks.alone():
            wanted: dict[int, bool] = {}

            def submit(numbers: Sequence[int], throttle: int) -> str:
                for number in numbers:
                    if number not in wanted:
                        wanted[number] = self.hooks.wanted(number)
                rest = [number for number in numbers if wanted[number]]
                if not rest:
                    return ""
                overrides = [list(self.overrides[number]) for number in rest]
                jobs = self.launcher.submit(overrides, rest[0], array_parallelism=throttle)
                self.hooks.submitted(rest, jobs)
                self._open |= dict(zip(rest, jobs, strict=True))
                return str(jobs[0].job_id).partition("_")[0]

            self.arrays.fill(self.waiting, submit)
            for number, needed in wanted.items():
                if not needed:
                    self.ends[number] = completed()
                    self.arrays.ended(number)
        self.arrays.loosen(slurm.throttle)
        self._tell_full()

    def _tell_full(self) -> None:
        full = self.arrays.full
        if full and "Grp" not in full and not self.arrays.unfinished and slurm.queued() == {}:
            raise LotteryError(f"SLURM takes no job at all: {full}")
        if self.waiting and not self._told_full:
            self._told_full = True
            log.info(
                "%d of %d jobs are submitted; the rest follow as those end%s",
                len(self.overrides) - len(self.waiting), len(self.overrides),
                f" ({full})" if full else "",
            )  # fmt: skip

    def _ended(self, queue: Collection[str]) -> dict[int, str]:
        """Numbers and ids of jobs that have ended since the last look."""
        gone = {n: job for n, job in self._open.items() if job.job_id not in queue}
        self._absent = {n: since for n, since in self._absent.items() if n in gone}
        lost = []
        now = time.monotonic()
        for number, job in gone.items():
            with contextlib.suppress(OSError):
                # Network file systems remember for a while that a file was missing: look afresh.
                list(job.paths.folder.iterdir())
            if job.paths.result_pickle.exists():
                self.ends[number] = self.launcher.outcome(job)
            elif now - self._absent.setdefault(number, now) > GRACE:
                lost.append(number)
        states = slurm.final_states([gone[number].job_id for number in lost])
        for number in lost:
            job = gone[number].job_id
            state = states.get(job, "SLURM no longer knows it")
            self.ends[number] = failed(f"job {job} ended without a result: {state}")
        ended = {n: job.job_id for n, job in gone.items() if n in self.ends}
        for number, job in ended.items():
            del self._open[number]
            if self.ends[number].status is JobStatus.FAILED:
                why = str(self.ends[number]._return_value).partition("\n")[0]
                log.warning("job %s failed: %s", job, why)
        return ended


def pauses() -> Iterator[None]:
    """Sleeps that begin short, for small jobs, and grow to what a cluster's servers like."""
    begun = time.monotonic()
    while True:
        time.sleep(min(max(SOON, (time.monotonic() - begun) / 10), LATE))
        yield


def completed() -> JobReturn:
    """The end of a job that had nothing to do."""
    result = JobReturn()
    result.status = JobStatus.COMPLETED
    return result


def failed(message: str) -> JobReturn:
    """The end of a job that leaves no other sign."""
    result = JobReturn()
    result.status = JobStatus.FAILED
    result.return_value = LotteryError(message)
    return result
