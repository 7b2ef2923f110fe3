"""What SLURM says about jobs: the queue, and how finished ones ended."""

import subprocess
from collections.abc import Collection


def queued() -> dict[str, str] | None:
    """State of each of the user's jobs in the queue, by id (``12_3`` in an array).

    None if SLURM does not answer, or if there is none.
    """
    lines = _ask("squeue", "--me", "--array", "--noheader", "--format=%i|%T")
    if lines is None:
        return None
    return dict(line.split("|", 1) for line in lines if "|" in line)


def final_states(jobs: Collection[str]) -> dict[str, str]:
    """How jobs ended, by id; empty where SLURM keeps no accounts."""
    if not jobs:
        return {}
    from submitit.slurm.slurm import SlurmInfoWatcher  # reads ranges such as 12_[0-3] too

    ids = ",".join(sorted({job.partition("_")[0] for job in jobs}))
    lines = _ask("sacct", "-X", "--parsable2", "-o", "JobID,State", "-j", ids)
    told = SlurmInfoWatcher().read_info("\n".join(lines or []))
    return {job: told[job]["State"] for job in jobs if job in told}


def _ask(*command: str) -> list[str] | None:
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.splitlines()
