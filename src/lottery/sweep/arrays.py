"""How many jobs go into which array, when SLURM takes only so many at a time."""

import math
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from lottery.sweep.slurm import FullError

Submit = Callable[[Sequence[int], int], str]


@dataclass
class Array:
    """A submitted array: SLURM's number, how many of its jobs may run, and those not ended."""

    job: str
    throttle: int
    left: set[int]


class Arrays:
    """Arrays of which, together, at most ``parallel`` jobs run.

    An array holds at most ``size`` jobs, and at most ``most`` jobs are in the queue (None: as many
    as SLURM takes).
    """

    def __init__(self, parallel: int, size: int, most: int | None = None) -> None:
        self.parallel, self.size, self.most = max(parallel, 1), size, most
        self.submitted: list[Array] = []
        self.full = ""  # SLURM's words when it took no more
        self._accepted: int | None = None  # as many jobs as it has taken at once when it said so

    @property
    def unfinished(self) -> int:
        """Jobs in the queue, or running."""
        return sum(len(array.left) for array in self.submitted)

    @property
    def spare(self) -> int:
        """How many more jobs may run."""
        return self.parallel - sum(min(a.throttle, len(a.left)) for a in self.submitted)

    def fill(self, waiting: deque[int], submit: Submit, *, later: int = 0) -> None:
        """Submit from the front of ``waiting`` what may be submitted now.

        ``submit(jobs, throttle)`` gives the number of an array; if it raises :class:`FullError`,
        half as many are tried. ``later`` arrays are to come, which want their share of the jobs
        that may run.
        """
        room, most = len(waiting), len(waiting)
        for bound in (self.most, self._accepted):
            if bound is not None:
                room = min(room, bound - self.unfinished)
        while waiting and room > 0 and self.spare > 0:
            arrays = math.ceil(room / self.size)
            count = min(math.ceil(room / arrays), most)
            share = max(1, self.spare // (arrays + later))
            chunk = [waiting[i] for i in range(count)]
            try:
                job = submit(chunk, share)
            except FullError as full:
                self.full = str(full)
                room, most = count - 1, max(1, count // 2)
                self._accepted = self.unfinished
                continue
            for _ in chunk:
                waiting.popleft()
            room -= count
            self.submitted.append(Array(job, share, set(chunk)))
            if self._accepted is not None:
                self._accepted = max(self._accepted, self.unfinished)

    def forget_limit(self) -> None:
        """Try one job more than SLURM took before: others may have ended."""
        if self._accepted is not None:
            self._accepted = max(self._accepted, self.unfinished) + 1

    def ended(self, job: int) -> None:
        """A job has ended."""
        for array in self.submitted:
            array.left.discard(job)
        self.submitted = [array for array in self.submitted if array.left]

    def loosen(self, throttle: Callable[[str, int], Hashable]) -> None:
        """Give what ended arrays no longer use to those that could use it."""
        for array in self.submitted:
            more = min(self.spare, len(array.left) - array.throttle)
            if more > 0 and throttle(array.job, array.throttle + more):
                array.throttle += more
