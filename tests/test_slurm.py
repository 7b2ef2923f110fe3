"""The daily command on a real SLURM cluster, and all that clusters do to jobs."""

import functools
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import REPOSITORY, TINY, command, environment, run
from hydra import compose, initialize_config_dir
from hydra._internal.callbacks import Callbacks
from slurm_cluster import Cluster
from test_kill import assert_same
from test_tracking import tracked

from lottery import studies
from lottery.config import typed
from lottery.files import read_json
from lottery.runs import Run
from lottery.store import Store
from lottery.sweep import claims, plan, slurm
from lottery.sweep.detached import Detached
from lottery.sweep.jobs import Launchers
from lottery.sweep.staged import StagedSweep

pytestmark = pytest.mark.cluster

SLURM = (
    "hydra/launcher=submitit_slurm", "hydra.launcher.cpus_per_task=1",
    "hydra.launcher.signal_delay_s=20",
)  # fmt: skip
# Long enough to be interrupted: many short epochs, with dropout and momentum.
LONG = (*TINY, "model.dropout=0.3", "trainer.batch_size=16", "trainer.steps_per_call=4",
        "rewind.epoch=0", "rewind.keep=[]")  # fmt: skip


@dataclass
class Sweep:
    """A submitting process, and what it leaves."""

    process: subprocess.Popen[str]
    outputs: Path
    cluster: Cluster

    def end(self, timeout: float = 500) -> tuple[int, str]:
        """Exit code and output."""
        stdout, stderr = self.process.communicate(timeout=timeout)
        return self.process.returncode, stdout + stderr

    @property
    def folder(self) -> Path:
        """The newest sweep's."""
        scripts = [p for p in self.outputs.iterdir() if p.name in ("prune", "train")]
        return max((f for s in scripts for f in s.iterdir()), key=lambda f: f.name)

    def status(self, cell: object) -> str:
        try:
            return str(read_json(self.folder / str(cell) / "status.json")["status"])
        except (FileNotFoundError, ValueError):
            return "missing"

    def epochs(self, kind: str, per_epoch: int = 76) -> int:
        """How far the runs being trained have come."""
        found = (self.outputs / "store").glob(f"work/{kind}-*/checkpoints/step_*")
        return max((int(p.name.removeprefix("step_")) // per_epoch for p in found), default=0)

    def reach(self, kind: str, epoch: int) -> None:
        """Wait until a run is in the middle of its training."""
        self.cluster.wait_until(lambda: self.epochs(kind) >= epoch, 120)


def started(
    cluster: Cluster, folder: Path, script: str, *overrides: str, root: Path = REPOSITORY
) -> Sweep:
    """A sweep that a process begins to submit."""
    line = command(script, "-m", *SLURM, *overrides, f"paths.outputs={folder / 'outputs'}")
    line[line.index(str(REPOSITORY / script))] = str(root / script)
    process = subprocess.Popen(
        line, env=environment(**cluster.environment), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder,
    )  # fmt: skip
    return Sweep(process, folder / "outputs", cluster)


@pytest.fixture
def submit(cluster: Cluster, tmp_path: Path) -> Callable[..., Sweep]:
    return functools.partial(started, cluster, tmp_path)


def jobs_of(sweep: Sweep) -> list[dict[str, Any]]:
    """What the newest sweep has submitted so far; nothing while it is still being planned."""
    records = sweep.outputs.glob("*/*/sweep.json")
    newest = max(records, key=lambda path: path.parent.name, default=None)
    return list(read_json(newest)["jobs"]) if newest else []


def logs(sweep: Sweep) -> str:
    if not (sweep.outputs / "train").exists() and not (sweep.outputs / "prune").exists():
        return ""  # not begun
    return "".join(p.read_text() for p in sweep.folder.glob(".submitit/*/*_log.out"))


def slurm_state(job: str) -> str:
    """How a job ended, also one that never began and so has no row of its own."""
    return slurm.final_states([job]).get(job, "UNKNOWN").split()[0]


# -- the daily command -------------------------------------------------------------------------

GRID = ("mask.percentile=50,60,...,70", "rewind.epoch=0,1")


def test_the_daily_command(submit):
    first = submit("prune.py", *TINY, *GRID)
    code, said = first.end()
    assert code == 0, said
    assert "6 cells: 6 done" in said
    # One dense network, alone and first; then the cells as one array, and nobody waited.
    stages = [(job["stage"], job["job"].partition("_")[0]) for job in jobs_of(first)]
    assert [stage for stage, _ in stages] == ["dense"] + 6 * ["cells"]
    assert len({job for _, job in stages}) == 2
    assert logs(first).count("training dense") == 1
    assert logs(first).count("training ticket") == 6
    assert "waiting for" not in logs(first)
    accounts = first.cluster.accounting
    first.cluster.wait_until(
        lambda: all(accounts(job["job"]) == ["COMPLETED"] for job in jobs_of(first))
    )
    epochs = 2 + 3 * (2 + 1)  # E + M x sum(E - k)
    assert f"epochs to train {epochs}, each dense network and mask shared; {5 * 2 + 11}" in said

    # A wider grid submits what is missing only.
    wider = submit("prune.py", *TINY, "mask.percentile=50,60,...,80", "rewind.epoch=0,1")
    code, said = wider.end()
    assert code == 0, said
    assert "8 cells: 8 done" in said
    assert [job["cells"] for job in jobs_of(wider)] == [[3], [7]]  # numbered by the grid

    # And the same again, nothing.
    again = submit("prune.py", *TINY, *GRID)
    code, said = again.end()
    assert code == 0, said
    assert "6 done, 0 underway elsewhere, 0 to run" in said
    assert "submitted" not in said
    assert all(again.status(cell) == "done" for cell in range(6))


def test_tickets_of_the_start_are_submitted_beside_their_dense_network(submit):
    sweep = submit("prune.py", *TINY, "rewind.epoch=0", "mask.at=end,start")
    code, said = sweep.end()
    assert code == 0, said
    jobs = [(job["stage"], job["cells"]) for job in jobs_of(sweep)]
    assert jobs == [("dense", [0, 1]), ("early", [1]), ("cells", [0])]
    dense, early, _ = (job["job"].partition("_")[0] for job in jobs_of(sweep))
    assert dense == early  # one array
    assert [sweep.status(cell) for cell in (0, 1)] == ["done", "done"]
    assert "2 cells: 2 done" in said


def test_hydras_own_sweeper_submits_whole_studies(submit):
    """One array, no stages; the store's leases share the dense network."""
    sweep = submit("prune.py", "hydra/sweeper=basic", *TINY, "mask.percentile=50,60")
    code, said = sweep.end()
    assert code == 0, said
    assert [sweep.status(cell) for cell in (0, 1)] == ["done", "done"]
    assert logs(sweep).count("training dense") == 1
    assert logs(sweep).count("training ticket") == 2


def test_iterative_rounds_chain_in_one_job(submit):
    """Cells of one chain share its rounds: one job for all, and no other waits for it."""
    sweep = submit(
        "prune.py", *TINY, "mask=iterative", "mask.rate=50", "mask.percentile=60,80",
        "rewind.epoch=0,1", "rewind=weights,reinit",
    )  # fmt: skip
    code, said = sweep.end()
    assert code == 0, said
    assert "8 cells: 8 done" in said
    assert "waiting for" not in logs(sweep)
    cells = sorted(tuple(j["cells"]) for j in jobs_of(sweep) if j["stage"] == "cells")
    assert sum(map(len, cells)) == 8
    assert len(cells) == 2  # a chain for each rewind epoch; the controls share its rounds
    assert all(sweep.status(cell) == "done" for cell in range(8))
    assert all((sweep.folder / str(c) / "result.json").exists() for c in range(8))


# -- what clusters do ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> Run:
    outputs = tmp_path_factory.mktemp("unbroken")
    done = run("train.py", *LONG, "trainer.epochs=100", f"paths.outputs={outputs}")
    assert done.returncode == 0, done.stderr
    (path,) = (outputs / "store" / "dense").iterdir()
    return Run(path)


def only_run(sweep: Sweep, kind: str = "dense") -> Run:
    (path,) = (sweep.outputs / "store" / kind).iterdir()
    return Run(path)


def test_the_signal_of_a_time_limit_again_and_again(submit, unbroken):
    """Each time the job saves, queues again, and goes on in its folder and its W&B run."""
    sweep = submit("train.py", *LONG, "seed=0", "trainer.epochs=100", "logger=wandb")
    for goal in (10, 45):
        sweep.reach("dense", goal)
        (job,) = jobs_of(sweep)
        sweep.cluster.run("scancel", "--signal=USR2", job["job"])
        sweep.cluster.wait_until(lambda: sweep.status(0) == "queued", 60)
    code, said = sweep.end()
    assert code == 0, said
    assert sweep.status(0) == "done"
    assert len(read_json(only_run(sweep).path / "provenance.json")) == 3
    assert logs(sweep).count("resuming after step") == 2
    assert_same(only_run(sweep), unbroken)
    slices = [tracked(p) for p in sorted((sweep.folder / "0").rglob("run-*.wandb"))]
    assert len(slices) == 3
    assert {s.run.run_id for s in slices} == {unbroken.key}
    logged = [row["epoch"] for s in slices for row in s.history]
    assert logged == list(range(1, 101))  # each epoch once


def test_a_time_limit_that_strikes(submit):
    """SLURM's own limit, a slice of a minute: the next one goes on from where it got."""
    sweep = submit(
        "train.py", *LONG, "seed=0", "trainer.epochs=100000", "hydra.launcher.timeout_min=1",
        "hydra.launcher.signal_delay_s=10",
        "hydra.launcher.srun_args=[nice,'-n','19']",  # a minute of a core, which others may have
    )  # fmt: skip

    def resumed() -> list[int]:
        return [int(rest.split()[0]) for rest in logs(sweep).split("resuming after step ")[1:]]

    sweep.cluster.wait_until(resumed, 400)
    assert resumed()[0] > 0
    (job,) = jobs_of(sweep)
    # Or the limit may strike again in the moment in which the job is cancelled.
    sweep.cluster.run("scontrol", "update", f"JobId={job['job']}", "TimeLimit=60")
    sweep.cluster.wait_until(lambda: sweep.status(0) == "running")
    sweep.cluster.run("scancel", job["job"])
    code, said = sweep.end()
    assert code == 1
    assert "CANCELLED" in said, said


def test_preemption(submit, unbroken):
    sweep = submit("train.py", *LONG, "seed=0", "trainer.epochs=100", "+hydra.launcher.nodelist=n1")
    sweep.reach("dense", 10)
    sweep.cluster.run(
        "sbatch", "--partition=urgent", "--nodelist=n1", "--gpus-per-node=4", "--wrap=sleep 1",
        "--output=/dev/null",
    )  # fmt: skip
    code, said = sweep.end()
    assert code == 0, said
    (job,) = jobs_of(sweep)
    ends = ["REQUEUED", "COMPLETED"]
    sweep.cluster.wait_until(lambda: sweep.cluster.accounting(job["job"])[-2:] == ends)
    assert_same(only_run(sweep), unbroken)


def test_a_node_that_fails(submit, unbroken):
    """No signal, no warning: at most one epoch is lost."""
    sweep = submit("train.py", *LONG, "seed=0", "trainer.epochs=100")
    sweep.reach("dense", 10)
    (job,) = jobs_of(sweep)
    node = sweep.cluster.run("squeue", "--noheader", "--format=%N", f"--jobs={job['job']}").strip()
    reached = sweep.epochs("dense")
    sweep.cluster.kill_node(node)
    try:
        code, said = sweep.end()
    finally:
        sweep.cluster.revive_node(node)
    assert code == 0, said
    resumed = int(logs(sweep).partition("resuming after step ")[2].split()[0])
    assert resumed >= (reached - 1) * 76
    assert_same(only_run(sweep), unbroken)


def test_a_job_killed_outright_is_noticed_and_the_same_command_goes_on(submit, unbroken):
    arguments = ("train.py", *LONG, "seed=0,1", "trainer.epochs=100")
    sweep = submit(*arguments)
    sweep.reach("dense", 10)
    killed = jobs_of(sweep)[0]["job"]
    sweep.cluster.run("scancel", "--signal=KILL", killed)
    code, said = sweep.end()
    assert code == 1, said
    assert "2 cells: 1 done, 1 failed" in said
    assert "1 of 2 cells failed; the same command runs those and what is missing" in said
    about = read_json(sweep.folder / "0" / "status.json")
    assert about["status"] == "failed"
    assert f"job {killed} ended without a result: CANCELLED" in about["error"]
    assert sweep.status(1) == "done"

    again = submit(*arguments)
    code, said = again.end()
    assert code == 0, said
    assert "2 cells: 2 done" in said
    assert [job["cells"] for job in jobs_of(again)] == [[0]]
    assert "resuming after step" in logs(again)
    assert_same(Run(unbroken.path), Run(sweep.outputs / "store" / "dense" / unbroken.key))


def test_a_cell_that_raises(submit):
    """SLURM shows FAILED, status.json has the traceback, the siblings finish."""
    sweep = submit("train.py", *TINY, "seed=0", "optimizer.learning_rate=1e30,0.05")
    code, said = sweep.end()
    assert code == 1, said
    assert "2 cells: 1 done, 1 failed" in said
    bad, good = (job["job"] for job in jobs_of(sweep))
    sweep.cluster.wait_until(lambda: sweep.cluster.accounting(bad) == ["FAILED"])
    sweep.cluster.wait_until(lambda: sweep.cluster.accounting(good) == ["COMPLETED"])
    about = read_json(sweep.folder / "0" / "status.json")
    assert about["status"] == "failed"
    assert "DivergedError" in about["traceback"]
    assert about["error"].splitlines()[0][:60] in said


def test_ctrl_c_leaves_the_jobs_alone_and_says_how_to_go_on(submit):
    sweep = submit("train.py", *LONG, "seed=0", "trainer.epochs=30")
    sweep.reach("dense", 5)
    sweep.process.send_signal(signal.SIGINT)
    code, said = sweep.end()
    assert code == 130
    (job,) = jobs_of(sweep)
    number = job["job"]
    assert f"scancel {number}" in said
    assert f"squeue --jobs={number}" in said
    assert "the same command; it submits only what is missing" in said

    # The same command while it runs: nothing is submitted twice, and it ends as the first would.
    meanwhile = submit("train.py", *LONG, "seed=0", "trainer.epochs=30")
    code, said = meanwhile.end()
    assert code == 0, said
    assert "submitted" not in said
    assert "1 cell: 1 done" in said
    if "1 done, 0 underway" not in said:  # it may have ended
        assert "0 done, 1 underway elsewhere, 0 to run" in said
        assert "waiting for 1 cell that is under way already" in said
    assert (meanwhile.folder / "0" / "result.json").exists()
    sweep.cluster.wait_until(lambda: sweep.cluster.accounting(number) == ["COMPLETED"], 120)


def test_a_config_edited_while_its_job_is_queued_changes_nothing(submit, tmp_path):
    code = tmp_path / "checkout"
    shutil.copytree(REPOSITORY / "conf", code / "conf")
    shutil.copy(REPOSITORY / "train.py", code)
    sweep = submit(
        "train.py", *TINY, "seed=0,1", "+hydra.launcher.additional_parameters.hold=true",
        "hydra.launcher.additional_parameters.requeue=true", root=code,
    )  # fmt: skip
    sweep.cluster.wait_until(lambda: jobs_of(sweep))
    optimizer = code / "conf" / "optimizer" / "sgd.yaml"
    optimizer.write_text(optimizer.read_text().replace("learning_rate: 0.05", "learning_rate: 9.0"))
    (code / "conf" / "config.yaml").write_text("this is: [not YAML")
    sweep.cluster.run("scontrol", "release", jobs_of(sweep)[0]["job"].partition("_")[0])
    ended, said = sweep.end()
    assert ended == 0, said
    for cell in range(2):
        key = read_json(sweep.folder / str(cell) / "result.json")["dense"]["key"]
        assert Run(sweep.outputs / "store/dense" / key).config["optimizer"]["learning_rate"] == 0.05


# -- several nodes -------------------------------------------------------------------------------

# No dropout, which differs between replicas.
ON_TWO = (*TINY, "trainer.batch_size=16", "rewind.epoch=0", "rewind.keep=[]", "trainer.epochs=30",
          "trainer.steps_per_call=4")  # fmt: skip
NODES = ("seed=0", "hydra.launcher.nodes=2")


def test_two_nodes_do_what_one_device_does(submit, tmp_path):
    """The whole story, over the few steps that rounding needs to stay small."""
    story = (*TINY, "trainer.batch_size=128", "mask.percentile=80", "optimizer.clip_norm=1")
    alone = run("prune.py", *story, f"paths.outputs={tmp_path / 'alone'}")
    assert alone.returncode == 0, alone.stderr
    sweep = submit("prune.py", *story, *NODES)
    code, said = sweep.end()
    assert code == 0, said
    for path in (tmp_path / "alone" / "store").glob("[dt]*/*"):  # dense and ticket, by their keys
        one, two = Run(path), Run(sweep.outputs / "store" / path.parent.name / path.name)
        for name, array in one.state().items():
            np.testing.assert_allclose(two.state()[name], array, atol=1e-5, err_msg=name)
        for figure in ("val_loss", "test_loss", "test_top1", "test_examples", "epochs"):
            assert two.result[figure] == pytest.approx(one.result[figure], abs=1e-5)
        assert [r["epoch"] for r in two.metrics] == [r["epoch"] for r in one.metrics]
        # The second node left nothing but the log of its process.
        assert sorted(p.name for p in path.iterdir()) == sorted(p.name for p in two.path.iterdir())
    assert len(list((sweep.outputs / "prune").iterdir())) == 1
    assert logs(sweep).count("epoch 1/2") == 1
    accounts = sweep.cluster.accounting
    sweep.cluster.wait_until(
        lambda: all(accounts(job["job"]) == ["COMPLETED"] for job in jobs_of(sweep))
    )


@pytest.fixture(scope="module")
def on_two_nodes(cluster, tmp_path_factory) -> Run:
    """Left alone to its end."""
    folder = tmp_path_factory.mktemp("two")
    sweep = started(cluster, folder, "train.py", *ON_TWO, *NODES)
    code, said = sweep.end()
    assert code == 0, said + logs(sweep)
    return only_run(sweep)


def test_two_nodes_stop_together_and_go_on(submit, on_two_nodes):
    sweep = submit("train.py", *ON_TWO, *NODES, "logger=wandb")
    sweep.reach("dense", 5)
    (job,) = jobs_of(sweep)
    sweep.cluster.run("scancel", "--signal=USR2", job["job"])
    code, said = sweep.end()
    assert code == 0, said
    assert logs(sweep).count("resuming after step") == 1
    assert_same(only_run(sweep), on_two_nodes)
    slices = [tracked(p) for p in sorted((sweep.folder / "0").rglob("run-*.wandb"))]
    assert [row["epoch"] for s in slices for row in s.history] == list(range(1, 31))
    assert len(slices) == 2


def test_a_node_of_two_that_dies_ends_the_job(submit, on_two_nodes):
    sweep = submit("train.py", *ON_TWO, *NODES)
    sweep.reach("dense", 5)
    (second,) = (
        process
        for process in sweep.cluster.processes()
        if process.environ().get("SLURM_PROCID") == "1"
        and "submitit" in " ".join(process.cmdline())
    )
    second.kill()
    code, said = sweep.end(120)
    assert code == 1, said
    assert sweep.status(0) == "failed"
    again = submit("train.py", *ON_TWO, *NODES)
    code, said = again.end()
    assert code == 0, said
    assert "resuming after step" in logs(again)
    assert_same(only_run(again), on_two_nodes)


def test_a_job_on_two_nodes_refuses_to_leave_one_idle(submit):
    sweep = submit("train.py", *TINY, *NODES, "trainer.strategy=one")
    code, said = sweep.end(120)
    assert code == 1
    assert "trainer.strategy=one would leave all but one of the 2 processes" in said
    assert not list((sweep.outputs / "store").glob("work/*/*"))


# -- detached ------------------------------------------------------------------------------------


def test_detached_cells_depend_on_their_parents(submit, monkeypatch):
    """One parent trains, one cannot: its cells are cancelled and say why, the others run."""
    sweep = submit(
        "prune.py", *TINY, "mask.percentile=50,60", "optimizer.learning_rate=1e30,0.05",
        "sweep.detach=true",
    )  # fmt: skip
    code, said = sweep.end(120)
    assert code == 0, said
    assert {sweep.status(cell) for cell in range(4)} == {"queued"}  # it does not wait
    jobs = jobs_of(sweep)
    assert sorted(job["stage"] for job in jobs) == ["cells"] * 4 + ["dense"] * 2
    for job in jobs:
        assert job["job"].partition("_")[0] in said
    cells = [job for job in jobs if job["stage"] == "cells"]

    for name, value in sweep.cluster.environment.items():
        monkeypatch.setenv(name, value)

    def states() -> dict[int, str]:
        return {job["cells"][0]: slurm_state(job["job"]) for job in cells}

    sweep.cluster.wait_until(
        lambda: not {"PENDING", "RUNNING", "UNKNOWN"} & set(states().values()), 240
    )
    assert states() == {0: "CANCELLED", 1: "COMPLETED", 2: "CANCELLED", 3: "COMPLETED"}
    for cell in (0, 2):
        about = read_json(sweep.folder / str(cell) / "status.json")
        assert about["status"] == "failed"
        assert about["error"].startswith("its dense network failed: the loss is not a finite")
    assert [sweep.status(c) for c in (1, 3)] == ["done", "done"]


# -- a search ------------------------------------------------------------------------------------

# Digits are few, so that the mean decides; the sparsest cells lose far more than the tolerance.
SEARCH = (
    *TINY, "trainer.batch_size=16", "trainer.steps_per_call=4", "optimizer=adam",
    "optimizer.learning_rate=1e-2", "verdict.level=null", "verdict.tolerance=20",
    "search=sparsest", "search.waves=few", "search.confirm=1", "mask.percentile=50,80,99.8",
    "rewind.epoch=0,1",
)  # fmt: skip


def answer(sweep: Sweep) -> dict[str, Any]:
    """What a search found: nothing before its end."""
    try:
        search = read_json(sweep.folder / "sweep.json")["search"]
    except (FileNotFoundError, ValueError):  # being written
        return {}
    if not search.get("ended"):
        return {}
    (network,) = search["networks"]
    assert network["certified"]
    network["confirmation"].pop("cells")  # whose options name a folder
    return {name: network[name] for name in ("winner", "confirmation", "certificate")}


@pytest.fixture(scope="module")
def detached_search(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """One that went on alone, to its end."""
    sweep = started(
        cluster, tmp_path_factory.mktemp("search"), "prune.py", *SEARCH, "sweep.detach=true",
    )  # fmt: skip
    code, said = sweep.end(120)
    assert code == 0, said
    assert "detached; the submitted jobs go on" in said
    assert answer(sweep) == {}  # nobody waits for it
    cluster.wait_until(lambda: bool(answer(sweep)), 400)
    return sweep


def test_a_detached_search_asks_for_its_waves_by_small_jobs(detached_search):
    found = answer(detached_search)
    assert found["winner"]["percentile"] == 80
    assert found["confirmation"]["finished"] == [1]
    record = read_json(detached_search.folder / "sweep.json")
    assert record["search"]["waves"] > 1
    assert {detached_search.status(cell["num"]) for cell in record["cells"]} == {"done"}
    assert [cell["num"] for cell in record["cells"] if cell["fresh"]]
    assert logs(detached_search).count("training dense") == 2  # the grid's seed and the fresh one
    assert "waiting for" not in logs(detached_search)  # no job that has a node does


def test_a_search_that_is_killed_and_preempted_ends_as_if_nothing_had_been(submit, detached_search):
    sweep = submit("prune.py", *SEARCH)

    def running() -> list[str]:
        states = ("squeue", "--array", "--noheader", "--states=RUNNING", "--format=%i")
        cells = {job["job"] for job in jobs_of(sweep) if job["stage"] == "cells"}
        return [job for job in sweep.cluster.run(*states).split() if job in cells]

    sweep.cluster.wait_until(lambda: bool(running()), 240)
    sweep.process.kill()
    sweep.process.communicate()
    sweep.cluster.run("scontrol", "requeue", running()[0])  # as preemption does
    again = submit("prune.py", *SEARCH)
    code, said = again.end()
    assert code == 0, said
    assert answer(again) == answer(detached_search)


# -- scale, and bad input ------------------------------------------------------------------------


JOBS = 24  # more than MaxArraySize, 21, and than the limit of the user


@pytest.fixture
def limited(cluster: Cluster) -> Iterator[Cluster]:
    """The user may have ten jobs in the queue."""
    cluster.limit_submissions(10)
    yield cluster
    cluster.run("scancel", "--user=root")
    cluster.limit_submissions(None)


def idle_sweep(folder: Path, count: int, **options: Any) -> StagedSweep:
    """A sweep whose jobs do nothing; they run as those of any other sweep do."""
    overrides = [*SLURM, *TINY, "hydra.launcher.array_parallelism=6", f"hydra.sweep.dir={folder}",
                 "hydra.launcher.gpus_per_node=1", f"paths.outputs={folder}"]  # fmt: skip
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        configs = [
            compose("train", [*overrides, f"seed={seed}"], return_hydra_config=True)
            for seed in range(count)
        ]
    cells = [((f"seed={seed}",), typed(config)) for seed, config in enumerate(configs)]
    store, train = Store(folder / "store"), studies.find("train")
    return StagedSweep(
        folder, store, plan.make(cells, store, chain=train.lineage), configs, main=str,
        study=train, launcher=Launchers.of(configs[0], str(folder)),
        callbacks=Callbacks(), **options,
    )  # fmt: skip


def started_tasks(sweep: StagedSweep) -> list[int]:
    """The cell of each job that has left a result."""
    results = {path.parent.name for path in sweep.folder.glob(".submitit/*/*_0_result.pkl")}
    return sorted(job["cells"][0] for job in sweep.jobs if job["job"] in results)


def test_more_jobs_than_the_cluster_takes(limited, tmp_path, monkeypatch, caplog):
    """Arrays of at most 21, ten jobs at a time in the queue, six of them running."""
    for name, value in limited.environment.items():
        monkeypatch.setenv(name, value)
    caplog.set_level("INFO")
    sweep = idle_sweep(tmp_path, JOBS)
    sweep.run()
    assert started_tasks(sweep) == list(range(JOBS))
    assert (
        "jobs are submitted; the rest follow as those end (AssocMaxSubmitJobLimit)" in caplog.text
    )
    assert f"{JOBS} of {JOBS} jobs ended" in caplog.text
    assert "; all done in about" in caplog.text


def test_more_jobs_than_the_cluster_takes_and_nobody_waits(limited, tmp_path, monkeypatch):
    """What does not fit is submitted by small jobs, each when those before it have ended."""
    for name, value in limited.environment.items():
        monkeypatch.setenv(name, value)
    sweep = idle_sweep(tmp_path, JOBS)
    Detached(sweep).start()
    assert 0 < len(sweep.jobs) < 10  # a place is for the job that submits the rest
    assert {claims.claimed(sweep.store, c.lineage.last)[0] for c in sweep.plan.cells} == {
        *(job["job"] for job in sweep.jobs), *sweep.elsewhere,
    }  # fmt: skip
    limited.wait_until(lambda: not limited.queue(), 300)
    sweep.jobs = read_json(tmp_path / "sweep.json")["jobs"]
    assert sorted(job["cells"][0] for job in sweep.jobs) == list(range(JOBS))
    assert started_tasks(sweep) == list(range(JOBS))


def test_a_batch_size_bounds_the_queue(cluster, tmp_path, monkeypatch):
    """hydra.sweeper.max_batch_size: so many jobs in the queue at a time."""
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    sweep = idle_sweep(tmp_path, 3, batch=2)
    Detached(sweep).start()
    queued = [job for job in cluster.queue() if job["name"] != "submits-the-rest"]
    assert len(queued) <= 2
    assert len(sweep.jobs) == 2
    cluster.wait_until(lambda: not cluster.queue(), 120)
    sweep.jobs = read_json(tmp_path / "sweep.json")["jobs"]
    assert started_tasks(sweep) == [0, 1, 2]


def test_the_same_command_follows_what_was_detached(limited, submit):
    """A real study in a queue of four: waited for, and reported, by the same command again."""
    limited.limit_submissions(4)
    arguments = ("prune.py", *TINY, *GRID, "hydra.launcher.array_parallelism=3")
    code, said = submit(*arguments, "sweep.detach=true").end(120)
    assert code == 0, said
    assert "jobs will be submitted by job" in said
    again = submit(*arguments)
    code, said = again.end()
    assert code == 0, said
    assert "6 underway elsewhere, 0 to run" in said
    assert "waiting for 6 cells that are under way already" in said
    assert "6 of 6 cells ended" in said
    assert "submitted" not in said
    assert "6 cells: 6 done" in said
    assert all((again.folder / str(cell) / "result.json").exists() for cell in range(6))


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (["hydra.launcher.partition=nope"], "invalid partition specified: nope"),
        (["hydra.launcher.gpus_per_node=99"], "asked for by hydra.launcher.nodes=1"),
        (["+hydra.launcher.colour=red"], "hydra.launcher.colour is unknown"),
    ],
)
def test_slurm_refuses_in_its_own_words(submit, bad, said):
    sweep = submit("train.py", *TINY, "seed=0", *bad)
    code, message = sweep.end()
    assert code == 1
    assert said in message
    assert "Traceback" not in message
