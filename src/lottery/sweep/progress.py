"""What a waiting process says: how many jobs ended, why others wait, when all will be done."""

import heapq
import logging
import statistics
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from lottery.sweep import reasons
from lottery.sweep.slurm import Queued

log = logging.getLogger(__name__)

UNSAID = {"None", "JobArrayTaskLimit"}  # not considered yet; our own array_parallelism
AGAIN = timedelta(minutes=1)  # reasons that come and go are not said more often


class Progress:
    """Of ``total`` jobs (or another ``noun``), submitted with the options ``launcher``."""

    def __init__(
        self,
        total: int,
        launcher: Mapping[str, Any],
        noun: str = "jobs",
        clock: Callable[[], datetime] = datetime.now,
    ) -> None:
        self.total, self.launcher, self.noun, self._clock = total, launcher, noun, clock
        self.ended = 0
        self._starts: dict[str, datetime] = {}
        self._seconds: list[float] = []
        self._said: tuple[str, ...] = ()
        self._said_at: datetime | None = None
        self._hopeless: set[str] = set()

    def tell(self, queue: Mapping[str, Queued], ended: Sequence[str], later: int = 0) -> None:
        """Say what is new: jobs that ``ended``, reasons of those that wait in ``queue``.

        ``later`` jobs are not submitted yet.
        """
        now = self._clock()
        for job in ended:
            if job in self._starts:
                self._seconds.append((now - self._starts.pop(job)).total_seconds())
        self.ended += len(ended)
        waiting = {job: q for job, q in queue.items() if q.state == "PENDING"}
        running = [job for job in queue if job not in waiting]
        for job in running:
            self._starts.setdefault(job, queue[job].start or now)
        if ended:
            self._tell_ends(now, running, len(waiting), later)
        self._tell_reasons(now, waiting)

    def _tell_ends(self, now: datetime, running: Sequence[str], waiting: int, later: int) -> None:
        parts = [f"{self.ended} of {self.total} {self.noun} ended", f"{len(running)} running"]
        parts += [f"{waiting} waiting"] * (waiting > 0)
        parts += [f"{later} not submitted yet"] * (later > 0)
        line = ", ".join(parts)
        if (seconds := self.remaining(now, running, waiting + later)) is not None:
            line += (
                f"; all done in about {_span(seconds)}, at {now + timedelta(seconds=seconds):%H:%M}"
            )
        log.info("%s", line)

    def remaining(self, now: datetime, running: Collection[str], waiting: int) -> float | None:
        """Seconds until all have ended, if each takes as long as those before, as many at a time.

        None if none has ended yet, or all have.
        """
        if not self._seconds or not (running or waiting):
            return None
        each = statistics.median(self._seconds)
        ages = [(now - self._starts[job]).total_seconds() for job in running]
        slots = [max(each - age, 0.0) for age in ages] or [0.0]
        heapq.heapify(slots)
        for _ in range(waiting):
            heapq.heappush(slots, heapq.heappop(slots) + each)
        return max(slots)

    def _tell_reasons(self, now: datetime, waiting: Mapping[str, Queued]) -> None:
        why = Counter(q.reason for q in waiting.values() if q.reason not in UNSAID)
        for reason in why:
            told = reasons.explain(reason)
            jobs = sorted(j for j, q in waiting.items() if q.reason == reason)
            if told.never and not set(jobs) <= self._hopeless:
                self._hopeless |= set(jobs)
                asked = reasons.options(told.options, self.launcher)
                log.warning(
                    "%s can never start: %s (%s)%s; to give up: scancel %s",
                    _jobs(jobs), told.words, reason, f"; asked for by {asked}" if asked else "",
                    " ".join(sorted({job.partition("_")[0] for job in jobs})),
                )  # fmt: skip
        hopeful = {r: n for r, n in sorted(why.items()) if not reasons.explain(r).never}
        if not hopeful or tuple(hopeful) == self._said:
            return
        if self._said_at is not None and now - self._said_at < AGAIN:
            return
        self._said, self._said_at = tuple(hopeful), now
        lines = [f"{n} waiting: {reasons.explain(r).words} ({r})" for r, n in hopeful.items()]
        starts = [q.start for q in waiting.values() if q.start is not None and q.start > now]
        if starts:
            lines.append(f"SLURM expects the next to start at {min(starts):%a %H:%M}")
        log.info("%s", "; ".join(lines))


def _jobs(jobs: Sequence[str]) -> str:
    return f"job {jobs[0]}" if len(jobs) == 1 else f"{len(jobs)} jobs ({jobs[0]}, ...)"


def _span(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes // 60}:{minutes % 60:02d} h" if minutes >= 120 else f"{minutes} min"
