"""Waiting for SLURM's jobs and for what others compute, without a cluster."""

import itertools
from pathlib import Path

import pytest
from hydra.core.utils import JobStatus

from lottery import files
from lottery.store import Node, Store
from lottery.sweep import claims, feed, follow, slurm
from lottery.sweep.feed import Feed, completed
from lottery.sweep.slurm import FullError, Queued


class Result:
    """A result file on a shared file system that counts how often it is asked for."""

    def __init__(self) -> None:
        self.there, self.asked = False, 0

    def exists(self) -> bool:
        self.asked += 1
        return self.there


class Handle:
    """A submitted job, as submitit describes it."""

    def __init__(self, job_id: str, folder: Path) -> None:
        self.job_id, self.paths = job_id, self
        self.folder, self.result_pickle = folder, Result()


class Launcher:
    """Takes everything, and gives arrays the numbers 100, 101, ..."""

    parallel = 20
    params: dict[str, object] = {}  # noqa: RUF012

    def __init__(self, folder: Path) -> None:
        self.folder, self.jobs, self.numbers = folder, [], itertools.count(100)

    def submit(self, overrides, first, array_parallelism):
        array = next(self.numbers)
        made = [Handle(f"{array}_{i}", self.folder) for i in range(len(overrides))]
        self.jobs += made
        return made

    def outcome(self, job):
        return completed()


@pytest.fixture
def quick(monkeypatch):
    """No time passes."""
    monkeypatch.setattr(feed, "pauses", lambda: itertools.repeat(None))
    monkeypatch.setattr(follow, "pauses", lambda: itertools.repeat(None))
    monkeypatch.setattr(follow, "GRACE", 0.0)
    monkeypatch.setattr(slurm, "limits", lambda: slurm.Limits(1001, False))


def test_results_are_looked_for_when_a_job_has_left_the_queue_only(tmp_path, monkeypatch, quick):
    """Not each of 1,900 once a second."""
    launcher = Launcher(tmp_path)
    looks = []

    def look(jobs):
        looks.append(list(jobs))
        still = [job for job in launcher.jobs if job.job_id in looks[-1]]
        if len(looks) > 20 and len(looks) % 2:  # then one ends every other time
            still.pop().result_pickle.there = True
        return {job.job_id: Queued("RUNNING", "None", None) for job in still}

    monkeypatch.setattr(slurm, "look", look)
    monkeypatch.setattr(slurm, "final_states", lambda jobs: {})
    ends = Feed(launcher, [[f"seed={n}"] for n in range(50)]).run()
    assert [end.status for end in ends] == 50 * [JobStatus.COMPLETED]
    assert len(looks) > 100
    assert sum(job.result_pickle.asked for job in launcher.jobs) == 50


@pytest.fixture
def clock(monkeypatch, quick) -> list[float]:
    """A second passes between looks; a test that takes an hour has failed."""
    now = [0.0]

    def pauses():
        while now[0] < 3600:
            now[0] += 1
            yield

    monkeypatch.setattr(feed, "pauses", pauses)
    monkeypatch.setattr(feed.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize("late", [False, True])
def test_a_result_may_take_a_while_to_appear_each_time_the_job_is_gone(
    tmp_path, monkeypatch, clock, late
):
    """It is gone while it is queued again, too."""
    launcher = Launcher(tmp_path)

    def look(jobs):
        (job,) = launcher.jobs
        job.result_pickle.there = clock[0] > (70 if late else 60)
        queued = not 10 < clock[0] < 20 and clock[0] < 50
        return {job.job_id: Queued("RUNNING", "None", None)} if queued else {}

    monkeypatch.setattr(slurm, "look", look)
    monkeypatch.setattr(slurm, "final_states", lambda jobs: dict.fromkeys(jobs, "NODE_FAIL"))
    (end,) = Feed(launcher, [["seed=0"]]).run()
    assert end.status is (JobStatus.FAILED if late else JobStatus.COMPLETED)
    if late:
        assert "job 100_0 ended without a result: NODE_FAIL" in str(end._return_value)


def test_a_queue_that_others_fill_is_tried_again_once_a_minute(tmp_path, monkeypatch, clock):
    """None of ours is there, whose end would tell that there is room."""
    launcher, tries = Launcher(tmp_path), []
    submit = launcher.submit

    def full(overrides, first, array_parallelism):
        tries.append(clock[0])
        if clock[0] < 100:
            raise FullError("AssocMaxSubmitJobLimit")
        (job,) = submit(overrides, first, array_parallelism)
        job.result_pickle.there = True
        return [job]

    monkeypatch.setattr(launcher, "submit", full)
    monkeypatch.setattr(slurm, "look", lambda jobs: {})
    monkeypatch.setattr(slurm, "queued", lambda: {"7": "RUNNING"})
    (end,) = Feed(launcher, [["seed=0"]]).run()
    assert end.status is JobStatus.COMPLETED
    assert tries == [0, 61, 122]


def test_what_submits_the_rest_waits_until_the_others_have_ended_however(monkeypatch):
    orders = []
    monkeypatch.setattr(slurm, "_ask", lambda *order: orders.append(order) or [])
    slurm.release("9", ["7", "8"])
    slurm.release("10", [])
    assert orders == [
        ("scontrol", "update", "JobId=9", "Dependency=afterany:7,afterany:8"),
        ("scontrol", "release", "9"),
        ("scontrol", "update", "JobId=10", "StartTime=now+600"),
        ("scontrol", "release", "10"),
    ]


def test_the_queue_is_asked_about_these_jobs_alone(monkeypatch):
    asked = []

    def ask(*command, **words):
        asked.append(command)
        return ["7_1|RUNNING|2026-01-01T12:00:00|None", "7_2|PENDING|N/A|Priority"]

    monkeypatch.setattr(slurm, "_ask", ask)
    monkeypatch.setattr(slurm.shutil, "which", lambda name: name)
    found = slurm.look(["7_1", "7_2", "9"])
    (command,) = asked
    assert "--jobs=7,9" in command
    assert found["7_2"] == Queued("PENDING", "Priority", None)
    assert found["7_1"].start is not None


def test_looks_begin_quick_and_become_rare(monkeypatch):
    now, slept = [0.0], []

    def sleep(seconds):
        slept.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(feed.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(feed.time, "sleep", sleep)
    for _ in zip(range(60), feed.pauses(), strict=False):
        pass
    assert slept[0] == 1
    assert slept == sorted(slept)
    assert slept[-1] == 10


# -- what others compute -------------------------------------------------------------------------


def node(store: Store, key: str) -> Node:
    return Node("ticket", key, store.root / "ticket" / key)


def finish(done: Node) -> None:
    done.path.mkdir(parents=True)
    (done.path / "done.json").write_text("{}")


def test_one_waits_until_the_jobs_of_others_have_ended(tmp_path, monkeypatch, quick):
    """Done, failed with its own words, killed without a word, submitted anew under a new number."""
    store = Store(tmp_path / "store")
    goals = {n: [node(store, name)] for n, name in enumerate(("good", "bad", "killed", "again"))}
    for n, job in enumerate(("5_0", "5_1", "5_2", "6")):
        claims.claim(store, goals[n][0], job, tmp_path / str(n))
    (tmp_path / "1").mkdir()
    rounds = []

    def look(jobs):
        rounds.append(set(jobs))
        if len(rounds) == 1:
            return {job: Queued("RUNNING", "None", None) for job in jobs}
        if len(rounds) == 2:
            finish(goals[0][0])
            files.write_json(tmp_path / "1" / "status.json", {"status": "failed", "error": "why"})
            claims.claim(store, goals[3][0], "8_0", tmp_path / "3")
            return {}
        if "8_0" in jobs and len(rounds) < 6:
            return {"8_0": Queued("PENDING", "Priority", None)}
        if not goals[3][0].done:
            finish(goals[3][0])
        return {}

    monkeypatch.setattr(slurm, "look", look)
    monkeypatch.setattr(slurm, "final_states", lambda jobs: dict.fromkeys(jobs, "CANCELLED"))
    lost = follow.follow(store, goals, {})
    assert lost == {1: "why", 2: "job 5_2 ended without a result: CANCELLED"}
    assert goals[0][0].done
    assert goals[3][0].done
