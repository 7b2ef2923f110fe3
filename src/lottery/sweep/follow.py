"""Waits for what other processes and earlier sweeps compute, as if it had submitted it."""

import contextlib
import itertools
import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from lottery import files
from lottery.store import Node, Store
from lottery.sweep import slurm
from lottery.sweep.claims import claimed
from lottery.sweep.feed import GRACE, pauses
from lottery.sweep.progress import Progress


def follow(
    store: Store,
    goals: Mapping[int, Sequence[Node]],
    launcher: Mapping[str, Any],
    noun: str = "cells",
    seen: Callable[[Collection[str]], None] = lambda jobs: None,
) -> dict[int, str]:
    """Wait until all nodes of each goal are done, or nobody computes them any more.

    ``seen`` gets the SLURM jobs that were followed. Returns why, for each goal that is not done.
    """
    left = {number: tuple(nodes) for number, nodes in goals.items()}
    jobs = {number: _jobs(store, nodes) for number, nodes in left.items()}
    idle: dict[int, float] = {}  # nobody computes it: since when
    lost: dict[int, str] = {}
    progress = Progress(len(goals), launcher, noun)
    for _ in itertools.chain([None], pauses()):
        present = _present(store, left.values())
        done = [n for n, nodes in left.items() if all(_done(node, present) for node in nodes)]
        queue = slurm.look({job for number in left for job in jobs[number]})
        gone = []
        for number in left.keys() - set(done):
            if queue is None or jobs[number] & queue.keys():
                idle.pop(number, None)
                continue
            now = time.monotonic()
            if (again := _jobs(store, left[number])) != jobs[number]:  # submitted once more
                jobs[number] = again
                idle.pop(number, None)
            elif any(store.owner(node) for node in left[number]):
                idle.pop(number, None)
            elif now - idle.setdefault(number, now) > GRACE:
                gone.append(number)
        seen(set().union(*(jobs[number] for number in left)))
        ids = [min(jobs[number], default="") for number in (*done, *gone)]
        lost |= {number: _why(store, left[number]) for number in gone}
        for number in (*done, *gone):
            del left[number]
        ours = set().union(*(jobs[number] for number in left))
        progress.tell({job: q for job, q in (queue or {}).items() if job in ours}, ids)
        if not left:
            break
    return lost


def _jobs(store: Store, nodes: Sequence[Node]) -> set[str]:
    found = (claimed(store, node) for node in nodes if not node.done)
    return {claim[0] for claim in found if claim}


def _present(store: Store, goals: Collection[Sequence[Node]]) -> set[tuple[str, str]]:
    """Kind and key of each node there is, by one listing a kind: not a look for every node."""
    present = set()
    for kind in {node.kind for nodes in goals for node in nodes}:
        with contextlib.suppress(FileNotFoundError):
            present |= {(kind, path.name) for path in (store.root / kind).iterdir()}
    return present


def _done(node: Node, present: Collection[tuple[str, str]]) -> bool:
    return (node.kind, node.key) in present and node.done


def _why(store: Store, nodes: Sequence[Node]) -> str:
    """Why a goal that nobody computes any more is not done."""
    for node in nodes:
        if node.done or not (claim := claimed(store, node)):
            continue
        job, output = claim
        with contextlib.suppress(OSError, json.JSONDecodeError):
            about = files.read_json(output / "status.json")
            if about["status"] == "failed":
                return str(about["error"])
        state = slurm.final_states([job]).get(job, "SLURM no longer knows it")
        return f"job {job} ended without a result: {state}"
    return "the process that computed it is gone"
