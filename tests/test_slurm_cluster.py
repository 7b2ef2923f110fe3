"""The cluster that other tests run on does what a real one does, and leaves nothing behind."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import slurm_cluster
import submitit
from slurm_cluster import Cluster, ClusterError

pytestmark = pytest.mark.cluster

# Says when it starts; asked to stop, has itself requeued; the second time, ends.
REQUEUES = """#!/bin/bash
srun bash -c '
echo "start $SLURM_RESTART_COUNT" >>{log}
trap "echo USR2 >>{log}; scontrol requeue $SLURM_JOB_ID; exit" USR2
while [ -z "$SLURM_RESTART_COUNT" ]; do sleep 0.2; done'
"""


def sbatch(cluster: Cluster, *arguments: str) -> str:
    return cluster.run("sbatch", "--parsable", "--output=/dev/null", *arguments).strip()


def state(cluster: Cluster, job: str) -> str:
    return next((each["state"] for each in cluster.queue() if each["job"] == job), "")


def test_an_array_runs_on_all_nodes(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    executor = submitit.SlurmExecutor(tmp_path)
    executor.update_parameters(time=5, cpus_per_task=8, mem="32GB", gpus_per_node=4)
    with executor.batch():
        names = "SLURMD_NODENAME", "CUDA_VISIBLE_DEVICES"
        jobs = [executor.submit(os.getenv, name) for _ in range(4) for name in names]
    results = [job.result() for job in jobs]
    assert set(results[::2]) <= set(cluster.nodes)
    assert len(set(results[::2])) > 1
    assert set(results[1::2]) == {"0,1,2,3"}
    cluster.wait_until(lambda: all(cluster.accounting(j.job_id) == ["COMPLETED"] for j in jobs))


def test_a_preempted_job_gets_its_signal_and_starts_again(cluster: Cluster, tmp_path: Path) -> None:
    log, script = tmp_path / "log", tmp_path / "job.sh"
    script.write_text(REQUEUES.format(log=log))
    node = "--nodelist=n1", "--gpus-per-node=4"
    low = sbatch(cluster, *node, "--signal=USR2@60", "--time=5", str(script))
    cluster.wait_until(log.exists)
    sbatch(cluster, *node, "--partition=urgent", "--wrap=sleep 1")
    cluster.wait_until(lambda: cluster.accounting(low)[-1:] == ["COMPLETED"])
    assert log.read_text().split("\n") == ["start ", "USR2", "start 1", ""]
    assert cluster.accounting(low) == ["REQUEUED", "COMPLETED"]


def test_a_job_goes_on_elsewhere_when_its_node_fails(cluster: Cluster) -> None:
    job = sbatch(cluster, "--wrap=sleep 300")
    cluster.wait_until(lambda: state(cluster, job) == "RUNNING")
    node = next(each["node"] for each in cluster.queue() if each["job"] == job)
    cluster.kill_node(node)
    assert not list(cluster.processes(node))
    cluster.wait_until(lambda: cluster.accounting(job) == ["NODE_FAIL", "RUNNING"])
    assert node not in [each["node"] for each in cluster.queue()]
    cluster.run("scancel", job)
    cluster.revive_node(node)
    cluster.wait_until(lambda: set(cluster.node_states().values()) == {"idle"})
    cluster.wait_until(lambda: cluster.accounting(job)[-1].startswith("CANCELLED"))


def test_a_child_of_a_failed_job_is_cancelled(cluster: Cluster) -> None:
    parent = sbatch(cluster, "--wrap=sleep 2; exit 1")
    dependency = f"--dependency=afterok:{parent}"
    child = sbatch(cluster, dependency, "--kill-on-invalid-dep=yes", "--wrap=true")
    waits = sbatch(cluster, dependency, "--wrap=true")
    cluster.wait_until(lambda: cluster.accounting(child) == ["CANCELLED"])
    assert cluster.accounting(parent) == ["FAILED"]
    assert state(cluster, waits) == "PENDING"
    cluster.run("scancel", waits)


@pytest.mark.usefixtures("cluster")  # installed, root, and a second one at once
def test_nothing_is_left_when_a_test_run_is_killed(tmp_path: Path) -> None:
    code = (
        f"import slurm_cluster as s, time\ns.Cluster({str(tmp_path)!r}, 1).start()\ntime.sleep(99)"
    )
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    owner = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path})
    cluster = Cluster(tmp_path, 1)
    try:
        cluster.wait_until(lambda: (tmp_path / "n1.pid").exists())
    finally:
        owner.kill()
        owner.wait()
    deadline = time.monotonic() + 20
    while cluster.link.is_symlink() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not list(cluster.processes())


@pytest.mark.usefixtures("cluster")  # installed, root, and a second one at once
def test_a_failed_start_says_why_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm_cluster, "SLURMDBD_CONF", "Nonsense=1\n")
    cluster = Cluster(tmp_path, 1)
    with pytest.raises(ClusterError, match=r"slurmdbd ended(.|\n)*Nonsense"):
        cluster.start()
    assert not list(cluster.processes())
    assert not cluster.link.is_symlink()
