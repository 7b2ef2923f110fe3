"""A sweep handed to a queue with few places, that nobody waits for, or no longer; no cluster."""

import functools
import itertools
import pickle
import signal
from dataclasses import replace
from types import SimpleNamespace

import pytest
from conftest import TINY, composed
from omegaconf import OmegaConf

from lottery import studies
from lottery.config import Config
from lottery.errors import LotteryError
from lottery.files import read_json
from lottery.store import Store
from lottery.sweep import claims, detached, plan, slurm
from lottery.sweep.detached import Detached
from lottery.sweep.slurm import FullError, Queued
from lottery.sweep.staged import StagedSweep


class Slurm:
    """The queue: array sizes and places are bounded; jobs end when told."""

    parallel = 4
    params: dict[str, object] = {}  # noqa: RUF012
    config = OmegaConf.create({"hydra": {"launcher": {"array_parallelism": 4}}})

    def __init__(self, size: int, places: int) -> None:
        self.size, self.places = size, places
        self.queue: dict[str, str | None] = {}  # job -> what it depends on
        self.throttles: dict[str, int] = {}
        self.held: dict[str, Detached] = {}
        self.number = 0

    def __call__(self, context, task) -> "Slurm":
        return self

    def _take(self, count: int) -> str:
        assert count <= self.size, "Invalid job array specification"
        if len(self.queue) + count > self.places:
            raise FullError("QOSMaxSubmitJobPerUserLimit")
        self.number += 1
        return str(self.number)

    def submit(self, overrides, first, array_parallelism, dependency=None, **others):
        array = self._take(len(overrides))
        self.throttles[array] = array_parallelism
        jobs = [f"{array}_{n}" for n in range(len(overrides))]
        self.queue |= dict.fromkeys(jobs, dependency)
        return [SimpleNamespace(job_id=job) for job in jobs]

    def submit_call(self, call, **parameters):
        job = self._take(1)
        self.queue[job] = "held"
        self.held[job] = call
        return SimpleNamespace(job_id=job)

    def release(self, job, after) -> None:
        self.queue[job] = ",".join(sorted(after))


@pytest.fixture
def cluster(monkeypatch):
    def make(size: int, places: int) -> Slurm:
        made = Slurm(size, places)
        monkeypatch.setattr(slurm, "limits", lambda: slurm.Limits(size, True))
        monkeypatch.setattr(slurm, "queued", lambda: dict.fromkeys(made.queue, "PENDING"))
        monkeypatch.setattr(
            slurm, "look",
            lambda jobs: {j: Queued("PENDING", "None", None) for j in jobs if j in made.queue},
        )  # fmt: skip
        monkeypatch.setattr(slurm, "release", made.release)
        monkeypatch.setattr(slurm, "cancel", lambda job: made.queue.pop(job))
        monkeypatch.setattr(slurm, "throttle", lambda array, most: True)
        return made

    return make


@functools.cache
def base() -> Config:
    return composed(*TINY)


def sweep_of(
    tmp_path, cluster, percentiles=(50,), seeds=(0,), study="prune", **options
) -> StagedSweep:
    cells = []
    for seed, percentile in itertools.product(seeds, percentiles):
        mask = replace(base().mask, percentile=float(percentile))
        names = (f"seed={seed}", f"mask.percentile={percentile}")
        cells.append((names, replace(base(), seed=seed, mask=mask)))
    told = studies.find(study)
    made = plan.make(cells, Store(tmp_path / "store"), chain=told.lineage)
    config = OmegaConf.create(
        {"rewind": {"keep": []}, "hydra": {"sweep": {"dir": "", "subdir": ""}}}
    )
    (tmp_path / "sweep").mkdir()
    return StagedSweep(
        tmp_path / "sweep", Store(tmp_path / "store"), made,
        [config.copy() for _ in cells], main=str, study=told, launcher=cluster,
        callbacks=None, **options,
    )  # fmt: skip


def finish(node) -> None:
    node.path.mkdir(parents=True)
    (node.path / "done.json").write_text("{}")
    (node.path / "network.json").write_text('{"steps_per_epoch": 10}')


def test_a_dense_network_that_is_done_but_lacks_a_state_has_a_job_all_the_same(tmp_path, cluster):
    sweep = sweep_of(tmp_path, cluster(size=5, places=8))
    finish(sweep.plan.parents[0].node)  # which kept nothing
    jobs, _ = sweep.parent_jobs(sweep.plan.parents)
    assert [sweep.wanted(job, lambda node: None) for job in jobs] == [True]
    assert [sweep.wanted(job, lambda node: "job 7") for job in jobs] == [False]
    early = replace(jobs[0], stage="early")
    assert not sweep.wanted(early, lambda node: None)


def test_cells_that_wait_for_no_dense_network_are_submitted_alone(tmp_path, cluster):
    """Those of train.py, of which the queue takes some now."""
    queue = cluster(size=5, places=8)
    sweep = sweep_of(tmp_path, queue, seeds=range(20), study="train")
    Detached(sweep).start()
    assert {job["stage"] for job in sweep.jobs} == {"cells"}
    assert 0 < len(sweep.jobs) < 8
    assert len(sweep.elsewhere) == 1


def test_the_rest_is_submitted_in_rounds_until_there_is_none(tmp_path, cluster, monkeypatch):
    queue = cluster(size=5, places=8)
    sweep = sweep_of(tmp_path, queue, range(50, 70))
    Detached(sweep).start()
    first = [job for job in sweep.jobs if job["stage"] == "cells"]
    assert sweep.jobs[0] == {"job": "2_0", "stage": "dense", "cells": list(range(20))}
    assert 0 < len(first) <= 6  # of eight places, for the parent, these, and the small job
    assert all(queue.queue[job["job"]] == "afterok:2_0" for job in first)
    (small,) = sweep.elsewhere
    assert queue.queue[small] == ",".join(sorted({j["job"].partition("_")[0] for j in sweep.jobs}))
    late = sweep.plan.cells[19].lineage.last
    assert claims.claimed(sweep.store, late)[0] == small
    assert claims.underway(sweep.store)(late) == f"SLURM job {small} (pending)"

    finish(sweep.plan.cells[0].lineage.dense)
    for _ in range(10):
        queue.queue = {small: None}  # all others have ended
        monkeypatch.setenv("SLURM_JOB_ID", small)
        sweep.jobs = read_json(sweep.folder / "sweep.json")["jobs"]
        place = Detached(sweep).submit(own=small)
        assert (
            sum(queue.throttles[a] for a in {j.partition("_")[0] for j in queue.queue if "_" in j})
            <= 4
        )
        assert len(queue.queue) <= 8
        if place is None:
            break
        small = place
    cells = [cell for job in sweep.jobs if job["stage"] == "cells" for cell in job["cells"]]
    assert sorted(cells) == list(range(20))  # each once


def test_cells_of_a_dense_network_that_failed_are_not_submitted(tmp_path, cluster):
    queue = cluster(size=5, places=4)
    sweep = sweep_of(tmp_path, queue, range(50, 60))
    Detached(sweep).start()
    (small,) = sweep.elsewhere
    queue.queue = {small: None}
    assert Detached(sweep).submit(own=small) is None
    submitted = {cell for job in sweep.jobs if job["stage"] == "cells" for cell in job["cells"]}
    for cell in set(range(10)) - submitted:
        about = read_json(sweep.folder / str(cell) / "status.json")
        assert about["status"] == "failed"
        assert about["error"].startswith("its dense network failed")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("detach", [False, True])
def test_who_stops_the_submission_leaves_no_cell_queued_without_a_job(
    tmp_path, cluster, monkeypatch, capsys, signum, detach
):
    queue = cluster(size=2, places=4)
    sweep = sweep_of(tmp_path, queue, seeds=range(8))
    if detach:
        submit = queue.submit

        def interrupted(*arguments, **options):
            if sweep.jobs:
                signal.raise_signal(signum)
            return submit(*arguments, **options)

        monkeypatch.setattr(queue, "submit", interrupted)
    else:
        monkeypatch.setattr(slurm, "look", lambda jobs: signal.raise_signal(signum))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit) as left:
            (Detached(sweep).start if detach else sweep.run)()
    finally:
        signal.signal(signal.SIGINT, before)
    assert left.value.code == 128 + signum
    told = [read_json(path) for path in sweep.folder.glob("*/status.json")]
    assert [about["status"] for about in told] == ["queued"] * len(sweep.jobs)
    assert 0 < len(sweep.jobs) < 8
    assert signum == signal.SIGINT or signal.getsignal(signum) == signal.SIG_DFL
    said = capsys.readouterr().err
    assert "here; the submitted jobs go on" in said
    assert "resume:  the same command" in said


def test_families_share_what_may_run(tmp_path, cluster):
    queue = cluster(size=1000, places=1000)
    sweep = sweep_of(tmp_path, queue, (50, 60, 70), (0, 1))
    Detached(sweep).start()
    dense, *cells = queue.throttles.values()
    assert dense == 4
    assert cells == [2, 2]
    assert sweep.elsewhere == set()
    assert "held" not in queue.queue.values()  # the place for a rest was given back


def test_a_queue_without_any_place_is_said(tmp_path, cluster):
    sweep = sweep_of(tmp_path, cluster(size=5, places=0))
    with pytest.raises(LotteryError, match="SLURM takes no more of your jobs now"):
        Detached(sweep).start()


def test_max_batch_size_bounds_a_round(tmp_path, cluster):
    queue = cluster(size=1000, places=1000)
    sweep = sweep_of(tmp_path, queue, range(50, 60), batch=3)
    Detached(sweep).start()
    assert len(sweep.jobs) == 3


def test_the_small_job_can_be_pickled(tmp_path, cluster):
    sweep = sweep_of(tmp_path, cluster(size=5, places=8))
    sweep.launcher = None
    again = pickle.loads(pickle.dumps(Detached(sweep)))
    assert again.sweep.plan.cells[0].lineage == sweep.plan.cells[0].lineage
    assert detached.SMALL["gpus_per_node"] is None
