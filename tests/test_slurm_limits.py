"""Sweeps larger than what a cluster takes at a time: how they are cut, and what is said meanwhile.

Without a cluster; the same on a real one is in test_slurm.py.
"""

from collections import deque
from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lottery.sweep import reasons
from lottery.sweep.arrays import Arrays
from lottery.sweep.progress import Progress
from lottery.sweep.slurm import FullError, Queued


class Queue:
    """SLURM with a MaxArraySize and a MaxSubmitJobs; runs jobs in order, within their throttles."""

    def __init__(self, size: int, places: int) -> None:
        self.size, self.places = size, places
        self.arrays: dict[str, list[int]] = {}
        self.throttles: dict[str, int] = {}
        self.attempts = 0

    def submit(self, jobs, throttle) -> str:
        self.attempts += 1
        assert 1 <= len(jobs) <= self.size, "Invalid job array specification"
        assert throttle >= 1
        if sum(map(len, self.arrays.values())) + len(jobs) > self.places:
            raise FullError("AssocMaxSubmitJobLimit")
        name = str(len(self.throttles))
        self.arrays[name], self.throttles[name] = list(jobs), throttle
        return name

    def loosen(self, array, throttle) -> bool:
        self.throttles[array] = throttle
        return True

    @property
    def running(self) -> list[int]:
        return [j for name, jobs in self.arrays.items() for j in jobs[: self.throttles[name]]]


@settings(deadline=None)
@given(
    count=st.integers(1, 60),
    size=st.integers(1, 21),
    places=st.integers(1, 30),
    parallel=st.integers(1, 25),
    most=st.none() | st.integers(1, 10),
    data=st.data(),
)
def test_all_jobs_run_once_and_never_too_many(count, size, places, parallel, most, data):
    """Whatever ends first: each array fits, ``parallel`` holds over all, no place stays unused."""
    queue = Queue(size, places)
    arrays, waiting = Arrays(parallel, size, most), deque(range(count))
    arrays.fill(waiting, queue.submit)
    arrays.loosen(queue.loosen)
    ran = []
    while queue.running:
        assert len(queue.running) <= parallel
        assert most is None or sum(map(len, queue.arrays.values())) <= most
        possible = min(parallel, places, most or count, count - len(ran))
        assert len(queue.running) == possible, "a job that could run is held back"
        job = data.draw(st.sampled_from(queue.running))
        ran.append(job)
        for jobs in queue.arrays.values():
            if job in jobs:
                jobs.remove(job)
        arrays.ended(job)
        arrays.fill(waiting, queue.submit)
        arrays.loosen(queue.loosen)
    assert sorted(ran) == list(range(count))


def test_a_large_sweep_is_two_arrays_that_share_the_throttle():
    queue = Queue(1001, 10**6)
    waiting = deque(range(1900))
    Arrays(20, 1001).fill(waiting, queue.submit)
    assert not waiting
    assert [len(jobs) for jobs in queue.arrays.values()] == [950, 950]
    assert list(queue.throttles.values()) == [10, 10]


def test_a_full_queue_is_not_asked_again_until_a_job_has_ended():
    queue = Queue(1001, 30)
    arrays, waiting = Arrays(40, 1001), deque(range(1000))
    arrays.fill(waiting, queue.submit)
    attempts = queue.attempts
    assert len(waiting) == 1000 - arrays.unfinished
    arrays.fill(waiting, queue.submit)
    assert queue.attempts == attempts
    queue.places = 40
    arrays.forget_limit()
    for _ in range(3):
        arrays.fill(waiting, queue.submit)
    assert queue.attempts == attempts + 1
    assert len(waiting) == 1000 - arrays.unfinished
    assert arrays.unfinished == 31


def waits(job: str, reason: str, start: datetime | None = None) -> dict[str, Queued]:
    return {job: Queued("PENDING", reason, start)}


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, 12, 0)

    def __call__(self) -> datetime:
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def test_reasons_are_said_in_words_when_they_change(caplog):
    caplog.set_level("INFO")
    clock = Clock()
    progress = Progress(3, {"timeout_min": 2000, "partition": "gpu"}, clock=clock)
    said = lambda: [caplog.messages, caplog.clear()][0]  # noqa: E731

    progress.tell(waits("7_0", "None"), [])
    assert said() == []
    progress.tell(waits("7_0", "Priority", clock.now + timedelta(hours=2)), [])
    (line,) = said()
    assert "1 waiting: other jobs come first (Priority)" in line
    assert "SLURM expects the next to start at Thu 14:00" in line
    clock.pass_(100)
    progress.tell(waits("7_0", "Priority"), [])
    assert said() == []
    progress.tell(waits("7_0", "QOSMaxCpuPerUserLimit"), [])
    (line,) = said()
    assert "the QOS is at its limit of CPUs; it starts when others have ended" in line
    progress.tell(waits("7_0", "Priority"), [])  # within a minute
    assert said() == []

    progress.tell(waits("7_0", "Priority") | waits("7_1", "PartitionTimeLimit"), [])
    (line,) = said()
    assert line == (
        "job 7_1 can never start: it asks for more time than the partition allows "
        "(PartitionTimeLimit); asked for by hydra.launcher.timeout_min=2000, "
        "hydra.launcher.partition=gpu; to give up: scancel 7"
    )
    progress.tell(waits("7_0", "Priority") | waits("7_1", "PartitionTimeLimit"), [])
    assert said() == []  # once


def test_the_end_is_estimated_once_a_job_has_ended(caplog):
    caplog.set_level("INFO")
    clock = Clock()
    progress = Progress(7, {}, clock=clock)
    begun = clock.now

    def queue(running: str, waiting: int) -> dict[str, Queued]:
        both = {f"7_{n}": Queued("RUNNING", "None", begun) for n in running}
        return both | {
            f"8_{n}": Queued("PENDING", "JobArrayTaskLimit", None) for n in range(waiting)
        }

    progress.tell(queue("01", 4), [], later=1)
    assert caplog.messages == []
    clock.pass_(600)
    progress.tell(queue("1", 4), ["7_0"], later=1)
    (line,) = caplog.messages
    # One of two slots is over in no time; five more jobs of 600 s, one slot known to be in use.
    assert line == (
        "1 of 7 jobs ended, 1 running, 4 waiting, 1 not submitted yet; "
        "all done in about 50 min, at 13:00"
    )


@pytest.mark.parametrize(
    ("reason", "words", "never"),
    [
        ("Resources", "no node is free", False),
        ("BadConstraints", "no node can ever give what it asks for", True),
        ("ReqNodeNotAvail, UnavailableNodes:n1", "down, drained or reserved", False),
        ("QOSMaxWallDurationPerJobLimit", "more time than the QOS allows a job", True),
        ("QOSMaxCpuPerJobLimit", "more CPUs than the QOS allows a job", True),
        ("AssocGrpGRES", "your account, which others use too, is at its limit of GPUs", False),
        ("QOSMaxGRESPerUser", "the QOS is at its limit of GPUs", False),
        ("AssocMaxJobsLimit", "your account is at its limit of jobs at a time", False),
        ("QOSGrpNodeLimit", "the QOS, which others use too, is at its limit of nodes", False),
        ("SomethingNew", "SLURM says SomethingNew", False),
    ],
)
def test_reasons_in_words(reason, words, never):
    told = reasons.explain(reason)
    assert words in told.words
    assert told.never is never


@pytest.mark.parametrize(
    ("said", "asked"),
    [
        ("CPU count per node can not be satisfied", "hydra.launcher.cpus_per_task=32"),
        ("invalid partition specified: nope", "hydra.launcher.partition=gpu"),
        ("Invalid generic resource (gres) specification", "hydra.launcher.gpus_per_node=4"),
        ("Requested node configuration is not available", "hydra.launcher.nodes=1"),
    ],
)
def test_a_refusal_names_the_options_behind_it(said, asked):
    launcher = {"cpus_per_task": 32, "partition": "gpu", "gpus_per_node": 4, "nodes": 1}
    message = reasons.refusal(f"sbatch: error: {said}", launcher)
    assert message.startswith(f"SLURM refused the jobs: sbatch: error: {said}")
    assert asked in message.partition("asked for by")[2]
