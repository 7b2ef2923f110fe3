"""What SLURM says: its limits, the queue, how finished jobs ended; and the orders it takes."""

import functools
import re
import shutil
import subprocess
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

from lottery.errors import LotteryError

DEFAULT_ARRAY_SIZE = 1001  # SLURM's own MaxArraySize
_UNFINISHED = {"PENDING", "RUNNING", "COMPLETING", "REQUEUED", "SUSPENDED", "CONFIGURING"}


class FullError(LotteryError):
    """A limit on submitted jobs is reached; there will be places when some of them have ended."""


@dataclass(frozen=True)
class Limits:
    """What a cluster sets for all its users."""

    array_size: int  # jobs in one array
    enforced: bool  # whether a user may only submit so many jobs


@dataclass(frozen=True)
class Queued:
    """A job in the queue."""

    state: str  # PENDING, RUNNING, ...
    reason: str  # why it waits; None in SLURM's word for: not considered yet
    start: datetime | None  # when it began, or is expected to; local time


@functools.cache
def limits() -> Limits:
    """The limits of this cluster; SLURM's defaults if it does not answer."""
    answer = _ask("scontrol", "show", "config") or []
    found = {k.strip(): v.strip() for k, _, v in (line.partition("=") for line in answer)}
    size = int(found.get("MaxArraySize", DEFAULT_ARRAY_SIZE))
    if tasks := re.search(r"max_array_tasks=(\d+)", found.get("SchedulerParameters", "")):
        size = min(size, int(tasks[1]))
    enforced = re.split(r"[,\s]+", found.get("AccountingStorageEnforce", "").lower())
    return Limits(max(size, 1), bool({"limits", "qos", "safe", "all"} & set(enforced)))


def queued() -> dict[str, str] | None:
    """State of each of the user's jobs in the queue, by id (``12_3`` in an array).

    None if SLURM does not answer, or if there is none.
    """
    lines = _ask("squeue", "--me", "--array", "--noheader", "--format=%i|%T")
    if lines is None:
        return None
    return dict(line.split("|", 1) for line in lines if "|" in line)


def look(jobs: Iterable[str]) -> dict[str, Queued] | None:
    """Those of the jobs that are in the queue, by id; None if SLURM does not answer.

    Asks for these jobs alone, arrays as a whole.
    """
    numbers = sorted({job.partition("_")[0] for job in jobs})
    if not numbers or shutil.which("squeue") is None:
        return {}
    command = ("squeue", "--array", "--noheader", "--format=%i|%T|%S|%r")
    lines = _ask(*command, f"--jobs={','.join(numbers)}", gone="Invalid job id")
    if lines is None:
        return None
    rows = (line.split("|", 3) for line in lines if line.count("|") >= 3)
    return {job: Queued(state, reason.strip(), _time(start)) for job, state, start, reason in rows}


def final_states(jobs: Collection[str]) -> dict[str, str]:
    """How jobs ended, by id; without those of which SLURM says nothing, or that go on.

    The controller remembers for some minutes, accounts for good, where SLURM keeps them: they
    may lag behind on a busy machine.
    """
    if not jobs:
        return {}
    from submitit.slurm.slurm import SlurmInfoWatcher  # reads ranges such as 12_[0-3] too

    ids = ",".join(sorted({job.partition("_")[0] for job in jobs}))
    lines = _ask("squeue", "--states=all", "--array", "--noheader", "--format=%i|%T", "-j", ids)
    ends = dict(line.split("|", 1) for line in lines or [] if "|" in line)
    ends = {job: ends[job] for job in jobs if ends.get(job, "PENDING") not in _UNFINISHED}
    if len(ends) < len(jobs):
        lines = _ask("sacct", "-X", "--parsable2", "-o", "JobID,State", "-j", ids)
        told = SlurmInfoWatcher().read_info("\n".join(lines or []))
        ends = {job: told[job]["State"] for job in jobs if job in told} | ends
    return ends


def throttle(array: str, most: int) -> bool:
    """Let at most so many jobs of an array run at a time; whether SLURM did it."""
    return _ask("scontrol", "update", f"JobId={array}", f"ArrayTaskThrottle={most}") is not None


def release(job: str, after: Collection[str]) -> None:
    """Let a held job start once all of ``after`` have ended, however; in ten minutes if none.

    Raises :class:`LotteryError` if SLURM does not do it.
    """
    if after:
        when = f"Dependency={','.join(f'afterany:{each}' for each in sorted(after))}"
    else:
        when = "StartTime=now+600"
    for order in (("update", f"JobId={job}", when), ("release", job)):
        if _ask("scontrol", *order) is None:
            raise LotteryError(f"SLURM did not do: scontrol {' '.join(order)}")


def cancel(job: str) -> None:
    """Cancel a job."""
    _ask("scancel", job)


def _time(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:  # N/A
        return None


def _ask(*command: str, gone: str | None = None) -> list[str] | None:
    """Lines of the answer; none if it is an error with the words ``gone``."""
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    if answer.returncode:
        return [] if gone and gone in answer.stderr else None
    return answer.stdout.splitlines()
