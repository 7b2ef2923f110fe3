"""Which SLURM job was submitted for which node: so that no sweep submits another's work."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from lottery import files
from lottery.store import Node, Store
from lottery.sweep import slurm


def claim(store: Store, node: Node, job: str, output: Path) -> None:
    """Note that a job was submitted for a node; ``output`` is where it says how it ended."""
    folder = store.root / "jobs"
    folder.mkdir(parents=True, exist_ok=True)
    files.write_json(
        folder / f"{node.kind}-{node.key}.json", {"job": job, "output": str(output.resolve())}
    )


def claimed(store: Store, node: Node) -> tuple[str, Path] | None:
    """The job last submitted for a node, and its output folder; it may have ended long ago."""
    try:
        about = files.read_json(store.root / "jobs" / f"{node.kind}-{node.key}.json")
    except FileNotFoundError:
        return None
    return str(about["job"]), Path(about.get("output", ""))


def underway(store: Store, apart: str | None = None) -> Callable[[Node], str | None]:
    """Who computes a node: the owner of its lease, or a SLURM job submitted for it, but ``apart``.

    SLURM is asked at most once: the answers are as old as the first.
    """
    queued: dict[str, str] | None = None

    def who(node: Node) -> str | None:
        nonlocal queued
        if owner := store.owner(node):
            return owner
        if found := claimed(store, node):
            job, _ = found
            if job == apart:
                return None
            if queued is None:
                queued = slurm.queued() or {}
            if job in queued:
                return f"SLURM job {job} ({queued[job].lower()})"
        return None

    return who


@contextlib.contextmanager
def submitting(store: Store) -> Iterator[None]:
    """Let no other process look for what is missing, submit and claim it, meanwhile.

    Raises :class:`LotteryError` if the file system has no locks.
    """
    folder = store.root / "jobs"
    folder.mkdir(parents=True, exist_ok=True)
    with files.locked(folder / ".lock"):
        yield
